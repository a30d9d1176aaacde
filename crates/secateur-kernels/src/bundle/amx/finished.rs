//! Sums of a block become outputs.

use crate::amx::{SIDE, TILE};
use crate::bundle::SMALL;
use crate::conv::Finish;
use pulp::x86::V4;
use pulp::{Simd, cast};

/// How the sums of a block are finished and written.
pub(super) struct Finished<'a> {
    pub simd: V4,
    pub finish: Finish<'a>,
    pub images: usize,
    /// Where in a position's outputs the first ones are.
    pub first: usize,
    pub outputs: usize,
    /// Registers of a row of the block.
    pub columns: usize,
}

impl Finished<'_> {
    /// Writes those of a column of registers: the images of a position from `image` on, or those of two.
    pub(super) fn write(
        &self,
        sums: &[f32],
        column: usize,
        image: usize,
        mut places: impl Iterator<Item = usize>,
        target: &mut [&mut [f32]],
    ) {
        let simd = self.simd;
        let [a, b] = [places.next(), places.next()];
        let Some(a) = a else { return };
        let (before, after) = target.split_at_mut(a + 1);
        let own = &mut before[a][self.first..];
        let mut none = [];
        let other = match b {
            Some(b) => &mut after[b - a - 1][self.first..],
            None => &mut none[..],
        };
        simd.vectorize(
            #[inline(always)]
            || {
                for row in 0..self.outputs {
                    let register = row / SIDE * self.columns + column;
                    let sums = &sums[register * TILE + row % SIDE * SIDE..];
                    let Some(sums) = sums.first_chunk::<SIDE>() else {
                        continue;
                    };
                    let values = self.values(*sums, row);
                    if self.images == SMALL {
                        let [low, high] = cast::<_, [[f32; SMALL]; 2]>(values);
                        store(own, row * SMALL, low);
                        if !other.is_empty() {
                            store(other, row * SMALL, high);
                        }
                    } else {
                        store(own, row * self.images + image, values);
                    }
                }
            },
        );
    }

    #[inline(always)]
    fn values(&self, sums: [f32; SIDE], row: usize) -> [f32; SIDE] {
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
