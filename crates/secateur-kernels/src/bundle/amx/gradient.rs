//! The gradient of the weight: products are summed over the images of positions, 32 values a step.

use super::each_part;
use super::operands::{Operand, Places, Source};
use crate::amx::{Amx, BLOCK, Order, PARTS as OF_FLOAT, Products, SIDE, Step, TILE, Tiles};
use crate::bundle::block::Turned;
use crate::bundle::geometry::Correlation;
use crate::conv::geometry::ranges;
use crate::elementwise;
use crate::scratch::{Scratch, with_shared};
use crate::transpose::x86::transposed;
use core::arch::x86_64::__m512;
use pulp::bytemuck::cast_slice_mut;
use pulp::cast;
use rayon::prelude::*;
use std::ops::Range;

/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Floats of the sums of all shares of positions.
const SUMS: usize = 1 << 20;
/// Steps of a share at least.
const LEAST: usize = 16;
/// Numbers of 4 bytes of both operands that stay in a core's own cache.
const OWN: usize = 96 << 10;
/// Steps in whose time other work is done.
const STEPS: usize = 2;
/// Rows and columns of a block.
const WIDE: usize = 2 * SIDE;

/// The operand whose channels become columns, which takes more work, and is done once for all taps.
pub(super) fn turned(c: &Correlation) -> Turned {
    if c.taps() == 1 && c.channels < c.outputs {
        Turned::Input
    } else {
        Turned::Output
    }
}

/// Sums `[share of steps][32 rows][tap][32 columns]`, of two by two registers each.
struct Plan<'c> {
    c: &'c Correlation,
    turned: Turned,
    rows: usize,
    columns: usize,
    /// Positions of a step, steps of a bundle, and those of all bundles.
    positions: usize,
    of_bundle: usize,
    steps: usize,
    /// Steps whose values are made ready at a time.
    at_once: usize,
    shares: usize,
    /// Blocks of rows of a part.
    blocks: usize,
}

impl<'c> Plan<'c> {
    fn new(c: &'c Correlation) -> Self {
        let turned = turned(c);
        let (rows, columns) = match turned {
            Turned::Input => (c.outputs, c.channels),
            Turned::Output => (c.channels, c.outputs),
        };
        let positions = (WIDE / c.images).max(1);
        let of_bundle = c.positions().div_ceil(positions);
        let steps = c.bundles * of_bundle;
        let blocks = rows.div_ceil(WIDE);
        let len = blocks * c.taps() * columns.div_ceil(WIDE) * BLOCK;
        let shares = (SUMS / len).min(steps / LEAST).clamp(1, PARTS);
        let blocks = blocks.div_ceil(PARTS.div_ceil(shares));
        let of_step = (blocks * WIDE + columns) * OF_FLOAT * SIDE;
        Self {
            c,
            turned,
            rows,
            columns,
            positions,
            of_bundle,
            steps,
            at_once: (OWN / of_step).clamp(4, 64),
            shares,
            blocks,
        }
    }

    /// Blocks of columns.
    fn wide(&self) -> usize {
        self.columns.div_ceil(WIDE)
    }

    /// Floats of the sums of so many blocks of rows.
    fn len(&self, blocks: usize) -> usize {
        blocks * self.c.taps() * self.wide() * BLOCK
    }

    fn share_len(&self) -> usize {
        self.len(self.rows.div_ceil(WIDE))
    }

    fn parts<'a>(&self, mut floats: &'a mut [f32]) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        for share in 0..self.shares {
            for blocks in ranges(self.rows.div_ceil(WIDE), self.blocks) {
                let (own, after) = floats.split_at_mut(self.len(blocks.len()));
                floats = after;
                parts.push(Part {
                    blocks,
                    steps: share * self.steps / self.shares..(share + 1) * self.steps / self.shares,
                    sums: own,
                });
            }
        }
        parts
    }
}

/// Sums of some blocks of rows over some steps.
struct Part<'a> {
    blocks: Range<usize>,
    steps: Range<usize>,
    sums: &'a mut [f32],
}

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(in crate::bundle) fn gradient(
    amx: Amx,
    c: &Correlation,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let plan = Plan::new(c);
    with_shared(plan.shares * plan.share_len(), |floats| {
        each_part(amx, plan.parts(floats), |part, tiles, scratch| {
            let work = Work {
                amx,
                plan: &plan,
                x,
                dy,
                part,
            };
            work.run(tiles, scratch);
        });
        let (sums, others) = floats.split_at_mut(plan.share_len());
        for other in others.chunks_exact(plan.share_len()) {
            elementwise::accumulate(sums, other);
        }
        write(amx, &plan, sums, dw);
    });
}

struct Work<'a> {
    amx: Amx,
    plan: &'a Plan<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    part: Part<'a>,
}

/// Which positions take part in some steps, and the places that they read with each tap.
struct Meeting {
    outputs: Places,
    inputs: Vec<Places>,
}

impl Work<'_> {
    /// While the registers multiply, what is read next is made ready.
    fn run(mut self, tiles: &mut Tiles, scratch: &mut Scratch) {
        let (plan, c) = (self.plan, self.plan.c);
        let sums = std::mem::take(&mut self.part.sums);
        let blocks = self.part.blocks.clone();
        let rows = blocks.start * WIDE..plan.rows.min(blocks.end * WIDE);
        let registers = rows.len().div_ceil(SIDE);
        let wide = plan.columns.div_ceil(SIDE);
        let of_register = OF_FLOAT * TILE;
        let Scratch { a, b, .. } = scratch;
        let of_rows = registers * plan.at_once * of_register;
        let own_rows: &mut [u32] = cast_slice_mut(a.floats(2 * of_rows));
        let (mut own_rows, mut next_rows) = own_rows.split_at_mut(of_rows);
        let of_columns = wide * plan.at_once * of_register;
        let own_columns: &mut [u32] = cast_slice_mut(b.floats(2 * of_columns));
        let (mut own_columns, mut next_columns) = own_columns.split_at_mut(of_columns);
        let mut meeting = Meeting {
            outputs: Places::new(),
            inputs: vec![Places::new(); c.taps()],
        };
        let order = Order::DENSE;
        let turns: Vec<(Range<usize>, usize)> = self
            .part
            .steps
            .clone()
            .step_by(plan.at_once)
            .map(|first| first..self.part.steps.end.min(first + plan.at_once))
            .flat_map(|steps| (0..c.taps()).map(move |tap| (steps.clone(), tap)))
            .collect();
        if let Some((steps, tap)) = turns.first() {
            self.find(steps, &mut meeting);
            let columns = self.turned(&meeting);
            columns.to_columns(0..columns.slices(), own_columns);
            let still = self.still(&meeting, *tap, rows.clone());
            still.to_rows(0..still.slices(), own_rows);
        }
        for (index, (steps, tap)) in turns.iter().enumerate() {
            let ahead = turns.get(index + 1);
            let is_new = ahead.is_some_and(|(_, tap)| *tap == 0);
            if let Some((steps, 0)) = ahead {
                self.find(steps, &mut meeting);
            }
            let columns = is_new.then(|| self.turned(&meeting));
            let still = ahead.map(|(_, tap)| self.still(&meeting, *tap, rows.clone()));
            let of_columns = columns.as_ref().map_or(0, Source::slices);
            let slices = of_columns + still.as_ref().map_or(0, Source::slices);
            let make = |slices: Range<usize>, next_columns: &mut [u32], next_rows: &mut [u32]| {
                if let Some(columns) = &columns {
                    let own = slices.start.min(of_columns)..slices.end.min(of_columns);
                    columns.to_columns(own, next_columns);
                }
                if let Some(still) = &still {
                    let own = slices.start.max(of_columns)..slices.end.max(of_columns);
                    still.to_rows(own.start - of_columns..own.end - of_columns, next_rows);
                }
            };
            let calls = blocks.len() * plan.wide() * steps.len().div_ceil(STEPS);
            let (mut call, mut slice) = (0, 0);
            for block in blocks.clone() {
                let first_register = (block - blocks.start) * 2;
                let high = 2.min(registers - first_register);
                let a = &own_rows[first_register * steps.len() * of_register..];
                let a = &a[..high * steps.len() * of_register];
                let at = ((block - blocks.start) * c.taps() + tap) * plan.wide();
                for column in 0..plan.wide() {
                    let size = [high, 2.min(wide - 2 * column)];
                    let at = (at + column) * BLOCK;
                    let kept = steps.start > self.part.steps.start;
                    tiles.start(size, kept.then_some(&sums[at..][..BLOCK]));
                    for first in (0..steps.len()).step_by(STEPS) {
                        let own = first..steps.len().min(first + STEPS);
                        let b = [0, 1].map(|other| (2 * column + other) * steps.len());
                        let own: [Step; STEPS] = std::array::from_fn(|step| {
                            let step = own.end.min(first + step + 1) - 1;
                            Step {
                                a: step as u32,
                                b: b.map(|b| ((b + step) * of_register) as u32),
                            }
                        });
                        let steps = &own[..STEPS.min(steps.len() - first)];
                        let b = &*own_columns;
                        tiles.add(size, Products { a, b, order, steps }, || {});
                        call += 1;
                        let until = slices * call / calls;
                        make(slice..until, next_columns, next_rows);
                        slice = until;
                    }
                    tiles.store(size, &mut sums[at..][..BLOCK]);
                }
            }
            std::mem::swap(&mut own_rows, &mut next_rows);
            if is_new {
                std::mem::swap(&mut own_columns, &mut next_columns);
            }
        }
    }

    /// The operand that becomes columns.
    fn turned<'m>(&'m self, meeting: &'m Meeting) -> Source<'m> {
        let (operand, places) = match self.plan.turned {
            Turned::Input => (self.x(), &meeting.inputs[0]),
            Turned::Output => (self.dy(), &meeting.outputs),
        };
        Source {
            simd: self.amx.simd,
            operand,
            places,
            channels: 0..self.plan.columns,
        }
    }

    /// Channels of the operand that becomes rows, at what is read with a tap.
    fn still<'m>(&'m self, meeting: &'m Meeting, tap: usize, channels: Range<usize>) -> Source<'m> {
        let (operand, places) = match self.plan.turned {
            Turned::Input => (self.dy(), &meeting.outputs),
            Turned::Output => (self.x(), &meeting.inputs[tap]),
        };
        Source {
            simd: self.amx.simd,
            operand,
            places,
            channels,
        }
    }

    fn x(&self) -> Operand<'_> {
        Operand::new(self.x, self.plan.c.channels, self.plan.c.images)
    }

    fn dy(&self) -> Operand<'_> {
        Operand::new(self.dy, self.plan.c.outputs, self.plan.c.images)
    }

    /// Finds the positions of some steps, and what they read with each tap.
    fn find(&self, steps: &Range<usize>, meeting: &mut Meeting) {
        let Meeting { outputs, inputs } = meeting;
        let (plan, c) = (self.plan, self.plan.c);
        outputs.clear(steps.len() * plan.positions);
        for inputs in inputs.iter_mut() {
            inputs.clear(steps.len() * plan.positions);
        }
        for (index, step) in steps.clone().enumerate() {
            let (bundle, first) = (
                step / plan.of_bundle,
                step % plan.of_bundle * plan.positions,
            );
            let own = first..c.positions().min(first + plan.positions);
            for (lane, position) in own.enumerate() {
                let at = index * plan.positions + lane;
                outputs.set(at, bundle * c.positions() + position);
                for pair in c.pairs(position) {
                    inputs[pair.tap].set(at, bundle * c.places() + pair.place);
                }
            }
        }
    }
}

/// Writes `dw`, `[output, channel, tap]`, from the sums.
fn write(amx: Amx, plan: &Plan<'_>, sums: &[f32], dw: &mut [f32]) {
    let (c, simd) = (plan.c, amx.simd);
    let taps = c.taps();
    dw.par_chunks_mut(SIDE * c.channels * taps)
        .enumerate()
        .for_each(|(register, dw)| {
            let outputs = dw.len() / (c.channels * taps);
            for first in (0..c.channels).step_by(SIDE) {
                let channels = SIDE.min(c.channels - first);
                let (row, column) = match plan.turned {
                    Turned::Input => (register, first / SIDE),
                    Turned::Output => (first / SIDE, register),
                };
                // A block of one column of registers has them one after the other.
                let broad = 2.min(plan.columns.div_ceil(SIDE) - column / 2 * 2);
                let at = row % 2 * broad + column % 2;
                for tap in 0..taps {
                    let block = (row / 2 * taps + tap) * plan.wide() + column / 2;
                    let own = &sums[block * BLOCK + at * TILE..][..TILE];
                    let (own, _) = own.as_chunks::<SIDE>();
                    let Some(own) = own.first_chunk::<SIDE>() else {
                        continue;
                    };
                    simd.vectorize(
                        #[inline(always)]
                        || {
                            let mut own: [__m512; SIDE] = own.map(cast);
                            if plan.turned == Turned::Output {
                                own = transposed(simd, own);
                            }
                            for (output, own) in own.into_iter().enumerate().take(outputs) {
                                let own: [f32; SIDE] = cast(own);
                                let dw = &mut dw[(output * c.channels + first) * taps + tap..];
                                if taps == 1 && channels == SIDE {
                                    dw[..SIDE].copy_from_slice(&own);
                                } else {
                                    let dw = dw.iter_mut().step_by(taps);
                                    for (dw, own) in dw.zip(&own[..channels]) {
                                        *dw = *own;
                                    }
                                }
                            }
                        },
                    );
                }
            }
        });
}
