//! The microkernel: a tile of a matrix product whose sums stay in registers.

use crate::level;
use crate::norm::Line;
use pulp::{Simd, WithSimd};

/// The largest tile of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TileSize {
    /// Rows: numbers of `a` that are held against each row of `b`.
    pub rows: usize,
    /// Floats of a row; a narrow tile has half as many.
    pub width: usize,
}

impl TileSize {
    /// The size for the instruction set in use.
    pub(crate) fn get() -> Self {
        level::dispatch(Ask)
    }

    pub(crate) fn of<S: Simd>() -> Self {
        // Sums, one row of `b` and a number of `a` fill the registers.
        let rows = match (S::IS_SCALAR, S::REGISTER_COUNT) {
            (true, _) => 4,
            (false, 32..) => 14,
            (false, _) => 6,
        };
        Self {
            rows,
            width: vectors::<S>() * S::F32_LANES,
        }
    }

    /// `width`, or half of it where that holds `n`.
    pub(crate) fn width_for(self, n: usize) -> usize {
        if 2 * n <= self.width {
            self.width / 2
        } else {
            self.width
        }
    }
}

struct Ask;

impl WithSimd for Ask {
    type Output = TileSize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> TileSize {
        TileSize::of::<S>()
    }
}

/// Vectors of a row. Without SIMD a vector is one float.
#[inline(always)]
fn vectors<S: Simd>() -> usize {
    if S::IS_SCALAR { 8 } else { 2 }
}

/// The order in which the rows of the operands meet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<'a> {
    /// Row after row of both, so many.
    Consecutive(usize),
    /// Those rows of `a` with row after row of `b`.
    OfA(&'a [u32]),
    /// Row after row of `a` with the rows of `b` that start at those floats.
    OfB(&'a [u32]),
}

/// What becomes of the former values of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Former {
    Dropped,
    Kept,
}

/// `target[i][j] (+)= sum over k of a[k][i] * b[k][j]`, `k` over pairs of rows.
pub(crate) struct Tile<'a> {
    /// Rows of `rows` floats.
    pub a: &'a [f32],
    /// Rows of `width` floats.
    pub b: &'a [f32],
    pub order: Rows<'a>,
    /// `rows` rows of `width` floats, `stride` apart.
    pub target: &'a mut [f32],
    pub stride: usize,
    pub former: Former,
}

/// A product whose sums fit the registers.
pub(crate) trait InRegisters: Sized {
    /// Computes `ROWS` rows of so many vectors.
    fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S);

    /// Computes a tile of that many rows, which the instruction set must have, and of `width` floats: the
    /// width of a tile, or half of it.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, rows: usize, width: usize) {
        macro_rules! run {
            ($($rows:literal)*) => {
                match rows {
                    $($rows => run_rows::<S, Self, $rows>(simd, self, width),)*
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
}

#[inline(always)]
fn run_rows<S: Simd, P: InRegisters, const ROWS: usize>(simd: S, product: P, width: usize) {
    let is_full = width == TileSize::of::<S>().width;
    match (S::IS_SCALAR, is_full) {
        (true, true) => simd.vectorize(OfSize::<P, ROWS, 8>(product)),
        (true, false) => simd.vectorize(OfSize::<P, ROWS, 4>(product)),
        (false, true) => simd.vectorize(OfSize::<P, ROWS, 2>(product)),
        (false, false) => simd.vectorize(OfSize::<P, ROWS, 1>(product)),
    }
}

struct OfSize<P, const ROWS: usize, const VECTORS: usize>(P);

impl<P: InRegisters, const ROWS: usize, const VECTORS: usize> WithSimd
    for OfSize<P, ROWS, VECTORS>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.compute::<S, ROWS, VECTORS>(simd);
    }
}

impl InRegisters for Tile<'_> {
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let tile = self;
        let width = VECTORS * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        let (a, _) = tile.a.as_chunks::<ROWS>();
        match tile.order {
            Rows::Consecutive(n) => {
                let (b, _) = S::as_simd_f32s(&tile.b[..n * width]).0.as_chunks();
                for (a, b) in a[..n].iter().zip(b) {
                    add_products(simd, &mut sums, a, b);
                }
            }
            Rows::OfA(rows) => {
                let b = &tile.b[..rows.len() * width];
                let (b, _) = S::as_simd_f32s(b).0.as_chunks();
                for (row, b) in rows.iter().zip(b) {
                    add_products(simd, &mut sums, &a[*row as usize], b);
                }
            }
            Rows::OfB(starts) => {
                for (a, start) in a[..starts.len()].iter().zip(starts) {
                    let b = &tile.b[*start as usize..][..width];
                    if let Some(b) = S::as_simd_f32s(b).0.first_chunk() {
                        add_products(simd, &mut sums, a, b);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let target = &mut tile.target[row * tile.stride..][..width];
            let (target, _) = S::as_mut_simd_f32s(target);
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = match tile.former {
                    Former::Dropped => *sum,
                    Former::Kept => simd.add_f32s(*target, *sum),
                };
            }
        }
    }
}

/// Rows of sums that start from a number each, or from zero.
#[inline(always)]
pub(crate) fn start_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    start: Option<&[f32]>,
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    if let Some(start) = start.and_then(|start| start.first_chunk::<ROWS>()) {
        for (sums, start) in sums.iter_mut().zip(start) {
            *sums = [simd.splat_f32s(*start); VECTORS];
        }
    }
    sums
}

/// Rows of sums, each normalised by its own numbers, where there are such.
#[inline(always)]
pub(crate) fn finish_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: [[S::f32s; VECTORS]; ROWS],
    line: Option<Line<'_>>,
) -> [[S::f32s; VECTORS]; ROWS] {
    if let Some(line) = line
        && let Some(factor) = line.factor.first_chunk::<ROWS>()
        && let Some(offset) = line.offset.first_chunk::<ROWS>()
    {
        for ((sums, factor), offset) in sums.iter_mut().zip(factor).zip(offset) {
            let (factor, offset) = (simd.splat_f32s(*factor), simd.splat_f32s(*offset));
            for sum in sums {
                let value = simd.add_f32s(simd.mul_f32s(*sum, factor), offset);
                *sum = line.clamp.values(simd, value);
            }
        }
    }
    sums
}

/// `sums[i][j] += a[i] * b[j]`.
#[inline(always)]
pub(crate) fn add_products<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::f32s; VECTORS]; ROWS],
    a: &[f32; ROWS],
    b: &[S::f32s; VECTORS],
) {
    for (sums, &a) in sums.iter_mut().zip(a) {
        let a = simd.splat_f32s(a);
        for (sum, &b) in sums.iter_mut().zip(b) {
            *sum = simd.mul_add_e_f32s(a, b, *sum);
        }
    }
}
