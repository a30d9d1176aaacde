//! Tests of channel plans.
