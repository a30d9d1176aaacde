//! Correlation: rows of blocks are outputs, their columns are images of positions.

use super::finished::{Column, Writing};
use super::plan::{Plan, Region, Staged, Unit};
use super::pointwise;
use super::stage::{Distances, Making, Slot};
use super::weights::{self, ROWS, of_register, pack};
use super::{OfImages, each_part, run};
use crate::amx::{Amx, BLOCK, DEPTH, Order, Products, SIDE, Step, Tiles};
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::Kernel;
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges};
use crate::scratch::Scratch;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::x86::V4;
use std::ops::Range;

/// Blocks of outputs of a part at least: each part makes its values ready anew.
const BLOCKS: usize = 2;

/// Writes every value of `target`.
pub(in crate::bundle) fn correlate(
    amx: Amx,
    c: &Correlation,
    x: &[f32],
    kernel: Kernel<'_>,
    finish: Finish<'_>,
    target: &mut [f32],
) {
    if c.taps() == 1 {
        return pointwise::correlate(amx, c, x, kernel, finish, target);
    }
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

/// Some blocks of outputs in a region of a bundle.
struct Part<'a> {
    bundle: usize,
    region: &'a Region,
    /// Columns of the target.
    columns: Range<usize>,
    blocks: Range<usize>,
    /// For each position of the region, row by row, its outputs of the blocks.
    target: Vec<&'a mut [f32]>,
}

fn divide<'a>(plan: &'a Plan<'_>, target: &'a mut [f32]) -> Vec<Part<'a>> {
    let c = plan.c;
    let blocks = c.outputs.div_ceil(ROWS);
    let count = PARTS
        .div_ceil((c.bundles * plan.regions.len()).max(1))
        .clamp(1, blocks.div_ceil(BLOCKS));
    let shares: Vec<Range<usize>> = ranges(blocks, blocks.div_ceil(count)).collect();
    let mut parts = Vec::with_capacity(c.bundles * plan.regions.len() * shares.len());
    let width = c.outputs * c.images;
    let mut rest = target;
    for bundle in 0..c.bundles {
        let first = parts.len();
        for region in &plan.regions {
            parts.extend(shares.iter().map(|blocks| Part {
                bundle,
                region,
                columns: plan.columns(region),
                blocks: blocks.clone(),
                target: Vec::new(),
            }));
        }
        for y in 0..c.target[0] {
            let mut in_row: Vec<&mut Part<'_>> = parts[first..]
                .iter_mut()
                .filter(|part| part.region.rows.contains(&y))
                .collect();
            for x in 0..c.target[1] {
                let (mut outputs, after) = rest.split_at_mut(width);
                rest = after;
                for part in in_row.iter_mut().filter(|part| part.columns.contains(&x)) {
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

/// Sums that are to be written: of some outputs of two units or one.
struct Sums {
    columns: ([Column; 2], usize),
    outputs: Range<usize>,
    /// Where they are.
    at: usize,
}

impl OfImages for Work<'_> {
    /// While the registers multiply, the former block's sums are written.
    fn run<const IMAGES: usize>(mut self, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (plan, c, simd) = (self.plan, self.plan.c, self.amx.simd);
        let all = c.channels.div_ceil(DEPTH);
        let is_whole = plan.depths >= all;
        let staged = Staged::new(plan, self.part.region);
        let units = plan.units(self.part.region);
        let pairs: Vec<&[Unit]> = units.chunks(2).collect();
        let blocks = self.part.blocks.clone();
        let (x, _) = self.x.as_chunks::<IMAGES>();
        let read = Read {
            plan,
            staged: &staged,
            x: &x[self.part.bundle * c.places() * c.channels..],
            zeros: &vec![[0.0; IMAGES]; c.channels],
        };
        let Scratch { a, sums, .. } = scratch;
        let values: &mut [u32] = cast_slice_mut(a.floats(staged.len(plan.depths)));
        values[..staged.row_len()].fill(0);
        let kept = if is_whole {
            2
        } else {
            pairs.len() * blocks.len()
        };
        let sums = sums.floats(kept * BLOCK);
        let order = Order {
            row: staged.row,
            part: SIDE * staged.row,
        };
        let mut done: Option<Sums> = None;
        let mut turn = 0;
        for depths in ranges(all, plan.depths) {
            read.making(simd, depths.clone(), values).rest();
            let steps: Vec<Vec<Step>> = pairs
                .iter()
                .map(|pair| find_steps(plan, &staged, pair, &depths))
                .collect();
            for block in blocks.clone() {
                let outputs = block * ROWS..c.outputs.min((block + 1) * ROWS);
                let rows = outputs.len().div_ceil(SIDE);
                let a = &self.packed[block * ROWS / SIDE * of_register(c)..];
                let a = &a[..rows * of_register(c)];
                for (index, (pair, steps)) in pairs.iter().zip(&steps).enumerate() {
                    let size = [rows, pair.len()];
                    turn = 1 - turn;
                    let at = index * blocks.len() + block - blocks.start;
                    let at = if is_whole { turn } else { at };
                    let kept = (depths.start > 0).then_some(&sums[at * BLOCK..]);
                    tiles.start(size, kept);
                    let b = &*values;
                    let mut writing = done
                        .take()
                        .map(|done| self.writing::<IMAGES>(&done, sums, steps.len()));
                    let target = &mut self.part.target;
                    tiles.add(size, Products { a, b, order, steps }, || {
                        if let Some(writing) = &mut writing {
                            writing.next_of_few(target);
                        }
                    });
                    // Where no tap reads anything, nothing has been written meanwhile.
                    if let Some(writing) = writing {
                        writing.rest(target);
                    }
                    tiles.store(size, &mut sums[at * BLOCK..]);
                    if depths.end == all {
                        done = Some(Sums {
                            columns: self.columns(pair),
                            outputs: outputs.clone(),
                            at,
                        });
                    }
                }
            }
        }
        if let Some(done) = done {
            self.writing::<IMAGES>(&done, sums, 0)
                .rest(&mut self.part.target);
        }
    }
}

impl<'a> Work<'a> {
    /// Which images the columns of registers of two units or one are of.
    fn columns(&self, pair: &[Unit]) -> ([Column; 2], usize) {
        let part = &self.part;
        let origin = [part.region.rows.start, part.columns.start];
        let width = part.columns.len();
        let mut columns = [Column::default(); 2];
        for (column, unit) in columns.iter_mut().zip(pair) {
            let mut places = self
                .plan
                .places(unit)
                .map(|[y, x]| (y - origin[0]) * width + x - origin[1]);
            column.places = [places.next(), places.next()];
            column.image = unit.image;
        }
        (columns, pair.len())
    }

    /// Sums to be finished and written.
    fn writing<'s, const IMAGES: usize>(
        &self,
        done: &Sums,
        sums: &'s [f32],
        steps: usize,
    ) -> Writing<'s, IMAGES>
    where
        'a: 's,
    {
        let outputs = &done.outputs;
        let first = outputs.start - self.part.blocks.start * ROWS;
        Writing::new(
            self.amx.simd,
            self.finish.of(outputs.clone()),
            [first * IMAGES, outputs.len()],
            done.columns,
            &sums[done.at * BLOCK..],
            steps,
        )
    }
}

/// What a stage reads.
struct Read<'a, const IMAGES: usize> {
    plan: &'a Plan<'a>,
    staged: &'a Staged,
    /// The bundle.
    x: &'a [[f32; IMAGES]],
    /// Channels of padding.
    zeros: &'a [[f32; IMAGES]],
}

impl<'a, const IMAGES: usize> Read<'a, IMAGES> {
    /// All places, of which some groups of 32 channels are to be made ready.
    fn making<'v>(
        &self,
        simd: V4,
        depths: Range<usize>,
        values: &'v mut [u32],
    ) -> Making<'v, IMAGES, impl Fn(usize) -> Slot<'v, IMAGES>>
    where
        'a: 'v,
    {
        let Self {
            plan,
            staged,
            x,
            zeros,
        } = *self;
        let c = plan.c;
        let halves = staged.halves();
        let first = staged.row_len() / SIDE;
        let slot = move |index: usize| {
            let (half, index) = (index % halves, index / halves);
            let (column, row) = (index % staged.columns, index / staged.columns);
            let (remainder, source_row) = (
                row % staged.remainders,
                staged.rows[row / staged.remainders],
            );
            let place = |column: usize| match staged.column(plan, remainder, column) {
                Some(column) => {
                    &x[(source_row * c.source[1] + column) * c.channels..][..c.channels]
                }
                None => zeros,
            };
            Slot {
                places: [place(column), place(column + staged.beside)],
                half,
                at: first + row * staged.row_len() / SIDE + column * halves + half,
            }
        };
        let distances = Distances {
            pair: staged.row / SIDE,
            depth: staged.depth_len() / SIDE,
        };
        Making::new(simd, (staged.slots(), slot), depths, distances, values, 0)
    }
}

/// The products that make up the sums of one unit or two: taps that either of them reads, over some of the channels. Padding
/// is read where it stands, before all others.
fn find_steps(plan: &Plan<'_>, staged: &Staged, pair: &[Unit], depths: &Range<usize>) -> Vec<Step> {
    let mut taps: Vec<(usize, [Option<usize>; 2])> = Vec::new();
    for (lane, unit) in pair.iter().enumerate() {
        for (tap, at) in staged.taps(plan, unit) {
            match taps.iter_mut().find(|known| known.0 == tap) {
                Some((_, places)) => places[lane] = Some(at),
                None => {
                    let mut places = [None; 2];
                    places[lane] = Some(at);
                    taps.push((tap, places));
                }
            }
        }
    }
    let mut steps = Vec::with_capacity(taps.len() * depths.len());
    for (chunk, depth) in depths.clone().enumerate() {
        let first = staged.row_len() + chunk * staged.depth_len();
        steps.extend(taps.iter().map(|(tap, places)| Step {
            a: (depth * plan.c.taps() + tap) as u32,
            b: places.map(|at| at.map_or(0, |at| first + at) as u32),
        }));
    }
    steps
}
