//! How long a forward pass and a training step of a network take.
//!
//! `cargo run -p secateur --example step_time -- MODEL.onnx HEIGHTxWIDTH BATCH [REPETITIONS [ENGINE...] [moments]]`
//!
//! Prints for each engine (`native`; `native-keeping`, which computes nothing again in the backward pass; `burn`; the
//! first where none is named) the median of the
//! repetitions, in milliseconds, of: a forward pass in evaluation; a step that trains everything but
//! the weights of convolutions; a step that trains everything. With `moments` also of a forward and a backward pass from
//! the output to the first convolution, and of the same with the second moments of what all convolutions make and of the
//! gradients there, which are the statistics of docs/method.md, section 4. Batch
//! norm takes the batch's statistics in the steps, stored ones in the other passes. The gradient of the output is random.

#![allow(clippy::print_stdout)]

use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use secateur::exec::{BatchNormMode, Engine, EngineKind, Keep, NativeEngine, Of, Request, Tap};
use secateur::graph::{Graph, Op};
use secateur::tensor::{Floats, Tensor};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "MODEL.onnx HEIGHTxWIDTH BATCH [REPETITIONS [ENGINE...] [moments]]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, size, batch, more @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let (height, width) = size.split_once('x').ok_or(USAGE)?;
    let shape = [batch.parse()?, 3, height.parse()?, width.parse()?];
    let repetitions = more.first().map_or(Ok(5), |r| r.parse())?;
    let graph = secateur::onnx::read(Path::new(model))?.graph;
    let mut random = Random(rand_chacha::ChaCha8Rng::seed_from_u64(0));
    let input = random.array(&shape);
    let (moments, mut engines): (Vec<&str>, Vec<&str>) = more
        .iter()
        .skip(1)
        .map(String::as_str)
        .partition(|word| *word == "moments");
    if engines.is_empty() {
        engines.push("native");
    }
    for name in engines {
        let engine = match name {
            "native" => EngineKind::Native.open(),
            "native-keeping" => Box::new(NativeEngine::new().keeping(usize::MAX)),
            "burn" => EngineKind::Burn.open(),
            _ => return Err(format!("no engine is named `{name}`").into()),
        };
        println!("{name}, median of {repetitions}");
        let passes = passes(&graph, !moments.is_empty());
        time(&*engine, &graph, &passes, &input, &mut random, repetitions)?;
    }
    Ok(())
}

/// What is timed.
struct Pass {
    name: &'static str,
    /// `None` for a forward pass alone.
    trainable: Option<Vec<String>>,
    batch_norm: BatchNormMode,
    taps: Vec<Tap>,
}

fn passes(graph: &Graph, with_moments: bool) -> Vec<Pass> {
    let all = trainable(graph);
    let weights = convolution_weights(graph);
    let few = all.iter().filter(|name| !weights.contains(*name)).cloned();
    let (stored, batch) = (BatchNormMode::Stored, BatchNormMode::Batch);
    let pass = |name, trainable, batch_norm, taps| Pass {
        name,
        trainable,
        batch_norm,
        taps,
    };
    let mut passes = vec![
        pass("forward", None, stored, vec![]),
        pass("step, frozen", Some(few.collect()), batch, vec![]),
        pass("step, all", Some(all.clone()), batch, vec![]),
    ];
    if with_moments {
        let convolutions = graph.nodes.iter().filter(|n| matches!(n.op, Op::Conv(_)));
        let taps: Vec<Tap> = convolutions
            .filter_map(|node| node.outputs.first())
            .flat_map(|value| {
                [Of::Activation, Of::Gradient].map(|of| Tap {
                    value: value.clone(),
                    of,
                    keep: Keep::SecondMoment,
                })
            })
            .collect();
        // All but free, it makes the pass go back to the first convolution.
        let keep = Keep::Moments;
        let far = taps.iter().skip(1).take(1).cloned();
        let far = far.map(|tap| Tap { keep, ..tap }).collect();
        passes.push(pass("there and back", Some(vec![]), stored, far));
        passes.push(pass("with moments", Some(vec![]), stored, taps));
    }
    passes
}

fn time(
    engine: &dyn Engine,
    graph: &Graph,
    passes: &[Pass],
    input: &Floats,
    random: &mut Random,
    repetitions: usize,
) -> Result<(), Box<dyn Error>> {
    for pass in passes {
        let mut session = engine.session(&Request {
            graph,
            outputs: vec![graph.outputs[0].name.clone()],
            batch_norm: pass.batch_norm,
            trainable: pass.trainable.clone().unwrap_or_default(),
            taps: pass.taps.clone(),
        })?;
        let mut run = || -> Result<f64, Box<dyn Error>> {
            let start = Instant::now();
            if pass.trainable.is_some() {
                session.step(input, &mut |outputs| vec![random.array(outputs[0].shape())])?;
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
        println!("{:>14}: {:8.1} ms", pass.name, times[times.len() / 2]);
    }
    Ok(())
}

/// The initializers that training changes: weights, biases, scales; not the statistics of batch
/// norm.
fn trainable(graph: &Graph) -> Vec<String> {
    let statistics: BTreeSet<&String> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::BatchNormalization { .. }))
        .flat_map(|node| node.inputs.iter().skip(3))
        .collect();
    let floats = |(name, value): (&String, &Tensor)| match value {
        // Numbers by themselves are bounds and the like.
        Tensor::F32(array) if array.ndim() > 0 && !statistics.contains(name) => Some(name.clone()),
        _ => None,
    };
    graph.initializers.iter().filter_map(floats).collect()
}

fn convolution_weights(graph: &Graph) -> BTreeSet<String> {
    let convolutions = graph.nodes.iter().filter(|n| matches!(n.op, Op::Conv(_)));
    convolutions
        .filter_map(|node| node.inputs.get(1).cloned())
        .collect()
}

struct Random(rand_chacha::ChaCha8Rng);

impl Random {
    /// Numbers between -1 and 1.
    fn array(&mut self, shape: &[usize]) -> Floats {
        let number = || 2.0 * self.0.random::<f32>() - 1.0;
        ArrayD::from_shape_simple_fn(IxDyn(shape), number).into_shared()
    }
}
