//! Residual blocks: values that two nodes read, whose gradients are summed, and sums that are cut off.

use super::*;
use crate::exec::{Keep, Of, Statistic};
use crate::graph::Arithmetic;
use crate::graph::samples::Builder;

/// A block whose input goes by, one whose input goes through a convolution that comes last, one without an
/// activation after the sum, and a sum that two convolutions read.
fn network() -> Graph {
    let mut builder = Builder::new(3);
    let layer = |builder: &mut Builder, name: &str, input: &str, weight, stride| {
        let made = builder.conv(name, input, weight, stride);
        builder.batch_norm(&format!("{name}.norm"), &made, 6)
    };
    let sum = |builder: &mut Builder, name: &str, a: &str, b: &str| {
        builder.node(name, Op::Arithmetic(Arithmetic::Add), &[a, b])
    };
    let (one, three) = ([6, 6, 1, 1], [6, 6, 3, 3]);
    let a = layer(&mut builder, "a", "x", [6, 3, 3, 3], 1);
    let a = builder.relu("a.relu", &a);
    let b = layer(&mut builder, "b", &a, one, 1);
    let b = sum(&mut builder, "b.sum", &b, &a);
    let b = builder.relu("b.sum.relu", &b);
    let c = layer(&mut builder, "c", &b, three, 2);
    let d = layer(&mut builder, "d", &b, one, 2);
    let d = sum(&mut builder, "d.sum", &c, &d);
    let d = builder.relu("d.sum.relu", &d);
    let e = layer(&mut builder, "e", &d, one, 1);
    let e = sum(&mut builder, "e.sum", &d, &e);
    let f = layer(&mut builder, "f", &e, three, 1);
    let g = layer(&mut builder, "g", &e, one, 1);
    let g = sum(&mut builder, "g.sum", &f, &g);
    let g = builder.relu("g.sum.relu", &g);
    let mut graph = builder.output(&g);
    for ((name, tensor), seed) in graph.initializers.iter_mut().zip(10..) {
        let values = numbers(tensor.shape(), seed);
        *tensor = Tensor::F32(match name.ends_with("variance") {
            true => values.mapv(|v| v.abs() + 0.5).into_shared(),
            false => values,
        });
    }
    graph
}

#[test]
fn residual_blocks_give_what_the_other_engine_gives() {
    let graph = network();
    let named = |ends: &[&str]| -> Vec<&str> {
        let names = graph.initializers.keys().map(String::as_str);
        names
            .filter(|name| ends.iter().any(|end| name.ends_with(end)))
            .collect()
    };
    let (weights, affine) = (named(&["weight"]), named(&["scale", "bias"]));
    for (images, batch_norm) in [
        (3, BatchNormMode::Batch),
        (8, BatchNormMode::Batch),
        (8, BatchNormMode::Stored),
        (16, BatchNormMode::Batch),
        (32, BatchNormMode::Stored),
    ] {
        let input = numbers(&[images, 3, 6, 5], 1);
        let direction = numbers(&[images, 6, 3, 3], 7);
        for trainable in [&weights[..], &affine, &["c.weight"]] {
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
