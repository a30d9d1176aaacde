//! Batch normalisation by stored statistics or by those of the batch (Ioffe & Szegedy 2015).

use super::fuse::Clamp;
use super::node::{Call, InputGradients, Saved};
use crate::exec::{BatchNormMode, ExecError};
use crate::tensor::Floats;
use secateur_kernels::channel;

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
    let (_, x) = call.input(0)?;
    let scale = vector(call, 1, channels)?;
    let bias = vector(call, 2, channels)?;
    let (mean, variance) = match call.batch_norm {
        BatchNormMode::Batch => channel::moments(channels, positions, x),
        BatchNormMode::Stored => stored(call, channels)?,
    };
    let line = Line::new(&mean, &variance, scale, bias, epsilon);
    let clamp = call.clamp;
    let mut y = call.buffer(x.len());
    channel::map(
        channels,
        positions,
        x,
        &mut y,
        #[inline(always)]
        |channel| {
            let line = line.of(channel);
            #[inline(always)]
            move |x| clamp.value(line(x))
        },
    );
    let saved = match call.batch_norm {
        BatchNormMode::Batch => Some(Saved::Moments(mean, variance)),
        BatchNormMode::Stored => None,
    };
    Ok((call.output(y)?, saved))
}

/// What a normalisation does to each channel.
struct Line {
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl Line {
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

    #[inline(always)]
    fn of(&self, channel: usize) -> impl Fn(f32) -> f32 + use<> {
        let (factor, offset) = (self.factor[channel], self.offset[channel]);
        #[inline(always)]
        move |x| x * factor + offset
    }

    /// From the gradient of what `clamp` makes of the line, and `x`, the gradient of the line.
    #[inline(always)]
    fn backward(&self, clamp: Clamp, channel: usize) -> impl Fn(f32, f32) -> f32 + use<> {
        let line = self.of(channel);
        #[inline(always)]
        move |gradient, x| clamp.backward(line(x), gradient)
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
    // The gradient of the activation that is computed with the normalisation.
    let line = Line::new(&mean, &variance, scale, vector(call, 2, channels)?, epsilon);
    let is_stored = call.batch_norm == BatchNormMode::Stored;
    let clamp = call.clamp;
    // Sums of dy and of dy * x_hat: the gradients of bias and scale.
    let are_summed = !is_stored || wanted.iter().skip(1).any(|wanted| *wanted);
    let (centre, steepness) = (narrow(&mean), narrow(&inverse));
    let [d_bias, d_scale] = match are_summed {
        true => channel::sums(
            channels,
            positions,
            dy,
            x,
            [&line.factor, &line.offset, &centre, &steepness],
            #[inline(always)]
            |[factor, offset, centre, steepness], g, x| {
                let g = clamp.backward(x * factor + offset, g);
                [g, g * ((x - centre) * steepness)]
            },
        ),
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
        let [factor, by_x, constant] = [&factor, &by_x, &constant].map(|v| narrow(v));
        channel::zip(
            channels,
            positions,
            dy,
            x,
            &mut dx,
            #[inline(always)]
            |channel| {
                let (factor, by_x) = (factor[channel], by_x[channel]);
                let (constant, through) = (constant[channel], line.backward(clamp, channel));
                #[inline(always)]
                move |g, x| through(g, x) * factor + x * by_x + constant
            },
        );
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
