//! Whole networks from the shared data.

use crate::check::{check, noise};
use ndarray::{ArcArray, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secateur::exec::NativeEngine;
use secateur::graph::{Dim, Graph, Op, infer};
use secateur::onnx;
use secateur::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Networks of more parameters are left out: several copies of each are in memory at once.
const MAX_PARAMS: u64 = 70_000_000;

fn folder() -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data =
        std::env::var_os("SECATEUR_DATA").map_or(workspace.join("../shared/data"), PathBuf::from);
    let folder = data.join("models");
    if !folder.is_dir() {
        println!("skipped: neither SECATEUR_DATA nor ../shared/data holds models/");
        return None;
    }
    Some(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let folders = [folder.to_owned(), folder.join("foreign")];
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "onnx"))
        .collect();
    files.sort();
    files
}

/// Small files hold no weights but constants of the right shapes, of which any channel is as good
/// as any other. Random weights take their places, such that values neither vanish nor explode.
fn with_weights(mut graph: Graph, shapes: &BTreeMap<String, Vec<usize>>) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (constants, nodes) = graph
        .nodes
        .drain(..)
        .partition(|node| matches!(node.op, Op::ConstantOfShape { .. }));
    graph.nodes = nodes;
    let same = |tensor: &Tensor| {
        let values = tensor.as_floats().filter(|values| values.len() > 1);
        values.is_some_and(|values| values.iter().all(|value| Some(value) == values.first()))
    };
    let stored = graph.initializers.iter();
    let stored = stored.filter(|(_, tensor)| same(tensor));
    let stored = stored.map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()));
    let computed = constants
        .into_iter()
        .map(|node| (node.outputs[0].clone(), shapes[&node.outputs[0]].clone()));
    for (name, shape) in stored.chain(computed).collect::<Vec<_>>() {
        let fan_in: usize = shape.iter().skip(1).product();
        let scale = (3.0 / fan_in as f32).sqrt();
        let values = ArcArray::from_shape_simple_fn(IxDyn(&shape), || match shape.len() {
            1 => rng.random_range(0.5..1.5),
            _ => scale * rng.random_range(-1.0..1.0_f32),
        });
        graph.initializers.insert(name, Tensor::F32(values));
    }
    // Random logits are far apart, and their softmax is 0 and 1 whatever is removed.
    let scores = graph.nodes.iter().find_map(|node| match node.op {
        Op::Softmax(_) | Op::LogSoftmax(_) if node.outputs[0] == graph.outputs[0].name => {
            Some(node.inputs[0].clone())
        }
        _ => None,
    });
    if let Some(scores) = scores {
        graph.outputs[0].name = scores;
    }
    graph.remove_unused();
    graph
}

/// The input's shape: two images of 64 by 64 where the file does not fix it.
fn input_shape(graph: &Graph) -> (String, Vec<usize>) {
    let mut inputs = graph.inputs.iter();
    let input = inputs
        .find(|input| !graph.initializers.contains_key(&input.name))
        .unwrap();
    let lengths = input.dims.iter().flatten().zip([2, 3, 64, 64]);
    let shape = lengths.map(|(dim, usual)| match dim {
        Dim::Fixed(length) => *length,
        Dim::Named(_) | Dim::Unknown => usual,
    });
    (input.name.clone(), shape.collect())
}

#[test]
fn removing_channels_of_whole_networks_equals_zeroing_them() {
    let Some(folder) = folder() else { return };
    let mut n_checked = 0;
    for path in files(&folder) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let graph = match onnx::read(&path) {
            Ok(model) => model.graph,
            Err(problem) => {
                println!("skipped: {name}: {problem}");
                continue;
            }
        };
        let (input, shape) = input_shape(&graph);
        let inferred = infer(&graph, &BTreeMap::from([(input, shape.clone())])).unwrap();
        let params = secateur::cost::of(&graph, &inferred).params;
        let volume = |node: &secateur::graph::Node| -> u64 {
            let shape = inferred.shape(&node.outputs[0]).unwrap_or_default();
            shape.iter().product::<usize>() as u64
        };
        let constants = graph
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::ConstantOfShape { .. }));
        let params = params + constants.map(volume).sum::<u64>();
        if params > MAX_PARAMS {
            println!("skipped: {name}: {params} parameters");
            continue;
        }
        let graph = if name.starts_with("light_") {
            with_weights(graph, &inferred.shapes)
        } else {
            graph
        };
        let found = check(&NativeEngine::new(), &graph, &noise(&shape, 5), 0.4, 11);
        let [channels, removed] = found.channels;
        let [before, after] = found.params;
        println!(
            "{name}: {removed} of {channels} channels removed, params {before} -> {after}, \
             difference {:.1e}, of the whole network {:.1e}",
            found.difference, found.change
        );
        assert!(removed > 20, "{name}: {removed} of {channels}");
        assert!(found.difference < 1e-4, "{name}: {}", found.difference);
        assert!(found.change > 1e-3, "{name}: {}", found.change);
        n_checked += 1;
    }
    assert!(n_checked >= 8, "{n_checked} networks were checked");
}
