//! What is done channel by channel, on values `[images, channels, positions]`. Values in bundles are such values,
//! too: each place of a bundle is an image whose positions are the images of the bundle.

use crate::elementwise::sums_of;
use crate::layout::BUNDLES;
use crate::level::dispatch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Planes that one part of the work takes.
const PLANES: usize = 16;

/// `y += bias` of the channel.
///
/// # Panics
/// Where `y` is no whole number of images.
pub fn add(bias: &[f32], positions: usize, y: &mut [f32]) {
    check(bias.len(), positions, y.len());
    each_plane(
        positions,
        y,
        #[inline(always)]
        |plane, y| {
            let bias = bias[plane % bias.len()];
            for y in y {
                *y += bias;
            }
        },
    );
}

/// `y = x * factor + offset` of the channel.
///
/// # Panics
/// Where a length does not fit.
pub fn affine(factor: &[f32], offset: &[f32], positions: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(factor.len(), offset.len(), "channels");
    map(
        factor.len(),
        positions,
        x,
        y,
        #[inline(always)]
        |channel| {
            let (factor, offset) = (factor[channel], offset[channel]);
            #[inline(always)]
            move |x| x * factor + offset
        },
    );
}

/// `y = f(channel)(x)`.
///
/// # Panics
/// Where a length does not fit.
pub fn map<G: Fn(f32) -> f32>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &mut [f32],
    f: impl Fn(usize) -> G + Sync,
) {
    check(channels, positions, y.len());
    assert_eq!(x.len(), y.len(), "lengths");
    each_plane(
        positions,
        y,
        #[inline(always)]
        |plane, y| {
            let f = f(plane % channels);
            let x = &x[plane * positions..][..positions];
            for (y, x) in y.iter_mut().zip(x) {
                *y = f(*x);
            }
        },
    );
}

/// `z = f(channel)(x, y)`.
///
/// # Panics
/// Where a length does not fit.
pub fn zip<G: Fn(f32, f32) -> f32>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    z: &mut [f32],
    f: impl Fn(usize) -> G + Sync,
) {
    check(channels, positions, z.len());
    assert!(x.len() == z.len() && y.len() == z.len(), "lengths");
    each_plane(
        positions,
        z,
        #[inline(always)]
        |plane, z| {
            let f = f(plane % channels);
            let range = plane * positions..(plane + 1) * positions;
            for ((z, x), y) in z.iter_mut().zip(&x[range.clone()]).zip(&y[range]) {
                *z = f(*x, *y);
            }
        },
    );
}

/// For each channel, sums over images and positions of `f(the channel's parameters, x, y)`, in `f64`.
///
/// # Panics
/// Where a length does not fit.
pub fn sums<const P: usize, const N: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    parameters: [&[f32]; P],
    f: impl Fn([f32; P], f32, f32) -> [f32; N] + Sync,
) -> [Vec<f64>; N] {
    check(channels, positions, x.len());
    assert_eq!(x.len(), y.len(), "lengths");
    assert!(
        parameters.iter().all(|values| values.len() == channels),
        "channels"
    );
    let mut sums = [(); N].map(|()| vec![0.0; channels]);
    if x.is_empty() {
        return sums;
    }
    let mut add = |channel: usize, terms: [f64; N]| {
        for (sums, term) in sums.iter_mut().zip(terms) {
            sums[channel] += term;
        }
    };
    let of_channel = |channel: usize| parameters.map(|values| values[channel]);
    if positions == 1 {
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
            for (channel, (x, y)) in x.iter().zip(y).enumerate() {
                add(channel, f(of_channel(channel), *x, *y).map(f64::from));
            }
        }
        return sums;
    }
    if BUNDLES.contains(&positions) {
        let row = channels * positions;
        // So few rows that small terms are not lost in sums of `f32`.
        let len = (PART / row).clamp(1, 256) * row;
        let parts: Vec<Vec<[f64; N]>> = x
            .par_chunks(len)
            .zip(y.par_chunks(len))
            .map(|(x, y)| {
                dispatch(RowSums {
                    channels,
                    parameters,
                    lanes: positions,
                    x,
                    y,
                    f: &f,
                })
            })
            .collect();
        for part in parts {
            for (channel, terms) in part.into_iter().enumerate() {
                add(channel, terms);
            }
        }
        return sums;
    }
    let images = x.len() / (channels * positions).max(1);
    let found: Vec<[f64; N]> = (0..channels)
        .into_par_iter()
        .map(|channel| {
            dispatch(
                #[inline(always)]
                || {
                    let own = of_channel(channel);
                    let mut totals = [0.0; N];
                    for image in 0..images {
                        let start = (image * channels + channel) * positions;
                        let (x, y) = (&x[start..][..positions], &y[start..][..positions]);
                        let sums = sums_of(
                            x,
                            y,
                            #[inline(always)]
                            |x, y| f(own, x, y),
                        );
                        for (total, sum) in totals.iter_mut().zip(sums) {
                            *total += sum;
                        }
                    }
                    totals
                },
            )
        })
        .collect();
    for (channel, terms) in found.into_iter().enumerate() {
        add(channel, terms);
    }
    sums
}

/// Floats of a part of bundles, which stays in a core's own cache.
const PART: usize = 1 << 17;
/// Lanes of the sums, of one channel or two: of fewer the compiler unrolls the loop before it sees registers in it.
const LANES: usize = 32;
/// Groups of so many lanes whose sums are gathered together.
const TOGETHER: usize = 32;

/// [`sums`] of some rows `[channels, lanes]`, by channel.
struct RowSums<'a, F, const P: usize> {
    channels: usize,
    parameters: [&'a [f32]; P],
    /// Of a channel: the images of a bundle.
    lanes: usize,
    x: &'a [f32],
    y: &'a [f32],
    f: &'a F,
}

impl<F, const P: usize, const N: usize> WithSimd for RowSums<'_, F, P>
where
    F: Fn([f32; P], f32, f32) -> [f32; N],
{
    type Output = Vec<[f64; N]>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<[f64; N]> {
        simd.vectorize(
            #[inline(always)]
            || self.get(),
        )
    }
}

/// Some channels, as many as fill the lanes.
struct Group<const P: usize, const N: usize> {
    parameters: [[f32; LANES]; P],
    sums: [[f32; LANES]; N],
}

impl<F, const P: usize> RowSums<'_, F, P> {
    #[inline(always)]
    fn get<const N: usize>(self) -> Vec<[f64; N]>
    where
        F: Fn([f32; P], f32, f32) -> [f32; N],
    {
        let (channels, row) = (self.channels, self.channels * self.lanes);
        let mut totals = Vec::with_capacity(channels);
        for first in (0..row).step_by(TOGETHER * LANES) {
            let own = first..(first + TOGETHER * LANES).min(row);
            let mut groups: Vec<Group<P, N>> = own
                .clone()
                .step_by(LANES)
                .map(|first| self.group(first / self.lanes))
                .collect();
            for (x, y) in self.x.chunks_exact(row).zip(self.y.chunks_exact(row)) {
                let rows = x[own.clone()]
                    .chunks(LANES)
                    .zip(y[own.clone()].chunks(LANES));
                for ((x, y), group) in rows.zip(&mut groups) {
                    match (x.as_array::<LANES>(), y.as_array::<LANES>()) {
                        (Some(x), Some(y)) => group.add(self.f, x, y),
                        _ => group.add_some(self.f, x, y),
                    }
                }
            }
            for group in &groups {
                for lanes in (0..LANES).step_by(self.lanes) {
                    totals.push(
                        group
                            .sums
                            .each_ref()
                            .map(|sums| total(&sums[lanes..][..self.lanes])),
                    );
                }
            }
        }
        totals.truncate(channels);
        totals
    }
}

impl<F, const P: usize> RowSums<'_, F, P> {
    /// The channels from `first` on.
    fn group<const N: usize>(&self, first: usize) -> Group<P, N> {
        let parameters = self.parameters.map(|values| {
            let mut lanes = [0.0; LANES];
            for (lanes, value) in lanes.chunks_exact_mut(self.lanes).zip(&values[first..]) {
                lanes.fill(*value);
            }
            lanes
        });
        let sums = [[0.0; LANES]; N];
        Group { parameters, sums }
    }
}

impl<const P: usize, const N: usize> Group<P, N> {
    // All arrays are indexed by lane and by sum: only so does the compiler see registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn add(
        &mut self,
        f: &impl Fn([f32; P], f32, f32) -> [f32; N],
        x: &[f32; LANES],
        y: &[f32; LANES],
    ) {
        for lane in 0..LANES {
            let own = std::array::from_fn(|index| self.parameters[index][lane]);
            let terms = f(own, x[lane], y[lane]);
            for n in 0..N {
                self.sums[n][lane] += terms[n];
            }
        }
    }

    /// The last channel, which fills half of the lanes.
    fn add_some(&mut self, f: &impl Fn([f32; P], f32, f32) -> [f32; N], x: &[f32], y: &[f32]) {
        for (lane, (x, y)) in x.iter().zip(y).enumerate() {
            let own = std::array::from_fn(|index| self.parameters[index][lane]);
            let terms = f(own, *x, *y);
            for (sums, term) in self.sums.iter_mut().zip(terms) {
                sums[lane] += term;
            }
        }
    }
}

/// The sum of all lanes, eight at a time.
#[inline(always)]
fn total(lanes: &[f32]) -> f64 {
    let mut totals = [0.0_f64; 8];
    for lanes in lanes.as_chunks::<8>().0 {
        for (total, &lane) in totals.iter_mut().zip(lanes) {
            *total += f64::from(lane);
        }
    }
    totals.iter().sum()
}

/// Mean and biased variance of each channel.
///
/// Distances are taken from the mean of the first plane, in one reading of memory. Where that turns out to be so
/// far from the mean that digits would be lost, they are taken again, from the mean.
///
/// # Panics
/// Where `x` is no whole number of images.
#[must_use]
pub fn moments(channels: usize, positions: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    check(channels, positions, x.len());
    if x.is_empty() {
        return (vec![0.0; channels], vec![0.0; channels]);
    }
    let mean_of = |plane: &[f32]| plane.iter().sum::<f32>() / plane.len() as f32;
    let planes = x.chunks_exact(positions).take(channels);
    let (mean, variance, is_near) =
        moments_about(&planes.map(mean_of).collect::<Vec<_>>(), positions, x);
    if is_near {
        return (mean, variance);
    }
    let centre: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
    let (mean, variance, _) = moments_about(&centre, positions, x);
    (mean, variance)
}

/// How much larger the square of the distance between centre and mean may be than the variance.
const NEAR: f64 = 1e2;

/// Mean and variance from distances to `centre`, and whether that is near the mean.
fn moments_about(centre: &[f32], positions: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>, bool) {
    let channels = centre.len();
    let count = (x.len() / channels) as f64;
    let [first, second] = sums(
        channels,
        positions,
        x,
        x,
        [centre],
        #[inline(always)]
        |[centre], x, _| [x - centre, (x - centre) * (x - centre)],
    );
    let mut is_near = true;
    let (mut mean, mut variance) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
    for ((sum, squares), centre) in first.iter().zip(&second).zip(centre) {
        let (distance, square) = (sum / count, squares / count);
        let spread = (square - distance * distance).max(0.0);
        is_near &= distance * distance <= NEAR * spread;
        mean.push(f64::from(*centre) + distance);
        variance.push(spread);
    }
    (mean, variance, is_near)
}

fn check(channels: usize, positions: usize, len: usize) {
    let image = channels * positions;
    assert!(
        image > 0 && len.is_multiple_of(image) || len == 0,
        "{len} values are no whole number of images of {channels} x {positions}"
    );
}

/// Calls `work(index, plane)` for every plane.
fn each_plane(positions: usize, y: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    if y.is_empty() {
        return;
    }
    // Small planes are joined so that a part is worth its while.
    let planes = PLANES.max(4096 / positions);
    y.par_chunks_mut(planes * positions)
        .enumerate()
        .for_each(|(part, y)| {
            dispatch(Planes {
                positions,
                first: part * planes,
                y,
                work: &work,
            });
        });
}

/// Some planes of [`each_plane`].
struct Planes<'a, F> {
    positions: usize,
    first: usize,
    y: &'a mut [f32],
    work: &'a F,
}

impl<F: Fn(usize, &mut [f32])> WithSimd for Planes<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        simd.vectorize(
            #[inline(always)]
            || {
                for (index, y) in self.y.chunks_exact_mut(self.positions).enumerate() {
                    (self.work)(self.first + index, y);
                }
            },
        );
    }
}
