//! The gradient of the weight of a convolution. For each pair of an output and an input channel the products of
//! all images are summed lane by lane in a register. Nothing is turned; the channels of a tile are brought together,
//! as places are often a power of two apart, which few lines of a cache share.

use super::geometry::{Correlation, Pair};
use crate::conv::geometry::{ranges, shares};
use crate::elementwise;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Images times positions of a block: its values of a tile's channels stay in the nearest cache for all taps.
const BLOCK: usize = 1024;
/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Floats of all parts' sums where positions are divided.
const SUMS: usize = 1 << 20;
/// Outputs of a tile.
const OUTPUTS: usize = 4;
/// Channels of the input that stay in a core's own cache while all outputs meet them.
const CHANNELS: usize = 96;

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(super) fn gradient(correlation: &Correlation, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let points = correlation.bundles * correlation.positions();
    let blocks = points.div_ceil(block_len(correlation));
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

/// Positions of a block.
fn block_len(correlation: &Correlation) -> usize {
    (BLOCK / correlation.images).max(1)
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
        // Images of a bundle as vectors.
        match self.correlation.images / S::F32_LANES {
            1 => self.sum::<S, 1>(simd),
            2 => self.sum::<S, 2>(simd),
            4 => self.sum::<S, 4>(simd),
            8 => self.sum::<S, 8>(simd),
            16 => self.sum::<S, 16>(simd),
            _ => self.sum::<S, 32>(simd),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn sum<S: Simd, const VECTORS: usize>(self, simd: S) {
        let (c, part, scratch) = (self.correlation, self.part, self.scratch);
        let (taps, patch) = (c.taps(), c.channels * c.taps());
        let x = Rows::<S, VECTORS>::new(self.x, c.groups * c.channels);
        let dy = Rows::<S, VECTORS>::new(self.dy, c.groups * c.outputs);
        // Sums, channels and an output leave few registers free; with one channel more sums would be kept in memory.
        let width = if S::REGISTER_COUNT >= 32 { 5 } else { 2 };
        part.sums.fill(0.0);
        let mut block = Block::new(c);
        for index in part.blocks {
            block.become_next(c, index);
            let (n_points, n_places) = (block.points.len(), block.places.len());
            for channels in ranges(c.channels, CHANNELS) {
                let own_x = scratch.a.floats(n_places * channels.len() * c.images);
                for own in shares(channels.len(), width) {
                    let target = &mut own_x[own.start * n_places * c.images..];
                    let first = part.group * c.channels + channels.start + own.start;
                    x.gather(block.places.iter().copied(), first, own.len(), target);
                }
                for outputs in shares(part.outputs.len(), OUTPUTS) {
                    let own_dy = scratch.planes.floats(n_points * outputs.len() * c.images);
                    let first = part.group * c.outputs + part.outputs.start + outputs.start;
                    dy.gather(block.points.clone(), first, outputs.len(), own_dy);
                    let dy = Rows::<S, VECTORS>::new(own_dy, outputs.len());
                    for own in shares(channels.len(), width) {
                        let own_x = &own_x[own.start * n_places * c.images..];
                        let x = Rows::<S, VECTORS>::new(own_x, own.len());
                        let first = outputs.start * patch + (channels.start + own.start) * taps;
                        for (tap, pairs) in block.pairs.iter().enumerate() {
                            let sums = &mut part.sums[first + tap..];
                            let tile = Tile {
                                x,
                                dy,
                                pairs,
                                sums,
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

/// Positions whose values meet those of the input before the next ones' turn.
struct Block {
    /// Positions, counted over all bundles.
    points: Range<usize>,
    /// What they read.
    places: Vec<usize>,
    /// For each tap the positions of the block, as `tap`, and the indices of the places that they read.
    pairs: Vec<Vec<Pair>>,
    /// For each place the block that read it last, and its index there.
    seen: Vec<(usize, usize)>,
}

impl Block {
    fn new(correlation: &Correlation) -> Self {
        Self {
            points: 0..0,
            places: Vec::new(),
            pairs: vec![Vec::new(); correlation.taps()],
            seen: vec![(usize::MAX, 0); correlation.bundles * correlation.places()],
        }
    }

    fn become_next(&mut self, correlation: &Correlation, index: usize) {
        self.places.clear();
        self.pairs.iter_mut().for_each(Vec::clear);
        let (positions, places) = (correlation.positions(), correlation.places());
        let len = block_len(correlation);
        self.points = index * len..((index + 1) * len).min(correlation.bundles * positions);
        for (position, point) in self.points.clone().enumerate() {
            let first = point / positions * places;
            for pair in correlation.pairs(point % positions) {
                let seen = &mut self.seen[first + pair.place];
                if seen.0 != index {
                    *seen = (index, self.places.len());
                    self.places.push(first + pair.place);
                }
                self.pairs[pair.tap].push(Pair {
                    tap: position,
                    place: seen.1,
                });
            }
        }
    }
}

/// Values `[place][channel]`, each as many vectors as the images of a bundle fill.
#[derive(Clone, Copy)]
struct Rows<'a, S: Simd, const VECTORS: usize> {
    values: &'a [[S::f32s; VECTORS]],
    /// Channels of a place.
    row: usize,
}

impl<'a, S: Simd, const VECTORS: usize> Rows<'a, S, VECTORS> {
    #[inline(always)]
    fn new(values: &'a [f32], row: usize) -> Self {
        let values = S::as_simd_f32s(values).0.as_chunks().0;
        Self { values, row }
    }

    /// The channels of a place.
    #[inline(always)]
    fn at<const N: usize>(&self, place: usize) -> Option<&[[S::f32s; VECTORS]; N]> {
        self.values.get(place * self.row..)?.first_chunk()
    }

    /// Writes `count` channels of places from `first` on.
    #[inline(always)]
    fn gather(
        &self,
        places: impl Iterator<Item = usize>,
        first: usize,
        count: usize,
        target: &mut [f32],
    ) {
        let (target, _) = S::as_mut_simd_f32s(target);
        let rows = target.as_chunks_mut().0.chunks_exact_mut(count);
        for (target, place) in rows.zip(places) {
            let source = &self.values[place * self.row + first..][..count];
            for (target, source) in target.iter_mut().zip(source) {
                *target = *source;
            }
        }
    }
}

/// Sums of some outputs and channels at one tap.
struct Tile<'a, S: Simd, const VECTORS: usize> {
    x: Rows<'a, S, VECTORS>,
    dy: Rows<'a, S, VECTORS>,
    /// The position of the output, as `tap`, and the place of the input.
    pairs: &'a [Pair],
    /// An output's are `patch` floats apart, a channel's `taps`.
    sums: &'a mut [f32],
    patch: usize,
    taps: usize,
}

impl<S: Simd, const VECTORS: usize> Tile<'_, S, VECTORS> {
    /// Adds to the sums of so many outputs and channels.
    #[inline(always)]
    fn run(self, simd: S, outputs: usize, channels: usize) {
        macro_rules! run {
            ($($outputs:literal: $($channels:literal)*;)*) => {
                match (outputs, channels) {
                    $($(($outputs, $channels) => simd.vectorize(
                        #[inline(always)]
                        || self.compute::<$outputs, $channels>(simd),
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
    fn compute<const OUTPUTS: usize, const CHANNELS: usize>(self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); CHANNELS]; OUTPUTS];
        for pair in self.pairs {
            // Nothing in this loop may fail, or the sums would be kept in memory for whoever sees that.
            let x = self.x.at::<CHANNELS>(pair.place);
            let dy = self.dy.at::<OUTPUTS>(pair.tap);
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
        for (output, sums) in sums.iter().enumerate() {
            for (channel, sum) in sums.iter().enumerate() {
                self.sums[output * self.patch + channel * self.taps] += simd.reduce_sum_f32s(*sum);
            }
        }
    }
}
