//! Sums of outer products of the channels of every image and place with themselves: second moments.

use super::outer::{Columns, Outer};
use crate::conv::geometry::{ranges, shares};
use crate::level;
use crate::scratch::{Scratch, with_scratch};
use crate::tile::{InRegisters, TileSize};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Images times places whose products are summed in `f32` before they are added in `f64`.
const BLOCK: usize = 512;
/// Numbers of all shares' sums where places are divided.
const SUMS: usize = 1 << 17;
/// Rows of a part, which turns all channels up to its last one.
const ROWS: usize = 56;

/// Adds `sum v` to `totals` and `sum v v^T` to the lower triangle of `sums`, `[channels, channels]`, over all images and
/// places of `values`.
pub(crate) fn add(
    images: usize,
    channels: usize,
    values: &[f32],
    totals: &mut [f64],
    sums: &mut [f64],
) {
    let len = channels * channels;
    if values.is_empty() {
        return;
    }
    let places = values.len() / (channels * images);
    let blocks: Vec<Range<usize>> = ranges(places, BLOCK / images).collect();
    let count = (SUMS / len).min(blocks.len()).clamp(1, PARTS);
    let rows = channels.div_ceil(PARTS.div_ceil(count)).max(ROWS);
    let mut others = vec![0.0; (count - 1) * (channels + len)];
    let mut parts = Vec::new();
    let others_mut = others.chunks_exact_mut(channels + len);
    let others_mut = others_mut.map(|other| other.split_at_mut(channels));
    let all = std::iter::once((&mut *totals, &mut *sums)).chain(others_mut);
    for (share, (mut totals, mut sums)) in all.enumerate() {
        let blocks = &blocks[share * blocks.len() / count..(share + 1) * blocks.len() / count];
        for rows in shares(channels, rows) {
            let (own_totals, after) = totals.split_at_mut(rows.len());
            totals = after;
            let (own, after) = sums.split_at_mut(rows.len() * channels);
            sums = after;
            parts.push(Part {
                rows,
                blocks,
                totals: own_totals,
                sums: own,
            });
        }
    }
    parts.into_par_iter().for_each(|part| {
        with_scratch(|scratch| {
            level::dispatch(Work {
                images,
                channels,
                values,
                part,
                scratch,
            });
        });
    });
    for other in others.chunks_exact(channels + len) {
        let sums = totals.iter_mut().chain(&mut *sums);
        for (sum, other) in sums.zip(other) {
            *sum += other;
        }
    }
}

/// Adds the sums of so many rows over some places and all images. What comes from memory comes faster so, in its order,
/// than in that of the tiles.
#[inline(always)]
fn total<const IMAGES: usize>(
    rows: &[[f32; IMAGES]],
    of_place: usize,
    places: Range<usize>,
    lanes: &mut [f32],
    totals: &mut [f64],
) {
    lanes.fill(0.0);
    for place in places {
        let rows = rows[place * of_place..][..totals.len()].as_flattened();
        for (lane, value) in lanes.iter_mut().zip(rows) {
            *lane += value;
        }
    }
    for (total, lanes) in totals.iter_mut().zip(lanes.chunks_exact(IMAGES)) {
        *total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
    }
}

/// Some rows of the sums over some places.
struct Part<'a> {
    rows: Range<usize>,
    blocks: &'a [Range<usize>],
    totals: &'a mut [f64],
    sums: &'a mut [f64],
}

struct Work<'a> {
    images: usize,
    channels: usize,
    values: &'a [f32],
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.images {
            8 => self.sum::<S, 8>(simd),
            16 => self.sum::<S, 16>(simd),
            _ => self.sum::<S, 32>(simd),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn sum<S: Simd, const IMAGES: usize>(self, simd: S) {
        let (channels, part, size) = (self.channels, self.part, TileSize::of::<S>());
        let own = &self.values[part.rows.start * IMAGES..];
        let (rows, _) = own.as_chunks::<IMAGES>();
        let shares: Vec<Range<usize>> = shares(part.rows.len(), size.rows).collect();
        // The lower triangle has no columns beyond the last row.
        let panels: Vec<Range<usize>> = ranges(part.rows.end, size.width).collect();
        let columns = Columns {
            values: self.values,
            of_place: channels,
            first: 0,
            panels: &panels,
        };
        let tile = self.scratch.sums.floats(size.rows * size.width);
        let lanes = self.scratch.planes.floats(part.rows.len() * IMAGES);
        for block in part.blocks {
            let places: Vec<usize> = block.clone().collect();
            let meetings: Vec<[usize; 2]> = block.clone().zip(0..).map(|(a, b)| [a, b]).collect();
            total(rows, channels, block.clone(), lanes, part.totals);
            columns.each::<S, IMAGES>(
                &places,
                &mut self.scratch.a,
                #[inline(always)]
                |panel, turned| {
                    for share in &shares {
                        let first = part.rows.start + share.start;
                        if first + share.len() <= panel.start {
                            continue; // Above the diagonal.
                        }
                        let tile = &mut tile[..share.len() * turned.width];
                        tile.fill(0.0);
                        Outer {
                            rows: &rows[share.start..],
                            of_place: channels,
                            columns: turned,
                            meetings: &meetings,
                            target: &mut *tile,
                        }
                        .run(simd, share.len(), turned.width);
                        let sums = part.sums[share.start * channels..].chunks_exact_mut(channels);
                        let rows = sums.zip(tile.chunks_exact(turned.width)).enumerate();
                        for (row, (sums, tile)) in rows {
                            // As far as the diagonal.
                            let end = panel.end.min(first + row + 1).max(panel.start);
                            let sums = &mut sums[panel.start..end];
                            for (sum, product) in sums.iter_mut().zip(tile) {
                                *sum += f64::from(*product);
                            }
                        }
                    }
                },
            );
        }
    }
}
