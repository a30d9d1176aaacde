//! Latency of networks, measured in turns: what else the machine does falls on all of them alike, so that
//! their ratio holds where the milliseconds themselves drift.

mod turns;

pub use turns::{Samples, Turns, in_turns, quantile};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
