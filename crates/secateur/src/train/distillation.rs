//! Training towards the scores of another network (Hinton et al., arXiv 1503.02531).

use super::{Loss, TrainError};
use crate::exec::{Engine, Request, Session};
use crate::graph::Graph;
use crate::tensor::Floats;
use ndarray::{ArcArray, IxDyn};
use std::sync::Arc;

/// Who teaches: a network with the same classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// The network, with the same name for its class scores as the one that learns.
    pub graph: Arc<Graph>,
    /// Share of the teacher in the loss; the rest is that of the labels. 0 to 1.
    pub weight: f64,
}

/// Both distributions are softened by this, so that all scores count and not the highest alone.
const TEMPERATURE: f64 = 4.0;

impl Teacher {
    /// Prepares the teacher, in evaluation.
    pub(super) fn session<'e>(
        &self,
        engine: &'e dyn Engine,
        logits: &str,
    ) -> Result<Box<dyn Session + 'e>, TrainError> {
        Ok(engine.session(&Request::evaluation(&self.graph, vec![logits.to_owned()]))?)
    }
}

/// `loss` (that of the labels) and the teacher's, mixed by `weight`:
/// `(1 - w) L + w T^2 KL(softmax(teacher / T), softmax(logits / T))`, mean over the images.
#[must_use]
pub(super) fn mixed(loss: Loss, logits: &Floats, teacher: &Floats, weight: f64) -> Loss {
    let n_images = loss.hits.len().max(1);
    let n_classes = (logits.len() / n_images).max(1);
    let rows = |array: &Floats| array.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let (student, wanted) = (rows(logits), rows(teacher));
    let (mut gradient, mut total) = (Vec::with_capacity(student.len()), 0.0);
    for (row, wanted) in student.chunks(n_classes).zip(wanted.chunks(n_classes)) {
        let (log_q, log_p) = (log_softmax(row), log_softmax(wanted));
        for (log_q, log_p) in log_q.iter().zip(&log_p) {
            total += log_p.exp() * (log_p - log_q);
            gradient.push(TEMPERATURE * (log_q.exp() - log_p.exp()) / n_images as f64);
        }
    }
    let of_labels = loss.gradient.iter();
    let gradient = gradient
        .iter()
        .zip(of_labels)
        .map(|(teacher, &label)| (weight * teacher + (1.0 - weight) * f64::from(label)) as f32)
        .collect();
    let shape = IxDyn(logits.shape());
    let gradient = ArcArray::from_shape_vec(shape.clone(), gradient)
        .unwrap_or_else(|_| ArcArray::zeros(shape));
    let divergence = TEMPERATURE * TEMPERATURE * total / n_images as f64;
    Loss {
        mean: (1.0 - weight) * loss.mean + weight * divergence,
        hits: loss.hits,
        gradient,
    }
}

/// The logarithm of the softened distribution.
fn log_softmax(row: &[f64]) -> Vec<f64> {
    let scaled: Vec<f64> = row.iter().map(|value| value / TEMPERATURE).collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|value| (value - largest).exp()).sum();
    scaled
        .iter()
        .map(|value| value - largest - sum.ln())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::train::cross_entropy;

    fn floats(values: &[f32]) -> Floats {
        ArcArray::from_shape_vec(IxDyn(&[values.len() / 3, 3]), values.to_vec()).unwrap()
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (logits, teacher) = (
            [0.5_f32, -1.0, 2.0, 1.5, 0.25, -0.5],
            floats(&[2.0, 0.0, 1.0, -1.0, 3.0, 0.5]),
        );
        let labels = [0, 2];
        let loss = |values: &[f32]| {
            let logits = floats(values);
            mixed(cross_entropy(&logits, &labels, 0.0), &logits, &teacher, 0.3)
        };
        let found = loss(&logits);
        for index in 0..logits.len() {
            let moved = |by: f32| {
                let mut moved = logits;
                moved[index] += by;
                loss(&moved).mean
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let gradient = f64::from(found.gradient[[index / 3, index % 3]]);
            assert!(
                (slope - gradient).abs() < 1e-4,
                "{index}: {slope} {gradient}"
            );
        }
    }

    #[test]
    fn a_student_like_its_teacher_has_nothing_to_learn() {
        let logits = floats(&[1.0, 2.0, 3.0]);
        let found = mixed(cross_entropy(&logits, &[0], 0.0), &logits, &logits, 1.0);
        assert!(found.mean.abs() < 1e-12 && found.gradient.iter().all(|g| g.abs() < 1e-7));
    }
}
