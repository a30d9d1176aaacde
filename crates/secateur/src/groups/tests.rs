//! Tests of channel groups.
