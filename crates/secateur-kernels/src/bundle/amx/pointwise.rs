//! Correlations of one tap: positions are taken in any order, and those that read nothing by themselves.

use super::finished::{Column, Writing};
use super::stage::{Distances, Making, Slot};
use super::weights::{self, ROWS, of_register, pack};
use super::{OfImages, each_part, run};
use crate::amx::{Amx, BLOCK, DEPTH, Order, PARTS as OF_FLOAT, Products, SIDE, Step, TILE, Tiles};
use crate::bundle::SMALL;
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::Kernel;
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges};
use crate::scratch::Scratch;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::x86::V4;
use std::ops::Range;

/// Numbers of 4 bytes that stay in the nearest cache, and in a core's own one.
const NEAR: usize = 6 << 10;
const OWN: usize = 128 << 10;
/// Registers of columns at most: weights that stay in no core's cache meet so many at a time.
const COLUMNS: usize = 8;

/// How positions are taken together.
struct Plan<'c> {
    c: &'c Correlation,
    /// Registers of columns, and positions of those.
    columns: usize,
    positions: usize,
    /// Groups of 32 channels that are made ready at a time, and all of them.
    depths: usize,
    all: usize,
    /// Positions and the places that they read, and those that read nothing.
    reading: Vec<Position>,
    others: Vec<Position>,
}

impl<'c> Plan<'c> {
    fn new(c: &'c Correlation) -> Self {
        let all = c.channels.div_ceil(DEPTH);
        let column = all * OF_FLOAT * TILE;
        let most = if weights::len(c) > OWN {
            COLUMNS
        } else {
            (NEAR / column / 2 * 2).clamp(2, COLUMNS)
        };
        // As many positions each time.
        let positions = (most * SIDE / c.images).max(1);
        let groups = c.positions().div_ceil(positions);
        let positions = c.positions().div_ceil(groups.max(1)).max(1);
        let columns = (positions * c.images).div_ceil(SIDE).next_multiple_of(2);
        let depths = (OWN / (columns * OF_FLOAT * TILE)).clamp(1, all);
        let place = |read: &Vec<(usize, usize)>| read.first().map(|(_, place)| *place);
        let in_row: Vec<Option<usize>> = c.axes[1].iter().map(place).collect();
        let (mut reading, mut others) = (Vec::with_capacity(c.positions()), Vec::new());
        for (y, read) in c.axes[0].iter().enumerate() {
            let row = place(read);
            for (x, column) in in_row.iter().enumerate() {
                let position = y * c.target[1] + x;
                match row.zip(*column) {
                    Some((row, column)) => reading.push((position, row * c.source[1] + column)),
                    None => others.push((position, 0)),
                }
            }
        }
        Self {
            c,
            columns,
            positions,
            depths: all.div_ceil(all.div_ceil(depths)),
            all,
            reading,
            others,
        }
    }

    /// Registers of columns of some positions.
    fn columns_of(&self, group: Group<'_>) -> usize {
        (group.len() * self.c.images).div_ceil(SIDE)
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
            run(c.images, work, tiles, scratch);
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

/// A position and the place that it reads.
type Position = (usize, usize);
type Group<'a> = &'a [Position];
/// Positions, and groups of 32 channels, that are made ready together.
type Stage<'a> = (Group<'a>, Range<usize>);

/// Sums that are to be written: of some outputs and, from the first on, some columns of registers.
struct Sums<'a> {
    group: Group<'a>,
    first: usize,
    columns: usize,
    outputs: Range<usize>,
    /// Where they are.
    at: usize,
}

impl<'p> OfImages for Work<'p> {
    /// While the registers multiply, the former block's sums are written, and what is read next is made ready.
    fn run<const IMAGES: usize>(mut self, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (plan, c) = (self.plan, self.plan.c);
        if self.part.target.len() < self.part.positions.len() {
            let target = std::mem::take(&mut self.part.target).into_iter();
            let width = c.outputs * c.images;
            self.part.target = target.flat_map(|all| all.chunks_exact_mut(width)).collect();
        }
        let own = |all: &'p [Position]| {
            let [first, end] = [self.part.positions.start, self.part.positions.end]
                .map(|end| all.partition_point(|(position, _)| *position < end));
            &all[first..end]
        };
        let (reading, others) = (own(&plan.reading), own(&plan.others));
        let stages: Vec<Stage<'_>> = reading
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
        let (x, _) = self.x.as_chunks::<IMAGES>();
        let x = &x[self.part.bundle * c.places() * c.channels..];
        let simd = self.amx.simd;
        let mut done: Option<Sums<'_>> = None;
        let mut turn = 0;
        if let Some(stage) = stages.first() {
            plan.making(simd, x, Some(stage), values, 0).rest();
        }
        for (index, (group, depths)) in stages.iter().enumerate() {
            let columns = plan.columns_of(group);
            let steps = blocks.len() * columns.div_ceil(2) * depths.len();
            let mut making = plan.making(simd, x, stages.get(index + 1), next, steps);
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
                    let steps = &steps[..depths.len()];
                    let b = &*values;
                    let mut writing = done
                        .take()
                        .map(|done| self.writing::<IMAGES>(&done, sums, steps.len()));
                    let target = &mut self.part.target;
                    tiles.add(size, Products { a, b, order, steps }, || {
                        let (writing, making, target) = (&mut writing, &mut making, &mut *target);
                        simd.vectorize(
                            #[inline(always)]
                            move || {
                                let (writing, making) = (writing, making);
                                if let Some(writing) = writing {
                                    writing.next(target);
                                }
                                making.next();
                            },
                        );
                    });
                    if let Some(writing) = writing {
                        writing.rest(target);
                    }
                    tiles.store(size, &mut sums[at * BLOCK..]);
                    if depths.end == plan.all {
                        done = Some(Sums {
                            group,
                            first,
                            columns: size[1],
                            outputs: outputs.clone(),
                            at,
                        });
                    }
                }
            }
            making.rest();
            std::mem::swap(&mut values, &mut next);
        }
        if let Some(done) = done {
            self.writing::<IMAGES>(&done, sums, 0)
                .rest(&mut self.part.target);
        }
        sums[..BLOCK].fill(0.0);
        for block in blocks {
            let outputs = block * ROWS..c.outputs.min((block + 1) * ROWS);
            let columns = plan.columns_of(others);
            for first in (0..columns).step_by(2) {
                let zeros = Sums {
                    group: others,
                    first,
                    columns: 2.min(columns - first),
                    outputs: outputs.clone(),
                    at: 0,
                };
                self.writing::<IMAGES>(&zeros, sums, 0)
                    .rest(&mut self.part.target);
            }
        }
    }
}

impl<'a> Work<'a> {
    /// Sums of some outputs and columns of registers, to be written.
    fn writing<'s, const IMAGES: usize>(
        &self,
        done: &Sums<'_>,
        sums: &'s [f32],
        steps: usize,
    ) -> Writing<'s, IMAGES>
    where
        'a: 's,
    {
        let column = |column: usize| {
            let image = (done.first + column) * SIDE;
            let place = |at: usize| {
                let (position, _) = done.group.get(at)?;
                Some(*position - self.part.positions.start)
            };
            let first = image / IMAGES;
            let second = place(first + 1).filter(|_| IMAGES == SMALL);
            Column {
                places: [place(first), second],
                image: image % IMAGES,
            }
        };
        let outputs = &done.outputs;
        Writing::new(
            self.amx.simd,
            self.finish.of(outputs.clone()),
            [
                (outputs.start - self.part.blocks.start * ROWS) * IMAGES,
                outputs.len(),
            ],
            ([column(0), column(1)], done.columns),
            &sums[done.at * BLOCK..],
            steps,
        )
    }
}

impl Plan<'_> {
    /// What is read at some positions, to be made ready while the registers run so many steps.
    fn making<'a, const IMAGES: usize>(
        &self,
        simd: V4,
        x: &'a [[f32; IMAGES]],
        stage: Option<&Stage<'a>>,
        values: &'a mut [u32],
        steps: usize,
    ) -> Making<'a, IMAGES, impl Fn(usize) -> Slot<'a, IMAGES>> {
        let (group, depths) = stage.cloned().unwrap_or_default();
        let count = self.columns_of(group);
        let channels = self.c.channels;
        let of_register = OF_FLOAT * SIDE;
        let slot = move |column: usize| {
            let first = column * SIDE / IMAGES;
            let last = group.len().min(first + (SIDE / IMAGES).max(1)) - 1;
            let place = |at: usize| &x[group[at].1 * channels..][..channels];
            Slot {
                places: [place(first), place(last)],
                half: column * SIDE % IMAGES / SIDE,
                at: column * of_register,
            }
        };
        let distances = Distances {
            pair: 1,
            depth: self.columns * of_register,
        };
        Making::new(simd, (count, slot), depths, distances, values, steps)
    }
}
