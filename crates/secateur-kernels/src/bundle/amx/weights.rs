//! Weights as operands of rows: outputs are rows, channels are what products are summed over.

use crate::amx::split::{put, split};
use crate::amx::{DEPTH, PARTS, SIDE, TILE};
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::{Kernel, Order};
use crate::scratch::with_scratch;
use crate::transpose::transpose;
use pulp::bytemuck::cast_slice_mut;
use pulp::x86::V4;
use rayon::prelude::*;
use std::ops::Range;

/// Outputs of a block.
pub(super) const ROWS: usize = 2 * SIDE;

/// Numbers of 4 bytes of the packed weights of all outputs.
pub(super) fn len(c: &Correlation) -> usize {
    c.outputs.div_ceil(SIDE) * of_register(c)
}

/// Those of 16 outputs.
pub(super) fn of_register(c: &Correlation) -> usize {
    c.taps() * c.channels.div_ceil(DEPTH) * PARTS * TILE
}

/// Packs weights: `[32 outputs][32 channels][tap][16 outputs][part]`, each of them `[output][pair of channels]`.
pub(super) fn pack(simd: V4, c: &Correlation, kernel: Kernel<'_>, packed: &mut [f32]) {
    let used = c.taps_in_use();
    let (taps, depths) = (c.taps(), c.channels.div_ceil(DEPTH));
    cast_slice_mut::<f32, u32>(packed)
        .par_chunks_mut(ROWS / SIDE * of_register(c))
        .enumerate()
        .for_each(|(block, packed)| {
            let registers = packed.len() / of_register(c);
            with_scratch(|scratch| {
                // `[output][tap][channel]` of 16 outputs and 32 channels.
                let own = scratch.a.floats(SIDE * taps * DEPTH);
                for register in 0..registers {
                    let first = block * ROWS + register * SIDE;
                    let outputs = first..c.outputs.min(first + SIDE);
                    for depth in 0..depths {
                        let channels = depth * DEPTH..c.channels.min((depth + 1) * DEPTH);
                        let of_tap = registers * PARTS * TILE;
                        let packed = &mut packed[depth * taps * of_tap + register * PARTS * TILE..];
                        if matches!(kernel.order, Order::Forward)
                            && outputs.len() == SIDE
                            && channels.len() == DEPTH
                        {
                            let w = &kernel.values[outputs.start * c.channels * taps..];
                            let first = channels.start;
                            match taps {
                                1 => {
                                    split_outputs::<1>(simd, c, w, first, &used, packed, of_tap);
                                    continue;
                                }
                                9 => {
                                    split_outputs::<9>(simd, c, w, first, &used, packed, of_tap);
                                    continue;
                                }
                                _ => {}
                            }
                        }
                        if outputs.len() < SIDE || channels.len() < DEPTH {
                            own.fill(0.0);
                        }
                        gather(c, kernel, &used, outputs.clone(), channels, own);
                        let (own, _) = own.as_chunks::<DEPTH>();
                        for tap in (0..taps).filter(|tap| used[*tap]) {
                            let rows = own[tap..].iter().step_by(taps);
                            split_rows(simd, rows, &mut packed[tap * of_tap..][..PARTS * TILE]);
                        }
                    }
                }
            });
        });
}

/// Brings weights of some outputs and channels into `[output][tap][channel]`, where each output and tap has room for 32
/// channels; those of taps that are not in use may be left out.
fn gather(
    c: &Correlation,
    kernel: Kernel<'_>,
    used: &[bool],
    outputs: Range<usize>,
    channels: Range<usize>,
    own: &mut [f32],
) {
    let taps = used.len();
    let w = kernel.values;
    let [of_output, of_channel] = match kernel.order {
        Order::Forward => [c.channels * taps, taps],
        Order::Backward => [taps, c.outputs * taps],
    };
    let w = &w[outputs.start * of_output + channels.start * of_channel..];
    let (count, depth) = (outputs.len(), channels.len());
    let few = 4 * used.iter().filter(|used| **used).count() <= taps;
    match kernel.order {
        _ if few => {
            for (output, own) in own.chunks_exact_mut(taps * DEPTH).enumerate().take(count) {
                for tap in (0..taps).filter(|tap| used[*tap]) {
                    let w = w[output * of_output + tap..].iter().step_by(of_channel);
                    for (own, w) in own[tap * DEPTH..][..depth].iter_mut().zip(w) {
                        *own = *w;
                    }
                }
            }
        }
        Order::Forward => {
            for (output, own) in own.chunks_exact_mut(taps * DEPTH).enumerate().take(count) {
                let w = &w[output * of_output..];
                if taps == 1 {
                    own[..depth].copy_from_slice(&w[..depth]);
                } else {
                    transpose(w, taps, depth, taps, own, DEPTH);
                }
            }
        }
        Order::Backward => transpose(w, of_channel, depth, count * taps, own, DEPTH),
    }
}

/// Writes the parts of 32 channels of 16 outputs, whose weights need not be brought into another order before.
fn split_outputs<const TAPS: usize>(
    simd: V4,
    c: &Correlation,
    w: &[f32],
    first: usize,
    used: &[bool],
    packed: &mut [u32],
    of_tap: usize,
) {
    let (w, _) = w.as_chunks::<TAPS>();
    simd.vectorize(
        #[inline(always)]
        || {
            for row in 0..SIDE {
                let Some(w) = w[row * c.channels + first..].first_chunk::<DEPTH>() else {
                    return;
                };
                for tap in (0..TAPS).filter(|tap| used[*tap]) {
                    let (mut even, mut odd) = ([0.0; SIDE], [0.0; SIDE]);
                    for (channel, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
                        *even = w[channel][tap];
                        *odd = w[channel + SIDE][tap];
                    }
                    let (targets, _) = packed[tap * of_tap..].as_chunks_mut::<SIDE>();
                    put(targets, row, 1, split(simd, even, odd));
                }
            }
        },
    );
}

/// Writes the parts of rows of 32 numbers.
fn split_rows<'r>(simd: V4, rows: impl Iterator<Item = &'r [f32; DEPTH]>, parts: &mut [u32]) {
    simd.vectorize(
        #[inline(always)]
        || {
            let (targets, _) = parts.as_chunks_mut::<SIDE>();
            for (row, values) in rows.enumerate() {
                let (halves, _) = values.as_chunks::<SIDE>();
                if let [even, odd] = halves {
                    put(targets, row, 1, split(simd, *even, *odd));
                }
            }
        },
    );
}
