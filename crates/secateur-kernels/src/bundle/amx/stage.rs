//! Values of the source as operands of columns.

use super::plan::{Plan, Staged};
use crate::amx::split::split;
use crate::amx::{DEPTH, SIDE};
use crate::bundle::SMALL;
use pulp::x86::V4;
use std::ops::Range;

/// Writes the parts of some groups of 32 channels of a bundle, and padding after them.
pub(super) fn stage(
    simd: V4,
    plan: &Plan<'_>,
    staged: &Staged,
    depths: Range<usize>,
    x: &[f32],
    target: &mut [u32],
) {
    match plan.c.images {
        SMALL => of_images::<SMALL>(simd, plan, staged, depths, x, target),
        16 => of_images::<16>(simd, plan, staged, depths, x, target),
        _ => of_images::<32>(simd, plan, staged, depths, x, target),
    }
}

fn of_images<const IMAGES: usize>(
    simd: V4,
    plan: &Plan<'_>,
    staged: &Staged,
    depths: Range<usize>,
    x: &[f32],
    target: &mut [u32],
) {
    let c = plan.c;
    let (x, _) = x.as_chunks::<IMAGES>();
    let (target, _) = target.as_chunks_mut::<SIDE>();
    let (row_len, row) = (staged.row_len() / SIDE, staged.row / SIDE);
    let zeros = vec![[0.0; IMAGES]; c.channels];
    let of_depth = staged.depth_len() / SIDE;
    target[depths.len() * of_depth..][..row_len].fill([0; SIDE]);
    let joined = plan.joined();
    for (index, source_row) in staged.rows.iter().enumerate() {
        for remainder in 0..staged.remainders {
            let first = (index * staged.remainders + remainder) * row_len;
            let place = |slot: usize| match staged.column(plan, remainder, slot) {
                Some(column) => {
                    &x[(source_row * c.source[1] + column) * c.channels..][..c.channels]
                }
                None => &zeros[..],
            };
            for slot in (0..staged.columns).step_by(joined) {
                let places = [place(slot), place(slot + joined - 1)];
                simd.vectorize(
                    #[inline(always)]
                    || {
                        for (chunk, depth) in depths.clone().enumerate() {
                            let at = chunk * of_depth + first + slot * IMAGES / SIDE;
                            let places = places.map(
                                #[inline(always)]
                                |place| &place[depth * DEPTH..],
                            );
                            for half in 0..IMAGES.div_ceil(SIDE) {
                                let target = &mut target[at + half..];
                                of_channels::<IMAGES>(simd, places, half, row, target);
                            }
                        }
                    },
                );
            }
        }
    }
}

/// Writes the parts of 32 channels, or of those that there are, of 16 images of a place, or of two places where those fill a
/// register: rows of 16 numbers of 4 bytes, so many apart.
#[inline(always)]
pub(super) fn of_channels<const IMAGES: usize>(
    simd: V4,
    places: [&[[f32; IMAGES]]; 2],
    half: usize,
    row: usize,
    target: &mut [[u32; SIDE]],
) {
    if let [Some(a), Some(b)] = places.map(|place| place.first_chunk::<DEPTH>()) {
        return of_all(simd, [a, b], half, row, target);
    }
    let mut own = [[[0.0; IMAGES]; DEPTH]; 2];
    for (own, place) in own.iter_mut().zip(places) {
        own[..place.len()].copy_from_slice(place);
    }
    of_all(simd, own.each_ref(), half, row, target);
}

#[inline(always)]
fn of_all<const IMAGES: usize>(
    simd: V4,
    places: [&[[f32; IMAGES]; DEPTH]; 2],
    half: usize,
    row: usize,
    target: &mut [[u32; SIDE]],
) {
    let lanes = |channel: usize| -> [f32; SIDE] {
        if IMAGES == SMALL
            && let Some(a) = places[0][channel].first_chunk::<SMALL>()
            && let Some(b) = places[1][channel].first_chunk::<SMALL>()
        {
            return pulp::cast([*a, *b]);
        }
        let values = places[0][channel][half * SIDE..].first_chunk();
        values.copied().unwrap_or([0.0; SIDE])
    };
    for pair in 0..SIDE {
        let parts = split(simd, lanes(pair), lanes(pair + SIDE));
        for (part, values) in parts.into_iter().enumerate() {
            target[(part * SIDE + pair) * row] = values;
        }
    }
}
