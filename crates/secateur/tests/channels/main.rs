//! Channel pruning: removing the channels of a plan equals zeroing them where they are read, on
//! generated graphs and on whole networks, and costs what was foreseen.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod check;
mod generated;
mod models;
mod steps;
