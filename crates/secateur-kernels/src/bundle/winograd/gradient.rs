//! The gradient of the weight: the transposed of what the correlation does.

use super::Patches;
use super::transforms::{self, ELEMENTS, Rows};
use crate::bundle::block::Turned;
use crate::bundle::geometry::Correlation;
use crate::bundle::outer::{Columns, Outer};
use crate::bundle::weight::sums::{Part, Sums};
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::InRegisters;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Images times patches of a block: enough to be worth the sums' way to memory, and few enough for a core's own cache.
const BLOCK: usize = 64;

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(in crate::bundle) fn gradient(
    c: &Correlation,
    turned: Turned,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let patches = Patches::new(c);
    let at_once = BLOCK.div_ceil(c.images);
    let blocks = (c.bundles * patches.count).div_ceil(at_once);
    let sums = Sums::new(c, turned, ELEMENTS, blocks);
    with_shared(sums.len(), |floats| {
        sums.parts(floats).into_par_iter().for_each(|part| {
            with_scratch(|scratch| {
                level::dispatch(Work {
                    c,
                    patches: &patches,
                    at_once,
                    turned,
                    sums: &sums,
                    x,
                    dy,
                    part,
                    scratch,
                });
            });
        });
        let total = sums.total(floats);
        sums.by_taps(total)
            .into_par_iter()
            .for_each(transforms::to_taps);
        sums.write(total, dw);
    });
}

struct Work<'a> {
    c: &'a Correlation,
    patches: &'a Patches,
    /// Patches of a block, counted over all bundles.
    at_once: usize,
    turned: Turned,
    sums: &'a Sums<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.c.images {
            8 => self.sum::<S, 8>(simd),
            16 => self.sum::<S, 16>(simd),
            _ => self.sum::<S, 32>(simd),
        }
    }
}

/// Channels of some patches.
struct Channels<'a> {
    values: &'a [f32],
    /// Channels of a place, and those that take part.
    of_place: usize,
    own: Range<usize>,
}

impl Work<'_> {
    #[inline(always)]
    fn sum<S: Simd, const IMAGES: usize>(self, simd: S) {
        let (c, part, scratch) = (self.c, self.part, self.scratch);
        part.floats.fill(0.0);
        let input = |own: Range<usize>| Channels {
            values: self.x,
            of_place: c.groups * c.channels,
            own: part.group * c.channels + own.start..part.group * c.channels + own.end,
        };
        let output = |own: Range<usize>| Channels {
            values: self.dy,
            of_place: c.groups * c.outputs,
            own: part.group * c.outputs + own.start..part.group * c.outputs + own.end,
        };
        let (inputs, outputs) = match self.turned {
            Turned::Input => (input(0..c.channels), output(part.rows.clone())),
            Turned::Output => (input(part.rows.clone()), output(0..c.outputs)),
        };
        let [input_len, output_len] =
            [&inputs, &outputs].map(|channels| self.at_once * channels.own.len() * IMAGES);
        let n_patches = c.bundles * self.patches.count;
        let padding = vec![0.0; inputs.own.len().max(outputs.own.len()) * IMAGES];
        let zeros = &padding[..];
        let all: Vec<usize> = (0..self.at_once).collect();
        let pairs: Vec<[usize; 2]> = all.iter().map(|patch| [*patch; 2]).collect();
        for block in part.blocks {
            let first = block * self.at_once;
            let count = self.at_once.min(n_patches - first);
            let input = scratch.planes.floats(ELEMENTS * input_len);
            let output = scratch.b.floats(ELEMENTS * output_len);
            for patch in 0..count {
                let bundle = (first + patch) / self.patches.count;
                let own = (first + patch) % self.patches.count;
                transforms::inputs(
                    simd,
                    &rows(inputs.own.len(), IMAGES, input_len),
                    self.patches.places(c, own).map(|place| {
                        place.map_or(zeros, |at| inputs.of::<IMAGES>(bundle * c.places() + at))
                    }),
                    &mut input[patch * inputs.own.len() * IMAGES..],
                );
                transforms::gradients(
                    simd,
                    &rows(outputs.own.len(), IMAGES, output_len),
                    self.patches.positions(c, own).map(|position| {
                        let of_bundle = bundle * c.positions();
                        position.map_or(zeros, |at| outputs.of::<IMAGES>(of_bundle + at))
                    }),
                    &mut output[patch * outputs.own.len() * IMAGES..],
                );
            }
            let (still, still_len, turned, turned_len, of_place) = match self.turned {
                Turned::Input => (output, output_len, input, input_len, inputs.own.len()),
                Turned::Output => (input, input_len, output, output_len, outputs.own.len()),
            };
            for element in 0..ELEMENTS {
                let (still, _) = still[element * still_len..][..still_len].as_chunks::<IMAGES>();
                let columns = Columns {
                    values: &turned[element * turned_len..][..turned_len],
                    of_place,
                    first: 0,
                    panels: self.sums.panels(),
                };
                columns.each::<S, IMAGES>(
                    &all[..count],
                    &mut scratch.a,
                    #[inline(always)]
                    |range, panel| {
                        let target =
                            part.rows.len() * (ELEMENTS * range.start + element * panel.width);
                        for share in &part.shares {
                            let target = &mut part.floats[target + share.start * panel.width..];
                            Outer {
                                rows: &still[share.start..],
                                of_place: part.rows.len(),
                                columns: panel,
                                meetings: &pairs[..count],
                                target: &mut target[..share.len() * panel.width],
                            }
                            .run(simd, share.len(), panel.width);
                        }
                    },
                );
            }
        }
    }
}

/// The channels of a patch, one after the other.
fn rows(channels: usize, images: usize, element: usize) -> Rows {
    Rows {
        channels,
        len: images,
        from: images,
        to: images,
        element,
    }
}

impl Channels<'_> {
    /// Those of a place, counted over all bundles.
    fn of<const IMAGES: usize>(&self, place: usize) -> &[f32] {
        &self.values[(place * self.of_place + self.own.start) * IMAGES..][..self.own.len() * IMAGES]
    }
}
