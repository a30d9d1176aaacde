//! The closed-form start of a head: ridge regression of one-hot labels on features.
//!
//! With centred features `X` `[images, features]` and labels `Y` `[images, classes]`:
//! `W = (X^T X + lambda m I)^-1 X^T Y`, `m` the mean of the diagonal of `X^T X`. Strength `lambda`
//! is chosen by validation accuracy, then the factor that turns the regression's outputs into
//! logits by validation cross-entropy.

use super::{NewHead, TransferError};
use crate::data::{Augment, Order, Split, counted_batch};
use crate::decompose::solve_positive;
use crate::exec::{Engine, Request};
use crate::graph::Graph;
use crate::progress::Progress;
use crate::tensor::{Floats, Tensor};
use crate::train::{Source, TrainError, cross_entropy};
use ndarray::{ArcArray, Array1, Array2, Axis, IxDyn};
use serde::{Deserialize, Serialize};

/// How the head started.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RidgeSummary {
    /// The chosen strength, relative to the features' mean square.
    pub lambda: f64,
    /// The chosen factor of the logits.
    pub factor: f64,
    /// Validation accuracy of the start.
    pub val_top1: f64,
    /// Number of features.
    pub n_features: usize,
}

const LAMBDAS: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
const FACTORS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

struct Sums {
    n: usize,
    x: Array1<f64>,
    y: Array1<f64>,
    xx: Array2<f64>,
    xy: Array2<f64>,
}

/// Solves for the head of `new` and returns the graph with it.
pub(super) fn solve(
    engine: &dyn Engine,
    new: &NewHead,
    source: &Source<'_>,
    progress: &dyn Progress,
) -> Result<(Graph, RidgeSummary), TransferError> {
    let (classes, n_features) = (new.head.classes, new.n_features);
    let mut sums = Sums {
        n: 0,
        x: Array1::zeros(n_features),
        y: Array1::zeros(classes),
        xx: Array2::zeros((n_features, n_features)),
        xy: Array2::zeros((n_features, classes)),
    };
    let splits = [Split::Train, Split::Val];
    let total: usize = splits.iter().map(|&s| source.dataset.len(s)).sum();
    progress.begin("features", total as u64);
    features(
        engine,
        new,
        source,
        Split::Train,
        progress,
        &mut |x, labels| {
            let mut y = Array2::<f64>::zeros((labels.len(), classes));
            for (row, &label) in labels.iter().enumerate() {
                y[[row, label]] = 1.0;
            }
            sums.n += labels.len();
            sums.x += &x.sum_axis(Axis(0));
            sums.y += &y.sum_axis(Axis(0));
            sums.xx += &x.t().dot(&x);
            sums.xy += &x.t().dot(&y);
        },
    )?;
    let mut val: Vec<(Array2<f64>, Vec<usize>)> = Vec::new();
    features(
        engine,
        new,
        source,
        Split::Val,
        progress,
        &mut |x, labels| {
            val.push((x, labels.to_vec()));
        },
    )?;
    progress.end();
    if sums.n == 0 {
        return Err(TrainError::NoImages.into());
    }

    let mut best: Option<(Array2<f64>, Array1<f64>, RidgeSummary, f64)> = None;
    for lambda in LAMBDAS {
        let (weight, bias) = regress(&sums, lambda)?;
        for factor in FACTORS {
            let (top1, loss) = score(&val, &weight, &bias, factor);
            let better = best.as_ref().is_none_or(|(_, _, found, best_loss)| {
                top1 > found.val_top1 || (top1 == found.val_top1 && loss < *best_loss)
            });
            if better {
                let summary = RidgeSummary {
                    lambda,
                    factor,
                    val_top1: top1,
                    n_features,
                };
                best = Some((weight.clone(), bias.clone(), summary, loss));
            }
        }
    }
    let (weight, bias, summary, _) =
        best.ok_or_else(|| TransferError::Ridge("no strength was tried".to_owned()))?;
    let mut graph = new.graph.clone();
    let scaled = |values: &mut dyn Iterator<Item = &f64>| -> Vec<f32> {
        values.map(|v| (v * summary.factor) as f32).collect()
    };
    let weight = scaled(&mut weight.t().iter());
    let bias = scaled(&mut bias.iter());
    for (name, shape, values) in [
        (&new.weight, vec![classes, n_features], weight),
        (&new.bias, vec![classes], bias),
    ] {
        let array: Floats = ArcArray::from_shape_vec(IxDyn(&shape), values)
            .map_err(|e| TransferError::Ridge(e.to_string()))?;
        graph.initializers.insert(name.clone(), Tensor::F32(array));
    }
    Ok((graph, summary))
}

fn features(
    engine: &dyn Engine,
    new: &NewHead,
    source: &Source<'_>,
    split: Split,
    progress: &dyn Progress,
    take: &mut dyn FnMut(Array2<f64>, &[usize]),
) -> Result<(), TransferError> {
    let mut session = engine.session(&Request::evaluation(
        &new.graph,
        vec![new.head.features.clone()],
    ))?;
    for batch in source.batches(split, Order::Stored, Augment::None) {
        let batch = counted_batch(batch, progress).map_err(TrainError::from)?;
        let outputs = session.forward(&batch.images)?;
        let values: Vec<f64> = outputs[0].iter().map(|&v| f64::from(v)).collect();
        let x = Array2::from_shape_vec((batch.labels.len(), new.n_features), values)
            .map_err(|e| TransferError::Ridge(e.to_string()))?;
        take(x, &batch.labels);
    }
    Ok(())
}

fn regress(sums: &Sums, lambda: f64) -> Result<(Array2<f64>, Array1<f64>), TransferError> {
    let n = sums.n as f64;
    let (mean_x, mean_y) = (&sums.x / n, &sums.y / n);
    let d = mean_x.len();
    let centred = |i: usize, j: usize| sums.xx[[i, j]] / n - mean_x[i] * mean_x[j];
    let mean_square = (0..d).map(|i| centred(i, i)).sum::<f64>() / d as f64;
    let ridge = lambda * mean_square.max(f64::MIN_POSITIVE);
    let weight = solve_positive(
        [d, mean_y.len()],
        |i, j| centred(i, j) + if i == j { ridge } else { 0.0 },
        |i, k| sums.xy[[i, k]] / n - mean_x[i] * mean_y[k],
    )
    .ok_or_else(|| TransferError::Ridge("the second moment is not positive".to_owned()))?;
    let bias = &mean_y - &mean_x.dot(&weight);
    Ok((weight, bias))
}

fn score(
    val: &[(Array2<f64>, Vec<usize>)],
    weight: &Array2<f64>,
    bias: &Array1<f64>,
    factor: f64,
) -> (f64, f64) {
    let (mut correct, mut loss, mut n) = (0, 0.0, 0);
    for (x, labels) in val {
        let logits = (x.dot(weight) + bias) * factor;
        let logits = logits.mapv(|v| v as f32).into_dyn().into_shared();
        let found = cross_entropy(&logits, labels, 0.0);
        correct += found.hits.iter().filter(|&&hit| hit).count();
        loss += found.mean * labels.len() as f64;
        n += labels.len();
    }
    let n = n.max(1) as f64;
    (correct as f64 / n, loss / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With orthogonal, centred features the solution is `x_i . y / (|x_i|^2 + n lambda m)`.
    #[test]
    fn orthogonal_features_give_the_closed_form() {
        let x = ndarray::array![[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]];
        let y = ndarray::array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]];
        let sums = Sums {
            n: 4,
            x: x.sum_axis(Axis(0)),
            y: y.sum_axis(Axis(0)),
            xx: x.t().dot(&x),
            xy: x.t().dot(&y),
        };
        let lambda = 0.1;
        let (weight, bias) = regress(&sums, lambda).unwrap();
        let ridge = lambda * (1.0 + 4.0) / 2.0;
        for (i, mean_square) in [(0, 1.0), (1, 4.0)] {
            for k in 0..2 {
                let product: f64 = x.column(i).dot(&y.column(k)) / 4.0;
                let expected = product / (mean_square + ridge);
                assert!((weight[[i, k]] - expected).abs() < 1e-12);
            }
        }
        assert!(bias.iter().all(|b| (b - 0.5).abs() < 1e-12));
    }
}
