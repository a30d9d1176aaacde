//! Floats as sums of three numbers of 8 significant bits.

use super::{PARTS, SIDE};
use core::arch::x86_64::{__m512, __m512i};
use pulp::cast;
use pulp::x86::V4;

/// The parts of two floats for each lane, the largest first: those of `even` in the lower halves, of `odd` in the upper ones.
/// Together they are the floats, to the last bit, where those are normal and the smallest part is.
#[inline(always)]
pub(crate) fn split(simd: V4, even: [f32; SIDE], odd: [f32; SIDE]) -> [[u32; SIDE]; PARTS] {
    let avx = simd.avx512f;
    let (mut even, mut odd): (__m512, __m512) = (cast(even), cast(odd));
    let mut parts = [[0; SIDE]; PARTS];
    for (part, target) in parts.iter_mut().enumerate() {
        // What is left for the last part is one already.
        let own = if part + 1 == PARTS {
            (even, odd)
        } else {
            (largest(simd, even), largest(simd, odd))
        };
        let low = avx._mm512_srli_epi32::<16>(cast::<__m512, __m512i>(own.0));
        *target = cast(avx._mm512_or_si512(low, cast::<__m512, __m512i>(own.1)));
        even = avx._mm512_sub_ps(even, own.0);
        odd = avx._mm512_sub_ps(odd, own.1);
    }
    parts
}

/// The nearest number of 8 significant bits.
#[inline(always)]
fn largest(simd: V4, values: __m512) -> __m512 {
    let avx = simd.avx512f;
    let half = cast::<[u32; SIDE], __m512i>([1 << 15; SIDE]);
    let upper = cast::<[u32; SIDE], __m512i>([!0 << 16; SIDE]);
    let rounded = avx._mm512_add_epi32(cast::<__m512, __m512i>(values), half);
    cast(avx._mm512_and_si512(rounded, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_float() {
        let Some(simd) = V4::try_new() else { return };
        let number = |i: usize| {
            f32::from_bits(0x3f80_0000 ^ ((i as u32).wrapping_mul(2_654_435_761) % (1 << 27)))
        };
        for first in (0..100_000).step_by(2 * SIDE) {
            let even = std::array::from_fn(|i| number(first + i));
            let odd = std::array::from_fn(|i| -number(first + SIDE + i));
            let parts = simd.vectorize(
                #[inline(always)]
                || split(simd, even, odd),
            );
            for lane in 0..SIDE {
                let of = |bits: fn(u32) -> u32| {
                    parts
                        .iter()
                        .map(|part| f64::from(f32::from_bits(bits(part[lane]))))
                        .sum::<f64>()
                };
                assert_eq!(of(|bits| bits << 16), f64::from(even[lane]));
                assert_eq!(of(|bits| bits & !0xffff), f64::from(odd[lane]));
            }
        }
    }
}
