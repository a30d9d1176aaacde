//! The closed-form start of a head: ridge regression of one-hot labels on features.
//!
//! With centred features `X` `[images, features]` and labels `Y` `[images, classes]`:
//! `W = (X^T X + lambda m I)^-1 X^T Y`, `m` the mean of the diagonal of `X^T X`. Strength `lambda`
//! is chosen by validation accuracy, then the factor that turns the regression's outputs into
//! logits by validation cross-entropy. Of more features than [`MAX_SIDE`] the same solution is found as
//! `W = X^T (X X^T + lambda m images I)^-1 Y`, where the images are few; where they are many, too, the head starts at 0.

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

/// The longest side of a system that is solved.
const MAX_SIDE: usize = 8192;
/// The most features of all training images together that are kept.
const MAX_KEPT: usize = 1 << 28;

struct Sums {
    n: usize,
    x: Array1<f64>,
    y: Array1<f64>,
    xx: Array2<f64>,
    xy: Array2<f64>,
}

/// Solves for the head of `new` and returns the graph with it; as it is, where it is too large to be solved for.
pub(super) fn solve(
    engine: &dyn Engine,
    new: &NewHead,
    source: &Source<'_>,
    progress: &dyn Progress,
) -> Result<(Graph, Option<RidgeSummary>), TransferError> {
    let (classes, n_features) = (new.head.classes, new.n_features);
    let n_train = source.dataset.len(Split::Train);
    if n_train == 0 {
        return Err(TrainError::NoImages.into());
    }
    let is_wide = n_features > MAX_SIDE;
    if is_wide && (n_train > MAX_SIDE || n_train.saturating_mul(n_features) > MAX_KEPT) {
        progress.note(&format!(
            "the new head reads {n_features} features, too many to solve for with {n_train} images: it starts at 0, and training \
             alone makes it"
        ));
        return Ok((new.graph.clone(), None));
    }
    let side = if is_wide { 0 } else { n_features };
    let mut sums = Sums {
        n: 0,
        x: Array1::zeros(n_features),
        y: Array1::zeros(classes),
        xx: Array2::zeros((side, side)),
        xy: Array2::zeros((side, classes)),
    };
    let mut rows = Vec::new();
    let mut row_labels = Vec::new();
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
            if is_wide {
                rows.extend(x.iter().map(|&value| value as f32));
                row_labels.extend_from_slice(labels);
            } else {
                sums.xx += &x.t().dot(&x);
                sums.xy += &x.t().dot(&y);
            }
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
    let dual = match is_wide {
        true => Some(Dual::of(&sums, rows, &row_labels)?),
        false => None,
    };

    let mut best: Option<(Array2<f64>, Array1<f64>, RidgeSummary, f64)> = None;
    progress.begin("head", LAMBDAS.len() as u64);
    for lambda in LAMBDAS {
        progress.go_on().map_err(TrainError::from)?;
        let (weight, bias) = match &dual {
            Some(dual) => dual.regress(lambda)?,
            None => regress(&sums, lambda)?,
        };
        progress.advance(1);
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
    progress.end();
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
    Ok((graph, Some(summary)))
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

/// The system of as many unknowns as images.
struct Dual {
    mean_x: Array1<f64>,
    mean_y: Array1<f64>,
    /// Centred features `[images, features]`.
    x: Array2<f32>,
    /// Centred one-hot labels.
    y: Array2<f64>,
    /// The products of the images' features.
    xx: Array2<f64>,
}

impl Dual {
    /// `rows` hold the features of image after image.
    fn of(sums: &Sums, rows: Vec<f32>, labels: &[usize]) -> Result<Self, TransferError> {
        let n = sums.n as f64;
        let (mean_x, mean_y) = (&sums.x / n, &sums.y / n);
        let mut x = Array2::from_shape_vec((labels.len(), mean_x.len()), rows)
            .map_err(|e| TransferError::Ridge(e.to_string()))?;
        x -= &mean_x.mapv(|mean| mean as f32);
        let mut y = Array2::from_shape_fn((labels.len(), mean_y.len()), |(i, k)| {
            f64::from(u8::from(labels[i] == k))
        });
        y -= &mean_y;
        let xx = x.dot(&x.t()).mapv(f64::from);
        Ok(Self {
            mean_x,
            mean_y,
            x,
            y,
            xx,
        })
    }

    fn regress(&self, lambda: f64) -> Result<(Array2<f64>, Array1<f64>), TransferError> {
        // The mean square of a feature, times the number of images.
        let scale = self.xx.diag().sum() / self.mean_x.len() as f64;
        let ridge = lambda * scale.max(f64::MIN_POSITIVE);
        let coefficients = solve_positive(
            [self.y.nrows(), self.y.ncols()],
            |i, j| self.xx[[i, j]] + if i == j { ridge } else { 0.0 },
            |i, k| self.y[[i, k]],
        )
        .ok_or_else(|| {
            TransferError::Ridge("the products of images are not positive".to_owned())
        })?;
        let coefficients = coefficients.mapv(|value| value as f32);
        let weight = self.x.t().dot(&coefficients).mapv(f64::from);
        let bias = &self.mean_y - &self.mean_x.dot(&weight);
        Ok((weight, bias))
    }
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

    #[test]
    fn a_head_that_is_too_large_to_solve_for_stays_as_it_is() {
        let mut b = crate::graph::samples::Builder::new(1);
        let made = b.conv("conv", "x", [4500, 1, 3, 3], 1);
        let made = b.node("flat", crate::graph::Op::Flatten { axis: 1 }, &[&made]);
        let graph = b.output(&made);
        let ending = super::super::ending(&graph, 8, 8).unwrap();
        let new = super::super::with_new_head(&graph, &ending, 10, [8, 8]).unwrap();
        let dataset = crate::data::Dataset::digits(&crate::data::DataOptions::default()).unwrap();
        let source = Source {
            dataset: &dataset,
            preprocess: &crate::data::Preprocess::parse("unit", 8, 8, 1).unwrap(),
            batch_size: 64,
        };
        let engine = crate::exec::NativeEngine::new();
        let (graph, summary) = solve(&engine, &new, &source, &crate::progress::Silent).unwrap();
        assert_eq!((graph, summary), (new.graph, None));
    }

    #[test]
    fn both_systems_have_one_solution() {
        let x = Array2::from_shape_fn((6, 9), |(i, j)| ((i * 31 + j * 17) % 13) as f64 / 5.0 - 1.0);
        let labels = [0, 1, 2, 1, 0, 2];
        let mut y = Array2::<f64>::zeros((6, 3));
        labels
            .iter()
            .enumerate()
            .for_each(|(i, &k)| y[[i, k]] = 1.0);
        let sums = Sums {
            n: 6,
            x: x.sum_axis(Axis(0)),
            y: y.sum_axis(Axis(0)),
            xx: x.t().dot(&x),
            xy: x.t().dot(&y),
        };
        let rows = x.iter().map(|&value| value as f32).collect();
        let dual = Dual::of(&sums, rows, &labels).unwrap();
        for lambda in LAMBDAS {
            let (weight, bias) = regress(&sums, lambda).unwrap();
            let (other_weight, other_bias) = dual.regress(lambda).unwrap();
            let differences = (&weight - &other_weight)
                .into_iter()
                .chain(&bias - &other_bias);
            let largest = differences.fold(0.0, |largest: f64, d| largest.max(d.abs()));
            assert!(largest < 1e-4, "{lambda}: {largest}");
        }
    }
}
