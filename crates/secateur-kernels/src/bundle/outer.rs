//! Sums of outer products. The channels of one operand are turned, so that those of an image stand side by side in
//! registers; they meet number after number of the other operand, which stays as it is.

use crate::scratch::Buffer;
use crate::tile::{InRegisters, TileSize};
use crate::transpose::turn_images;
use pulp::Simd;
use std::ops::Range;

/// Floats that are turned at once, which stay in a core's own cache.
const TURNED: usize = 64 << 10;

/// Channels of the operand that is turned.
pub(super) struct Columns<'a> {
    /// `[place][channel][image]`
    pub values: &'a [f32],
    /// Channels of a place, and the first one that takes part.
    pub of_place: usize,
    pub first: usize,
    /// Those that fill registers together, counted from the first one on.
    pub panels: &'a [Range<usize>],
}

/// A panel at some places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel<'a> {
    /// Floats of a row of the tile.
    pub width: usize,
    /// For each register of a row, `register` floats apart, those of all places and images.
    pub turned: &'a [f32],
    pub register: usize,
}

impl Columns<'_> {
    /// Calls `work` with each panel, turned at `places`. It must be `#[inline(always)]`.
    #[inline(always)]
    pub fn each<S: Simd, const IMAGES: usize>(
        &self,
        places: &[usize],
        buffer: &mut Buffer,
        mut work: impl FnMut(&Range<usize>, Panel<'_>),
    ) {
        let size = TileSize::of::<S>();
        let register = places.len() * IMAGES * S::F32_LANES;
        let at_once = (TURNED / (places.len() * IMAGES * size.width)).max(1);
        for panels in self.panels.chunks(at_once) {
            let (Some(first), Some(last)) = (panels.first(), panels.last()) else {
                continue;
            };
            let widths = panels.iter().map(|panel| size.width_for(panel.len()));
            let len = widths.sum::<usize>() / S::F32_LANES * register;
            let turned = buffer.floats(len);
            turn_images::<IMAGES>(
                self.values,
                self.of_place,
                self.first + first.start,
                last.end - first.start,
                places,
                S::F32_LANES,
                turned,
            );
            for panel in panels {
                let start = (panel.start - first.start) / S::F32_LANES * register;
                let own = Panel {
                    width: size.width_for(panel.len()),
                    turned: &turned[start..],
                    register,
                };
                work(panel, own);
            }
        }
    }
}

/// `target[row][column] += sum over meetings and images of rows[place][row][image] * columns[place][image][column]`.
pub(super) struct Outer<'a, const IMAGES: usize> {
    /// From the first row of a place on, places being so many rows apart.
    pub rows: &'a [[f32; IMAGES]],
    pub of_place: usize,
    pub columns: Panel<'a>,
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
                let Panel {
                    turned, register, ..
                } = self.columns;
                let own = &turned[vector * register..][..register];
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
