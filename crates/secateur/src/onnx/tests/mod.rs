//! Tests of import and export.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build;
mod edited;
mod mutated;
mod newer;
mod operators;
mod real;
mod refused;

#[path = "../../../tests/fixtures/mod.rs"]
mod fixtures;

use super::proto::ModelProto;
use super::{Model, from_bytes, to_bytes};
use prost::Message;

fn message(bytes: &[u8]) -> ModelProto {
    ModelProto::decode(bytes).unwrap()
}

/// Imports, exports, and compares the messages.
fn assert_round_trip(name: &str, bytes: &[u8]) -> Model {
    let model = from_bytes(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = to_bytes(&model).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_same(name, &message(bytes), &message(&written));
    model
}

fn assert_same(name: &str, before: &ModelProto, after: &ModelProto) {
    let (a, b) = (
        before.graph.as_ref().unwrap(),
        after.graph.as_ref().unwrap(),
    );
    let names = |g: &super::proto::GraphProto| -> Vec<String> {
        g.node.iter().flat_map(|n| n.output.clone()).collect()
    };
    assert_eq!(names(a), names(b), "{name}: nodes");
    for (a, b) in a.node.iter().zip(&b.node) {
        assert!(
            a == b,
            "{name}: node `{}` {} differs",
            a.name(),
            a.op_type()
        );
    }
    let names = |g: &super::proto::GraphProto| -> Vec<String> {
        g.initializer.iter().map(|t| t.name().to_owned()).collect()
    };
    assert_eq!(names(a), names(b), "{name}: initializers");
    for (a, b) in a.initializer.iter().zip(&b.initializer) {
        assert!(a == b, "{name}: initializer `{}` differs", a.name());
    }
    assert_eq!(a.input, b.input, "{name}: inputs");
    assert_eq!(a.output, b.output, "{name}: outputs");
    assert_eq!(a.value_info, b.value_info, "{name}: value_info");
    assert!(before == after, "{name}: the messages differ");
}
