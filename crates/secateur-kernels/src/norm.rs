//! Batch normalisation with the clamp after it: `y = clamp(x * factor + offset)`, channel by channel, on values
//! `[images, channels, positions]` or on bundles, as in [`crate::channel`].

use crate::Clamp;
use crate::channel;
use std::ops::Range;

/// What a normalisation does to each channel.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Factor of each channel.
    pub factor: &'a [f32],
    /// Offset of each channel.
    pub offset: &'a [f32],
    /// What is done to the result.
    pub clamp: Clamp,
}

impl<'a> Line<'a> {
    /// The same for some of the channels.
    pub(crate) fn of(self, channels: Range<usize>) -> Self {
        Self {
            factor: &self.factor[channels.clone()],
            offset: &self.offset[channels],
            clamp: self.clamp,
        }
    }

    /// Does it to values in their place.
    pub(crate) fn apply(self, positions: usize, y: &mut [f32]) {
        let channels = self.factor.len();
        channel::each_plane(
            positions,
            y,
            #[inline(always)]
            |plane, y| {
                let channel = plane % channels;
                let (factor, offset) = (self.factor[channel], self.offset[channel]);
                for y in y {
                    *y = self.clamp.value(*y * factor + offset);
                }
            },
        );
    }
}

/// Writes `y`.
///
/// # Panics
/// Where a length does not fit.
pub fn forward(line: Line<'_>, positions: usize, x: &[f32], y: &mut [f32]) {
    let clamp = line.clamp;
    channel::map(
        line.factor.len(),
        positions,
        x,
        y,
        [line.factor, line.offset],
        #[inline(always)]
        move |[factor, offset], x| clamp.value(x * factor + offset),
    );
}

/// For each channel the sums of `g` and of `g * x_hat`, `g` being `dy` where the clamp passes it and `x_hat` the
/// input less `mean`, times `steepness`: the gradients of bias and scale.
///
/// # Panics
/// Where a length does not fit.
#[must_use]
pub fn sums(
    line: Line<'_>,
    [mean, steepness]: [&[f32]; 2],
    positions: usize,
    dy: &[f32],
    x: &[f32],
) -> [Vec<f64>; 2] {
    let clamp = line.clamp;
    channel::sums(
        line.factor.len(),
        positions,
        dy,
        x,
        [line.factor, line.offset, mean, steepness],
        #[inline(always)]
        move |[factor, offset, mean, steepness], dy, x| {
            let g = clamp.backward(x * factor + offset, dy);
            [g, g * ((x - mean) * steepness)]
        },
    )
}

/// `dx = g * factor + x * by_x + constant`, `g` being `dy` where the clamp passes it. `factor`, `by_x` and `constant`
/// are those of the gradient.
///
/// # Panics
/// Where a length does not fit.
pub fn backward(
    line: Line<'_>,
    [factor, by_x, constant]: [&[f32]; 3],
    positions: usize,
    dy: &[f32],
    x: &[f32],
    dx: &mut [f32],
) {
    let clamp = line.clamp;
    channel::zip(
        line.factor.len(),
        positions,
        dy,
        x,
        dx,
        [line.factor, line.offset, factor, by_x, constant],
        #[inline(always)]
        move |[own, offset, factor, by_x, constant], dy, x| {
            let g = clamp.backward(x * own + offset, dy);
            g * factor + x * by_x + constant
        },
    );
}
