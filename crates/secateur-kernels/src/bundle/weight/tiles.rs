//! The gradient of the weight of a convolution of many channels: outer products in tiles of registers.

use super::sums::{Part, Sums, block_size};
use crate::bundle::block::{Block, Turned};
use crate::bundle::geometry::Correlation;
use crate::bundle::outer::{Columns, Outer};
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{InRegisters, TileSize};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::hint::black_box;

/// Products in whose time a number is turned.
const TURN: usize = 5;

/// A tile of fewer rows takes as long: each product waits for the one before it.
const LEAST_ROWS: usize = 6;

/// The operand whose turning takes less work, and that work: products in all lanes of registers, used or not.
pub(super) fn best(c: &Correlation) -> (Turned, usize) {
    let work = |rows: usize, columns: usize| {
        let lanes = TileSize::get().width / 2;
        columns.next_multiple_of(lanes) * (c.taps() * rows.max(LEAST_ROWS) + TURN)
    };
    let (input, output) = (work(c.outputs, c.channels), work(c.channels, c.outputs));
    if input <= output {
        (Turned::Input, input)
    } else {
        (Turned::Output, output)
    }
}

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(super) fn gradient(c: &Correlation, turned: Turned, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let blocks = Block::count(c, block_size(c));
    let sums = Sums::new(c, turned, c.taps(), blocks);
    with_shared(sums.len(), |floats| {
        sums.parts(floats).into_par_iter().for_each(|part| {
            with_scratch(|scratch| {
                level::dispatch(Work {
                    c,
                    turned,
                    sums: &sums,
                    x,
                    dy,
                    part,
                    scratch,
                });
            });
        });
        sums.write(sums.total(floats), dw);
    });
}

struct Work<'a> {
    c: &'a Correlation,
    turned: Turned,
    sums: &'a Sums<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.c.images {
            8 => self.sum::<S, 8>(simd),
            16 => self.sum::<S, 16>(simd),
            _ => self.sum::<S, 32>(simd),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn sum<S: Simd, const IMAGES: usize>(self, simd: S) {
        let (c, part) = (self.c, self.part);
        part.floats.fill(0.0);
        // Rows of one position, as if its images filled a register.
        let mut block = Block::new(c, block_size(c), IMAGES);
        // Of each operand, the channels of a place, the first one that takes part, and the places of the block.
        let (x, dy) = (
            (self.x, c.groups * c.channels, part.group * c.channels),
            (self.dy, c.groups * c.outputs, part.group * c.outputs),
        );
        let (still, turned) = match self.turned {
            Turned::Input => (dy, x),
            Turned::Output => (x, dy),
        };
        let (of_place, first) = (still.1, still.2 + part.rows.start);
        let (rows, _) = still.0[first * IMAGES..].as_chunks::<IMAGES>();
        let columns = Columns {
            values: turned.0,
            of_place: turned.1,
            first: turned.2,
            panels: self.sums.panels(),
        };
        let mut places = Vec::new();
        let mut meetings = vec![Vec::new(); c.taps()];
        for index in part.blocks {
            block.become_next(c, index);
            block.meet(self.turned, &mut places, &mut meetings);
            if places.is_empty() {
                continue; // All of it is padding.
            }
            let still = block.still(self.turned);
            touch(rows, of_place, part.rows.len(), still);
            let mut targets = &mut part.floats[..];
            columns.each::<S, IMAGES>(
                &places,
                &mut self.scratch.a,
                #[inline(always)]
                |_, panel| {
                    for meetings in &meetings {
                        for share in &part.shares {
                            let rest = std::mem::take(&mut targets);
                            let (target, rest) = rest.split_at_mut(share.len() * panel.width);
                            targets = rest;
                            Outer {
                                rows: &rows[share.start..],
                                of_place,
                                columns: panel,
                                meetings,
                                target,
                            }
                            .run(simd, share.len(), panel.width);
                        }
                    }
                },
            );
        }
    }
}

/// Reads a number of each cache line of so many rows of some places, one after the other: what comes from memory comes so
/// much faster than in the order of the tiles.
#[inline(always)]
fn touch<const IMAGES: usize>(
    rows: &[[f32; IMAGES]],
    of_place: usize,
    count: usize,
    places: impl Iterator<Item = usize>,
) {
    let mut sum = 0.0;
    for place in places {
        let rows = rows[place * of_place..][..count].as_flattened();
        for line in rows.chunks(16) {
            sum += line[0];
        }
    }
    black_box(sum);
}
