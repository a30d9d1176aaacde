//! Correlation as a matrix product: rows are output channels, columns are positions.

use super::depthwise;
use super::geometry::{Block, Blocks, Correlation, PARTS, ranges};
use super::pack::{Kernel, Tiles, WeightPlan, Weights};
use super::stage::{Run, Stage};
use crate::copy::add_constant;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{Former, InRegisters, Rows, Tile, TileSize};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of patches and sums that stay in a core's own cache.
const CACHED: usize = 200_000;
/// Positions of a block at most, in tiles.
const TILES: usize = 24;
/// A part of the work has at least so many panels of outputs.
const PANELS: usize = 12;

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
    if correlation.is_depthwise() {
        return depthwise::correlate(correlation, x, kernel, bias, target);
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
    order: Order,
    /// Panels of outputs of a group; all of them where there is more than one group.
    panels: Range<usize>,
    target: Target<'a>,
}

/// How the columns of a product are taken from the positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// What positions read is copied to tiles.
    Packed,
    /// Tiles are read from the padded planes. Between one row of positions and the next there are
    /// columns of no use.
    Flat,
}

/// Time that packing takes for a row of a tile, in the time that a panel row of a product takes.
const PACKING: usize = 14;

impl Order {
    fn choose(correlation: &Correlation, most: usize, size: TileSize) -> (Blocks, Self) {
        let [rows, columns] = [0, 1].map(|axis| correlation.axes[axis].positions);
        let packed = correlation.blocks(most, PARTS, size);
        let row = columns + correlation.axes[1].phases().reach;
        let flat_rows = (most / row).clamp(1, rows);
        let (n_blocks, tiles) = (rows.div_ceil(flat_rows), |n: usize| n.div_ceil(size.width));
        let flat_rows = rows.div_ceil(n_blocks);
        // Tiles of an image, weighed by the time of one.
        let flat = n_blocks * tiles(flat_rows * row) * correlation.outputs;
        let time = rows * columns * (correlation.outputs + PACKING) / size.width;
        if flat < time && !correlation.is_whole() {
            (Blocks::Rows(flat_rows), Self::Flat)
        } else {
            (packed, Self::Packed)
        }
    }
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
    let most =
        (CACHED / (depth + correlation.outputs).max(1)).clamp(2 * size.width, TILES * size.width);
    let (blocks, order) = Order::choose(correlation, most, size);
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
            plan.outputs(panels)
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
                order,
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

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (correlation, plan) = (self.correlation, self.weights.plan);
        let block = self.part.block.clone();
        let stage = Stage::new(correlation, &block);
        let is_flat = self.part.order == Order::Flat;
        let row = if is_flat {
            stage.row()
        } else {
            correlation.axes[1].positions
        };
        let n = block.images.len() * block.rows.len() * row;
        let outputs = plan.outputs(&self.part.panels);
        let deepest = plan.depths.iter().map(Range::len).max().unwrap_or(0);
        let positions = if is_flat {
            vec![Run {
                position: 0,
                place: 0,
                len: n,
            }]
        } else {
            stage.runs()
        };
        let tiles = Tiles::new(&positions, deepest * correlation.taps(), self.size);
        let starts = stage.starts(deepest);
        let runs = split(
            target_runs(correlation, &block, row),
            self.size.width,
            correlation,
        );
        let scratch = &mut *self.scratch;
        let planes_len = if stage.is_source {
            0
        } else {
            stage.len(deepest) + 2 * self.size.width + stage.row()
        };
        let planes = scratch.planes.floats(planes_len);
        planes.fill(0.0);
        let b = scratch.b.floats(if is_flat { 0 } else { tiles.len() });
        let is_kept = plan.depths.len() > 1;
        // Sums of a tile, or of all of them.
        let area = outputs.len() * self.size.width;
        let sums_len = if is_kept {
            tiles.list().len() * area
        } else {
            area
        };
        let sums = scratch.sums.floats(sums_len);
        for group in 0..correlation.groups {
            for (depth, channels) in plan.depths.iter().enumerate() {
                let first = group * correlation.channels + channels.start;
                let source = if stage.is_source {
                    &self.x[first * stage.channel..]
                } else {
                    let channels = first..first + channels.len();
                    stage.fill(correlation, &block, channels, self.x, planes);
                    &*planes
                };
                if !is_flat {
                    tiles.fill(&stage, source, channels.len(), b);
                }
                let is_last = depth + 1 == plan.depths.len();
                let (n_panels, n_tiles) = (self.part.panels.len(), tiles.list().len());
                for step in 0..n_panels * n_tiles {
                    // Sums that are complete are written panel by panel, along the planes.
                    let (panel, index) = if is_kept {
                        (step % n_panels, step / n_panels)
                    } else {
                        (step / n_tiles, step % n_tiles)
                    };
                    let (panel, tile) = (self.part.panels.start + panel, &tiles.list()[index]);
                    let (b, order) = if is_flat {
                        let starts = &starts[..plan.depth(depth)];
                        (&source[index * self.size.width..], Rows::OfB(starts))
                    } else {
                        (&b[tile.start..], Rows::Consecutive(plan.depth(depth)))
                    };
                    let range = &plan.panels[panel];
                    let sums = if is_kept {
                        let first = (range.start - outputs.start) * tile.width;
                        &mut sums[index * area + first..]
                    } else {
                        &mut *sums
                    };
                    let sums = &mut sums[..range.len() * tile.width];
                    Tile {
                        a: self.weights.panel(group, depth, panel),
                        b,
                        order,
                        target: sums,
                        stride: tile.width,
                        former: if depth == 0 {
                            Former::Dropped
                        } else {
                            Former::Kept
                        },
                    }
                    .run(simd, range.len(), tile.width);
                    // Results are written between products: memory keeps up with that best.
                    if let (true, Some(runs)) = (is_last, runs.get(index)) {
                        let writer = Writer {
                            correlation,
                            bias: self.bias,
                            first: group * correlation.outputs + range.start,
                            width: tile.width,
                            runs,
                        };
                        writer.write(sums, &mut self.part.target);
                    }
                }
            }
        }
    }
}

/// Divides runs among tiles of that width; positions become columns of the tile.
fn split(runs: Vec<TargetRun>, width: usize, correlation: &Correlation) -> Vec<Vec<TargetRun>> {
    let step = correlation.target_steps[1];
    let mut tiles: Vec<Vec<TargetRun>> = Vec::new();
    for mut run in runs {
        while run.len > 0 {
            let (tile, column) = (run.position / width, run.position % width);
            let len = run.len.min(width - column);
            tiles.resize_with(tiles.len().max(tile + 1), Vec::new);
            tiles[tile].push(TargetRun {
                position: column,
                len,
                ..run
            });
            run.position += len;
            run.place += len * step;
            run.len -= len;
        }
    }
    tiles
}

/// Positions that are neighbours in the target, `target_steps` apart.
#[derive(Clone, Copy)]
struct TargetRun {
    position: usize,
    image: usize,
    /// Place in the plane.
    place: usize,
    len: usize,
}

/// The runs of a block's positions, whose rows are `row` apart, in its part of the target.
fn target_runs(correlation: &Correlation, block: &Block, row: usize) -> Vec<TargetRun> {
    let width = correlation.axes[1].positions;
    let rows = block.rows.len();
    let [start_y, start_x] = correlation.target_starts;
    let [step_y, step_x] = correlation.target_steps;
    // Rows that follow each other in the target are one run.
    let is_dense = [step_y, step_x] == [1, 1] && width == correlation.target[1] && width == row;
    let (rows, width, row) = if is_dense {
        (1, rows * width, rows * row)
    } else {
        (rows, width, row)
    };
    let mut runs = Vec::with_capacity(block.images.len() * rows);
    for image in 0..block.images.len() {
        for y in 0..rows {
            runs.push(TargetRun {
                position: runs.len() * row,
                image,
                place: (start_y + y * step_y) * correlation.target[1] + start_x,
                len: width,
            });
        }
    }
    runs
}

/// Writes a tile of sums to where they belong.
struct Writer<'a> {
    correlation: &'a Correlation,
    bias: Option<&'a [f32]>,
    /// First channel.
    first: usize,
    /// Sums of a channel.
    width: usize,
    runs: &'a [TargetRun],
}

impl Writer<'_> {
    #[inline(always)]
    fn write(&self, sums: &[f32], target: &mut Target<'_>) {
        let plane_len = self.correlation.target_plane();
        let step = self.correlation.target_steps[1];
        for (row, sums) in sums.chunks_exact(self.width).enumerate() {
            let channel = self.first + row;
            let bias = self.bias.map_or(0.0, |bias| bias[channel]);
            for run in self.runs {
                let plane = &mut target.plane(run.image, channel, plane_len)[run.place..];
                let sums = &sums[run.position..][..run.len];
                if step == 1 {
                    add_constant(sums, bias, &mut plane[..run.len]);
                } else {
                    for (value, sum) in plane.iter_mut().step_by(step).zip(sums) {
                        *value = sum + bias;
                    }
                }
            }
        }
    }
}
