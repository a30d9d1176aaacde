//! Engines against ONNX Runtime, and their gradients against their own forward pass.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::Case;
use secateur::exec::{BatchNormMode, BurnEngine, Engine, NativeEngine, Request, Session};
use secateur::graph::Graph;
use secateur::onnx;
use secateur::tensor::{Floats, Tensor};
use std::collections::BTreeMap;

/// The graph of a case with one input, the first; the others become initializers.
fn single_input(case: &Case) -> (Graph, Floats) {
    let mut graph = onnx::from_bytes(&case.model).unwrap().graph;
    let (first, rest) = case.inputs.split_first().unwrap();
    for (name, array) in rest {
        graph.inputs.retain(|input| input.name != *name);
        graph
            .initializers
            .insert(name.clone(), Tensor::F32(array.clone()));
    }
    (graph, first.1.clone())
}

fn engines() -> [Box<dyn Engine>; 2] {
    [Box::new(BurnEngine::new()), Box::new(NativeEngine::new())]
}

fn request(graph: &Graph, trainable: Vec<String>) -> Request<'_> {
    Request {
        graph,
        outputs: graph
            .outputs
            .iter()
            .map(|output| output.name.clone())
            .collect(),
        trainable,
        taps: Vec::new(),
        batch_norm: BatchNormMode::Stored,
    }
}

#[test]
fn every_operator_computes_what_onnx_runtime_computes() {
    for engine in engines() {
        check_every_operator_computes_what_onnx_runtime_computes(&*engine);
    }
}

fn check_every_operator_computes_what_onnx_runtime_computes(engine: &dyn Engine) {
    let mut worst = BTreeMap::new();
    for case in fixtures::operators() {
        let (graph, input) = single_input(&case);
        let mut session = engine.session(&request(&graph, Vec::new())).unwrap();
        let outputs = session
            .forward(&input)
            .unwrap_or_else(|problem| unreachable!("{}: {problem}", case.name));
        for (got, (name, want)) in outputs.iter().zip(&case.outputs) {
            assert_eq!(got.shape(), want.shape(), "{}: {name}", case.name);
            let scale = want.iter().fold(1.0_f32, |a, b| a.max(b.abs()));
            for (&got, &want) in got.iter().zip(want) {
                // Both compute in f32, with sums of at most some hundred terms in another order.
                let close = (got - want).abs() <= 2e-6 * scale || got == want;
                assert!(
                    close || (got.is_nan() && want.is_nan()),
                    "{}: {got}, not {want}",
                    case.name
                );
                let difference = worst.entry(case.name.clone()).or_insert(0.0_f32);
                *difference = difference.max((got - want).abs() / scale);
            }
        }
    }
    assert!(worst.len() > 450);
}

/// The sum of all outputs times fixed numbers: a loss whose gradient by the outputs is known.
fn loss(session: &mut dyn Session, input: &Floats, directions: &[Floats]) -> f64 {
    let outputs = session.forward(input).unwrap();
    let product = |(&y, &d): (&f32, &f32)| f64::from(y) * f64::from(d);
    outputs
        .iter()
        .zip(directions)
        .map(|(y, d)| y.iter().zip(d).map(product).sum::<f64>())
        .sum()
}

/// Numbers between 0.5 and 1.5 that do not repeat soon.
fn direction(like: &Floats) -> Floats {
    let mut index = 0_u32;
    like.mapv(|_| {
        index += 1;
        0.5 + (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32
    })
    .into_shared()
}

#[test]
fn every_operator_has_the_gradient_of_its_forward_pass() {
    for engine in engines() {
        check_every_operator_has_the_gradient_of_its_forward_pass(&*engine);
    }
}

fn check_every_operator_has_the_gradient_of_its_forward_pass(engine: &dyn Engine) {
    /// At most this many elements of each parameter are moved.
    const ELEMENTS: usize = 12;
    const STEP: f32 = 1.0 / 128.0;
    let (mut checked, mut wide) = (0, 0);
    for case in fixtures::operators() {
        let (mut graph, input) = single_input(&case);
        // The input becomes a parameter too; nothing reads the graph's input then.
        let input_name = graph.inputs[0].name.clone();
        graph.inputs[0].name = "unread".to_owned();
        graph
            .initializers
            .insert(input_name, Tensor::F32(input.clone()));
        let mut trainable = Vec::new();
        for (name, tensor) in &graph.initializers {
            let is_data = graph.nodes.iter().any(|node| {
                let steers = matches!(node.op.name(), "Clip" | "Pad" | "Resize" | "Upsample");
                node.inputs
                    .iter()
                    .enumerate()
                    .any(|(i, n)| n == name && (i == 0 || !steers))
            });
            if is_data && tensor.as_floats().is_some_and(|array| !array.is_empty()) {
                trainable.push(name.clone());
            }
        }
        let mut session = engine.session(&request(&graph, trainable.clone())).unwrap();
        let directions: Vec<Floats> = session
            .forward(&input)
            .unwrap()
            .iter()
            .map(direction)
            .collect();
        let gradients = session
            .step(&input, &mut |_| directions.clone())
            .unwrap_or_else(|problem| unreachable!("{}: {problem}", case.name));
        let base = loss(&mut *session, &input, &directions);
        for name in &trainable {
            let value = graph.initializers[name].as_floats().unwrap().clone();
            let gradient = &gradients[name];
            assert_eq!(gradient.shape(), value.shape(), "{}: {name}", case.name);
            let scale = gradient
                .iter()
                .fold(1.0_f64, |a, &b| a.max(f64::from(b.abs())));
            let stride = value.len().div_ceil(ELEMENTS);
            for position in (0..value.len()).step_by(stride) {
                let mut moved = |by: f32| {
                    let mut values: Vec<f32> = value.iter().copied().collect();
                    values[position] += by;
                    let array = Floats::from_shape_vec(value.raw_dim(), values).unwrap();
                    session.set(name, &array).unwrap();
                    loss(&mut *session, &input, &directions)
                };
                let step = f64::from(STEP);
                let (above, below) = ((moved(STEP) - base) / step, (base - moved(-STEP)) / step);
                // The gradient lies between the two sides, which are far apart at kinks only. The
                // slack is for rounding: f32 outputs of size 10 divided by the step.
                let (least, most) = (above.min(below), above.max(below));
                let slack = 2e-3 * scale;
                let got = f64::from(*gradient.iter().nth(position).unwrap());
                assert!(
                    (least - slack..=most + slack).contains(&got),
                    "{}: by {name}[{position}]: {got}, not {least}..{most}",
                    case.name
                );
                wide += usize::from(most - least > 0.02 * scale);
                checked += 1;
            }
            session.set(name, &value).unwrap();
        }
    }
    assert!(
        checked > 5000 && wide < checked / 10,
        "{checked} checked, {wide} at kinks"
    );
}
