//! Decomposition, pruning and folding against the identities of the method (docs/method.md,
//! section 3) and against a naive evaluation of graphs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod engine;
mod graphs;
mod identities;
mod networks;
mod reference;
