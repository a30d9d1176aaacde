//! Top-1 and top-5 accuracy of class scores.

use super::{Outputs, VerifyError};
use crate::data::Batch;
use crate::tensor::Floats;
use serde::Serialize;
use std::error::Error;

/// The share of images whose class a network names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Images judged.
    pub n: usize,
    /// Images whose highest score is their label's.
    pub correct: usize,
    /// `correct / n`, from 0 to 1.
    pub top1: f64,
    /// The share of images whose label is among the five highest scores; `None` where there are no
    /// more than five classes.
    pub top5: Option<f64>,
    /// The binomial standard error of `top1`, `sqrt(p (1 - p) / n)`.
    pub standard_error: f64,
    /// Images with a score that is not finite. They count as wrong.
    pub non_finite: usize,
}

/// Runs all `batches` through a network and counts. Scores may be logits or probabilities,
/// `[n, classes]` or `[n, classes, 1, 1]`; of equal scores the first counts as the higher.
///
/// # Errors
/// [`VerifyError::Output`] for outputs of another shape, [`VerifyError::Label`] for a label beyond
/// the classes, [`VerifyError::NoImages`] where there is no image; what reading and running give.
pub fn evaluate<E: Error + Send + Sync + 'static>(
    network: &mut Outputs<'_>,
    batches: impl IntoIterator<Item = Result<Batch, E>>,
) -> Result<Accuracy, VerifyError> {
    let (mut n, mut correct, mut among_five, mut non_finite) = (0, 0, 0, 0);
    let mut classes = 0;
    for batch in batches {
        let batch = batch.map_err(|error| VerifyError::Data(Box::new(error)))?;
        let scores = network(&batch.images)?;
        classes = classes_of(&scores, batch.labels.len())?;
        let scores: Vec<f32> = scores.iter().copied().collect();
        for (scores, &label) in scores.chunks_exact(classes).zip(&batch.labels) {
            let place = place(scores, label)?;
            n += 1;
            match place {
                None => non_finite += 1,
                Some(place) => {
                    correct += usize::from(place == 0);
                    among_five += usize::from(place < 5);
                }
            }
        }
    }
    if n == 0 {
        return Err(VerifyError::NoImages);
    }
    let top1 = share(correct, n);
    Ok(Accuracy {
        n,
        correct,
        top1,
        top5: (classes > 5).then(|| share(among_five, n)),
        standard_error: (top1 * (1.0 - top1) / n as f64).sqrt(),
        non_finite,
    })
}

fn share(part: usize, n: usize) -> f64 {
    part as f64 / n as f64
}

/// The number of classes in scores for `n` images.
fn classes_of(scores: &Floats, n: usize) -> Result<usize, VerifyError> {
    match scores.shape() {
        [images, classes] | [images, classes, 1, 1] if *images == n && *classes > 0 => Ok(*classes),
        shape => Err(VerifyError::Output {
            problem: format!(
                "its shape for {n} images is {shape:?}, want class scores [{n}, classes]"
            ),
        }),
    }
}

/// How many classes have a higher score than `label`; `None` where a score is not finite.
fn place(scores: &[f32], label: usize) -> Result<Option<usize>, VerifyError> {
    let Some(&own) = scores.get(label) else {
        return Err(VerifyError::Label {
            label,
            classes: scores.len(),
        });
    };
    if !scores.iter().all(|score| score.is_finite()) {
        return Ok(None);
    }
    let before = scores[..label]
        .iter()
        .filter(|score| **score >= own)
        .count();
    let after = scores[label + 1..]
        .iter()
        .filter(|score| **score > own)
        .count();
    Ok(Some(before + after))
}
