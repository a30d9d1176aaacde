//! Accuracy of a graph in the engine at hand.

use super::{Source, TrainError, cross_entropy};
use crate::data::{Augment, Batch, DataError, Order, Split, counted_batch};
use crate::exec::{Engine, Request};
use crate::graph::Graph;
use crate::progress::Progress;
use serde::{Deserialize, Deserializer, Serialize};

/// JSON has no number that is none: what is written of it is `null`.
pub(super) fn number_or_nan<'d, D: Deserializer<'d>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Accuracy and loss over a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineAccuracy {
    /// Fraction of images whose largest score is their label's.
    pub top1: f64,
    /// Mean cross-entropy, nats.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// Number of images.
    pub n: usize,
    /// For each image of the split in its stored order, whether it was classified as its label.
    pub hits: Vec<bool>,
}

/// Accuracy lost between two networks on the same images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyDrop {
    /// Percentage points of top-1 lost; negative where it was gained.
    pub points: f64,
    /// Its standard error, percentage points. Only images on which the networks disagree carry
    /// any: with `b` lost and `c` won of `n` it is `sqrt(b + c - (b - c)^2 / n) / n` (the paired
    /// form, as in McNemar's test), far below the binomial error of either accuracy.
    pub standard_error: f64,
}

impl AccuracyDrop {
    /// The drop from `before` to `after`, image by image.
    #[must_use]
    pub fn between(before: &[bool], after: &[bool]) -> Self {
        let count = |lost: bool| {
            let pairs = before.iter().zip(after);
            pairs.filter(|&(b, a)| *b == lost && *a != lost).count() as f64
        };
        let (lost, won) = (count(true), count(false));
        let n = before.len().max(1) as f64;
        let difference = lost - won;
        let variance = (lost + won - difference * difference / n).max(0.0);
        Self {
            points: 100.0 * difference / n,
            standard_error: 100.0 * variance.sqrt() / n,
        }
    }
}

/// Top-1 accuracy and mean cross-entropy of value `logits` over `split`.
///
/// # Errors
/// [`TrainError`] where the graph does not run, an image cannot be read, or the value holds no
/// class scores.
pub fn accuracy(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    source: &Source<'_>,
    split: Split,
    progress: &dyn Progress,
) -> Result<EngineAccuracy, TrainError> {
    progress.begin("evaluate", source.dataset.len(split) as u64);
    let batches = source
        .batches(split, Order::Stored, Augment::None)
        .map(|batch| counted_batch(batch, progress));
    let found = over(engine, graph, logits, source, batches)?;
    progress.end();
    Ok(found)
}

/// [`accuracy`] on about `n_images` images of the split, drawn with `seed`; `hits` are in their order.
///
/// # Errors
/// As [`accuracy`].
#[allow(clippy::too_many_arguments)]
pub fn accuracy_on_some(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    source: &Source<'_>,
    split: Split,
    n_images: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<EngineAccuracy, TrainError> {
    let n_batches = n_images.div_ceil(source.batch_size.max(1));
    let n = source.dataset.len(split).min(n_batches * source.batch_size);
    progress.begin("compare", n as u64);
    let batches = source
        .batches(split, Order::Shuffled { seed, epoch: 0 }, Augment::None)
        .take(n_batches)
        .map(|batch| counted_batch(batch, progress));
    let found = over(engine, graph, logits, source, batches)?;
    progress.end();
    Ok(found)
}

fn over(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    source: &Source<'_>,
    batches: impl Iterator<Item = Result<Batch, DataError>>,
) -> Result<EngineAccuracy, TrainError> {
    let mut session = engine.session(&Request::evaluation(graph, vec![logits.to_owned()]))?;
    let classes = source.dataset.classes().len();
    let (mut hits, mut total_loss) = (Vec::new(), 0.0);
    for batch in batches {
        let batch = batch?;
        let outputs = session.forward(&batch.images)?;
        let scores = &outputs[0];
        if scores.len() != classes * batch.labels.len() {
            return Err(TrainError::NotAClassifier {
                output: logits.to_owned(),
                shape: scores.shape().to_vec(),
                classes,
            });
        }
        let loss = cross_entropy(scores, &batch.labels, 0.0);
        hits.extend(loss.hits);
        total_loss += loss.mean * batch.labels.len() as f64;
    }
    let n = hits.len();
    let images = n.max(1) as f64;
    Ok(EngineAccuracy {
        top1: hits.iter().filter(|&&hit| hit).count() as f64 / images,
        loss: total_loss / images,
        n,
        hits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_counts_the_images_on_which_two_networks_disagree() {
        let mut before = vec![true; 90];
        before.extend([false; 10]);
        // Six images lost, two won.
        let mut after = before.clone();
        after[..6].fill(false);
        after[98..].fill(true);
        let drop = AccuracyDrop::between(&before, &after);
        assert!((drop.points - 4.0).abs() < 1e-12);
        assert!((drop.standard_error - (8.0_f64 - 16.0 / 100.0).sqrt()).abs() < 1e-12);
        assert_eq!(AccuracyDrop::between(&after, &before).points, -drop.points);
        assert_eq!(
            AccuracyDrop::between(&before, &before),
            AccuracyDrop::default()
        );
    }

    /// The standard error is the spread of the drop over draws of the images.
    #[test]
    fn the_standard_error_is_the_spread_over_resampled_images() {
        use rand::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let pairs: Vec<(bool, bool)> = (0..200)
            .map(|_| (random.random_bool(0.9), random.random_bool(0.8)))
            .collect();
        let split = |pairs: &[(bool, bool)]| {
            let (before, after): (Vec<bool>, Vec<bool>) = pairs.iter().copied().unzip();
            AccuracyDrop::between(&before, &after)
        };
        let draws: Vec<f64> = (0..4000)
            .map(|_| {
                let drawn: Vec<(bool, bool)> = (0..200)
                    .map(|_| pairs[random.random_range(0..200)])
                    .collect();
                split(&drawn).points
            })
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let spread = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        let ratio = spread.sqrt() / split(&pairs).standard_error;
        assert!((ratio - 1.0).abs() < 0.06, "{ratio}");
    }
}
