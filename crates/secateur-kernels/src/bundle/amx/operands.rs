//! Values of positions as operands whose products are summed over the images: 32 values to a step.

use crate::amx::split::split;
use crate::amx::{PARTS, SIDE};
use crate::bundle::SMALL;
use crate::transpose::x86::transposed;
use core::arch::x86_64::__m512;
use pulp::cast;
use pulp::x86::V4;
use std::ops::Range;

/// Positions of a step at most.
const POSITIONS: usize = 4;

/// Places that are read one after the other, those of a step together; some are padding.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<usize>);

impl Places {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// So many of padding.
    pub fn clear(&mut self, len: usize) {
        self.0.clear();
        self.0.resize(len, usize::MAX);
    }

    pub fn set(&mut self, at: usize, place: usize) {
        self.0[at] = place;
    }
}

/// Values in bundles.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    values: &'a [f32],
    channels: usize,
    images: usize,
}

impl<'a> Operand<'a> {
    pub fn new(values: &'a [f32], channels: usize, images: usize) -> Self {
        Self {
            values,
            channels,
            images,
        }
    }
}

/// Some channels at some places, of which an operand is made in slices: 16 channels of the places of a step.
#[derive(Clone)]
pub(super) struct Source<'a> {
    pub simd: V4,
    pub operand: Operand<'a>,
    pub places: &'a Places,
    pub channels: Range<usize>,
}

impl Source<'_> {
    fn steps(&self) -> usize {
        self.places.0.len() / (2 * SIDE / self.operand.images)
    }

    /// Slices of all.
    pub fn slices(&self) -> usize {
        self.steps() * self.channels.len().div_ceil(SIDE)
    }

    /// Channels become rows: `[32 channels][step][16 channels][part][channel]`, pairs of values side by side.
    pub fn to_rows(&self, slices: Range<usize>, target: &mut [u32]) {
        match self.operand.images {
            SMALL => self.to_rows_of::<SMALL>(slices, target),
            16 => self.to_rows_of::<16>(slices, target),
            _ => self.to_rows_of::<32>(slices, target),
        }
    }

    /// Channels become columns: `[16 channels][step][part][pair of values][channel]`.
    pub fn to_columns(&self, slices: Range<usize>, target: &mut [u32]) {
        match self.operand.images {
            SMALL => self.to_columns_of::<SMALL>(slices, target),
            16 => self.to_columns_of::<16>(slices, target),
            _ => self.to_columns_of::<32>(slices, target),
        }
    }

    fn to_rows_of<const IMAGES: usize>(&self, slices: Range<usize>, target: &mut [u32]) {
        let (simd, registers, n_steps) =
            (self.simd, self.channels.len().div_ceil(SIDE), self.steps());
        let (target, _) = target.as_chunks_mut::<SIDE>();
        let (target, _) = target.as_chunks_mut::<SIDE>();
        simd.vectorize(
            #[inline(always)]
            || {
                for slice in slices {
                    let (step, register) = (slice / registers, slice % registers);
                    let high = 2.min(registers - register / 2 * 2);
                    let at = register / 2 * 2 * n_steps + step * high + register % 2;
                    let Some(target) = target[at * PARTS..].first_chunk_mut::<PARTS>() else {
                        return;
                    };
                    self.with::<IMAGES>(
                        step,
                        register,
                        #[inline(always)]
                        |own| {
                            for row in 0..SIDE {
                                let (even, odd) = (own.lanes(row, 0), own.lanes(row, 1));
                                let parts = split(simd, even, odd);
                                for (target, part) in target.iter_mut().zip(parts) {
                                    target[row] = part;
                                }
                            }
                        },
                    );
                }
            },
        );
    }

    fn to_columns_of<const IMAGES: usize>(&self, slices: Range<usize>, target: &mut [u32]) {
        let (simd, registers, n_steps) =
            (self.simd, self.channels.len().div_ceil(SIDE), self.steps());
        let (target, _) = target.as_chunks_mut::<SIDE>();
        let (target, _) = target.as_chunks_mut::<SIDE>();
        simd.vectorize(
            #[inline(always)]
            || {
                for slice in slices {
                    let (step, register) = (slice / registers, slice % registers);
                    let at = register * n_steps + step;
                    let Some(target) = target[at * PARTS..].first_chunk_mut::<PARTS>() else {
                        return;
                    };
                    let mut turned = [[[0.0; SIDE]; SIDE]; 2];
                    self.with::<IMAGES>(
                        step,
                        register,
                        #[inline(always)]
                        |own| {
                            for (half, turned) in turned.iter_mut().enumerate() {
                                let mut rows: [__m512; SIDE] = [cast([0.0_f32; SIDE]); SIDE];
                                for (row, values) in rows.iter_mut().enumerate() {
                                    *values = cast(own.lanes(row, half));
                                }
                                for (turned, row) in turned.iter_mut().zip(transposed(simd, rows)) {
                                    *turned = cast(row);
                                }
                            }
                        },
                    );
                    let [even, odd] = &turned;
                    for (row, (even, odd)) in even.iter().zip(odd).enumerate() {
                        for (target, part) in target.iter_mut().zip(split(simd, *even, *odd)) {
                            target[row] = part;
                        }
                    }
                }
            },
        );
    }

    /// Calls `work` with the values of 16 channels at the places of a step, zeros where there are none.
    #[inline(always)]
    fn with<const IMAGES: usize>(
        &self,
        step: usize,
        register: usize,
        work: impl FnOnce(Sixteen<'_, IMAGES>),
    ) {
        let of_step = 2 * SIDE / IMAGES;
        let (values, _) = self.operand.values.as_chunks::<IMAGES>();
        let places = &self.places.0[step * of_step..][..of_step];
        let channels = self.channels.start + register * SIDE
            ..self
                .channels
                .end
                .min(self.channels.start + (register + 1) * SIDE);
        if channels.len() == SIDE && places.iter().all(|place| *place != usize::MAX) {
            let own = std::array::from_fn(
                #[inline(always)]
                |lane| {
                    let place = places[lane.min(of_step - 1)];
                    let own = &values[place * self.operand.channels + channels.start..];
                    own.first_chunk::<SIDE>().unwrap_or(&[[0.0; IMAGES]; SIDE])
                },
            );
            return work(Sixteen(own));
        }
        let mut own = [[[0.0; IMAGES]; SIDE]; POSITIONS];
        for (own, place) in own.iter_mut().zip(places) {
            if *place != usize::MAX {
                let values = &values[place * self.operand.channels..][..self.operand.channels];
                own[..channels.len()].copy_from_slice(&values[channels.clone()]);
            }
        }
        work(Sixteen(own.each_ref()));
    }
}

/// Sixteen channels of the places of a step.
struct Sixteen<'a, const IMAGES: usize>([&'a [[f32; IMAGES]; SIDE]; POSITIONS]);

impl<const IMAGES: usize> Sixteen<'_, IMAGES> {
    /// The first 16 values of a channel, or the others.
    #[inline(always)]
    fn lanes(&self, channel: usize, half: usize) -> [f32; SIDE] {
        if IMAGES == SMALL {
            let (a, b) = (self.0[2 * half][channel], self.0[2 * half + 1][channel]);
            if let (Some(a), Some(b)) = (a.first_chunk::<SMALL>(), b.first_chunk::<SMALL>()) {
                return cast([*a, *b]);
            }
        }
        let (place, first) = if IMAGES == SIDE {
            (half, 0)
        } else {
            (0, half * SIDE)
        };
        let values = self.0[place][channel][first..].first_chunk();
        values.copied().unwrap_or([0.0; SIDE])
    }
}
