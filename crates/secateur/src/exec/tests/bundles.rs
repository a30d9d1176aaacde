//! Batches that fill whole bundles: every operator among others that compute in the order of ONNX.

use super::*;
use crate::exec::{Keep, Of, Statistic};
use crate::graph::{Activation, Arithmetic, AutoPad, ConvAttrs, PoolAttrs, SpatialPads};

const PADS: SpatialPads = SpatialPads {
    top: 1,
    left: 1,
    bottom: 1,
    right: 1,
};

fn conv(groups: usize, stride: usize, pads: SpatialPads) -> Op {
    Op::Conv(ConvAttrs {
        groups,
        strides: [stride, stride],
        pads,
        ..ConvAttrs::default()
    })
}

fn pool() -> PoolAttrs {
    PoolAttrs {
        kernel: [3, 3],
        strides: [2, 2],
        pads: PADS,
        dilations: [1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
    }
}

/// Two branches of a residual block, channels that are joined, a gate for each image and channel, pooling of all
/// kinds, a dense layer, a map of one number for each image, an image in each channel; `pooled`, `one` and `logits`
/// are outputs.
fn network(images: usize) -> Graph {
    let norm = Op::BatchNormalization {
        epsilon: 1e-3,
        momentum: 0.9,
    };
    let relu = || Op::Activation(Activation::Relu);
    let arithmetic = Op::Arithmetic;
    let none = SpatialPads::default();
    let nodes = vec![
        node(conv(1, 1, PADS), &["input", "a.weight"], "a"),
        node(norm, &["a", "gamma", "beta", "mean", "variance"], "a.norm"),
        node(relu(), &["a.norm"], "a.relu"),
        node(conv(8, 2, PADS), &["a.relu", "b.weight"], "b"),
        node(arithmetic(Arithmetic::Mul), &["b", "b.scale"], "b.scaled"),
        node(
            arithmetic(Arithmetic::Sub),
            &["b.scaled", "b.shift"],
            "b.shifted",
        ),
        node(conv(2, 1, PADS), &["b.shifted", "c.weight", "c.bias"], "c"),
        node(arithmetic(Arithmetic::Add), &["c", "b.scaled"], "sum"),
        node(arithmetic(Arithmetic::Add), &["sum", "c.shift"], "shifted"),
        node(Op::Concat { axis: 1 }, &["shifted", "b"], "joined"),
        node(Op::GlobalAveragePool, &["joined"], "squeezed"),
        node(conv(1, 1, none), &["squeezed", "gate.weight"], "gate"),
        node(Op::Activation(Activation::Sigmoid), &["gate"], "gated"),
        node(arithmetic(Arithmetic::Mul), &["joined", "gated"], "excited"),
        node(Op::MaxPool(pool()), &["excited"], "pooled"),
        node(Op::AveragePool(pool()), &["pooled"], "smoothed"),
        node(relu(), &["smoothed"], "smoothed.relu"),
        node(conv(1, 1, PADS), &["smoothed.relu", "d.weight"], "d.conv"),
        node(
            arithmetic(Arithmetic::Mul),
            &["d.conv", "d.map"],
            "d.mapped",
        ),
        node(Op::Concat { axis: -3 }, &["d.mapped", "d.more"], "d"),
        node(conv(1, 1, none), &["squeezed", "one.weight"], "one.map"),
        node(
            Op::Squeeze {
                axes: Some(vec![1, 2, 3]),
            },
            &["one.map"],
            "one",
        ),
        node(Op::Flatten { axis: 1 }, &["d"], "flat"),
        node(dense(), &["flat", "e.weight", "e.bias"], "e"),
        node(relu(), &["e"], "e.relu"),
        node(arithmetic(Arithmetic::Mul), &["e.relu", "e"], "logits"),
    ];
    let shapes: [(&str, &[usize]); 19] = [
        ("a.weight", &[8, 3, 3, 3]),
        ("gamma", &[8]),
        ("beta", &[8]),
        ("mean", &[8]),
        ("variance", &[8]),
        ("b.weight", &[8, 1, 3, 3]),
        ("b.scale", &[1, 8, 1, 1]),
        ("b.shift", &[8, 1, 1]),
        ("c.weight", &[8, 4, 3, 3]),
        ("c.bias", &[8]),
        ("c.shift", &[8, 1, 1]),
        ("gate.weight", &[16, 16, 1, 1]),
        ("d.weight", &[5, 16, 3, 3]),
        ("d.map", &[images, 5, 2, 2]),
        ("d.more", &[images, 2, 2, 2]),
        ("one.weight", &[1, 16, 1, 1]),
        ("e.weight", &[7, 28]),
        ("e.bias", &[7]),
        ("unused", &[1]),
    ];
    let initializers = shapes.iter().zip(10..).map(|((name, shape), seed)| {
        let positive = |v: f32| {
            if *name == "variance" {
                v.abs() + 0.5
            } else {
                v
            }
        };
        let values = numbers(shape, seed).mapv(positive);
        (*name, Tensor::F32(values.into_shared()))
    });
    let mut graph = graph(nodes, initializers.collect());
    graph.opset = 11;
    for name in ["pooled", "one"] {
        let mut output = graph.outputs[0].clone();
        output.name = name.to_owned();
        graph.outputs.push(output);
    }
    graph
}

#[test]
fn whole_bundles_give_what_the_other_engine_gives() {
    let taps = [
        (Of::Activation, "a.relu", Keep::SecondMoment),
        (Of::Gradient, "a.relu", Keep::SecondMoment),
        (Of::Gradient, "input", Keep::SecondMoment),
        (Of::Activation, "input", Keep::Moments),
        (Of::Gradient, "b.scaled", Keep::Moments),
        (Of::Gradient, "d.conv", Keep::Gates),
        (Of::Activation, "e", Keep::Moments),
    ];
    for (images, batch_norm) in [
        (32, BatchNormMode::Batch),
        (64, BatchNormMode::Stored),
        (48, BatchNormMode::Batch),
        (24, BatchNormMode::Batch),
        (33, BatchNormMode::Batch),
    ] {
        let graph = network(images);
        // Statistics that are stored are read like weights.
        let is_stored = batch_norm == BatchNormMode::Stored;
        let names = graph.initializers.keys().map(String::as_str);
        let trainable: Vec<&str> = names
            .filter(|name| is_stored || !["mean", "variance"].contains(name))
            .collect();
        let input = numbers(&[images, 3, 10, 13], 1);
        let directions = [&[images, 7][..], &[images, 16, 3, 4], &[images]]
            .map(|shape| numbers(shape, shape.len() as u64));
        let run = |engine: &dyn Engine| {
            let mut request = request(&graph, &trainable);
            request.batch_norm = batch_norm;
            request.taps = taps
                .map(|(of, value, keep)| Tap {
                    value: value.to_owned(),
                    of,
                    keep,
                })
                .to_vec();
            let mut session = engine.session(&request).unwrap();
            let outputs = session.forward(&input).unwrap();
            session.take_statistics();
            // Twice, so that memory is used again.
            let mut step = || session.step(&input, &mut |_| directions.to_vec()).unwrap();
            step();
            let gradients = step();
            (outputs, gradients, session.take_statistics())
        };
        let [burn, native] = engines().map(|engine| run(&*engine));
        for (native, burn) in native.0.iter().zip(&burn.0) {
            assert_close(native, &wide(burn), BETWEEN_ENGINES, "output");
        }
        for (name, gradient) in &native.1 {
            assert_close(gradient, &wide(&burn.1[name]), 5.0 * BETWEEN_ENGINES, name);
        }
        assert_eq!(native.2.len(), taps.len());
        for (tap, statistic) in &native.2 {
            let [native, burn] = [statistic, &burn.2[tap]].map(sums);
            let scale = burn.iter().fold(1e-3, |a: f64, b| a.max(b.abs()));
            for (native, burn) in native.iter().zip(&burn) {
                assert!(
                    (native - burn).abs() < 1e-4 * scale,
                    "{tap:?}: {native} {burn}"
                );
            }
        }
    }
}

/// The numbers of a statistic.
fn sums(statistic: &Statistic) -> Vec<f64> {
    match statistic {
        Statistic::Moments {
            sum,
            sum_of_squares,
            ..
        } => [sum.clone(), sum_of_squares.clone()].concat(),
        Statistic::SecondMoment { .. } => {
            statistic
                .second_moment()
                .unwrap()
                .into_raw_vec_and_offset()
                .0
        }
        Statistic::Gates(gates) => gates.costs(&[0.3; 5]).unwrap(),
    }
}
