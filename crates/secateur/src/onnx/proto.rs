//! The protobuf messages of ONNX, generated from `proto/onnx.proto` by the build script.
#![allow(missing_docs, clippy::all, unused_qualifications, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
