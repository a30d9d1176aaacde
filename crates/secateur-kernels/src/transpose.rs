//! Transposes from planes to panels: values of one channel after another become rows that hold one
//! value of each channel.

use crate::level;
#[cfg(target_arch = "x86_64")]
use pulp::Arch;

/// `panel[n][r] = planes[r][n]` for `rows` planes, which are `plane` apart, at `len` places; rows of
/// the panel are `stride` apart.
pub(crate) fn transpose(
    planes: &[f32],
    plane: usize,
    rows: usize,
    len: usize,
    panel: &mut [f32],
    stride: usize,
) {
    for first in (0..rows).step_by(16) {
        let rows = (rows - first).min(16);
        let planes = &planes[first * plane..];
        let panel = &mut panel[first..];
        let done = match level::arch() {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) if rows > 4 => {
                x86::blocks(simd, planes, plane, rows, len, panel, stride)
            }
            _ => 0,
        };
        if done == 0 {
            level::compiled(
                #[inline(always)]
                || by_fours(planes, plane, rows, len, panel, stride),
            );
            continue;
        }
        for n in done..len {
            for r in 0..rows {
                panel[n * stride + r] = planes[r * plane + n];
            }
        }
    }
}

/// `turned[register][n][image][lane] = values[place][first + r][image]` for the `n`-th of `places`, each `channels` times
/// `IMAGES` floats, and the `r`-th of `rows` channels: lane `r % LANES` of register `r / LANES`. Lanes that are left
/// are zero. The caller must be compiled for the instruction set, whose registers have so many lanes.
#[inline(always)]
pub(crate) fn turn_images<const IMAGES: usize>(
    values: &[f32],
    channels: usize,
    first: usize,
    rows: usize,
    places: &[usize],
    lanes: usize,
    turned: &mut [f32],
) {
    let (values, _) = values.as_chunks::<IMAGES>();
    let own = |place: usize| &values[place * channels + first..][..rows];
    #[cfg(target_arch = "x86_64")]
    if let (Arch::V4(simd), 16) = (level::arch(), lanes) {
        return x86::images::<IMAGES>(simd, own, places, turned);
    }
    let len = places.len() * IMAGES * lanes;
    for (register, turned) in turned.chunks_exact_mut(len).enumerate() {
        let first = rows.min(register * lanes);
        let last = rows.min((register + 1) * lanes);
        for (turned, place) in turned.chunks_exact_mut(IMAGES * lanes).zip(places) {
            if last - first < lanes {
                turned.fill(0.0);
            }
            for (r, images) in own(*place)[first..last].iter().enumerate() {
                let lane = turned[r..].iter_mut().step_by(lanes);
                for (value, image) in lane.zip(images) {
                    *value = *image;
                }
            }
        }
    }
}

#[inline(always)]
fn by_fours(
    planes: &[f32],
    plane: usize,
    rows: usize,
    len: usize,
    panel: &mut [f32],
    stride: usize,
) {
    let whole = len / 4 * 4;
    for r in 0..rows {
        let planes = &planes[r * plane..][..len];
        let mut start = r;
        for values in planes.as_chunks::<4>().0 {
            let panel = &mut panel[start..][..3 * stride + 1];
            for (n, value) in values.iter().enumerate() {
                panel[n * stride] = *value;
            }
            start += 4 * stride;
        }
        for n in whole..len {
            panel[n * stride + r] = planes[n];
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use core::arch::x86_64::__m512;
    use pulp::cast;
    use pulp::x86::V4;

    /// Transposes whole blocks of 16 places; returns how many places that is.
    pub(super) fn blocks(
        simd: V4,
        planes: &[f32],
        plane: usize,
        rows: usize,
        len: usize,
        panel: &mut [f32],
        stride: usize,
    ) -> usize {
        simd.vectorize(
            #[inline(always)]
            || {
                let mut first = 0;
                // Where rows follow each other, 16 floats are written: the next row is written after.
                let written = if rows == stride { 16 } else { rows };
                while first + 16 <= len && (first + 15) * stride + written <= panel.len() {
                    let mut block = [cast::<[f32; 16], __m512>([0.0; 16]); 16];
                    for (r, row) in block.iter_mut().enumerate() {
                        if r < rows {
                            let values = &planes[r * plane + first..][..16];
                            if let Some(values) = values.first_chunk::<16>() {
                                *row = cast(*values);
                            }
                        }
                    }
                    let panel = &mut panel[first * stride..];
                    for (n, row) in transposed(simd, block).into_iter().enumerate() {
                        let row = cast::<__m512, [f32; 16]>(row);
                        match panel[n * stride..].first_chunk_mut::<16>() {
                            Some(panel) if written == 16 => *panel = row,
                            _ => panel[n * stride..][..rows].copy_from_slice(&row[..rows]),
                        }
                    }
                    first += 16;
                }
                first
            },
        )
    }

    /// All places, 16 channels of one place at a time, or of two.
    #[inline(always)]
    pub(super) fn images<'v, const IMAGES: usize>(
        simd: V4,
        own: impl Fn(usize) -> &'v [[f32; IMAGES]],
        places: &[usize],
        turned: &mut [f32],
    ) {
        let (turned, _) = turned.as_chunks_mut::<16>();
        let joined = (16 / IMAGES).max(1);
        for (pair, own_places) in places.chunks(joined).enumerate() {
            let (a, b) = match own_places {
                [a, b, ..] => (own(*a), own(*b)),
                [a] => (own(*a), own(*a)),
                [] => continue,
            };
            let rows = turned.chunks_exact_mut(places.len() * IMAGES);
            for (rows, first) in rows.zip((0..a.len()).step_by(16)) {
                let (a, b) = (&a[first..], &b[first..]);
                let rows = &mut rows[pair * joined * IMAGES..];
                if let (Some(a), Some(b)) = (a.first_chunk::<16>(), b.first_chunk::<16>()) {
                    sixteen(simd, a, b, rows);
                } else {
                    let (mut all_a, mut all_b) = ([[0.0; IMAGES]; 16], [[0.0; IMAGES]; 16]);
                    all_a[..a.len()].copy_from_slice(a);
                    all_b[..b.len()].copy_from_slice(b);
                    sixteen(simd, &all_a, &all_b, rows);
                }
            }
        }
    }

    /// Sixteen channels of all images of a place, or, where those are half a register, of two places.
    #[inline(always)]
    fn sixteen<const IMAGES: usize>(
        simd: V4,
        a: &[[f32; IMAGES]; 16],
        b: &[[f32; IMAGES]; 16],
        rows: &mut [[f32; 16]],
    ) {
        for part in (0..IMAGES).step_by(16) {
            let mut block = [cast::<[f32; 16], __m512>([0.0; 16]); 16];
            for (r, row) in block.iter_mut().enumerate() {
                if IMAGES == 8
                    && let (Some(a), Some(b)) = (a[r].first_chunk::<8>(), b[r].first_chunk::<8>())
                {
                    *row = cast([*a, *b]);
                } else if let Some(a) = a[r][part..].first_chunk::<16>() {
                    *row = cast(*a);
                }
            }
            let rows = rows.iter_mut().skip(part);
            for (row, values) in rows.zip(transposed(simd, block)) {
                *row = cast(values);
            }
        }
    }

    /// Rows become columns.
    #[inline(always)]
    pub(crate) fn transposed(simd: V4, rows: [__m512; 16]) -> [__m512; 16] {
        let avx = simd.avx512f;
        let mut pairs = rows;
        for i in 0..8 {
            pairs[2 * i] = avx._mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = avx._mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = rows;
        for i in 0..4 {
            for j in 0..2 {
                let (low, high) = (cast(pairs[4 * i + j]), cast(pairs[4 * i + j + 2]));
                fours[4 * i + 2 * j] = cast(avx._mm512_unpacklo_pd(low, high));
                fours[4 * i + 2 * j + 1] = cast(avx._mm512_unpackhi_pd(low, high));
            }
        }
        // `fours[4 i + j]` holds places `j`, `j + 4`, `j + 8`, `j + 12` of rows `4 i` to `4 i + 3`.
        let mut places = rows;
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            let low_ab = avx._mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            let high_ab = avx._mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            let low_cd = avx._mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
            let high_cd = avx._mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
            places[j] = avx._mm512_shuffle_f32x4::<0b10_00_10_00>(low_ab, low_cd);
            places[j + 8] = avx._mm512_shuffle_f32x4::<0b11_01_11_01>(low_ab, low_cd);
            places[j + 4] = avx._mm512_shuffle_f32x4::<0b10_00_10_00>(high_ab, high_cd);
            places[j + 12] = avx._mm512_shuffle_f32x4::<0b11_01_11_01>(high_ab, high_cd);
        }
        places
    }
}
