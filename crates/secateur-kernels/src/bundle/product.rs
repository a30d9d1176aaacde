//! The microkernel: a tile of a sum of matrix products, whose sums stay in registers.

use super::geometry::Pair;
use crate::tile::{TileSize, add_products};
use pulp::{Simd, WithSimd};

/// `target[i][j] (+)= start[i] + sum over pairs and k of a[tap][k][i] * b[place][k][j]`.
pub(super) struct Product<'a> {
    /// For each tap `depth` rows of as many floats as the tile has rows.
    pub a: &'a [f32],
    /// For each place, `place` floats apart, `depth` rows that are `stride` floats apart.
    pub b: &'a [f32],
    pub place: usize,
    pub stride: usize,
    pub depth: usize,
    pub pairs: &'a [Pair],
    /// What the sums start from, instead of zero.
    pub start: Option<&'a [f32]>,
    /// Whether the sums are added to what the target holds.
    pub is_added: bool,
    /// Rows that are `target_stride` floats apart.
    pub target: &'a mut [f32],
    pub target_stride: usize,
}

impl Product<'_> {
    /// Computes a tile of that many rows, which the instruction set must have, and of `width` floats: the
    /// width of a tile, or half of it.
    #[inline(always)]
    pub(super) fn run<S: Simd>(self, simd: S, rows: usize, width: usize) {
        macro_rules! run {
            ($($rows:literal)*) => {
                match rows {
                    $($rows => self.run_rows::<S, $rows>(simd, width),)*
                    _ => unreachable!("no tile has {rows} rows"),
                }
            };
        }
        if TileSize::of::<S>().rows == 14 {
            run!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        } else {
            run!(1 2 3 4 5 6)
        }
    }

    #[inline(always)]
    fn run_rows<S: Simd, const ROWS: usize>(self, simd: S, width: usize) {
        let is_full = width == TileSize::of::<S>().width;
        match (S::IS_SCALAR, is_full) {
            (true, true) => simd.vectorize(Sized::<ROWS, 8>(self)),
            (true, false) => simd.vectorize(Sized::<ROWS, 4>(self)),
            (false, true) => simd.vectorize(Sized::<ROWS, 2>(self)),
            (false, false) => simd.vectorize(Sized::<ROWS, 1>(self)),
        }
    }
}

struct Sized<'a, const ROWS: usize, const VECTORS: usize>(Product<'a>);

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Sized<'_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let product = self.0;
        let width = VECTORS * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        if let Some(start) = product.start.and_then(|start| start.first_chunk::<ROWS>()) {
            for (sums, start) in sums.iter_mut().zip(start) {
                *sums = [simd.splat_f32s(*start); VECTORS];
            }
        }
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
        for (row, sums) in sums.iter().enumerate() {
            let target = &mut product.target[row * product.target_stride..][..width];
            let (target, _) = S::as_mut_simd_f32s(target);
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = if product.is_added {
                    simd.add_f32s(*target, *sum)
                } else {
                    *sum
                };
            }
        }
    }
}
