//! The gradient of the weight of a convolution as a sum of outer products. The channels of one operand are turned, so
//! that those of an image stand side by side in registers; they meet number after number of the other operand, which
//! stays as it is.

use super::SMALL;
use super::block::Block;
use super::geometry::Correlation;
use super::sums::{Part, Sums, block_size};
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{InRegisters, TileSize};
use crate::transpose::turn_images;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::hint::black_box;

/// Products in whose time a number is turned.
const TURN: usize = 5;

/// A tile of fewer rows takes as long: each product waits for the one before it.
const LEAST_ROWS: usize = 6;
/// Floats that are turned at once, which stay in a core's own cache.
pub(super) const TURNED: usize = 64 << 10;

/// The operand that is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Input,
    Output,
}

impl Turned {
    /// The one that takes less work, and that work: products in all lanes of registers, used or not.
    pub(super) fn best(c: &Correlation) -> (Self, usize) {
        let work = |rows: usize, columns: usize| {
            let lanes = TileSize::get().width / 2;
            columns.next_multiple_of(lanes) * (c.taps() * rows.max(LEAST_ROWS) + TURN)
        };
        let (input, output) = (work(c.outputs, c.channels), work(c.channels, c.outputs));
        if input <= output {
            (Self::Input, input)
        } else {
            (Self::Output, output)
        }
    }
}

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(super) fn gradient(c: &Correlation, turned: Turned, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let sums = Sums::new(c, turned);
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
        sums.write(floats, dw);
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
        let mut places = Vec::new();
        let mut meetings = vec![Vec::new(); c.taps()];
        for index in part.blocks {
            block.become_next(c, index);
            block.meet(self.turned, &mut places, &mut meetings);
            if places.is_empty() {
                continue; // All of it is padding.
            }
            // With few images and one tap the processor looks far enough ahead by itself.
            if IMAGES > SMALL || c.taps() > 1 {
                let still = block.still(self.turned);
                touch(rows, of_place, part.rows.len(), still);
            }
            let mut targets = &mut part.floats[..];
            let size = TileSize::of::<S>();
            let at_once = (TURNED / (places.len() * IMAGES * size.width)).max(1);
            for panels in self.sums.panels().chunks(at_once) {
                let (Some(start), Some(end)) = (panels.first(), panels.last()) else {
                    continue;
                };
                let columns = end.end - start.start;
                let register = places.len() * IMAGES * S::F32_LANES;
                let widths = panels.iter().map(|panel| size.width_for(panel.len()));
                let len = widths.sum::<usize>() / S::F32_LANES * register;
                let own = self.scratch.a.floats(len);
                let first = turned.2 + start.start;
                turn_images::<IMAGES>(
                    turned.0,
                    turned.1,
                    first,
                    columns,
                    &places,
                    S::F32_LANES,
                    own,
                );
                for panel in panels {
                    let width = size.width_for(panel.len());
                    let own = &own[(panel.start - start.start) / S::F32_LANES * register..];
                    for meetings in &meetings {
                        for share in &part.shares {
                            let (target, rest) = targets.split_at_mut(share.len() * width);
                            targets = rest;
                            Outer {
                                rows: &rows[share.start..],
                                of_place,
                                columns: own,
                                register,
                                meetings,
                                target,
                            }
                            .run(simd, share.len(), width);
                        }
                    }
                }
            }
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

/// `target[row][column] += sum over meetings and images of rows[place][row][image] * columns[place][image][column]`.
pub(super) struct Outer<'a, const IMAGES: usize> {
    /// From the first row of a place on, places being so many rows apart.
    pub rows: &'a [[f32; IMAGES]],
    pub of_place: usize,
    /// For each register of a row, `register` floats apart, those of all places and images.
    pub columns: &'a [f32],
    pub register: usize,
    /// Places of the rows and of the columns.
    pub meetings: &'a [[usize; 2]],
    pub target: &'a mut [f32],
}

impl<const IMAGES: usize> InRegisters for Outer<'_, IMAGES> {
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        let zero = [simd.splat_f32s(0.0); IMAGES];
        let columns: [&[[S::f32s; IMAGES]]; VECTORS] = std::array::from_fn(
            #[inline(always)]
            |vector| {
                let own = &self.columns[vector * self.register..][..self.register];
                S::as_simd_f32s(own).0.as_chunks().0
            },
        );
        for &[row, column] in self.meetings {
            // Nothing in this loop may fail, or the sums would be kept in memory for whoever sees that.
            let rows = self.rows.get(row * self.of_place..);
            let rows = rows.and_then(|rows| rows.first_chunk::<ROWS>());
            let columns = columns.map(
                #[inline(always)]
                |columns| columns.get(column).unwrap_or(&zero),
            );
            if let Some(rows) = rows {
                for image in 0..IMAGES {
                    let columns = columns.map(
                        #[inline(always)]
                        |columns| columns[image],
                    );
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let number = simd.splat_f32s(row[image]);
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = simd.mul_add_e_f32s(number, column, *sum);
                        }
                    }
                }
            }
        }
        let (target, _) = S::as_mut_simd_f32s(self.target);
        // As many as there are sums, which then need no place in memory.
        let target = target
            .as_chunks_mut::<VECTORS>()
            .0
            .first_chunk_mut::<ROWS>();
        for (target, sums) in target.into_iter().flatten().zip(&sums) {
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = simd.add_f32s(*target, *sum);
            }
        }
    }
}
