//! Sums of a block become outputs.

use super::meanwhile::Pieces;
use crate::amx::{SIDE, TILE};
use crate::bundle::SMALL;
use crate::conv::Finish;
use pulp::x86::V4;
use pulp::{Simd, cast};

/// Outputs that are written at a time.
const ROWS: usize = SIDE;

/// Which images a column of registers is of: some of a position, or all of one or two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Column {
    /// Where the outputs of each position are.
    pub places: [Option<usize>; 2],
    /// The first image.
    pub image: usize,
}

/// Sums of a block that are being finished and written.
pub(super) struct Writing<'a, const IMAGES: usize> {
    simd: V4,
    finish: Finish<'a>,
    /// Where in a position's outputs those of the block start, and how many they are.
    first: usize,
    outputs: usize,
    columns: [Column; 2],
    /// Registers of a row of the block.
    wide: usize,
    sums: &'a [f32],
    pieces: Pieces,
    /// What comes next: a column of registers, and outputs of it.
    column: usize,
    row: usize,
}

impl<'a, const IMAGES: usize> Writing<'a, IMAGES> {
    /// Those of one or two columns of registers, while the registers run so many steps.
    pub fn new(
        simd: V4,
        finish: Finish<'a>,
        [first, outputs]: [usize; 2],
        columns: ([Column; 2], usize),
        sums: &'a [f32],
        steps: usize,
    ) -> Self {
        let (columns, wide) = columns;
        Self {
            simd,
            finish,
            first,
            outputs,
            columns,
            wide,
            sums,
            pieces: Pieces::new(wide * outputs.div_ceil(ROWS), steps),
            column: 0,
            row: 0,
        }
    }

    /// Writes the pieces of a call.
    #[inline(always)]
    pub fn next(&mut self, target: &mut [&mut [f32]]) {
        for _ in 0..self.pieces.next() {
            self.write(target);
        }
    }

    /// The same, from a function that knows less of the processor.
    #[inline(always)]
    pub fn next_of_few(&mut self, target: &mut [&mut [f32]]) {
        let due = self.pieces.next();
        if due == 0 {
            return;
        }
        self.simd.vectorize(
            #[inline(always)]
            move || {
                let own = self;
                for _ in 0..due {
                    own.write(target);
                }
            },
        );
    }

    /// Writes all that is left.
    pub fn rest(self, target: &mut [&mut [f32]]) {
        if self.pieces.left() == 0 {
            return;
        }
        self.simd.vectorize(
            #[inline(always)]
            move || {
                // Taken, so that the closure is called as what it is: once.
                let mut own = self;
                for _ in 0..own.pieces.left() {
                    own.write(target);
                }
            },
        );
    }

    #[inline(always)]
    fn write(&mut self, target: &mut [&mut [f32]]) {
        let Column { places, image } = self.columns[self.column];
        let rows = self.row..self.outputs.min(self.row + ROWS);
        match places {
            [Some(a), Some(b)] => {
                let (before, after) = target.split_at_mut(b);
                let first = &mut before[a][self.first..];
                let second = &mut after[0][self.first..];
                for row in rows.step_by(2) {
                    let [low, high] = cast::<_, [[f32; SMALL]; 2]>(self.row(row));
                    if row + 1 == self.outputs {
                        store(first, row * SMALL, low);
                        store(second, row * SMALL, high);
                    } else {
                        // Two outputs at once: lines of the cache are written whole.
                        let next = self.row(row + 1);
                        let [next_low, next_high] = cast::<_, [[f32; SMALL]; 2]>(next);
                        store::<SIDE>(first, row * SMALL, cast([low, next_low]));
                        store::<SIDE>(second, row * SMALL, cast([high, next_high]));
                    }
                }
            }
            [Some(a), None] => {
                let own = &mut target[a][self.first..];
                for row in rows {
                    let values = self.row(row);
                    if IMAGES == SMALL {
                        let [low, _] = cast::<_, [[f32; SMALL]; 2]>(values);
                        store(own, row * SMALL, low);
                    } else {
                        store(own, row * IMAGES + image, values);
                    }
                }
            }
            _ => {}
        }
        self.row += ROWS;
        if self.row >= self.outputs {
            self.row = 0;
            self.column += 1;
        }
    }

    /// An output's values of the column.
    #[inline(always)]
    fn row(&self, row: usize) -> [f32; SIDE] {
        let register = row / SIDE * self.wide + self.column;
        let sums = &self.sums[register * TILE + row % SIDE * SIDE..];
        let sums: [f32; SIDE] = sums.first_chunk().copied().unwrap_or_default();
        let simd = self.simd;
        let mut values = cast(sums);
        if let Some(bias) = self.finish.bias {
            values = simd.add_f32s(values, simd.splat_f32s(bias[row]));
        }
        if let Some(line) = &self.finish.line {
            let (factor, offset) = (line.factor[row], line.offset[row]);
            values = simd.mul_f32s(values, simd.splat_f32s(factor));
            values = simd.add_f32s(values, simd.splat_f32s(offset));
            values = line.clamp.values(simd, values);
        }
        cast(values)
    }
}

#[inline(always)]
fn store<const N: usize>(target: &mut [f32], at: usize, values: [f32; N]) {
    if let Some(target) = target[at..].first_chunk_mut::<N>() {
        *target = values;
    }
}
