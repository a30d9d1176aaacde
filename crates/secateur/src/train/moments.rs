//! What the data say of a network's layers: moments of their outputs and of the loss gradients there
//! (docs/method.md, section 4), in one pass over some training images.

use super::{Source, TrainError, cross_entropy, training_batches};
use crate::decompose::OutputMoments;
use crate::exec::{BatchNormMode, Engine, Keep, Of, Request, Statistic, Tap};
use crate::graph::{FactoredKind, FactoredLayer, Graph};
use crate::progress::Progress;
use crate::tensor::Floats;
use ndarray::{ArcArray, Array2, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of which loss gradients are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Curvature {
    /// Cross-entropy against the labels of the data (empirical Fisher).
    Labels,
    /// Cross-entropy against the network's own prediction `p`, in expectation over the classes (true
    /// Fisher): needs no labels. The gradient of an image's logits is `B e` with
    /// `B B^T = diag(p) - p p^T` and random signs `e`, which has the second moment that drawing a
    /// label has, at less variance, as every class takes part in every draw.
    Model,
    /// Half the squared change of the outputs: needs no labels and no classifier. Random signs again.
    /// All images count alike, while the gradients of cross-entropy vanish on those that the network is
    /// sure of, which are most of the images that it was trained on.
    #[default]
    Output,
}

/// How to gather.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentsConfig {
    /// Training images, drawn with `seed`.
    pub images: usize,
    /// The loss.
    pub curvature: Curvature,
    /// Seed of the images and of the random signs.
    pub seed: u64,
}

/// A value whose moments are wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Its name.
    pub value: String,
    /// Where its channels are.
    pub channels: ChannelAxis,
}

impl Wanted {
    /// `value`, one that a node of `layer` makes.
    #[must_use]
    pub fn of_layer(layer: &FactoredLayer, value: &str) -> Self {
        Self {
            value: value.to_owned(),
            channels: match layer.kind {
                FactoredKind::Convolution => ChannelAxis::Second,
                FactoredKind::Dense => ChannelAxis::Last,
            },
        }
    }
}

/// The axis of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChannelAxis {
    /// Axis 1, as convolutions have it.
    Second,
    /// The last one, as dense layers have it.
    Last,
}

/// The moments of each of the `values` in `graph`, by name, whose loss is one of `outputs`: the class
/// scores, or, with [`Curvature::Output`], any. Several outputs count alike, each in units of its own
/// standard deviation. A value that they do not depend on has a gradient of zeros.
///
/// # Errors
/// [`TrainError`] where the graph does not run or an image cannot be read.
pub fn output_moments(
    engine: &dyn Engine,
    graph: &Graph,
    outputs: &[String],
    values: &[Wanted],
    source: &Source<'_>,
    config: &MomentsConfig,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, OutputMoments>, TrainError> {
    let tap = |wanted: &Wanted, of| Tap {
        value: wanted.value.clone(),
        of,
        keep: match wanted.channels {
            ChannelAxis::Second => Keep::SecondMoment,
            ChannelAxis::Last => Keep::LastSecondMoment,
        },
    };
    let sides = [Of::Activation, Of::Gradient];
    let taps = values
        .iter()
        .flat_map(|value| sides.map(|of| tap(value, of)))
        .collect();
    let statistics = gathered(engine, graph, outputs, taps, source, config, 0, progress)?;
    let moments = |value: &Wanted| {
        let activation = statistics.get(&tap(value, Of::Activation))?;
        let Statistic::SecondMoment { images, count, .. } = activation else {
            return None;
        };
        let (mean, covariance) = activation.mean_and_covariance()?;
        let positions = (*count).max(1) as f64 / (*images).max(1) as f64;
        let covariance = covariance * positions;
        let gradient = statistics.get(&tap(value, Of::Gradient));
        let gradient = gradient.and_then(Statistic::second_moment);
        let gradient = gradient.unwrap_or_else(|| Array2::zeros(covariance.dim()));
        let moments = OutputMoments {
            mean,
            positions,
            covariance,
            gradient,
        };
        Some((value.value.clone(), moments))
    };
    Ok(values.iter().filter_map(moments).collect())
}

/// What it costs to put its mean in the place of each channel of the `values`, by name: the mean over images of the square
/// of `sum over positions of (value - mean) gradient`, the change of the loss to second order (Gauss-Newton). Each value
/// comes with its channels' means. Losses and their units are those of [`output_moments`].
///
/// # Errors
/// [`TrainError`] where the graph does not run or an image cannot be read.
pub fn channel_costs(
    engine: &dyn Engine,
    graph: &Graph,
    outputs: &[String],
    values: &[(Wanted, Vec<f64>)],
    source: &Source<'_>,
    config: &MomentsConfig,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Vec<f64>>, TrainError> {
    let tap = |wanted: &Wanted| Tap {
        value: wanted.value.clone(),
        of: Of::Gradient,
        keep: match wanted.channels {
            ChannelAxis::Second => Keep::Gates,
            ChannelAxis::Last => Keep::LastGates,
        },
    };
    let taps = values.iter().map(|(wanted, _)| tap(wanted)).collect();
    // Other signs than those that the directions were made by, which would flatter them.
    let statistics = gathered(engine, graph, outputs, taps, source, config, 1, progress)?;
    let costs = |(wanted, means): &(Wanted, Vec<f64>)| {
        let Statistic::Gates(gates) = statistics.get(&tap(wanted))? else {
            return None;
        };
        Some((wanted.value.clone(), gates.costs(means)?))
    };
    Ok(values.iter().filter_map(costs).collect())
}

/// What `taps` gather in one pass over training images, with the gradients of `config`, whose random signs are those of
/// `stream`.
#[allow(clippy::too_many_arguments)]
fn gathered(
    engine: &dyn Engine,
    graph: &Graph,
    outputs: &[String],
    taps: Vec<Tap>,
    source: &Source<'_>,
    config: &MomentsConfig,
    stream: u64,
    progress: &dyn Progress,
) -> Result<BTreeMap<Tap, Statistic>, TrainError> {
    let mut session = engine.session(&Request {
        graph,
        outputs: outputs.to_vec(),
        trainable: Vec::new(),
        taps,
        batch_norm: BatchNormMode::Stored,
    })?;
    let batches = training_batches(source, config.images, config.seed)?;
    let n_images = batches.iter().map(|batch| batch.labels.len() as u64).sum();
    progress.begin("statistics", n_images);
    let mut signs = ChaCha8Rng::seed_from_u64(config.seed);
    signs.set_stream(stream);
    let mut scales: Option<Vec<f32>> = None;
    for batch in &batches {
        progress.go_on()?;
        session.step(&batch.images, &mut |outputs| {
            let scales = scales.get_or_insert_with(|| in_own_units(outputs));
            let gradient = |(output, &scale): (&Floats, &f32)| {
                let own = seed_gradient(output, &batch.labels, config.curvature, &mut signs);
                own.mapv(|value| scale * value).into_shared()
            };
            outputs.iter().zip(scales.iter()).map(gradient).collect()
        })?;
        progress.advance(batch.labels.len() as u64);
    }
    progress.end();
    Ok(session.take_statistics())
}

/// What the gradients of several outputs are multiplied by, so that each has the weight of its spread:
/// one over its standard deviation and over the root of its length. A single output is taken as it is.
fn in_own_units(outputs: &[Floats]) -> Vec<f32> {
    let scale = |output: &Floats| {
        let n = output.len().max(1) as f64;
        let values = || output.iter().map(|&value| f64::from(value));
        let mean = values().sum::<f64>() / n;
        let spread = values().map(|value| (value - mean).powi(2)).sum::<f64>();
        // A single value has no spread: its size stands in.
        let squares = values().map(|value| value * value).sum::<f64>();
        let spread = if spread > 0.0 { spread } else { squares };
        if spread > 0.0 && spread.is_finite() {
            (1.0 / spread.sqrt()) as f32
        } else {
            0.0
        }
    };
    match outputs {
        [_] => vec![1.0],
        outputs => outputs.iter().map(scale).collect(),
    }
}

/// The gradient of each image's own loss with respect to its logits, not divided by the batch size.
fn seed_gradient(
    logits: &Floats,
    labels: &[usize],
    curvature: Curvature,
    signs: &mut ChaCha8Rng,
) -> Floats {
    let n_images = labels.len().max(1);
    if curvature == Curvature::Labels {
        let mean_gradient = cross_entropy(logits, labels, 0.0).gradient;
        return mean_gradient
            .mapv(|value| value * n_images as f32)
            .into_shared();
    }
    let n_classes = (logits.len() / n_images).max(1);
    let values: Vec<f32> = logits.iter().copied().collect();
    let mut gradient = Vec::with_capacity(values.len());
    for row in values.chunks(n_classes) {
        let sign: Vec<f64> = row
            .iter()
            .map(|_| if signs.random::<bool>() { 1.0 } else { -1.0 })
            .collect();
        if curvature == Curvature::Output {
            gradient.extend(sign.iter().map(|&sign| sign as f32));
            continue;
        }
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f64> = row.iter().map(|&v| f64::from(v - largest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let root = |exp: &f64| (exp / sum).sqrt();
        let along: f64 = exps
            .iter()
            .zip(&sign)
            .map(|(exp, sign)| root(exp) * sign)
            .sum();
        gradient.extend(
            exps.iter()
                .zip(&sign)
                .map(|(exp, sign)| (root(exp) * sign - exp / sum * along) as f32),
        );
    }
    let shape = IxDyn(logits.shape());
    ArcArray::from_shape_vec(shape.clone(), gradient).unwrap_or_else(|_| ArcArray::zeros(shape))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::{DataOptions, Dataset, Preprocess};
    use crate::exec::{BurnEngine, NativeEngine};
    use crate::graph::samples::{Builder, conv_and_batch_norm};
    use crate::graph::{ConvAttrs, Op};
    use crate::tensor::Tensor;

    fn floats(shape: &[usize], values: &[f32]) -> Floats {
        ArcArray::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
    }

    #[test]
    fn random_signs_have_the_second_moment_of_the_fisher_matrix() {
        let logits = floats(&[1, 3], &[1.0, 0.0, -2.0]);
        let exps = [1.0_f64.exp(), 1.0, (-2.0_f64).exp()];
        let p = exps.map(|exp| exp / exps.iter().sum::<f64>());
        let mut signs = ChaCha8Rng::seed_from_u64(1);
        let (mut moment, draws) = ([[0.0; 3]; 3], 20_000);
        for _ in 0..draws {
            let gradient = seed_gradient(&logits, &[0], Curvature::Model, &mut signs);
            for i in 0..3 {
                for j in 0..3 {
                    moment[i][j] +=
                        f64::from(gradient[[0, i]] * gradient[[0, j]]) / f64::from(draws);
                }
            }
        }
        for i in 0..3 {
            for j in 0..3 {
                let fisher = if i == j { p[i] } else { 0.0 } - p[i] * p[j];
                assert!((moment[i][j] - fisher).abs() < 0.01, "{moment:?}");
            }
        }
    }

    #[test]
    fn several_outputs_have_the_weight_of_their_spread() {
        // Deviations of 1 and 100 from the mean, four values each.
        let quiet = floats(&[2, 2], &[1.0, -1.0, 1.0, -1.0]);
        let loud = quiet.mapv(|value| 100.0 * value + 7.0).into_shared();
        let flat = floats(&[1], &[4.0]);
        let scales = in_own_units(&[quiet.clone(), loud, flat]);
        assert!((scales[0] - 0.5).abs() < 1e-6 && (scales[1] - 0.005).abs() < 1e-8);
        assert_eq!(scales[2], 0.25);
        assert_eq!(in_own_units(&[quiet]), [1.0]);
    }

    #[test]
    fn labels_give_the_gradient_of_each_images_own_loss() {
        let logits = floats(&[2, 2], &[0.0, 0.0, 3.0_f32.ln(), 0.0]);
        let mut signs = ChaCha8Rng::seed_from_u64(1);
        let gradient = seed_gradient(&logits, &[0, 1], Curvature::Labels, &mut signs);
        let want = [-0.5, 0.5, 0.75, -0.75];
        assert!(
            gradient
                .iter()
                .zip(want)
                .all(|(got, want)| (got - want).abs() < 1e-6)
        );
    }

    fn digits() -> (Dataset, Preprocess) {
        let options = DataOptions {
            limit: Some(120),
            ..DataOptions::default()
        };
        let preprocess = Preprocess::parse("unit", 8, 8, 1).unwrap();
        (Dataset::digits(&options).unwrap(), preprocess)
    }

    fn source((dataset, preprocess): &(Dataset, Preprocess)) -> Source<'_> {
        Source {
            dataset,
            preprocess,
            batch_size: 16,
        }
    }

    #[test]
    fn a_channel_of_a_linear_network_costs_what_its_mean_in_its_place_changes() {
        let digits = digits();
        let source = source(&digits);
        // Two channels, each weighed at every position, summed to one output: nothing is left to chance.
        let weights: Vec<f32> = (0..128)
            .map(|i| ((i * 7) % 13) as f32 / 6.0 - 1.0)
            .collect();
        let mut b = Builder::new(1);
        let made = b.conv("conv", "x", [2, 1, 1, 1], 1);
        let summed = b.conv("sum", &made, [1, 2, 8, 8], 1);
        let mut graph = b.output(&summed);
        for node in &mut graph.nodes {
            if let Op::Conv(attrs) = &mut node.op {
                *attrs = ConvAttrs::default();
            }
        }
        let stored = [
            ("conv.weight", floats(&[2, 1, 1, 1], &[1.0, -0.5])),
            ("sum.weight", floats(&[1, 2, 8, 8], &weights)),
        ];
        for (name, values) in stored {
            graph
                .initializers
                .insert(name.to_owned(), Tensor::F32(values));
        }
        let config = MomentsConfig {
            images: 64,
            curvature: Curvature::Output,
            seed: 4,
        };
        let means = [0.3, -0.1];
        let mut want = [0.0; 2];
        let images = training_batches(&source, 64, 4).unwrap();
        for image in images.iter().flat_map(|batch| batch.images.outer_iter()) {
            for (c, want) in want.iter_mut().enumerate() {
                let change = |(at, &pixel): (usize, &f32)| {
                    let value = f64::from(pixel) * [1.0, -0.5][c] - means[c];
                    value * f64::from(weights[64 * c + at])
                };
                *want += image.iter().enumerate().map(change).sum::<f64>().powi(2) / 64.0;
            }
        }
        let engines: [&dyn Engine; 2] = [&NativeEngine::new(), &BurnEngine::new()];
        for engine in engines {
            let wanted = Wanted {
                value: made.clone(),
                channels: ChannelAxis::Second,
            };
            let values = [(wanted, means.to_vec())];
            let (outputs, progress) = ([summed.clone()], crate::progress::Silent);
            let costs = channel_costs(
                engine, &graph, &outputs, &values, &source, &config, &progress,
            );
            let costs = &costs.unwrap()[&made];
            for (got, want) in costs.iter().zip(want) {
                assert!((got - want).abs() < 1e-4 * want, "{got}, not {want}");
            }
        }
    }

    #[test]
    fn moments_are_those_of_all_images_and_positions() {
        let digits = digits();
        let source = source(&digits);
        // Two channels, the second twice the first: rank 1.
        let graph = conv_and_batch_norm(floats(&[2, 1, 1, 1], &[1.0, 2.0]), 0.0, 1.0);
        let outputs = [graph.outputs[0].name.clone()];
        let config = MomentsConfig {
            images: 64,
            curvature: Curvature::Output,
            seed: 4,
        };
        let images = training_batches(&source, 64, 4).unwrap();
        let pixels: Vec<f64> = images
            .iter()
            .flat_map(|batch| batch.images.iter().map(|&v| f64::from(v)))
            .collect();
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
        let engines: [&dyn Engine; 2] = [&NativeEngine::new(), &BurnEngine::new()];
        for engine in engines {
            let values = [Wanted {
                value: "conv".to_owned(),
                channels: ChannelAxis::Second,
            }];
            let progress = crate::progress::Silent;
            let found = output_moments(
                engine, &graph, &outputs, &values, &source, &config, &progress,
            )
            .unwrap();
            let found = &found["conv"];
            for i in 0..2 {
                let scale = (i + 1) as f64;
                assert!((found.mean[i] - scale * mean).abs() < 1e-5);
                for j in 0..2 {
                    let want = 64.0 * scale * (j + 1) as f64 * variance;
                    assert!((found.covariance[[i, j]] - want).abs() < 1e-4 * want);
                }
                // Batch norm divides by the stored deviation, sqrt(1 + eps).
                assert!((found.gradient[[i, i]] - 1.0).abs() < 1e-4);
            }
        }
    }
}
