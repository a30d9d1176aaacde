//! Batch normalisation by stored statistics or by those of the batch (Ioffe & Szegedy 2015).

use super::node::{Call, InputGradients, Saved};
use crate::exec::{BatchNormMode, ExecError};
use crate::tensor::Floats;
use secateur_kernels::norm::Line;
use secateur_kernels::{Clamp, channel, norm};

/// Sizes of the input: channels, and how many values of one channel stand together.
fn sizes(call: &Call<'_>) -> Result<(usize, usize), ExecError> {
    let shape = call.operands.shape(0)?;
    match shape {
        [_, channels, positions @ ..] => Ok((*channels, call.run(positions.iter().product()))),
        _ => Err(call.error(format!("shape {shape:?} has no channels"))),
    }
}

/// A vector of one number for each channel.
fn vector<'c>(call: &'c Call<'_>, slot: usize, channels: usize) -> Result<&'c [f32], ExecError> {
    let (_, vector) = call.input(slot)?;
    if vector.len() == channels {
        Ok(vector)
    } else {
        Err(call.error(format!("input {slot} does not fit {channels} channels")))
    }
}

pub(super) fn forward(call: &Call<'_>, epsilon: f32) -> Result<(Floats, Option<Saved>), ExecError> {
    let (channels, positions) = sizes(call)?;
    let saved = match call.batch_norm {
        BatchNormMode::Batch => {
            let (mean, variance) = channel::moments(channels, positions, call.input(0)?.1);
            Some(Saved::Moments(mean, variance))
        }
        BatchNormMode::Stored => None,
    };
    Ok((again(call, epsilon, saved.as_ref())?, saved))
}

/// The output, by the saved statistics of the batch, or by those that are stored.
pub(super) fn again(
    call: &Call<'_>,
    epsilon: f32,
    saved: Option<&Saved>,
) -> Result<Floats, ExecError> {
    let (_, positions) = sizes(call)?;
    let (_, x) = call.input(0)?;
    let affine = affine(call, epsilon, saved)?;
    let mut y = call.buffer(x.len());
    norm::forward(affine.line(call.clamp), positions, x, &mut y);
    call.output(y)
}

/// What a normalisation does to each channel, by the saved statistics of the batch, or by those that are stored.
pub(super) fn affine(
    call: &Call<'_>,
    epsilon: f32,
    saved: Option<&Saved>,
) -> Result<Affine, ExecError> {
    let (channels, _) = sizes(call)?;
    let (scale, bias) = (vector(call, 1, channels)?, vector(call, 2, channels)?);
    let affine = |mean: &[f64], variance: &[f64]| Affine::new(mean, variance, scale, bias, epsilon);
    match saved {
        Some(Saved::Moments(mean, variance)) => Ok(affine(mean, variance)),
        None => stored(call, channels).map(|(mean, variance)| affine(&mean, &variance)),
    }
}

/// Factor and offset of each channel.
pub(super) struct Affine {
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl Affine {
    fn new(mean: &[f64], variance: &[f64], scale: &[f32], bias: &[f32], epsilon: f32) -> Self {
        let factor: Vec<f64> = variance
            .iter()
            .zip(scale)
            .map(|(variance, scale)| f64::from(*scale) / (variance + f64::from(epsilon)).sqrt())
            .collect();
        let offset = (0..factor.len()).map(|c| (f64::from(bias[c]) - mean[c] * factor[c]) as f32);
        Self {
            offset: offset.collect(),
            factor: narrow(&factor),
        }
    }

    /// With what is done to the result.
    pub(super) fn line(&self, clamp: Clamp) -> Line<'_> {
        Line {
            factor: &self.factor,
            offset: &self.offset,
            clamp,
        }
    }
}

/// The stored mean and variance.
fn stored(call: &Call<'_>, channels: usize) -> Result<(Vec<f64>, Vec<f64>), ExecError> {
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
    Ok((
        wide(vector(call, 3, channels)?),
        wide(vector(call, 4, channels)?),
    ))
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

pub(super) fn backward(
    call: &Call<'_>,
    epsilon: f32,
    saved: Option<Saved>,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    let (channels, positions) = sizes(call)?;
    let (array, x) = call.input(0)?;
    let scale = vector(call, 1, channels)?;
    let dy = gradient
        .as_slice()
        .ok_or_else(|| call.error("a gradient is not in memory order"))?;
    let (mean, variance) = match (call.batch_norm, saved) {
        (BatchNormMode::Batch, Some(Saved::Moments(mean, variance))) => (mean, variance),
        (BatchNormMode::Batch, None) => channel::moments(channels, positions, x),
        (BatchNormMode::Stored, _) => stored(call, channels)?,
    };
    let inverse: Vec<f64> = variance
        .iter()
        .map(|variance| 1.0 / (variance + f64::from(epsilon)).sqrt())
        .collect();
    let bias = vector(call, 2, channels)?;
    let affine = Affine::new(&mean, &variance, scale, bias, epsilon);
    let line = affine.line(call.clamp);
    let is_stored = call.batch_norm == BatchNormMode::Stored;
    // Sums of dy and of dy * x_hat: the gradients of bias and scale.
    let are_summed = !is_stored || wanted.iter().skip(1).any(|wanted| *wanted);
    let [d_bias, d_scale] = match are_summed {
        true => {
            let statistics = [&narrow(&mean)[..], &narrow(&inverse)];
            norm::sums(line, statistics, positions, dy, x)
        }
        false => [vec![0.0; channels], vec![0.0; channels]],
    };
    let mut gradients: InputGradients = vec![None; wanted.len()];
    if wanted.first() == Some(&true) {
        let mut dx = call.buffer(x.len());
        let factor: Vec<f64> = (0..channels)
            .map(|c| f64::from(scale[c]) * inverse[c])
            .collect();
        // dx = factor * (dy - mean(dy) - x_hat * mean(dy * x_hat)), where the means are the batch's.
        let count = match is_stored {
            true => f64::INFINITY,
            false => (x.len() / channels.max(1)).max(1) as f64,
        };
        let by_x: Vec<f64> = (0..channels)
            .map(|c| -factor[c] * inverse[c] * d_scale[c] / count)
            .collect();
        let constant: Vec<f64> = (0..channels)
            .map(|c| -factor[c] * d_bias[c] / count - by_x[c] * mean[c])
            .collect();
        let factors = [&narrow(&factor)[..], &narrow(&by_x), &narrow(&constant)];
        norm::backward(line, factors, positions, dy, x, &mut dx);
        gradients[0] = Some(call.buffered(array.shape(), dx)?);
    }
    // Stored statistics are read like weights: y = scale (x - mean) / sqrt(variance + epsilon) + bias.
    let by_statistic = |sums: &[f64], factor: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let sums = sums.iter().enumerate();
        sums.map(|(c, sum)| -f64::from(scale[c]) * factor(c) * sum)
            .collect()
    };
    let d_mean = by_statistic(&d_bias, &|c| inverse[c]);
    let d_variance = by_statistic(&d_scale, &|c| 0.5 * inverse[c] * inverse[c]);
    let statistics = [(3, &d_mean), (4, &d_variance)];
    let statistics = statistics.into_iter().filter(|_| is_stored);
    for (slot, sums) in [(1, &d_scale), (2, &d_bias)].into_iter().chain(statistics) {
        if wanted.get(slot) == Some(&true) {
            gradients[slot] = Some(call.array(&[channels], narrow(sums))?);
        }
    }
    Ok(gradients)
}
