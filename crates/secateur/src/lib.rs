//! A pre-trained convolutional network, made small and fast for a new task.
//!
//! Every stage takes a [`graph::Graph`] and gives back a new one with a summary; only `pipeline`
//! knows their order.

pub mod cost;
pub mod data;
pub mod exec;
pub mod graph;
pub mod onnx;
pub mod progress;
pub mod tensor;
