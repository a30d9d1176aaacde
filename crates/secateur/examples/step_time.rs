//! How long a forward pass and a training step take, on VGG-16 at 32x32 with random weights.
//!
//! `cargo run -p secateur --example step_time [BATCH [REPETITIONS]]`
//!
//! Prints the median of the repetitions for: a forward pass; a step that trains a scaling factor
//! after each convolution and the head, all convolutions frozen; a step that trains every weight.

#![allow(clippy::print_stdout)]

use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use secateur::exec::{BatchNormMode, Engine, EngineKind, Request};
use secateur::graph::{
    Activation, Arithmetic, ConvAttrs, Graph, Node, Op, PoolAttrs, SpatialPads, ValueDecl,
};
use secateur::tensor::{ElementType, Floats, Tensor};
use std::collections::BTreeMap;
use std::time::Instant;

/// Output channels of VGG-16's convolutions; 0 is a max pooling.
const LAYERS: [usize; 18] = [
    64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let batch: usize = arguments.next().map_or(Ok(64), |a| a.parse())?;
    let repetitions: usize = arguments.next().map_or(Ok(5), |a| a.parse())?;
    let mut random = Random(rand_chacha::ChaCha8Rng::seed_from_u64(0));
    let graph = vgg(&mut random);
    let input = random.array(&[batch, 3, 32, 32], 1.0);
    let weights = random.array(&[batch, 10], 1.0);
    for kind in [EngineKind::Native, EngineKind::Burn] {
        time(&*kind.open(), (&graph, &input, &weights), repetitions)?;
    }
    Ok(())
}

fn time(
    engine: &dyn Engine,
    (graph, input, weights): (&Graph, &Floats, &Floats),
    repetitions: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<String> = graph.initializers.keys().cloned().collect();
    let few: Vec<String> = names
        .iter()
        .filter(|n| n.ends_with("scaling") || n.starts_with("head"))
        .cloned()
        .collect();
    println!(
        "{}, batch {}, {repetitions} repetitions, median",
        engine.name(),
        input.shape()[0]
    );
    for (what, trainable) in [
        ("forward", None),
        ("step, frozen", Some(few)),
        ("step, all", Some(names)),
    ] {
        let mut session = engine.session(&Request {
            graph,
            outputs: vec!["logits".to_owned()],
            trainable: trainable.clone().unwrap_or_default(),
            taps: Vec::new(),
            batch_norm: BatchNormMode::Stored,
        })?;
        let mut run = || -> Result<f64, Box<dyn std::error::Error>> {
            let start = Instant::now();
            if trainable.is_some() {
                session.step(input, &mut |_| vec![weights.clone()])?;
            } else {
                session.forward(input)?;
            }
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        run()?;
        let mut times = (0..repetitions)
            .map(|_| run())
            .collect::<Result<Vec<f64>, _>>()?;
        times.sort_by(f64::total_cmp);
        println!("{what:>14}: {:7.0} ms", times[times.len() / 2]);
    }
    Ok(())
}

struct Random(rand_chacha::ChaCha8Rng);

impl Random {
    fn array(&mut self, shape: &[usize], scale: f32) -> Floats {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            scale * (2.0 * self.0.random::<f32>() - 1.0)
        })
        .into_shared()
    }
}

/// VGG-16 with a scaling factor per channel after each convolution, and a head of ten classes.
fn vgg(random: &mut Random) -> Graph {
    let mut nodes = Vec::new();
    let mut initializers = BTreeMap::new();
    let mut current = ("input".to_owned(), 3);
    let mut add = |op: Op, inputs: &[&str], output: &str| {
        nodes.push(Node {
            name: output.to_owned(),
            op,
            inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
            outputs: vec![output.to_owned()],
        });
    };
    for (index, &channels) in LAYERS.iter().enumerate() {
        let (input, in_channels) = current.clone();
        if channels == 0 {
            let pool = PoolAttrs {
                kernel: [2, 2],
                strides: [2, 2],
                pads: SpatialPads::default(),
                dilations: [1, 1],
                auto_pad: Default::default(),
                ceil_mode: false,
                count_include_pad: false,
            };
            let output = format!("pool{index}");
            add(Op::MaxPool(pool), &[&input], &output);
            current = (output, in_channels);
            continue;
        }
        let name = |part: &str| format!("conv{index}.{part}");
        let pads = SpatialPads {
            top: 1,
            left: 1,
            bottom: 1,
            right: 1,
        };
        let attrs = ConvAttrs {
            pads,
            ..ConvAttrs::default()
        };
        let scale = (6.0 / (in_channels * 9) as f32).sqrt();
        let mut store =
            |part: &str, array: Floats| initializers.insert(name(part), Tensor::F32(array));
        store(
            "weight",
            random.array(&[channels, in_channels, 3, 3], scale),
        );
        store("bias", random.array(&[channels], 0.1));
        store(
            "scaling",
            ArrayD::ones(IxDyn(&[1, channels, 1, 1])).into_shared(),
        );
        add(
            Op::Conv(attrs),
            &[&input, &name("weight"), &name("bias")],
            &name("y"),
        );
        add(
            Op::Arithmetic(Arithmetic::Mul),
            &[&name("y"), &name("scaling")],
            &name("scaled"),
        );
        add(
            Op::Activation(Activation::Relu),
            &[&name("scaled")],
            &name("relu"),
        );
        current = (name("relu"), channels);
    }
    let gemm = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    };
    initializers.insert(
        "head.weight".to_owned(),
        Tensor::F32(random.array(&[10, 512], 0.05)),
    );
    initializers.insert(
        "head.bias".to_owned(),
        Tensor::F32(random.array(&[10], 0.05)),
    );
    add(Op::Flatten { axis: 1 }, &[&current.0], "flat");
    add(gemm, &["flat", "head.weight", "head.bias"], "logits");
    let value = |name: &str| ValueDecl {
        name: name.to_owned(),
        element_type: ElementType::F32,
        dims: None,
    };
    Graph {
        name: "vgg16".to_owned(),
        opset: 17,
        inputs: vec![value("input")],
        outputs: vec![value("logits")],
        nodes,
        initializers,
        metadata: BTreeMap::new(),
    }
}
