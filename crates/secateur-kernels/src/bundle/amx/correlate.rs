//! Correlation: rows of blocks are outputs, their columns are images of positions.

use super::each_part;
use super::finished::Finished;
use super::plan::{Plan, Region, Staged, Unit};
use super::pointwise;
use super::stage::stage;
use super::weights::{self, ROWS, of_register, pack};
use crate::amx::{Amx, BLOCK, DEPTH, Order, Products, SIDE, Step, Tiles};
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::Kernel;
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges};
use crate::scratch::Scratch;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use std::ops::Range;

/// Steps in whose time sums are written.
const STEPS: usize = 2;
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
            work.run(tiles, scratch);
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
        for position in 0..c.positions() {
            let [y, x] = [position / c.target[1], position % c.target[1]];
            let (mut outputs, after) = rest.split_at_mut(width);
            rest = after;
            let own = parts[first..]
                .iter_mut()
                .filter(|part| part.region.rows.contains(&y) && part.columns.contains(&x));
            for part in own {
                let end = c.outputs.min(part.blocks.end * ROWS);
                let len = (end - part.blocks.start * ROWS) * c.images;
                let (own, after) = outputs.split_at_mut(len);
                part.target.push(own);
                outputs = after;
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

impl Work<'_> {
    fn run(mut self, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (plan, c) = (self.plan, self.plan.c);
        let staged = Staged::new(plan, self.part.region);
        let units = plan.units(self.part.region);
        let place = c.channels * c.images;
        let x = &self.x[self.part.bundle * c.places() * place..][..c.places() * place];
        let all = c.channels.div_ceil(DEPTH);
        let blocks = self.part.blocks.clone();
        let Scratch { a, sums, .. } = scratch;
        let values: &mut [u32] = cast_slice_mut(a.floats(staged.len(plan.depths)));
        let is_whole = plan.depths >= all;
        let pairs: Vec<&[Unit]> = units.chunks(2).collect();
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
        let mut steps = vec![Vec::new(); pairs.len()];
        // What is written while the registers multiply: some outputs of a pair, and where their sums are.
        let mut done: Option<(usize, Range<usize>, usize)> = None;
        let mut turn = 0;
        for depths in ranges(all, plan.depths) {
            stage(self.amx.simd, plan, &staged, depths.clone(), x, values);
            for (pair, steps) in pairs.iter().zip(&mut steps) {
                self.find_steps(&staged, pair, &depths, steps);
            }
            for block in blocks.clone() {
                let outputs = block * ROWS..c.outputs.min((block + 1) * ROWS);
                let rows = outputs.len().div_ceil(SIDE);
                let a = &self.packed[block * ROWS / SIDE * of_register(c)..];
                let a = &a[..rows * of_register(c)];
                for (index, steps) in steps.iter().enumerate() {
                    let size = [rows, pairs[index].len()];
                    turn = 1 - turn;
                    let at = index * blocks.len() + block - blocks.start;
                    let at = if is_whole { turn } else { at } * BLOCK;
                    let products = |steps| Products {
                        a,
                        b: values,
                        order,
                        steps,
                    };
                    let (first, rest) = steps.split_at(steps.len().min(STEPS));
                    tiles.start(size, (depths.start > 0).then_some(&sums[at..]));
                    tiles.add(size, products(first));
                    if let Some((pair, outputs, at)) = done.take() {
                        self.write(pairs[pair], outputs, &sums[at..]);
                    }
                    tiles.add(size, products(rest));
                    tiles.store(size, &mut sums[at..]);
                    if depths.end == all {
                        done = Some((index, outputs.clone(), at));
                    }
                }
            }
        }
        if let Some((pair, outputs, at)) = done {
            self.write(pairs[pair], outputs, &sums[at..]);
        }
    }

    /// The products that make up the sums of one unit or two: taps that either of them reads, over some of the channels.
    fn find_steps(
        &self,
        staged: &Staged,
        pair: &[Unit],
        depths: &Range<usize>,
        steps: &mut Vec<Step>,
    ) {
        let padding = depths.len() * staged.depth_len();
        steps.clear();
        let mut taps: Vec<(usize, [Option<usize>; 2])> = Vec::new();
        for (lane, unit) in pair.iter().enumerate() {
            for (tap, at) in staged.taps(self.plan, unit) {
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
        for (chunk, depth) in depths.clone().enumerate() {
            let first = chunk * staged.depth_len();
            steps.extend(taps.iter().map(|(tap, places)| Step {
                a: (depth * self.plan.c.taps() + tap) as u32,
                b: places.map(|at| at.map_or(padding, |at| first + at) as u32),
            }));
        }
    }

    /// Finishes the sums of some outputs and writes them.
    fn write(&mut self, pair: &[Unit], outputs: Range<usize>, sums: &[f32]) {
        let c = self.plan.c;
        let origin = [self.part.region.rows.start, self.part.columns.start];
        let width = self.part.columns.len();
        let finished = Finished {
            simd: self.amx.simd,
            finish: self.finish.of(outputs.clone()),
            images: c.images,
            first: (outputs.start - self.part.blocks.start * ROWS) * c.images,
            outputs: outputs.len(),
            columns: pair.len(),
        };
        for (lane, unit) in pair.iter().enumerate() {
            let places = self.plan.places(unit);
            let places = places.map(|[y, x]| (y - origin[0]) * width + x - origin[1]);
            finished.write(sums, lane, unit.image, places, &mut self.part.target);
        }
    }
}
