//! Correlation as a matrix product: rows are output channels, columns are positions.

use super::geometry::{Block, Blocks, Correlation, PARTS, ranges};
use super::pack::{Kernel, SPILL, WeightPlan, Weights, patches};
use super::stage::{Run, Stage};
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{Former, Segment, Tile, TileSize};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of patches and sums that stay in a core's own cache.
const CACHED: usize = 200_000;
/// Positions of a block at most, in tiles.
const TILES: usize = 24;
/// A part of the work has at least so many panels of outputs.
const PANELS: usize = 4;

/// Writes those values of `target` that lie at positions of the correlation.
pub(super) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    kernel: &Kernel<'_>,
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    if correlation.positions() == 0 {
        return;
    }
    let size = TileSize::get();
    let plan = WeightPlan::new(correlation, size);
    with_shared(plan.len(), |packed| {
        plan.pack(kernel, packed);
        let weights = Weights {
            packed,
            plan: &plan,
        };
        let parts = divide(correlation, &plan, size, target);
        parts.into_par_iter().for_each(|part| {
            with_scratch(|scratch| {
                level::dispatch(Work {
                    correlation,
                    weights: &weights,
                    size,
                    x,
                    bias,
                    part,
                    scratch,
                });
            });
        });
    });
}

/// Some output channels at a block of positions.
struct Part<'a> {
    block: Block,
    /// Panels of outputs of a group; all of them where there is more than one group.
    panels: Range<usize>,
    target: Target<'a>,
}

/// Where a part's results go.
enum Target<'a> {
    /// For each image, whole planes from channel `first` on.
    Images {
        planes: Vec<&'a mut [f32]>,
        first: usize,
    },
    /// For each channel from `first` on, some rows of one plane.
    Rows {
        planes: Vec<&'a mut [f32]>,
        first: usize,
    },
}

impl Target<'_> {
    fn plane(&mut self, image: usize, channel: usize, len: usize) -> &mut [f32] {
        match self {
            Self::Images { planes, first } => &mut planes[image][(channel - *first) * len..][..len],
            Self::Rows { planes, first } => planes[channel - *first],
        }
    }
}

fn divide<'a>(
    correlation: &Correlation,
    plan: &WeightPlan,
    size: TileSize,
    target: &'a mut [f32],
) -> Vec<Part<'a>> {
    let depth = plan.depth(0);
    let sums = if plan.depths.len() > 1 {
        correlation.outputs
    } else {
        0
    };
    let most = (CACHED / (depth + sums).max(1)).clamp(2 * size.width, TILES * size.width);
    let blocks = correlation.blocks(most, size);
    let list = blocks.list(correlation);
    let n_panels = plan.panels.len();
    let shares = if correlation.groups == 1 {
        PARTS
            .div_ceil(list.len())
            .clamp(1, n_panels.div_ceil(PANELS))
    } else {
        1
    };
    let shares: Vec<Range<usize>> = ranges(n_panels, n_panels.div_ceil(shares)).collect();
    let plane = correlation.target_plane();
    let channels = |panels: &Range<usize>| {
        if correlation.groups == 1 {
            plan.panels[panels.start].start..plan.panels[panels.end - 1].end
        } else {
            0..correlation.groups * correlation.outputs
        }
    };
    let rows_per_part = match blocks {
        Blocks::Images(_) => correlation.target[0],
        Blocks::Rows(rows) => rows * correlation.target_steps[0],
    };
    // `[block][share]` of slices.
    let mut slices: Vec<Vec<Vec<&mut [f32]>>> = Vec::new();
    slices.resize_with(list.len(), || shares.iter().map(|_| Vec::new()).collect());
    let per_image = list.len() / correlation.images;
    for (image, mut values) in target
        .chunks_exact_mut(correlation.image_lens()[1])
        .enumerate()
    {
        for (share, panels) in shares.iter().enumerate() {
            let (planes, rest) = values.split_at_mut(channels(panels).len() * plane);
            values = rest;
            match blocks {
                Blocks::Images(count) => slices[image / count][share].push(planes),
                Blocks::Rows(_) => {
                    for plane in planes.chunks_exact_mut(plane) {
                        let rows = plane.chunks_mut(rows_per_part * correlation.target[1]);
                        let blocks = slices[image * per_image..][..per_image].iter_mut();
                        for (rows, block) in rows.zip(blocks) {
                            block[share].push(rows);
                        }
                    }
                }
            }
        }
    }
    let mut parts = Vec::with_capacity(list.len() * shares.len());
    for (block, slices) in list.into_iter().zip(slices) {
        for (panels, planes) in shares.iter().zip(slices) {
            let first = channels(panels).start;
            parts.push(Part {
                block: block.clone(),
                panels: panels.clone(),
                target: match blocks {
                    Blocks::Images(_) => Target::Images { planes, first },
                    Blocks::Rows(_) => Target::Rows { planes, first },
                },
            });
        }
    }
    parts
}

struct Work<'a> {
    correlation: &'a Correlation,
    weights: &'a Weights<'a>,
    size: TileSize,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

/// Positions that are neighbours in the target.
struct TargetRun {
    /// First column of the tile.
    column: usize,
    image: usize,
    /// Place in the plane.
    place: usize,
    len: usize,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (correlation, plan) = (self.correlation, self.weights.plan);
        let block = self.part.block.clone();
        let stage = Stage::new(correlation, &block);
        let n = block.images.len() * block.rows.len() * correlation.axes[1].positions;
        let tiles: Vec<Range<usize>> = ranges(n, self.size.width).collect();
        let first_output = plan.panels[self.part.panels.start].start;
        let outputs = plan.panels[self.part.panels.end - 1].end - first_output;
        let deepest = plan.depths.iter().map(Range::len).max().unwrap_or(0);
        let full_tile = deepest * correlation.taps() * self.size.width;
        let (mut runs, mut target_runs) = (Vec::new(), Vec::new());
        let scratch = &mut *self.scratch;
        let planes = scratch.planes.floats(if stage.is_source {
            0
        } else {
            stage.len(deepest)
        });
        let b = scratch.b.floats(full_tile + SPILL);
        let sums = scratch.sums.floats(tiles.len() * outputs * self.size.width);
        for group in 0..correlation.groups {
            for (depth, channels) in plan.depths.iter().enumerate() {
                let channels = group * correlation.channels + channels.start
                    ..group * correlation.channels + channels.end;
                let source = if stage.is_source {
                    &self.x[channels.start * stage.channel..]
                } else {
                    stage.fill(correlation, &block, channels.clone(), self.x, planes);
                    &*planes
                };
                let segments = [Segment {
                    a: 0,
                    b: 0,
                    len: plan.depth(depth),
                }];
                let is_last = depth + 1 == plan.depths.len();
                for (index, tile) in tiles.iter().enumerate() {
                    let width = self.size.width_for(tile.len());
                    stage.runs(tile.clone(), &mut runs);
                    patches(&stage, source, channels.len(), &runs, width, b);
                    if is_last {
                        find_target_runs(correlation, &block, tile.clone(), &mut target_runs);
                    }
                    for panel in self.part.panels.clone() {
                        let outputs_of = plan.panels[panel].clone();
                        let place = index * outputs + outputs_of.start - first_output;
                        let sums = &mut sums[place * self.size.width..][..outputs_of.len() * width];
                        Tile {
                            a: self.weights.panel(group, depth, panel),
                            b,
                            segments: &segments,
                            target: sums,
                            former: if depth == 0 {
                                Former::Dropped
                            } else {
                                Former::Kept
                            },
                        }
                        .run(simd, outputs_of.len(), width);
                        if is_last {
                            let channel = group * correlation.outputs + outputs_of.start;
                            let writer = Writer {
                                correlation,
                                bias: self.bias,
                                runs: &target_runs,
                            };
                            writer.write(sums, width, channel, &mut self.part.target);
                        }
                    }
                }
            }
        }
    }
}

fn find_target_runs(
    correlation: &Correlation,
    block: &Block,
    range: Range<usize>,
    runs: &mut Vec<TargetRun>,
) {
    runs.clear();
    let width = correlation.axes[1].positions;
    let per_image = block.rows.len() * width;
    let [start_y, start_x] = correlation.target_starts;
    let [step_y, step_x] = correlation.target_steps;
    // Rows that follow each other in the target are one run.
    let is_dense = correlation.target_steps == [1, 1] && width == correlation.target[1];
    let mut position = range.start;
    while position < range.end {
        let (image, within) = (position / per_image, position % per_image);
        let (row, column) = (within / width, within % width);
        let rest = if is_dense {
            per_image - within
        } else {
            width - column
        };
        let len = rest.min(range.end - position);
        runs.push(TargetRun {
            column: position - range.start,
            image,
            place: (start_y + row * step_y) * correlation.target[1] + start_x + column * step_x,
            len,
        });
        position += len;
    }
}

/// Writes tiles of results to where they belong.
struct Writer<'a> {
    correlation: &'a Correlation,
    bias: Option<&'a [f32]>,
    runs: &'a [TargetRun],
}

impl Writer<'_> {
    #[inline(always)]
    fn write(&self, sums: &[f32], width: usize, first: usize, target: &mut Target<'_>) {
        let plane = self.correlation.target_plane();
        let step = self.correlation.target_steps[1];
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let channel = first + row;
            let bias = self.bias.map_or(0.0, |bias| bias[channel]);
            for run in self.runs {
                let plane = target.plane(run.image, channel, plane);
                let sums = &sums[run.column..][..run.len];
                if step == 1 {
                    let plane = &mut plane[run.place..][..run.len];
                    for (value, sum) in plane.iter_mut().zip(sums) {
                        *value = sum + bias;
                    }
                } else {
                    let plane = plane[run.place..].iter_mut().step_by(step);
                    for (value, sum) in plane.zip(sums) {
                        *value = sum + bias;
                    }
                }
            }
        }
    }
}
