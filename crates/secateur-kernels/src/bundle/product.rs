//! The microkernel: a tile of a sum of matrix products, whose sums stay in registers.

use super::geometry::Pair;
use crate::norm::Line;
use crate::tile::{InRegisters, add_products, finish_sums, start_sums};
use pulp::Simd;

/// `target[i][j] = start[i] + sum over pairs and k of a[tap][k][i] * b[place][k][j]`.
pub(super) struct Product<'a> {
    /// For each tap `depth` rows of as many floats as the tile has rows.
    pub a: &'a [f32],
    /// For each place, `place` floats apart, `depth` rows.
    pub b: &'a [f32],
    pub place: usize,
    /// Floats from a row of `b`, and of the target, to the next one.
    pub stride: usize,
    pub depth: usize,
    pub pairs: &'a [Pair],
    /// What the sums start from, instead of zero.
    pub start: Option<&'a [f32]>,
    /// What is done to each row of sums before it is written.
    pub line: Option<Line<'a>>,
    pub target: &'a mut [f32],
}

impl InRegisters for Product<'_> {
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let product = self;
        let width = VECTORS * S::F32_LANES;
        let mut sums = start_sums::<S, ROWS, VECTORS>(simd, product.start);
        let (a, _) = product.a.as_chunks::<ROWS>();
        for pair in product.pairs {
            let a = &a[pair.tap * product.depth..][..product.depth];
            let b = &product.b[pair.place * product.place..];
            let (b, _) = S::as_simd_f32s(&b[..(product.depth - 1) * product.stride + width]);
            // Nothing in this loop may fail, or the sums would be kept in memory for whoever sees that.
            for (a, b) in a.iter().zip(b.chunks(product.stride / S::F32_LANES)) {
                if let Some(b) = b.first_chunk::<VECTORS>() {
                    add_products(simd, &mut sums, a, b);
                }
            }
        }
        let sums = finish_sums(simd, sums, product.line);
        for (row, sums) in sums.iter().enumerate() {
            let target = &mut product.target[row * product.stride..][..width];
            let (target, _) = S::as_mut_simd_f32s(target);
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = *sum;
            }
        }
    }
}
