//! Residual blocks: normalisations that are computed with sums, gradients that meet where they are written.

use super::*;
use crate::exec::{Keep, Of, Statistic};
use crate::graph::{Activation, Arithmetic, ConvAttrs, SpatialPads};

/// A block whose input goes by, one whose input goes through a convolution that comes last, one without an
/// activation after the sum, and a sum that two convolutions read.
fn network() -> Graph {
    let norm = || Op::BatchNormalization {
        epsilon: 1e-3,
        momentum: 0.9,
    };
    let relu = || Op::Activation(Activation::Relu);
    let add = || Op::Arithmetic(Arithmetic::Add);
    let mut nodes = Vec::new();
    let mut layer = |input: &str, name: &str, size: usize, stride: usize| {
        let pad = size / 2;
        let conv = Op::Conv(ConvAttrs {
            strides: [stride, stride],
            pads: SpatialPads {
                top: pad,
                left: pad,
                bottom: pad,
                right: pad,
            },
            ..ConvAttrs::default()
        });
        let weight = format!("{name}.weight");
        let (conv_out, norm_out) = (format!("{name}.conv"), format!("{name}.norm"));
        nodes.push(node(conv, &[input, &weight], &conv_out));
        let statistics = ["gamma", "beta", "mean", "variance"];
        let inputs = [&[conv_out.as_str()][..], &statistics].concat();
        nodes.push(node(norm(), &inputs, &norm_out));
        nodes.len()
    };
    layer("input", "a", 3, 1);
    layer("a.relu", "b", 1, 1);
    layer("b.sum.relu", "c", 3, 2);
    layer("b.sum.relu", "d", 1, 2);
    layer("d.sum.relu", "e", 1, 1);
    layer("e.sum", "f", 3, 1);
    layer("e.sum", "g", 1, 1);
    let after = |name: &str, more: Vec<Node>, nodes: &mut Vec<Node>| {
        let at = nodes.iter().position(|node| node.name == name).unwrap();
        nodes.splice(at + 1..at + 1, more);
    };
    let relu_of = |input: &str| node(relu(), &[input], &format!("{input}.relu"));
    let mut a_relu = relu_of("a.norm");
    a_relu.outputs = vec!["a.relu".to_owned()];
    after("a.norm", vec![a_relu], &mut nodes);
    let sum = node(add(), &["b.norm", "a.relu"], "b.sum");
    after("b.norm", vec![sum, relu_of("b.sum")], &mut nodes);
    let sum = node(add(), &["c.norm", "d.norm"], "d.sum");
    after("d.norm", vec![sum, relu_of("d.sum")], &mut nodes);
    let sum = node(add(), &["d.sum.relu", "e.norm"], "e.sum");
    after("e.norm", vec![sum], &mut nodes);
    nodes.push(node(add(), &["f.norm", "g.norm"], "g.sum"));
    nodes.push(node(relu(), &["g.sum"], "logits"));
    let weights = [
        ("a.weight", [6, 3, 3, 3]),
        ("b.weight", [6, 6, 1, 1]),
        ("c.weight", [6, 6, 3, 3]),
        ("d.weight", [6, 6, 1, 1]),
        ("e.weight", [6, 6, 1, 1]),
        ("f.weight", [6, 6, 3, 3]),
        ("g.weight", [6, 6, 1, 1]),
    ];
    let mut initializers = vec![
        ("gamma", Tensor::F32(numbers(&[6], 2))),
        ("beta", Tensor::F32(numbers(&[6], 3))),
        ("mean", Tensor::F32(numbers(&[6], 4))),
        (
            "variance",
            Tensor::F32(numbers(&[6], 5).mapv(|v| v.abs() + 0.5).into_shared()),
        ),
    ];
    for ((name, shape), seed) in weights.into_iter().zip(10..) {
        initializers.push((name, Tensor::F32(numbers(&shape, seed))));
    }
    graph(nodes, initializers)
}

#[test]
fn residual_blocks_give_what_the_other_engine_gives() {
    let graph = network();
    let weights: Vec<&str> = (graph.initializers.keys().map(String::as_str))
        .filter(|name| name.ends_with("weight"))
        .collect();
    for (images, batch_norm) in [
        (3, BatchNormMode::Batch),
        (8, BatchNormMode::Batch),
        (8, BatchNormMode::Stored),
        (16, BatchNormMode::Batch),
        (32, BatchNormMode::Stored),
    ] {
        let input = numbers(&[images, 3, 6, 5], 1);
        let direction = numbers(&[images, 6, 3, 3], 7);
        for trainable in [&weights[..], &["gamma", "beta"], &["c.weight"]] {
            // A gradient that is looked at has not been through the clamp.
            for tapped in [&[][..], &["b.sum.relu"], &["b.norm", "d.sum"]] {
                let run = |engine: &dyn Engine| {
                    let mut request = request(&graph, trainable);
                    request.batch_norm = batch_norm;
                    let tap = |value: &&str| Tap {
                        value: (*value).to_owned(),
                        of: Of::Gradient,
                        keep: Keep::Moments,
                    };
                    request.taps = tapped.iter().map(tap).collect();
                    let mut session = engine.session(&request).unwrap();
                    let output = session.forward(&input).unwrap().remove(0);
                    let one = |_: &[Floats]| vec![direction.clone()];
                    let gradients = session.step(&input, &mut { one }).unwrap();
                    (output, gradients, session.take_statistics())
                };
                let [burn, native] = engines().map(|engine| run(&*engine));
                assert!(run(&NativeEngine::new().keeping(0)) == native);
                assert_close(&native.0, &wide(&burn.0), BETWEEN_ENGINES, "output");
                for (name, gradient) in &native.1 {
                    assert_close(gradient, &wide(&burn.1[name]), 5.0 * BETWEEN_ENGINES, name);
                }
                let sums = |statistic: &Statistic| match statistic {
                    Statistic::Moments { sum, .. } => {
                        floats(&[6], &sum.iter().map(|&sum| sum as f32).collect::<Vec<_>>())
                    }
                    _ => panic!("{statistic:?}"),
                };
                for (tap, native) in &native.2 {
                    let burn = wide(&sums(&burn.2[tap]));
                    assert_close(&sums(native), &burn, 5.0 * BETWEEN_ENGINES, &tap.value);
                }
            }
        }
    }
}
