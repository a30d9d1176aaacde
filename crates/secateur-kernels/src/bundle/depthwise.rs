//! Depthwise convolution of bundles: one weight for the values of all images.

use super::SMALL;
use super::geometry::{Correlation, Pair};
use crate::conv::Finish;
use crate::level::dispatch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Positions of a part.
const POSITIONS: usize = 16;
/// Channels whose sums are gathered together.
const CHANNELS: usize = 8;
/// Positions after which sums are emptied, before they grow so large that small terms are lost.
const RUN: usize = 256;

/// `target[position][channel] = bias + sum over taps of w[channel][tap] * x[place][channel]`.
pub(super) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    w: &[f32],
    Finish { bias, line }: Finish<'_>,
    target: &mut [f32],
) {
    let lanes = lanes(correlation, w, bias);
    target
        .par_chunks_mut(POSITIONS * correlation.groups * correlation.images)
        .enumerate()
        .for_each(|(part, target)| {
            dispatch(Forward {
                correlation,
                first: part * POSITIONS,
                x,
                w,
                bias,
                lanes: &lanes,
                target: &mut *target,
            });
            // The part is in the cache.
            if let Some(line) = line {
                line.apply(correlation.images, target);
            }
        });
}

/// For each value of a position its bias and its weight at each tap, `[bias and taps][value]`, if a bundle may be
/// smaller than a register.
fn lanes(correlation: &Correlation, w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut lanes = Vec::new();
    if correlation.images <= SMALL {
        let (images, taps) = (correlation.images, correlation.taps());
        let mut push = |value: f32| lanes.extend(std::iter::repeat_n(value, images));
        for channel in 0..correlation.groups {
            push(bias.map_or(0.0, |bias| bias[channel]));
        }
        for tap in 0..taps {
            w[tap..].iter().step_by(taps).for_each(|w| push(*w));
        }
    }
    lanes
}

/// Some positions of all channels.
struct Forward<'a> {
    correlation: &'a Correlation,
    /// The first position, over all bundles.
    first: usize,
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    /// See [`lanes`].
    lanes: &'a [f32],
    target: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.correlation.images < S::F32_LANES {
            self.across_channels(simd);
        } else {
            self.by_channel(simd);
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn by_channel<S: Simd>(self, simd: S) {
        let (channels, taps) = (self.correlation.groups, self.correlation.taps());
        let vectors = self.correlation.images / S::F32_LANES;
        let image = self.correlation.places() * channels * vectors;
        let (x, _) = S::as_simd_f32s(self.x);
        let (target, _) = S::as_mut_simd_f32s(self.target);
        let positions = self.correlation.positions();
        let mut pairs: Vec<Pair> = Vec::new();
        for (point, target) in target.chunks_exact_mut(channels * vectors).enumerate() {
            let point = self.first + point;
            let x = &x[point / positions * image..][..image];
            pairs.clear();
            pairs.extend(self.correlation.pairs(point % positions));
            for (channel, target) in target.chunks_exact_mut(vectors).enumerate() {
                let w = &self.w[channel * taps..][..taps];
                let start = self.bias.map_or(0.0, |bias| bias[channel]);
                for (vector, target) in target.iter_mut().enumerate() {
                    let mut sum = simd.splat_f32s(start);
                    for pair in &pairs {
                        let x = x[(pair.place * channels + channel) * vectors + vector];
                        sum = simd.mul_add_e_f32s(simd.splat_f32s(w[pair.tap]), x, sum);
                    }
                    *target = sum;
                }
            }
        }
    }

    /// A register holds the values of several channels.
    #[inline(always)]
    fn across_channels<S: Simd>(self, simd: S) {
        let row = self.correlation.groups * self.correlation.images;
        let positions = self.correlation.positions();
        let image = self.correlation.places() * row;
        let (bias, w) = self.lanes.split_at(row);
        let (bias, last_bias) = S::as_simd_f32s(bias);
        let mut pairs = Vec::new();
        for (point, target) in self.target.chunks_exact_mut(row).enumerate() {
            let point = self.first + point;
            let x = &self.x[point / positions * image..][..image];
            pairs.clear();
            pairs.extend(self.correlation.pairs(point % positions).map(|pair| {
                let (x, w) = (&x[pair.place * row..][..row], &w[pair.tap * row..][..row]);
                (S::as_simd_f32s(x), S::as_simd_f32s(w))
            }));
            let (target, last) = S::as_mut_simd_f32s(target);
            for (index, (target, bias)) in target.iter_mut().zip(bias).enumerate() {
                let mut sum = *bias;
                for ((x, _), (w, _)) in &pairs {
                    sum = simd.mul_add_e_f32s(w[index], x[index], sum);
                }
                *target = sum;
            }
            for (index, (target, bias)) in last.iter_mut().zip(last_bias).enumerate() {
                let products = pairs.iter().map(|((_, x), (_, w))| w[index] * x[index]);
                *target = bias + products.sum::<f32>();
            }
        }
    }
}

/// `dw[channel][tap] = sum over positions and images of dy[position][channel] * x[place][channel]`.
pub(super) fn gradient(correlation: &Correlation, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let taps = correlation.taps();
    dw.par_chunks_mut(CHANNELS * taps)
        .enumerate()
        .for_each(|(part, dw)| {
            let first = part * CHANNELS;
            let sums = dispatch(Gradient {
                correlation,
                channels: first..first + dw.len() / taps,
                x,
                dy,
            });
            for (dw, sum) in dw.iter_mut().zip(sums) {
                *dw = sum as f32;
            }
        });
}

/// The sums of some channels, over all positions.
struct Gradient<'a> {
    correlation: &'a Correlation,
    channels: Range<usize>,
    x: &'a [f32],
    dy: &'a [f32],
}

impl WithSimd for Gradient<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        let (images, taps) = (self.correlation.images, self.correlation.taps());
        let row = self.correlation.groups * images;
        let own = self.channels.start * images..self.channels.end * images;
        let image = self.correlation.places() * row;
        let positions = self.correlation.positions();
        // `[tap][channel][image]`
        let mut sums = vec![0.0; taps * own.len()];
        let mut totals = vec![0.0; self.channels.len() * taps];
        for (run, dy) in self.dy.chunks(RUN * row).enumerate() {
            for (point, dy) in dy.chunks_exact(row).enumerate() {
                let point = run * RUN + point;
                let x = &self.x[point / positions * image..][..image];
                let dy = &dy[own.clone()];
                for pair in self.correlation.pairs(point % positions) {
                    let x = &x[pair.place * row..][own.clone()];
                    let sums = &mut sums[pair.tap * own.len()..][..own.len()];
                    for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                        *sum += x * dy;
                    }
                }
            }
            for (index, sums) in sums.chunks_exact_mut(images).enumerate() {
                let (tap, channel) = (index / self.channels.len(), index % self.channels.len());
                totals[channel * taps + tap] += f64::from(sums.iter().sum::<f32>());
                sums.fill(0.0);
            }
        }
        totals
    }
}
