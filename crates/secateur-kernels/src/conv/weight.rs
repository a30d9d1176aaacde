//! The gradient of the weight as a matrix product over positions: rows are input channels, at each
//! tap, columns are output channels.

use super::ConvShape;
use super::geometry::{Block, Correlation, PARTS, shares};
use super::stage::{Run, Stage};
use crate::copy::copy;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{Former, InRegisters, Rows, Tile, TileSize};
use crate::transpose::transpose;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of both operands that stay in a core's own cache.
const CACHED: usize = 150_000;
/// Positions of a block at most.
const POSITIONS: usize = 384;
/// With fewer channels than this, the taps of a channel are rows of one panel.
const FEW_CHANNELS: usize = 8;
/// Rows of a part's sums at least; fewer would not be worth the packing of the other operand.
const ROWS: usize = 288;
/// Floats of all parts' sums at most.
const SUMS: usize = 8 << 20;

/// Writes all of `dw`.
pub(super) fn gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let correlation = Correlation::forward(shape);
    let plan = Plan::new(&correlation);
    let patch = shape.patch();
    let [_, group_out] = shape.group();
    let n_parts = shape.groups * plan.shares.len() * plan.ranges.len();
    with_shared(n_parts * plan.region, |sums| {
        sums.par_chunks_mut(plan.region)
            .enumerate()
            .for_each(|(part, sums)| {
                with_scratch(|scratch| {
                    level::dispatch(Work {
                        plan: &plan,
                        part,
                        x,
                        dy,
                        sums,
                        scratch,
                    });
                });
            });
        let sums = &*sums;
        dw.par_chunks_mut(group_out * patch)
            .enumerate()
            .flat_map(|(group, dw)| {
                let panels = dw.par_chunks_mut(plan.size.width * patch).enumerate();
                panels.map(move |(panel, dw)| (group, panel, dw))
            })
            .for_each(|(group, panel, dw)| {
                with_scratch(|scratch| {
                    level::compiled(
                        #[inline(always)]
                        || plan.collect(sums, group, panel, dw, scratch),
                    );
                });
            });
    });
}

/// The division of the work into parts, by group, share of the input channels and range of blocks.
struct Plan<'a> {
    correlation: &'a Correlation,
    size: TileSize,
    is_folded: bool,
    /// Ranges of input channels of a group.
    shares: Vec<Range<usize>>,
    blocks: Vec<Block>,
    /// Ranges of blocks.
    ranges: Vec<Range<usize>>,
    /// Floats of a part's sums: `[panel of outputs][channel][tap][output]`.
    region: usize,
}

impl<'a> Plan<'a> {
    fn new(correlation: &'a Correlation) -> Self {
        let size = TileSize::get();
        let taps = correlation.taps();
        let (channels, outputs) = (correlation.channels, correlation.outputs);
        let n_shares = (channels * taps / ROWS).clamp(1, PARTS.div_ceil(correlation.groups));
        let shares: Vec<Range<usize>> = shares(channels, channels.div_ceil(n_shares)).collect();
        let widest = shares.iter().map(Range::len).max().unwrap_or(0);
        let region = widest * taps * outputs.next_multiple_of(size.width);
        let all = correlation.groups * shares.len();
        let n_ranges = PARTS.div_ceil(all).min(SUMS.div_ceil(region * all));
        let most = (CACHED / (outputs + widest)).clamp(2 * size.width, POSITIONS);
        let blocks = correlation.blocks(most, n_ranges, size).list(correlation);
        let ranges = self::shares(blocks.len(), blocks.len().div_ceil(n_ranges)).collect();
        Self {
            correlation,
            size,
            is_folded: channels < FEW_CHANNELS && taps > 1,
            shares,
            blocks,
            ranges,
            region,
        }
    }

    /// Ranges of outputs, and the widths of their panels.
    fn panels(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (outputs, size) = (self.correlation.outputs, self.size);
        super::geometry::ranges(outputs, size.width)
            .map(move |range| (range.clone(), size.width_for(range.len())))
    }

    /// Adds up the sums of one panel of outputs, and writes them to its rows of the gradient.
    #[inline(always)]
    fn collect(
        &self,
        sums: &[f32],
        group: usize,
        panel: usize,
        dw: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let taps = self.correlation.taps();
        let patch = self.correlation.channels * taps;
        let n_outputs = dw.len() / patch;
        let width = self.size.width_for(n_outputs);
        for (share, channels) in self.shares.iter().enumerate() {
            let rows = channels.len() * taps;
            let total = scratch.sums.floats(rows * width);
            for range in 0..self.ranges.len() {
                let part = (group * self.shares.len() + share) * self.ranges.len() + range;
                let first = part * self.region + panel * rows * self.size.width;
                let sums = &sums[first..][..rows * width];
                if range == 0 {
                    total.copy_from_slice(sums);
                } else {
                    for (total, sum) in total.iter_mut().zip(sums) {
                        *total += *sum;
                    }
                }
            }
            let dw = &mut dw[channels.start * taps..];
            transpose(total, width, rows, n_outputs, dw, patch);
        }
    }
}

struct Work<'a> {
    plan: &'a Plan<'a>,
    part: usize,
    x: &'a [f32],
    dy: &'a [f32],
    sums: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (plan, correlation) = (self.plan, self.plan.correlation);
        let (n_shares, n_ranges) = (plan.shares.len(), plan.ranges.len());
        let group = self.part / (n_shares * n_ranges);
        let channels = plan.shares[self.part / n_ranges % n_shares].clone();
        let channels = group * correlation.channels + channels.start
            ..group * correlation.channels + channels.end;
        for index in plan.ranges[self.part % n_ranges].clone() {
            let block = &plan.blocks[index];
            let former = if index == plan.ranges[self.part % n_ranges].start {
                Former::Dropped
            } else {
                Former::Kept
            };
            let inputs = Inputs::pack(plan, block, channels.clone(), self.x, self.scratch);
            let n = block.images.len() * block.rows.len() * correlation.axes[1].positions;
            let rows = inputs.rows * inputs.taps.len();
            let b = self.scratch.b.floats(n * plan.size.width);
            let a = self.scratch.a.floats(inputs.rows * inputs.pixels);
            for (panel, (outputs, width)) in plan.panels().enumerate() {
                let first = group * correlation.outputs + outputs.start;
                let outputs = first..first + outputs.len();
                pack_outputs(correlation, block, self.dy, outputs, width, b);
                let sums = &mut self.sums[panel * rows * plan.size.width..][..rows * width];
                for range in shares(inputs.rows, plan.size.rows) {
                    let a = &a[range.start * inputs.pixels..][..range.len() * inputs.pixels];
                    for (tap, &distance) in inputs.taps.iter().enumerate() {
                        let first = range.start * inputs.taps.len() + tap;
                        Tile {
                            a: &a[distance * range.len()..],
                            b,
                            order: Rows::OfA(&inputs.places),
                            target: &mut sums[first * width..],
                            stride: inputs.taps.len() * width,
                            former,
                        }
                        .run(simd, range.len(), width);
                    }
                }
            }
        }
    }
}

/// Panels of input channels in `Scratch::a`: for each panel, a row for each pixel.
struct Inputs {
    /// Channels, or channels and taps.
    rows: usize,
    pixels: usize,
    /// Distance of each tap in pixels.
    taps: Vec<usize>,
    /// The pixel of each position.
    places: Vec<u32>,
}

impl Inputs {
    #[inline(always)]
    fn pack(
        plan: &Plan<'_>,
        block: &Block,
        channels: Range<usize>,
        x: &[f32],
        scratch: &mut Scratch,
    ) -> Self {
        let correlation = plan.correlation;
        let stage = Stage::new(correlation, block);
        let planes = if stage.is_source {
            &x[channels.start * stage.channel..]
        } else {
            let planes = scratch.planes.floats(stage.len(channels.len()));
            planes.fill(0.0);
            stage.fill(correlation, block, channels.clone(), x, planes);
            planes
        };
        if plan.is_folded {
            let n = block.images.len() * block.rows.len() * correlation.axes[1].positions;
            let rows = channels.len() * stage.taps.len();
            let patches = scratch.sums.floats(rows * n);
            copy_patches(&stage, planes, n, patches);
            let a = scratch.a.floats(rows * n);
            for range in shares(rows, plan.size.rows) {
                let a = &mut a[range.start * n..][..range.len() * n];
                let patches = &patches[range.start * n..];
                transpose(patches, n, range.len(), n, a, range.len());
            }
            return Self {
                rows,
                pixels: n,
                taps: vec![0],
                places: (0..n as u32).collect(),
            };
        }
        let pixels = stage.pixels();
        let a = scratch.a.floats(channels.len() * pixels);
        for range in shares(channels.len(), plan.size.rows) {
            let mut a = &mut a[range.start * pixels..][..range.len() * pixels];
            for (place, len) in stage.pixel_ranges() {
                let (part, rest) = a.split_at_mut(len * range.len());
                let planes = &planes[range.start * stage.channel + place..];
                transpose(planes, stage.channel, range.len(), len, part, range.len());
                a = rest;
            }
        }
        Self {
            rows: channels.len(),
            pixels,
            places: stage.pixel_runs().iter().flat_map(places).collect(),
            taps: stage.taps,
        }
    }
}

fn places(run: &Run) -> Range<u32> {
    run.place as u32..(run.place + run.len) as u32
}

/// Writes a row of `n` positions for each channel and tap.
fn copy_patches(stage: &Stage, planes: &[f32], n: usize, patches: &mut [f32]) {
    let runs = stage.runs();
    for (channel, patches) in patches.chunks_exact_mut(n * stage.taps.len()).enumerate() {
        for (tap, patches) in stage.taps.iter().zip(patches.chunks_exact_mut(n)) {
            let planes = &planes[channel * stage.channel + tap..];
            for run in &runs {
                let patch = &mut patches[run.position..][..run.len];
                copy(&planes[run.place..][..run.len], patch);
            }
        }
    }
}

/// Writes a row of outputs, `width` apart, for each position of the block.
#[inline(always)]
fn pack_outputs(
    correlation: &Correlation,
    block: &Block,
    dy: &[f32],
    outputs: Range<usize>,
    width: usize,
    b: &mut [f32],
) {
    let columns = correlation.axes[1].positions;
    let plane = correlation.positions();
    let len = block.rows.len() * columns;
    let channels = correlation.groups * correlation.outputs;
    for (image, b) in block.images.clone().zip(b.chunks_exact_mut(len * width)) {
        let first = (image * channels + outputs.start) * plane + block.rows.start * columns;
        transpose(&dy[first..], plane, outputs.len(), len, b, width);
    }
}
