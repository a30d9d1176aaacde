//! Floats as sums of three numbers of 8 significant bits.

use super::{PARTS, SIDE};
use core::arch::x86_64::{__m512, __m512i};
use pulp::cast;
use pulp::x86::V4;

/// `a | b & c` as a table of all bits.
const OR_OF_AND: i32 = 0xf8;

/// The parts of two floats for each lane, the largest first: those of `even` in the lower halves, of `odd` in the upper ones.
/// Together they are the floats, to the last bit, where those are normal and the smallest part is; smaller ones lose up to
/// 2^-133. What is not finite becomes no number.
#[inline(always)]
pub(crate) fn split(simd: V4, even: [f32; SIDE], odd: [f32; SIDE]) -> [[u32; SIDE]; PARTS] {
    let avx = simd.avx512f;
    let (mut even, mut odd): (__m512, __m512) = (cast(even), cast(odd));
    let mut parts = [[0; SIDE]; PARTS];
    for (part, target) in parts.iter_mut().enumerate() {
        // What is left for the last part has no more bits, unless it is so small that it is not normal: those bits are lost.
        let own = if part + 1 == PARTS {
            (even, odd)
        } else {
            (largest(simd, even), largest(simd, odd))
        };
        let low = avx._mm512_srli_epi32::<16>(cast::<__m512, __m512i>(own.0));
        let high = cast::<__m512, __m512i>(own.1);
        *target = cast(avx._mm512_ternarylogic_epi32::<OR_OF_AND>(low, high, upper()));
        even = avx._mm512_sub_ps(even, own.0);
        odd = avx._mm512_sub_ps(odd, own.1);
    }
    parts
}

/// Writes parts as a row of registers, of which each has the rows of one part, so many apart.
#[inline(always)]
pub(crate) fn put(
    target: &mut [[u32; SIDE]],
    row: usize,
    distance: usize,
    parts: [[u32; SIDE]; PARTS],
) {
    // One by one: a loop over parts that are taken is not unrolled.
    let [first, second, third] = parts;
    target[row * distance] = first;
    target[(SIDE + row) * distance] = second;
    target[(2 * SIDE + row) * distance] = third;
}

/// The nearest number of 8 significant bits.
#[inline(always)]
fn largest(simd: V4, values: __m512) -> __m512 {
    let avx = simd.avx512f;
    let half = cast::<[u32; SIDE], __m512i>([1 << 15; SIDE]);
    let rounded = avx._mm512_add_epi32(cast::<__m512, __m512i>(values), half);
    cast(avx._mm512_and_si512(rounded, upper()))
}

/// The upper half of each lane.
#[inline(always)]
fn upper() -> __m512i {
    cast([!0_u32 << 16; SIDE])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of the parts of each lane of `even` and `odd`.
    fn sums(simd: V4, even: [f32; SIDE], odd: [f32; SIDE]) -> [[f64; SIDE]; 2] {
        let parts = simd.vectorize(
            #[inline(always)]
            || split(simd, even, odd),
        );
        let of = |bits: fn(u32) -> u32, lane: usize| {
            let parts = parts.iter().map(|part| bits(part[lane]));
            parts.map(|bits| f64::from(f32::from_bits(bits))).sum()
        };
        [
            std::array::from_fn(|lane| of(|bits| bits << 16, lane)),
            std::array::from_fn(|lane| of(|bits| bits & !0xffff, lane)),
        ]
    }

    #[test]
    fn tiny_floats_leave_their_neighbours_alone() {
        let Some(simd) = V4::try_new() else { return };
        for exponent in 0..60 {
            let tiny = |i: usize| f32::from_bits((1 << 23) * exponent + 104_729 * i as u32);
            let [even, odd] = [1.0, 0.3].map(|value| [value; SIDE]);
            let [kept, small] = sums(simd, even, std::array::from_fn(tiny));
            assert_eq!(kept, [1.0; SIDE]);
            let [other, kept] = sums(simd, std::array::from_fn(tiny), odd);
            assert_eq!(kept, [f64::from(0.3_f32); SIDE]);
            for (lane, sums) in small.iter().zip(other).enumerate() {
                let tiny = f64::from(tiny(lane));
                assert!((sums.0 - tiny).abs() < 2e-40 && (sums.1 - tiny).abs() < 2e-40);
            }
        }
    }

    #[test]
    fn parts_sum_to_the_float() {
        let Some(simd) = V4::try_new() else { return };
        let number = |i: usize| {
            f32::from_bits(0x3f80_0000 ^ ((i as u32).wrapping_mul(2_654_435_761) % (1 << 27)))
        };
        for first in (0..100_000).step_by(2 * SIDE) {
            let even = std::array::from_fn(|i| number(first + i));
            let odd = std::array::from_fn(|i| -number(first + SIDE + i));
            let expected = [even, odd].map(|values| values.map(f64::from));
            assert_eq!(sums(simd, even, odd), expected);
        }
    }
}
