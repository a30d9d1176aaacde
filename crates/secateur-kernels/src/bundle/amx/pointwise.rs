//! Correlations of one tap: positions are taken in any order, and those that read nothing by themselves.

use super::each_part;
use super::finished::Finished;
use super::stage::of_channels;
use super::weights::{self, ROWS, of_register, pack};
use crate::amx::{Amx, BLOCK, DEPTH, Order, PARTS as OF_FLOAT, Products, SIDE, Step, TILE, Tiles};
use crate::bundle::SMALL;
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::Kernel;
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges};
use crate::scratch::Scratch;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use std::ops::Range;

/// Numbers of 4 bytes that stay in the nearest cache, and in a core's own one.
const NEAR: usize = 6 << 10;
const OWN: usize = 128 << 10;
/// Registers of columns that weights meet which stay in no core's cache.
const COLUMNS: usize = 6;
/// Steps in whose time other work is done.
const STEPS: usize = 1;

/// How positions are taken together.
struct Plan<'c> {
    c: &'c Correlation,
    /// Registers of columns, and positions of those.
    columns: usize,
    positions: usize,
    /// Groups of 32 channels that are made ready at a time, and all of them.
    depths: usize,
    all: usize,
}

impl<'c> Plan<'c> {
    fn new(c: &'c Correlation) -> Self {
        let all = c.channels.div_ceil(DEPTH);
        let column = all * OF_FLOAT * TILE;
        let least = if weights::len(c) > OWN { COLUMNS } else { 2 };
        let columns = (NEAR / column / 2 * 2).clamp(least, 8);
        let depths = (OWN / (columns * OF_FLOAT * TILE)).clamp(1, all);
        Self {
            c,
            columns,
            positions: (columns * SIDE / c.images).max(1),
            depths: all.div_ceil(all.div_ceil(depths)),
            all,
        }
    }

    /// Registers of columns of some positions.
    fn columns_of(&self, group: Group<'_>) -> usize {
        (group.len() * self.c.images).div_ceil(SIDE)
    }

    /// In how many slices what some positions read is made ready.
    fn slices(&self, (group, depths): &(Group<'_>, Range<usize>)) -> usize {
        self.columns_of(group) * depths.len()
    }

    fn step(&self, depth: usize, first: usize) -> Step {
        Step {
            a: depth as u32,
            b: [first, first + 1].map(|column| self.at(depth, column) as u32),
        }
    }

    /// Where the operand of a group of channels and a register of columns starts.
    fn at(&self, depth: usize, column: usize) -> usize {
        (depth * self.columns + column) * OF_FLOAT * TILE
    }
}

/// Writes every value of `target`.
pub(super) fn correlate(
    amx: Amx,
    c: &Correlation,
    x: &[f32],
    kernel: Kernel<'_>,
    finish: Finish<'_>,
    target: &mut [f32],
) {
    let plan = Plan::new(c);
    let pack_all = |packed: &mut [f32]| pack(amx.simd, c, kernel, packed);
    kernel.with_packed(weights::len(c), pack_all, |packed| {
        each_part(amx, divide(&plan, target), |part, tiles, scratch| {
            let work = Work {
                amx,
                plan: &plan,
                packed: cast_slice(packed),
                x,
                finish,
                part,
            };
            work.run(tiles, scratch);
        });
    });
}

/// Some blocks of outputs at some positions of a bundle.
struct Part<'a> {
    bundle: usize,
    positions: Range<usize>,
    blocks: Range<usize>,
    /// For each position its outputs of the blocks, or one for all positions where those are all outputs.
    target: Vec<&'a mut [f32]>,
}

fn divide<'a>(plan: &Plan<'_>, target: &'a mut [f32]) -> Vec<Part<'a>> {
    let c = plan.c;
    let of_bundle = PARTS.div_ceil(c.bundles.max(1));
    let len = c
        .positions()
        .div_ceil(of_bundle)
        .next_multiple_of(plan.positions);
    let own: Vec<Range<usize>> = ranges(c.positions(), len).collect();
    let blocks = c.outputs.div_ceil(ROWS);
    let count = (PARTS / 2).div_ceil(c.bundles * own.len()).clamp(1, blocks);
    let shares: Vec<Range<usize>> = ranges(blocks, blocks.div_ceil(count)).collect();
    let width = c.outputs * c.images;
    let mut parts = Vec::with_capacity(c.bundles * own.len() * shares.len());
    let mut rest = target;
    for bundle in 0..c.bundles {
        for positions in &own {
            let (target, after) = rest.split_at_mut(positions.len() * width);
            rest = after;
            let first = parts.len();
            parts.extend(shares.iter().map(|blocks| Part {
                bundle,
                positions: positions.clone(),
                blocks: blocks.clone(),
                target: Vec::new(),
            }));
            if let [part] = &mut parts[first..] {
                part.target.push(target);
                continue;
            }
            for mut outputs in target.chunks_exact_mut(width) {
                for part in &mut parts[first..] {
                    let end = c.outputs.min(part.blocks.end * ROWS);
                    let len = (end - part.blocks.start * ROWS) * c.images;
                    let (own, after) = outputs.split_at_mut(len);
                    part.target.push(own);
                    outputs = after;
                }
            }
        }
    }
    parts
}

struct Work<'a> {
    amx: Amx,
    plan: &'a Plan<'a>,
    packed: &'a [u32],
    x: &'a [f32],
    finish: Finish<'a>,
    part: Part<'a>,
}

/// Positions, counted from the part's first one on, and the places that they read.
type Group<'a> = &'a [(usize, usize)];

/// Sums that are to be written: of some outputs and, from the first on, some columns of registers.
struct Sums<'a> {
    group: Group<'a>,
    first: usize,
    columns: usize,
    /// The first of the columns that is not written yet.
    next: usize,
    outputs: Range<usize>,
    /// Where they are.
    at: usize,
}

impl Work<'_> {
    /// While the registers multiply, the former block's sums are written, and what is read next is made ready.
    fn run(mut self, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (plan, c) = (self.plan, self.plan.c);
        let origin = self.part.positions.start;
        if self.part.target.len() < self.part.positions.len() {
            let target = std::mem::take(&mut self.part.target).into_iter();
            let width = c.outputs * c.images;
            self.part.target = target.flat_map(|all| all.chunks_exact_mut(width)).collect();
        }
        let mut reading = Vec::new();
        let mut others = Vec::new();
        for position in self.part.positions.clone() {
            match c.pairs(position).next() {
                Some(pair) => reading.push((position - origin, pair.place)),
                None => others.push((position - origin, 0)),
            }
        }
        let stages: Vec<(Group<'_>, Range<usize>)> = reading
            .chunks(plan.positions)
            .flat_map(|group| ranges(plan.all, plan.depths).map(move |depths| (group, depths)))
            .collect();
        let blocks = self.part.blocks.clone();
        let is_whole = plan.depths == plan.all;
        let Scratch { a, sums, .. } = scratch;
        let kept = if is_whole {
            2
        } else {
            plan.columns / 2 * blocks.len()
        };
        let sums = sums.floats(kept * BLOCK);
        let of_stage = plan.at(plan.depths, 0);
        let values: &mut [u32] = cast_slice_mut(a.floats(2 * of_stage));
        let (mut values, mut next) = values.split_at_mut(of_stage);
        let pairs: Vec<Vec<Step>> = (0..plan.columns)
            .step_by(2)
            .map(|first| {
                (0..plan.depths)
                    .map(|depth| plan.step(depth, first))
                    .collect()
            })
            .collect();
        let order = Order::DENSE;
        let packed = self.packed;
        let mut done: Option<Sums<'_>> = None;
        let mut turn = 0;
        if let Some(stage) = stages.first() {
            self.stage(stage, 0..plan.slices(stage), values);
        }
        for (index, (group, depths)) in stages.iter().enumerate() {
            let columns = plan.columns_of(group);
            let ahead = stages.get(index + 1);
            let slices = ahead.map_or(0, |stage| plan.slices(stage));
            let calls = blocks.len() * columns.div_ceil(2) * depths.len().div_ceil(STEPS);
            let (mut call, mut slice) = (0, 0);
            for block in blocks.clone() {
                let outputs = block * ROWS..c.outputs.min((block + 1) * ROWS);
                let rows = outputs.len().div_ceil(SIDE);
                let own = &packed[block * ROWS / SIDE * of_register(c)..];
                let of_depth = rows * OF_FLOAT * TILE;
                let a = &own[depths.start * of_depth..][..depths.len() * of_depth];
                for (pair, steps) in pairs.iter().enumerate().take(columns.div_ceil(2)) {
                    let first = 2 * pair;
                    let size = [rows, 2.min(columns - first)];
                    let at = if is_whole {
                        turn = 1 - turn;
                        turn
                    } else {
                        (block - blocks.start) * plan.columns / 2 + pair
                    };
                    let kept = (depths.start > 0).then_some(&sums[at * BLOCK..]);
                    tiles.start(size, kept);
                    for steps in steps[..depths.len()].chunks(STEPS) {
                        let b = &*values;
                        tiles.add(size, Products { a, b, order, steps });
                        if let Some(done) = &mut done {
                            self.write_next(done, sums);
                        }
                        call += 1;
                        let until = slices * call / calls;
                        if let Some(ahead) = ahead {
                            self.stage(ahead, slice..until, next);
                        }
                        slice = until;
                    }
                    // What is left of the former block, before others may be stored there.
                    if let Some(done) = done.take() {
                        self.write(done, sums);
                    }
                    tiles.store(size, &mut sums[at * BLOCK..]);
                    if depths.end == plan.all {
                        done = Some(Sums {
                            next: 0,
                            group,
                            first,
                            columns: size[1],
                            outputs: outputs.clone(),
                            at,
                        });
                    }
                }
            }
            std::mem::swap(&mut values, &mut next);
        }
        if let Some(done) = done {
            self.write(done, sums);
        }
        sums[..BLOCK].fill(0.0);
        for block in blocks {
            let outputs = block * ROWS..c.outputs.min((block + 1) * ROWS);
            for position in &others {
                for first in 0..c.images.div_ceil(SIDE) {
                    let zeros = Sums {
                        next: 0,
                        group: std::slice::from_ref(position),
                        first,
                        columns: 1,
                        outputs: outputs.clone(),
                        at: 0,
                    };
                    self.write(zeros, sums);
                }
            }
        }
    }

    /// Makes some slices of what is read ready: 32 channels of a column of registers.
    fn stage(&self, stage: &(Group<'_>, Range<usize>), slices: Range<usize>, values: &mut [u32]) {
        match self.plan.c.images {
            SMALL => self.stage_images::<SMALL>(stage, slices, values),
            16 => self.stage_images::<16>(stage, slices, values),
            _ => self.stage_images::<32>(stage, slices, values),
        }
    }

    fn stage_images<const IMAGES: usize>(
        &self,
        (group, depths): &(Group<'_>, Range<usize>),
        slices: Range<usize>,
        values: &mut [u32],
    ) {
        let (plan, c, simd) = (self.plan, self.plan.c, self.amx.simd);
        let (x, _) = self.x.as_chunks::<IMAGES>();
        let x = &x[self.part.bundle * c.places() * c.channels..];
        let (values, _) = values.as_chunks_mut::<SIDE>();
        simd.vectorize(
            #[inline(always)]
            || {
                for slice in slices {
                    let (column, depth) = (slice / depths.len(), slice % depths.len());
                    let first = column * SIDE / IMAGES;
                    let last = group.len().min(first + (SIDE / IMAGES).max(1)) - 1;
                    let places = [first, last].map(
                        #[inline(always)]
                        |at| {
                            let (_, place) = group[at];
                            &x[place * c.channels..][..c.channels][(depths.start + depth) * DEPTH..]
                        },
                    );
                    let half = column * SIDE % IMAGES / SIDE;
                    let target = &mut values[plan.at(depth, column) / SIDE..];
                    of_channels::<IMAGES>(simd, places, half, 1, target);
                }
            },
        );
    }

    /// Finishes and writes the sums of all columns that are left.
    fn write(&mut self, mut done: Sums<'_>, sums: &[f32]) {
        while done.next < done.columns {
            self.write_next(&mut done, sums);
        }
    }

    /// Finishes and writes those of the next column, if there is one.
    fn write_next(&mut self, done: &mut Sums<'_>, sums: &[f32]) {
        if done.next == done.columns {
            return;
        }
        let images = self.plan.c.images;
        let finished = Finished {
            simd: self.amx.simd,
            finish: self.finish.of(done.outputs.clone()),
            images,
            first: (done.outputs.start - self.part.blocks.start * ROWS) * images,
            outputs: done.outputs.len(),
            columns: done.columns,
        };
        let image = (done.first + done.next) * SIDE;
        let own = &done.group[(image / images).min(done.group.len() - 1)..];
        let places = own.iter().map(|(position, _)| *position);
        let sums = &sums[done.at * BLOCK..];
        finished.write(
            sums,
            done.next,
            image % images,
            places,
            &mut self.part.target,
        );
        done.next += 1;
    }
}
