//! Batch normalisations and sums with an activation after them, among those that something else reads, too.

use super::*;
use crate::exec::{Keep, Of};
use crate::graph::{Activation, Arithmetic, ConvAttrs};

/// Five normalisations: one is followed by `Relu`, one by `Clip` with bounds as inputs, one is an output, one is read
/// twice, and one is tapped.
fn network() -> Graph {
    let norm = Op::BatchNormalization {
        epsilon: 1e-3,
        momentum: 0.9,
    };
    let relu = || Op::Activation(Activation::Relu);
    let clip = || Op::Clip {
        min: None,
        max: None,
    };
    let norm = |input: &str, output: &str| {
        node(
            norm.clone(),
            &[input, "gamma", "beta", "mean", "variance"],
            output,
        )
    };
    let conv = |input: &str, output: &str| {
        node(Op::Conv(ConvAttrs::default()), &[input, "weight"], output)
    };
    let add = || Op::Arithmetic(Arithmetic::Add);
    let nodes = vec![
        norm("input", "a.norm"),
        node(relu(), &["a.norm"], "a"),
        conv("a", "b.conv"),
        norm("b.conv", "b.norm"),
        node(clip(), &["b.norm", "low", "high"], "b"),
        conv("b", "c.conv"),
        norm("c.conv", "c.norm"),
        node(relu(), &["c.norm"], "c"),
        norm("c", "d.norm"),
        node(relu(), &["d.norm"], "d.relu"),
        node(add(), &["d.norm", "d.relu"], "d.sum"),
        node(relu(), &["d.sum"], "d.clamped"),
        // A sum with one row of a batch, and one that is clipped: neither is computed with what follows.
        node(add(), &["d.clamped", "row"], "d.shifted"),
        node(relu(), &["d.shifted"], "d.rows"),
        node(add(), &["d.rows", "c"], "d.more"),
        node(clip(), &["d.more", "low", "high"], "d"),
        norm("d", "e.norm"),
        node(relu(), &["e.norm"], "logits"),
    ];
    let initializers = vec![
        ("gamma", Tensor::F32(numbers(&[6], 2))),
        ("beta", Tensor::F32(numbers(&[6], 3))),
        ("mean", Tensor::F32(numbers(&[6], 4))),
        (
            "variance",
            Tensor::F32(numbers(&[6], 5).mapv(|v| v.abs() + 0.5).into_shared()),
        ),
        ("weight", Tensor::F32(numbers(&[6, 6, 1, 1], 6))),
        (
            "row",
            Tensor::F32(floats(&[5], &[0.1, 0.2, -0.3, 0.15, 0.05])),
        ),
        ("low", Tensor::F32(floats(&[], &[-0.2]))),
        ("high", Tensor::F32(floats(&[], &[0.4]))),
    ];
    let mut graph = graph(nodes, initializers);
    let mut output = graph.outputs[0].clone();
    output.name = "c.norm".to_owned();
    graph.outputs.push(output);
    graph
}

#[test]
fn normalisations_with_activations_give_what_the_other_engine_gives() {
    let graph = network();
    for (images, batch_norm) in [
        (3, BatchNormMode::Batch),
        (16, BatchNormMode::Batch),
        (32, BatchNormMode::Stored),
    ] {
        let input = numbers(&[images, 6, 4, 5], 1);
        let directions = [7, 8].map(|seed| numbers(&[images, 6, 4, 5], seed));
        // With nothing but weights trained, a normalisation only passes gradients on.
        for trainable in [&["gamma", "beta", "weight"][..], &["weight"]] {
            let run = |engine: &dyn Engine| {
                let mut request = request(&graph, trainable);
                request.batch_norm = batch_norm;
                request.taps = [Of::Activation, Of::Gradient]
                    .map(|of| Tap {
                        value: "e.norm".to_owned(),
                        of,
                        keep: Keep::Moments,
                    })
                    .to_vec();
                let mut session = engine.session(&request).unwrap();
                let outputs = session.forward(&input).unwrap();
                let gradients = session.step(&input, &mut |_| directions.to_vec()).unwrap();
                (outputs, gradients)
            };
            let [burn, native] = engines().map(|engine| run(&*engine));
            // Computed again, in the place of kept, the same values make the same gradients.
            assert!(run(&NativeEngine::new().keeping(0)) == native);
            for (native, burn) in native.0.iter().zip(&burn.0) {
                assert_close(native, &wide(burn), BETWEEN_ENGINES, "output");
            }
            for (name, gradient) in &native.1 {
                assert_close(gradient, &wide(&burn.1[name]), 5.0 * BETWEEN_ENGINES, name);
            }
        }
    }
}

#[test]
fn convolutions_with_normalisations_give_what_they_give_one_by_one() {
    let graph = network();
    for images in [3, 8, 16, 32] {
        let input = numbers(&[images, 6, 4, 5], 1);
        let run = |engine: &dyn Engine, trainable: &[&str], tapped: &[&str]| {
            let mut request = request(&graph, trainable);
            request.batch_norm = BatchNormMode::Stored;
            let tap = |value: &&str| Tap {
                value: (*value).to_owned(),
                of: Of::Activation,
                keep: Keep::Moments,
            };
            request.taps = tapped.iter().map(tap).collect();
            let mut session = engine.session(&request).unwrap();
            session.forward(&input).unwrap()
        };
        let [burn, native] = engines().map(|engine| run(&*engine, &[], &[]));
        let engine = NativeEngine::new();
        // What is tapped, or differentiated, is computed by itself.
        assert!(run(&engine, &[], &["b.conv", "c.conv"]) == native);
        assert!(run(&engine, &["gamma"], &[]) == native);
        for (native, burn) in native.iter().zip(&burn) {
            assert_close(native, &wide(burn), BETWEEN_ENGINES, "output");
        }
    }
}

#[test]
fn a_normalisation_of_what_is_computed_again_is_computed_from_what_is_kept() {
    let norm = |input: &str, output: &str| {
        let op = Op::BatchNormalization {
            epsilon: 1e-3,
            momentum: 0.9,
        };
        node(op, &[input, "gamma", "beta", "mean", "variance"], output)
    };
    let relu = |input: &str, output: &str| node(Op::Activation(Activation::Relu), &[input], output);
    let conv = |input: &str, output: &str| {
        node(Op::Conv(ConvAttrs::default()), &[input, "weight"], output)
    };
    let mut graph = network();
    graph.nodes = vec![
        conv("input", "a.conv"),
        norm("a.conv", "a.norm"),
        relu("a.norm", "a"),
        norm("a", "b.norm"),
        relu("b.norm", "b"),
        norm("b", "c.norm"),
        conv("c.norm", "logits"),
    ];
    graph.outputs.truncate(1);
    graph.outputs[0].name = "logits".to_owned();
    for images in [3, 8] {
        let input = numbers(&[images, 6, 4, 5], 1);
        let run = |engine: &dyn Engine| {
            let mut request = request(&graph, &["weight", "gamma", "beta"]);
            request.batch_norm = BatchNormMode::Batch;
            let mut session = engine.session(&request).unwrap();
            let mut gradient = |outputs: &[Floats]| vec![numbers(outputs[0].shape(), 7)];
            session.step(&input, &mut gradient).unwrap()
        };
        let kept = run(&NativeEngine::new());
        assert!(run(&NativeEngine::new().keeping(0)) == kept);
    }
}
