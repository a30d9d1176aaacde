//! Softmax cross-entropy on host arrays, in `f64`.

use crate::tensor::Floats;
use ndarray::{ArcArray, IxDyn};

/// The loss of a batch of logits.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Mean cross-entropy over the images, nats.
    pub mean: f64,
    /// For each image, whether its largest logit is the label's.
    pub hits: Vec<bool>,
    /// Gradient of the mean loss with respect to the logits, in the shape of the logits.
    pub gradient: Floats,
}

/// Cross-entropy of `logits` `[images, classes]` (further axes of length 1 are allowed) against
/// `labels`, with `smoothing` of the label's probability spread over all classes.
///
/// Rows that hold a NaN count as wrong and make the mean NaN.
#[must_use]
pub fn cross_entropy(logits: &Floats, labels: &[usize], smoothing: f64) -> Loss {
    let n_images = labels.len();
    let n_classes = logits.len().checked_div(n_images).unwrap_or(0);
    let mut gradient = Vec::with_capacity(logits.len());
    let (mut total, mut hits) = (0.0_f64, Vec::with_capacity(n_images));
    let values: Vec<f32> = logits.iter().copied().collect();
    for (row, &label) in values.chunks(n_classes.max(1)).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f64> = row.iter().map(|&v| f64::from(v - largest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let background = smoothing / n_classes as f64;
        for (class, (&exp, &logit)) in exps.iter().zip(row).enumerate() {
            let target = background + if class == label { 1.0 - smoothing } else { 0.0 };
            total -= target * (f64::from(logit - largest) - sum.ln());
            gradient.push(((exp / sum - target) / n_images as f64) as f32);
        }
        hits.push(predicted_class(row) == Some(label));
    }
    let shape = IxDyn(logits.shape());
    let gradient = ArcArray::from_shape_vec(shape, gradient)
        .unwrap_or_else(|_| ArcArray::zeros(IxDyn(logits.shape())));
    Loss {
        mean: total / n_images.max(1) as f64,
        hits,
        gradient,
    }
}

/// The index of the largest value, the first of equals; `None` where a value is NaN or there is
/// none.
#[must_use]
pub fn predicted_class(row: &[f32]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (class, value) in row.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|b| *value > row[b]) {
            best = Some(class);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(values: &[f32], classes: usize) -> Floats {
        ArcArray::from_shape_vec(IxDyn(&[values.len() / classes, classes]), values.to_vec())
            .unwrap()
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_number_of_classes() {
        let loss = cross_entropy(&logits(&[2.0; 8], 4), &[1, 3], 0.0);
        assert!((loss.mean - 4.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_equals_central_differences() {
        let values = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4];
        let labels = [2, 0];
        for smoothing in [0.0, 0.1] {
            let loss = cross_entropy(&logits(&values, 3), &labels, smoothing);
            for (i, &gradient) in loss.gradient.iter().enumerate() {
                let step = 1.0 / 1024.0;
                let at = |delta: f32| {
                    let mut moved = values;
                    moved[i] += delta;
                    cross_entropy(&logits(&moved, 3), &labels, smoothing).mean
                };
                let difference = (at(step) - at(-step)) / (2.0 * f64::from(step));
                // The difference's own error is of the order of step^2 (1e-6).
                assert!((difference - f64::from(gradient)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_nan_row_is_wrong() {
        let loss = cross_entropy(&logits(&[f32::NAN, 1.0], 2), &[1], 0.0);
        assert_eq!(loss.hits, [false]);
        assert!(loss.mean.is_nan());
    }

    #[test]
    fn the_first_of_equal_logits_is_predicted() {
        assert_eq!(predicted_class(&[1.0, 3.0, 3.0]), Some(1));
    }
}
