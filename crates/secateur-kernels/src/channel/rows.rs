//! What is done channel by channel on rows `[channels, lanes]`, the lanes being the images of a bundle: few
//! enough that a loop over one channel would be over before it is worth its start.

use crate::layout::BUNDLES;
use crate::level::dispatch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Lanes that are computed together, those of one channel or of some: a loop over fewer is unrolled before the
/// compiler sees registers in it.
const LANES: usize = 32;
/// Groups of so many lanes that all rows of a part pass, before the next ones' turn: their parameters and sums stay
/// in the nearest cache, and what is read is a page of memory.
const TOGETHER: usize = 32;
/// Rows that a group passes at a time: its sums stay in registers for so many, and what is read are as many streams.
const SLAB: usize = 8;
/// Floats of a part, which stays in a core's own cache.
const PART: usize = 1 << 17;
/// Rows of a part, so few that small terms are not lost in sums of `f32`.
const ROWS: usize = 256;

/// Rows of values.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    channels: usize,
    lanes: usize,
}

impl Rows {
    /// Rows of so many channels, if so many values of a channel fill registers.
    pub(super) fn of(channels: usize, lanes: usize) -> Option<Self> {
        (BUNDLES.contains(&lanes) && channels > 0).then_some(Self { channels, lanes })
    }

    /// `z = f(the channel's parameters, x, y)`.
    pub(super) fn zip<F: Fn([f32; P], f32, f32) -> f32 + Copy + Sync, const P: usize>(
        self,
        x: &[f32],
        y: &[f32],
        z: &mut [f32],
        parameters: [&[f32]; P],
        f: F,
    ) {
        let len = self.part_len();
        z.par_chunks_mut(len)
            .zip(x.par_chunks(len).zip(y.par_chunks(len)))
            .for_each(|(z, (x, y))| {
                dispatch(Zip {
                    rows: self,
                    parameters,
                    x,
                    y,
                    z,
                    f,
                });
            });
    }

    /// For each part and each channel the sums of `f(the channel's parameters, x, y)`.
    pub(super) fn sums<F, const P: usize, const N: usize>(
        self,
        x: &[f32],
        y: &[f32],
        parameters: [&[f32]; P],
        f: F,
    ) -> Vec<Vec<[f64; N]>>
    where
        F: Fn([f32; P], f32, f32) -> [f32; N] + Copy + Sync,
    {
        let len = self.part_len();
        x.par_chunks(len)
            .zip(y.par_chunks(len))
            .map(|(x, y)| {
                dispatch(Sum {
                    rows: self,
                    parameters,
                    x,
                    y,
                    f,
                })
            })
            .collect()
    }

    fn len(self) -> usize {
        self.channels * self.lanes
    }

    fn part_len(self) -> usize {
        (PART / self.len()).clamp(1, ROWS) * self.len()
    }

    /// Parts of a row.
    fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        let len = self.len();
        (0..len)
            .step_by(TOGETHER * LANES)
            .map(move |first| first..(first + TOGETHER * LANES).min(len))
    }

    /// The parameters of each lane of each group of a block.
    fn lanes<const P: usize>(
        self,
        block: Range<usize>,
        parameters: [&[f32]; P],
    ) -> Vec<[[f32; LANES]; P]> {
        let group = |first: usize| {
            parameters.map(|values| {
                let mut lanes = [0.0; LANES];
                let own = &values[first / self.lanes..];
                for (lanes, value) in lanes.chunks_exact_mut(self.lanes).zip(own) {
                    lanes.fill(*value);
                }
                lanes
            })
        };
        block.step_by(LANES).map(group).collect()
    }
}

/// [`Rows::zip`] of a part.
struct Zip<'a, F, const P: usize> {
    rows: Rows,
    parameters: [&'a [f32]; P],
    x: &'a [f32],
    y: &'a [f32],
    z: &'a mut [f32],
    f: F,
}

impl<F: Fn([f32; P], f32, f32) -> f32 + Copy, const P: usize> WithSimd for Zip<'_, F, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (row, f) = (self.rows.len(), self.f);
        for block in self.rows.blocks() {
            let groups = self.rows.lanes(block.clone(), self.parameters);
            let sources = self.x.chunks_exact(row).zip(self.y.chunks_exact(row));
            for (z, (x, y)) in self.z.chunks_exact_mut(row).zip(sources) {
                let sources = x[block.clone()]
                    .chunks(LANES)
                    .zip(y[block.clone()].chunks(LANES));
                let targets = z[block.clone()].chunks_mut(LANES);
                for ((z, (x, y)), own) in targets.zip(sources).zip(&groups) {
                    let whole = (x.as_array(), y.as_array(), z.as_mut_array());
                    if let (Some(x), Some(y), Some(z)) = whole {
                        combine(f, own, x, y, z);
                        continue;
                    }
                    // The last channels, which fill some of the lanes.
                    for (lane, (z, (x, y))) in z.iter_mut().zip(x.iter().zip(y)).enumerate() {
                        *z = f(own.map(|lanes| lanes[lane]), *x, *y);
                    }
                }
            }
        }
    }
}

// All arrays are indexed by lane: only so does the compiler see registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn combine<const P: usize>(
    f: impl Fn([f32; P], f32, f32) -> f32,
    own: &[[f32; LANES]; P],
    x: &[f32; LANES],
    y: &[f32; LANES],
    z: &mut [f32; LANES],
) {
    for lane in 0..LANES {
        z[lane] = f(std::array::from_fn(|p| own[p][lane]), x[lane], y[lane]);
    }
}

/// [`Rows::sums`] of a part.
struct Sum<'a, F, const P: usize> {
    rows: Rows,
    parameters: [&'a [f32]; P],
    x: &'a [f32],
    y: &'a [f32],
    f: F,
}

impl<F, const P: usize, const N: usize> WithSimd for Sum<'_, F, P>
where
    F: Fn([f32; P], f32, f32) -> [f32; N] + Copy,
{
    type Output = Vec<[f64; N]>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<[f64; N]> {
        let (row, f) = (self.rows.len(), self.f);
        let slab = SLAB * row;
        let mut totals = Vec::with_capacity(self.rows.channels + LANES / self.rows.lanes);
        for block in self.rows.blocks() {
            let groups = self.rows.lanes(block.clone(), self.parameters);
            let mut sums = vec![[[0.0; LANES]; N]; groups.len()];
            for (x, y) in self.x.chunks(slab).zip(self.y.chunks(slab)) {
                let groups = block.clone().step_by(LANES).zip(&groups);
                for ((first, own), sums) in groups.zip(&mut sums) {
                    // Of a copy, which registers hold for all rows of the slab.
                    let mut of_slab = *sums;
                    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact(row)) {
                        let (x, y) = (&x[first..], &y[first..]);
                        if let (Some(x), Some(y)) = (x.first_chunk(), y.first_chunk()) {
                            add_terms(f, own, x, y, &mut of_slab);
                            continue;
                        }
                        // The last channels, which fill some of the lanes.
                        for (lane, (x, y)) in x.iter().zip(y).enumerate() {
                            let terms = f(own.map(|lanes| lanes[lane]), *x, *y);
                            for (sums, term) in of_slab.iter_mut().zip(terms) {
                                sums[lane] += term;
                            }
                        }
                    }
                    *sums = of_slab;
                }
            }
            for sums in &sums {
                for first in (0..LANES).step_by(self.rows.lanes) {
                    let lanes = first..first + self.rows.lanes;
                    totals.push(sums.each_ref().map(|sums| total(&sums[lanes.clone()])));
                }
            }
        }
        totals.truncate(self.rows.channels);
        totals
    }
}

// All arrays are indexed by lane and by sum: only so does the compiler see registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn add_terms<const P: usize, const N: usize>(
    f: impl Fn([f32; P], f32, f32) -> [f32; N],
    own: &[[f32; LANES]; P],
    x: &[f32; LANES],
    y: &[f32; LANES],
    sums: &mut [[f32; LANES]; N],
) {
    for lane in 0..LANES {
        let terms = f(std::array::from_fn(|p| own[p][lane]), x[lane], y[lane]);
        for n in 0..N {
            sums[n][lane] += terms[n];
        }
    }
}

/// The sum of all lanes, eight at a time.
fn total(lanes: &[f32]) -> f64 {
    let mut totals = [0.0_f64; 8];
    for lanes in lanes.as_chunks::<8>().0 {
        for (total, &lane) in totals.iter_mut().zip(lanes) {
            *total += f64::from(lane);
        }
    }
    totals.iter().sum()
}
