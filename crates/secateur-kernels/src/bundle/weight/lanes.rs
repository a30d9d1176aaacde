//! The gradient of the weight of a convolution of few channels. For each pair of an output and an input channel the
//! products of all images are summed lane by lane in a register. Nothing is turned; the channels of a tile are brought
//! together, as places are often a power of two apart, which few lines of a cache share.

use crate::bundle::SMALL;
use crate::bundle::block::{Block, Meeting};
use crate::bundle::geometry::Correlation;
use crate::conv::geometry::{ranges, shares};
use crate::elementwise;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Floats of all parts' sums where positions are divided.
const SUMS: usize = 1 << 20;
/// Images times positions of a block: its values of a tile's channels stay in the nearest cache for all taps.
const BLOCK: usize = 1024;
/// Outputs of a tile.
const OUTPUTS: usize = 4;
/// Channels of the input that stay in a core's own cache while all outputs meet them.
const CHANNELS: usize = 96;

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(super) fn gradient(correlation: &Correlation, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let blocks = Block::count(correlation, BLOCK);
    let count = (SUMS / dw.len().max(1)).min(blocks).clamp(1, PARTS);
    let tiles = correlation.groups * correlation.outputs.div_ceil(OUTPUTS);
    let outputs = tiles.div_ceil(PARTS.div_ceil(count)) * OUTPUTS;
    with_shared((count - 1) * dw.len(), |others| {
        let len = dw.len();
        let mut parts = Vec::new();
        let sums = std::iter::once(&mut *dw).chain(others.chunks_exact_mut(len));
        for (share, sums) in sums.enumerate() {
            let blocks = share * blocks / count..(share + 1) * blocks / count;
            parts.extend(divide(correlation, outputs, &blocks, sums));
        }
        parts.into_par_iter().for_each(|part| {
            with_scratch(|scratch| {
                level::dispatch(Work {
                    correlation,
                    x,
                    dy,
                    part,
                    scratch,
                });
            });
        });
        for other in others.chunks_exact(len) {
            elementwise::accumulate(dw, other);
        }
    });
}

/// Sums of some outputs of a group over some blocks of positions.
struct Part<'a> {
    group: usize,
    /// Outputs of the group.
    outputs: Range<usize>,
    blocks: Range<usize>,
    /// `[output, channel, tap]`
    sums: &'a mut [f32],
}

/// Parts of at most so many outputs.
fn divide<'a>(
    correlation: &Correlation,
    outputs: usize,
    blocks: &Range<usize>,
    sums: &'a mut [f32],
) -> Vec<Part<'a>> {
    let patch = correlation.channels * correlation.taps();
    let mut parts = Vec::new();
    let mut rest = sums;
    for group in 0..correlation.groups {
        for outputs in ranges(correlation.outputs, outputs) {
            let (sums, after) = rest.split_at_mut(outputs.len() * patch);
            rest = after;
            let blocks = blocks.clone();
            parts.push(Part {
                group,
                outputs,
                blocks,
                sums,
            });
        }
    }
    parts
}

struct Work<'a> {
    correlation: &'a Correlation,
    x: &'a [f32],
    dy: &'a [f32],
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let block = Block::new(self.correlation, BLOCK, S::F32_LANES);
        if block.is_joined() {
            return self.sum::<S, 1>(simd, block);
        }
        // A row as vectors.
        match self.correlation.images / S::F32_LANES {
            1 => self.sum::<S, 1>(simd, block),
            2 => self.sum::<S, 2>(simd, block),
            4 => self.sum::<S, 4>(simd, block),
            8 => self.sum::<S, 8>(simd, block),
            16 => self.sum::<S, 16>(simd, block),
            _ => self.sum::<S, 32>(simd, block),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn sum<S: Simd, const VECTORS: usize>(self, simd: S, mut block: Block) {
        let (c, part, scratch) = (self.correlation, self.part, self.scratch);
        let (taps, patch) = (c.taps(), c.channels * c.taps());
        // Sums, channels and an output leave few registers free; with one channel more sums would be kept in memory.
        let width = if S::REGISTER_COUNT >= 32 { 5 } else { 2 };
        part.sums.fill(0.0);
        for index in part.blocks {
            block.become_next(c, index);
            for channels in ranges(c.channels, CHANNELS) {
                let own_shares: Vec<Range<usize>> = shares(channels.len(), width).collect();
                let own_x = scratch.a.floats(block.places() * channels.len() * c.images);
                let first = part.group * c.channels + channels.start;
                block.gather_places(self.x, c.groups * c.channels, first, &own_shares, own_x);
                for outputs in shares(part.outputs.len(), OUTPUTS) {
                    let own_dy = scratch.planes.floats(block.rows_len() * outputs.len());
                    let first = part.group * c.outputs + part.outputs.start + outputs.start;
                    let range = first..first + outputs.len();
                    block.gather_points(self.dy, c.groups * c.outputs, range, own_dy);
                    for own in &own_shares {
                        let x = &own_x[own.start * block.places() * c.images..];
                        let first = outputs.start * patch + (channels.start + own.start) * taps;
                        for (tap, meetings) in block.meetings.iter().enumerate() {
                            let tile = Tile::<VECTORS> {
                                is_joined: block.is_joined(),
                                x,
                                dy: own_dy,
                                meetings,
                                sums: &mut part.sums[first + tap..],
                                patch,
                                taps,
                            };
                            tile.run(simd, outputs.len(), own.len());
                        }
                    }
                }
            }
        }
    }
}

/// Sums of some outputs and channels at one tap.
struct Tile<'a, const VECTORS: usize> {
    /// Whether a row has the images of two positions, in the one vector that it fills.
    is_joined: bool,
    /// `[place][channel]`, each value the images of a place.
    x: &'a [f32],
    /// `[row][output]`, each value as many vectors as a row fills.
    dy: &'a [f32],
    meetings: &'a [Meeting],
    /// An output's are `patch` floats apart, a channel's `taps`.
    sums: &'a mut [f32],
    patch: usize,
    taps: usize,
}

impl<const VECTORS: usize> Tile<'_, VECTORS> {
    /// Adds to the sums of so many outputs and channels.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, outputs: usize, channels: usize) {
        macro_rules! run {
            ($($outputs:literal: $($channels:literal)*;)*) => {
                match (outputs, channels) {
                    $($(($outputs, $channels) => simd.vectorize(
                        #[inline(always)]
                        || self.compute::<S, $outputs, $channels>(simd),
                    ),)*)*
                    _ => unreachable!("no tile has {outputs} outputs and {channels} channels"),
                }
            };
        }
        if S::REGISTER_COUNT >= 32 {
            run!(1: 1 2 3 4 5; 2: 1 2 3 4 5; 3: 1 2 3 4 5; 4: 1 2 3 4 5;);
        } else {
            run!(1: 1 2; 2: 1 2; 3: 1 2; 4: 1 2;);
        }
    }

    #[inline(always)]
    fn compute<S: Simd, const OUTPUTS: usize, const CHANNELS: usize>(self, simd: S) {
        let sums = if self.is_joined {
            self.of_halves::<S, OUTPUTS, CHANNELS>(simd)
        } else {
            self.of_vectors::<S, OUTPUTS, CHANNELS>(simd)
        };
        for (output, sums) in sums.iter().enumerate() {
            for (channel, sum) in sums.iter().enumerate() {
                self.sums[output * self.patch + channel * self.taps] += simd.reduce_sum_f32s(*sum);
            }
        }
    }

    #[inline(always)]
    fn of_vectors<S: Simd, const OUTPUTS: usize, const CHANNELS: usize>(
        &self,
        simd: S,
    ) -> [[S::f32s; CHANNELS]; OUTPUTS] {
        let (x, dy) = (rows::<S, VECTORS>(self.x), rows::<S, VECTORS>(self.dy));
        let mut sums = [[simd.splat_f32s(0.0); CHANNELS]; OUTPUTS];
        for meeting in self.meetings {
            // Nothing in this loop may fail, or the sums would be kept in memory for whoever sees that.
            let x = at::<_, CHANNELS>(x, meeting.places[0]);
            let dy = at::<_, OUTPUTS>(dy, meeting.row);
            if let (Some(x), Some(dy)) = (x, dy) {
                for vector in 0..VECTORS {
                    for (sums, dy) in sums.iter_mut().zip(dy) {
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = simd.mul_add_e_f32s(dy[vector], x[vector], *sum);
                        }
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn of_halves<S: Simd, const OUTPUTS: usize, const CHANNELS: usize>(
        &self,
        simd: S,
    ) -> [[S::f32s; CHANNELS]; OUTPUTS] {
        let (x, dy) = (self.x.as_chunks::<SMALL>().0, rows::<S, 1>(self.dy));
        let mut sums = [[simd.splat_f32s(0.0); CHANNELS]; OUTPUTS];
        for meeting in self.meetings {
            // Nothing in this loop may fail either.
            let [a, b] = meeting.places.map(
                #[inline(always)]
                |place| at::<_, CHANNELS>(x, place),
            );
            if let (Some(a), Some(b), Some(dy)) = (a, b, at::<_, OUTPUTS>(dy, meeting.row)) {
                for channel in 0..CHANNELS {
                    let x = [a[channel], b[channel]];
                    let x = S::as_simd_f32s(x.as_flattened()).0.first();
                    if let Some(x) = x {
                        for (sums, [dy]) in sums.iter_mut().zip(dy) {
                            sums[channel] = simd.mul_add_e_f32s(*dy, *x, sums[channel]);
                        }
                    }
                }
            }
        }
        sums
    }
}

/// Values of so many vectors.
#[inline(always)]
fn rows<S: Simd, const VECTORS: usize>(values: &[f32]) -> &[[S::f32s; VECTORS]] {
    S::as_simd_f32s(values).0.as_chunks().0
}

/// The channels of a row.
#[inline(always)]
fn at<T, const CHANNELS: usize>(values: &[T], row: usize) -> Option<&[T; CHANNELS]> {
    values.get(row * CHANNELS..)?.first_chunk()
}
