//! A pre-trained convolutional network, made small and fast for a new task.
//!
//! Every stage takes a [`graph::Graph`] and gives back a new one with a summary; only [`pipeline`]
//! knows their order, and [`study`] runs it on grids of settings.

pub mod bench;
pub mod cost;
pub mod data;
pub mod decompose;
pub mod exec;
pub mod files;
pub mod fold;
pub mod graph;
pub mod groups;
pub mod importance;
pub mod onnx;
pub mod pipeline;
pub mod progress;
pub mod prune;
pub mod report;
pub mod study;
pub mod tensor;
pub mod train;
pub mod transfer;
pub mod verify;
