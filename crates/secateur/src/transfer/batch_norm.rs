//! Batch norm put after each convolution that has none, without a change of function.

use super::TransferError;
use crate::exec::{BatchNormMode, Engine};
use crate::graph::{Graph, Node, Op};
use crate::progress::Progress;
use crate::tensor::Tensor;
use crate::train::{Source, channel_moments, training_batches};
use ndarray::{ArcArray, IxDyn};

// PyTorch's default of `BatchNorm2d`.
const EPSILON: f32 = 1e-5;

/// Inserts a batch norm behind every `Conv` that has none behind it. Its mean and variance are the
/// convolution's output statistics over up to `n_images` training images, its affine undoes them.
/// Returns the graph and the number of insertions.
///
/// # Errors
/// [`TransferError`] where the graph does not run.
pub fn insert_batch_norm(
    engine: &dyn Engine,
    graph: &Graph,
    source: &Source<'_>,
    n_images: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Graph, usize), TransferError> {
    let consumers = graph.consumers();
    let is_normalised = |node: &Node| {
        let readers = consumers.get(node.outputs[0].as_str());
        readers.is_some_and(|readers| {
            readers
                .iter()
                .any(|&i| matches!(graph.nodes[i].op, Op::BatchNormalization { .. }))
        })
    };
    let bare: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Conv(_)) && !is_normalised(node))
        .map(|node| node.outputs[0].clone())
        .collect();
    let batches = training_batches(source, n_images, seed)?;
    let n_images = batches.iter().map(|batch| batch.labels.len() as u64).sum();
    progress.begin("batch norm", n_images);
    let moments = channel_moments(
        engine,
        graph,
        &bare,
        BatchNormMode::Stored,
        batches,
        progress,
    )?;
    progress.end();
    let mut new = graph.clone();
    new.nodes.clear();
    for node in &graph.nodes {
        let Some(moment) = node.outputs.first().and_then(|o| moments.get(o)) else {
            new.nodes.push(node.clone());
            continue;
        };
        let output = node.outputs[0].clone();
        let raw = graph.fresh_value(&format!("{output}.raw"));
        let mut conv = node.clone();
        conv.outputs[0].clone_from(&raw);
        new.nodes.push(conv);
        let deviation = |v: &f64| (v + f64::from(EPSILON)).sqrt();
        let scale: Vec<f64> = moment.variance.iter().map(deviation).collect();
        let mut inputs = vec![raw];
        for (slot, values) in [
            ("scale", &scale),
            ("bias", &moment.mean),
            ("mean", &moment.mean),
            ("variance", &moment.variance),
        ] {
            let name = graph.fresh_value(&format!("{}.bn.{slot}", node.name));
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            let array = ArcArray::from_shape_vec(IxDyn(&[values.len()]), values)
                .map_err(|e| TransferError::Ridge(e.to_string()))?;
            new.initializers.insert(name.clone(), Tensor::F32(array));
            inputs.push(name);
        }
        new.nodes.push(Node {
            name: graph.fresh_node(&format!("{}.bn", node.name)),
            op: Op::BatchNormalization {
                epsilon: EPSILON,
                momentum: 0.9,
            },
            inputs,
            outputs: vec![output],
        });
    }
    Ok((new, bare.len()))
}
