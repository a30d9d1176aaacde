//! Re-estimation of batch-norm statistics on the data at hand, after a structural change.

use super::{Source, TrainError};
use crate::data::{Augment, Batch, Order, Split};
use crate::exec::{BatchNormMode, Engine, Keep, Of, Request, Statistic, Tap};
use crate::graph::{Graph, Op};
use crate::tensor::{Floats, Tensor};
use ndarray::{ArcArray, IxDyn};
use std::collections::BTreeMap;

/// The input value of every batch norm, with the names of its mean and variance.
fn batch_norms(graph: &Graph) -> Vec<(String, String, String)> {
    graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::BatchNormalization { .. }))
        .filter_map(|node| match node.inputs.as_slice() {
            [x, _, _, mean, variance] => Some((x.clone(), mean.clone(), variance.clone())),
            _ => None,
        })
        .collect()
}

/// Whether the graph has a batch norm.
#[must_use]
pub fn has_batch_norm(graph: &Graph) -> bool {
    !batch_norms(graph).is_empty()
}

/// Sets mean and variance of every batch norm to those of its input over up to `n_images`
/// training images. Each batch is normalised by its own statistics on the way, so that one pass
/// serves all layers.
///
/// # Errors
/// [`TrainError`] where the graph does not run or an image cannot be read.
pub fn reestimate_batch_norm(
    engine: &dyn Engine,
    graph: &Graph,
    source: &Source<'_>,
    n_images: usize,
    seed: u64,
) -> Result<Graph, TrainError> {
    let norms = batch_norms(graph);
    if norms.is_empty() {
        return Ok(graph.clone());
    }
    let values: Vec<String> = norms.iter().map(|(x, _, _)| x.clone()).collect();
    let moments = channel_moments(
        engine,
        graph,
        &values,
        BatchNormMode::Batch,
        training_batches(source, n_images, seed)?,
    )?;
    let mut graph = graph.clone();
    for (x, mean, variance) in norms {
        if let Some(moment) = moments.get(&x) {
            graph.initializers.insert(mean, vector(&moment.mean));
            graph
                .initializers
                .insert(variance, vector(&moment.variance));
        }
    }
    Ok(graph)
}

/// Mean and variance of each channel of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelMoments {
    /// Mean per channel.
    pub mean: Vec<f64>,
    /// Biased variance per channel.
    pub variance: Vec<f64>,
}

/// Mean and variance of each channel of `values` over `batches`.
///
/// # Errors
/// [`TrainError`] where the graph does not run.
pub fn channel_moments(
    engine: &dyn Engine,
    graph: &Graph,
    values: &[String],
    batch_norm: BatchNormMode,
    batches: Vec<Batch>,
) -> Result<BTreeMap<String, ChannelMoments>, TrainError> {
    let taps = values.iter().map(|value| Tap {
        value: value.clone(),
        of: Of::Activation,
        keep: Keep::Moments,
    });
    let mut session = engine.session(&Request {
        graph,
        outputs: Vec::new(),
        trainable: Vec::new(),
        taps: taps.collect(),
        batch_norm,
    })?;
    for batch in batches {
        session.forward(&batch.images)?;
    }
    let mut moments = BTreeMap::new();
    for (tap, statistic) in session.statistics() {
        if let Statistic::Moments {
            count,
            sum,
            sum_of_squares,
            ..
        } = statistic
        {
            let count = (*count).max(1) as f64;
            let mean: Vec<f64> = sum.iter().map(|s| s / count).collect();
            let variance = sum_of_squares.iter().zip(&mean);
            let variance = variance
                .map(|(s, m)| (s / count - m * m).max(0.0))
                .collect();
            moments.insert(tap.value.clone(), ChannelMoments { mean, variance });
        }
    }
    Ok(moments)
}

/// Up to `n_images` training images without augmentation, drawn with `seed`.
///
/// # Errors
/// [`TrainError`] where an image cannot be read.
pub fn training_batches(
    source: &Source<'_>,
    n_images: usize,
    seed: u64,
) -> Result<Vec<Batch>, TrainError> {
    let order = Order::Shuffled {
        seed,
        epoch: u64::MAX,
    };
    let n_batches = n_images.div_ceil(source.batch_size.max(1));
    source
        .batches(Split::Train, order, Augment::None)
        .take(n_batches)
        .map(|batch| batch.map_err(TrainError::from))
        .collect()
}

fn vector(values: &[f64]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let array: Floats = ArcArray::from_shape_vec(IxDyn(&[values.len()]), values.clone())
        .unwrap_or_else(|_| ArcArray::zeros(IxDyn(&[values.len()])));
    Tensor::F32(array)
}
