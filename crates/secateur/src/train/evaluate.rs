//! Accuracy of a graph in the engine at hand.

use super::{Source, TrainError, cross_entropy};
use crate::data::{Augment, Order, Split};
use crate::exec::{BatchNormMode, Engine, Request};
use crate::graph::Graph;
use crate::progress::Progress;
use serde::{Deserialize, Serialize};

/// Accuracy and loss over a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineAccuracy {
    /// Fraction of images whose largest score is their label's.
    pub top1: f64,
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// Number of images.
    pub n: usize,
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
    let mut session = engine.session(&Request {
        graph,
        outputs: vec![logits.to_owned()],
        trainable: Vec::new(),
        taps: Vec::new(),
        batch_norm: BatchNormMode::Stored,
    })?;
    let classes = source.dataset.classes().len();
    let (mut correct, mut total_loss, mut n) = (0, 0.0, 0);
    progress.begin("evaluate", source.dataset.len(split) as u64);
    for batch in source.batches(split, Order::Stored, Augment::None) {
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
        correct += loss.correct;
        total_loss += loss.mean * batch.labels.len() as f64;
        n += batch.labels.len();
        progress.advance(batch.labels.len() as u64);
    }
    progress.end();
    let images = n.max(1) as f64;
    Ok(EngineAccuracy {
        top1: correct as f64 / images,
        loss: total_loss / images,
        n,
    })
}
