//! The engine against naive loops in `f64`, closed forms and ONNX Runtime.

#![allow(clippy::unwrap_used)]

mod bundles;
mod fused;
mod gradients;
mod indices;
mod naive;
mod residual;
mod sessions;
mod taps;
mod windows;

use super::{BurnEngine, NativeEngine};
use crate::exec::{BatchNormMode, Engine, Request, Session, Tap};
use crate::graph::{Graph, Node, Op, ValueDecl};
use crate::tensor::{ElementType, Floats, Tensor};
use ndarray::{ArrayD, IxDyn};
use std::collections::BTreeMap;

/// Numbers between -1 and 1 that differ between seeds and repeat on every run.
fn numbers(shape: &[usize], seed: u64) -> Floats {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
    let len = shape.iter().product();
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 23) as f32) - 1.0
    };
    let values: Vec<f32> = (0..len).map(|_| next()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .unwrap()
        .into_shared()
}

/// An array of these values.
fn floats(shape: &[usize], values: &[f32]) -> Floats {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec())
        .unwrap()
        .into_shared()
}

/// A node whose name is its output's.
fn node(op: Op, inputs: &[&str], output: &str) -> Node {
    Node {
        name: output.to_owned(),
        op,
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        outputs: vec![output.to_owned()],
    }
}

/// A dense layer whose weight is stored `[outputs, features]`.
fn dense() -> Op {
    Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    }
}

/// A graph from `input` to the last node's output.
fn graph(nodes: Vec<Node>, initializers: Vec<(&str, Tensor)>) -> Graph {
    let value = |name: &str| ValueDecl {
        name: name.to_owned(),
        element_type: ElementType::F32,
        dims: None,
    };
    let output = nodes.last().unwrap().outputs[0].clone();
    Graph {
        name: "test".to_owned(),
        opset: 17,
        inputs: vec![value("input")],
        outputs: vec![value(&output)],
        nodes,
        initializers: initializers
            .into_iter()
            .map(|(n, t)| (n.to_owned(), t))
            .collect(),
        metadata: BTreeMap::new(),
    }
}

fn request<'g>(graph: &'g Graph, trainable: &[&str]) -> Request<'g> {
    Request {
        graph,
        outputs: graph
            .outputs
            .iter()
            .map(|output| output.name.clone())
            .collect(),
        trainable: trainable.iter().map(|&name| name.to_owned()).collect(),
        taps: Vec::<Tap>::new(),
        batch_norm: BatchNormMode::Stored,
    }
}

/// Both engines: each the other's oracle.
fn engines() -> [Box<dyn Engine>; 2] {
    [Box::new(BurnEngine::new()), Box::new(NativeEngine::new())]
}

/// Sums of the same `f32` terms in another order, of a few thousand terms at most.
const BETWEEN_ENGINES: f64 = 2e-5;

/// The graph's first output, in which both engines agree.
fn forward(graph: &Graph, input: &Floats) -> Floats {
    let [burn, native] = engines().map(|engine| forward_on(&*engine, graph, input));
    assert_close(
        &native,
        &wide(&burn),
        BETWEEN_ENGINES,
        "native against Burn",
    );
    native
}

/// The gradients by `trainable` of the sum of output times `weights`, in which both engines agree.
fn gradients(
    graph: &Graph,
    trainable: &[&str],
    input: &Floats,
    weights: &Floats,
) -> BTreeMap<String, Floats> {
    let [burn, native] =
        engines().map(|engine| gradients_on(&*engine, graph, trainable, input, weights));
    assert!(burn.keys().eq(native.keys()));
    for (name, gradient) in &native {
        assert_close(gradient, &wide(&burn[name]), BETWEEN_ENGINES, name);
    }
    native
}

fn forward_on(engine: &dyn Engine, graph: &Graph, input: &Floats) -> Floats {
    let mut session = engine.session(&request(graph, &[])).unwrap();
    session.forward(input).unwrap().remove(0)
}

fn gradients_on(
    engine: &dyn Engine,
    graph: &Graph,
    trainable: &[&str],
    input: &Floats,
    weights: &Floats,
) -> BTreeMap<String, Floats> {
    let mut session = engine.session(&request(graph, trainable)).unwrap();
    step(&mut *session, input, weights)
}

fn step(session: &mut dyn Session, input: &Floats, weights: &Floats) -> BTreeMap<String, Floats> {
    session.step(input, &mut |_| vec![weights.clone()]).unwrap()
}

/// Fails where a value is further than `tolerance` times the largest wanted magnitude (at least 1).
fn assert_close(got: &Floats, want: &ArrayD<f64>, tolerance: f64, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let scale = want.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
    for ((index, &got), &want) in got.indexed_iter().zip(want) {
        let difference = (f64::from(got) - want).abs();
        assert!(
            difference <= tolerance * scale,
            "{what}: {got} at {index:?}, not {want} (scale {scale})"
        );
    }
}

/// The same numbers in `f64`.
fn wide(array: &Floats) -> ArrayD<f64> {
    array.mapv(f64::from)
}
