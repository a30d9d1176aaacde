//! Convolution in which each channel has a kernel of its own: sums over taps, plane by plane.
//!
//! Planes are padded first. Then all positions are computed as one run, together with the few columns
//! of no use that lie between one row of positions and the next.

use super::ConvShape;
use super::geometry::{Block, Correlation, ranges};
use super::pack::Kernel;
use super::stage::Stage;
use crate::copy::copy;
use crate::level;
use crate::scratch::{Scratch, with_scratch};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Planes that one part of the work takes.
const PLANES: usize = 16;
/// Positions that are computed before they are written.
const POSITIONS: usize = 2048;
/// Vectors of positions that are computed at a time.
const VECTORS: usize = 4;
/// Floats of so many vectors of any instruction set.
const MARGIN: usize = 64;
/// Taps whose gradients are summed at a time.
const TAPS: usize = 5;

/// Writes those values of `target` that lie at positions of the correlation, of one channel a group.
pub(super) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    kernel: &Kernel<'_>,
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    let stage = Stage::new(correlation, &block(correlation, 0));
    let plane = correlation.target_plane();
    target
        .par_chunks_mut(PLANES * plane)
        .enumerate()
        .for_each(|(part, target)| {
            with_scratch(|scratch| {
                level::dispatch(Planes {
                    correlation,
                    stage: &stage,
                    x,
                    kernel,
                    bias,
                    first: part * PLANES,
                    target,
                    scratch,
                });
            });
        });
}

/// All positions of one image.
fn block(correlation: &Correlation, image: usize) -> Block {
    Block {
        images: image..image + 1,
        rows: 0..correlation.axes[0].positions,
    }
}

/// Floats for `len` positions from a padded plane's start on, with what is read beyond them.
fn padded_len(stage: &Stage, len: usize) -> usize {
    stage.taps.iter().max().unwrap_or(&0) + len.max(stage.image_pixels()) + MARGIN
}

/// Some planes of the target.
struct Planes<'a> {
    correlation: &'a Correlation,
    stage: &'a Stage,
    x: &'a [f32],
    kernel: &'a Kernel<'a>,
    bias: Option<&'a [f32]>,
    /// Index of the first plane.
    first: usize,
    target: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Planes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (correlation, stage) = (self.correlation, self.stage);
        let row = stage.row();
        let [rows, columns] = [0, 1].map(|axis| correlation.axes[axis].positions);
        let [start_y, start_x] = correlation.target_starts;
        let [step_y, step_x] = correlation.target_steps;
        let rows_at_once = (POSITIONS / row).clamp(1, rows);
        let sums = self.scratch.sums.floats(rows_at_once * row + MARGIN);
        let planes = self.scratch.planes.floats(padded_len(stage, rows * row));
        planes.fill(0.0);
        let mut taps = Vec::with_capacity(stage.taps.len());
        let width = correlation.target[1];
        let targets = self.target.chunks_exact_mut(correlation.target_plane());
        for (index, target) in targets.enumerate() {
            let index = self.first + index;
            let channel = index % correlation.groups;
            let bias = self.bias.map_or(0.0, |bias| bias[channel]);
            let weights = self.kernel.of_channel(channel, stage.taps.len());
            taps.clear();
            taps.extend(weights.zip(stage.taps.iter().copied()));
            let block = block(correlation, index / correlation.groups);
            stage.fill(correlation, &block, channel..channel + 1, self.x, planes);
            for first in (0..rows).step_by(rows_at_once) {
                let n_rows = rows_at_once.min(rows - first);
                let planes = &planes[first * row..];
                sum_taps(simd, planes, &taps, bias, n_rows * row, sums);
                for (y, sums) in (first..first + n_rows).zip(sums.chunks_exact(row)) {
                    let start = (start_y + y * step_y) * width + start_x;
                    if step_x == 1 {
                        copy(&sums[..columns], &mut target[start..][..columns]);
                    } else {
                        let target = target[start..].iter_mut().step_by(step_x);
                        for (value, sum) in target.zip(&sums[..columns]) {
                            *value = *sum;
                        }
                    }
                }
            }
        }
    }
}

/// `sums[n] = bias + sum over taps of weight * planes[n + distance]` for `n` below `len`, and for some
/// more.
#[inline(always)]
fn sum_taps<S: Simd>(
    simd: S,
    planes: &[f32],
    taps: &[(f32, usize)],
    bias: f32,
    len: usize,
    sums: &mut [f32],
) {
    let width = VECTORS * S::F32_LANES;
    for first in (0..len).step_by(width) {
        let mut totals = [simd.splat_f32s(bias); VECTORS];
        for &(weight, distance) in taps {
            let weight = simd.splat_f32s(weight);
            let (values, _) = S::as_simd_f32s(&planes[first + distance..][..width]);
            for (total, value) in totals.iter_mut().zip(values) {
                *total = simd.mul_add_e_f32s(weight, *value, *total);
            }
        }
        let (sums, _) = S::as_mut_simd_f32s(&mut sums[first..][..width]);
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum = total;
        }
    }
}

/// Writes all of `dw`.
pub(super) fn gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let correlation = Correlation::forward(shape);
    let stage = Stage::new(&correlation, &block(&correlation, 0));
    dw.par_chunks_mut(correlation.taps())
        .enumerate()
        .for_each(|(channel, dw)| {
            with_scratch(|scratch| {
                level::dispatch(ChannelGradient {
                    correlation: &correlation,
                    stage: &stage,
                    x,
                    dy,
                    channel,
                    dw,
                    scratch,
                });
            });
        });
}

/// The gradient of one channel's kernel.
struct ChannelGradient<'a> {
    correlation: &'a Correlation,
    stage: &'a Stage,
    x: &'a [f32],
    dy: &'a [f32],
    channel: usize,
    dw: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for ChannelGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (correlation, stage) = (self.correlation, self.stage);
        let (row, columns) = (stage.row(), correlation.axes[1].positions);
        let plane = correlation.target_plane();
        let pixels = stage.image_pixels();
        // Images follow each other. Zeros between rows of `dy` leave out what is of no use.
        let joined = (POSITIONS / pixels).clamp(1, correlation.images);
        let dy = self.scratch.b.floats(joined * pixels + MARGIN);
        dy.fill(0.0);
        let planes = self
            .scratch
            .planes
            .floats(padded_len(stage, joined * pixels));
        planes.fill(0.0);
        let mut totals = vec![0.0_f64; self.dw.len()];
        for images in ranges(correlation.images, joined) {
            let len = (images.len() - 1) * pixels + correlation.axes[0].positions * row;
            // The last images may be fewer than those before.
            dy[len..].fill(0.0);
            for (image, target) in images.clone().zip(dy.chunks_exact_mut(pixels)) {
                let index = image * correlation.groups + self.channel;
                let source = self.dy[index * plane..][..plane].chunks_exact(columns);
                for (target, source) in target.chunks_exact_mut(row).zip(source) {
                    copy(source, &mut target[..columns]);
                }
            }
            let block = Block {
                images,
                rows: 0..correlation.axes[0].positions,
            };
            let channel = self.channel..self.channel + 1;
            stage.fill(correlation, &block, channel, self.x, planes);
            for (taps, totals) in stage.taps.chunks(TAPS).zip(totals.chunks_mut(TAPS)) {
                let mut distances = [0; TAPS];
                distances[..taps.len()].copy_from_slice(taps);
                let sums = products(simd, planes, distances, dy, len);
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += f64::from(sum);
                }
            }
        }
        for (dw, total) in self.dw.iter_mut().zip(totals) {
            *dw = total as f32;
        }
    }
}

/// For each distance, the sum of `planes[n + distance] * dy[n]` over `n` below `len` and some more.
#[inline(always)]
fn products<S: Simd>(
    simd: S,
    planes: &[f32],
    distances: [usize; TAPS],
    dy: &[f32],
    len: usize,
) -> [f32; TAPS] {
    let width = 2 * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); 2]; TAPS];
    for first in (0..len).step_by(width) {
        let (dy, _) = S::as_simd_f32s(&dy[first..][..width]);
        for (sums, distance) in sums.iter_mut().zip(distances) {
            let (values, _) = S::as_simd_f32s(&planes[first + distance..][..width]);
            for ((sum, value), dy) in sums.iter_mut().zip(values).zip(dy) {
                *sum = simd.mul_add_e_f32s(*value, *dy, *sum);
            }
        }
    }
    sums.map(|[a, b]| simd.reduce_sum_f32s(simd.add_f32s(a, b)))
}
