//! What is done channel by channel, on values `[images, channels, positions]`. Values in bundles are such values,
//! too: each place of a bundle is an image whose positions are the images of the bundle.

use crate::elementwise::sums_of;
use crate::layout::BUNDLE;
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
    check(factor.len(), positions, y.len());
    assert_eq!(x.len(), y.len(), "lengths");
    assert_eq!(factor.len(), offset.len(), "channels");
    each_plane(
        positions,
        y,
        #[inline(always)]
        |plane, y| {
            let channel = plane % factor.len();
            let (factor, offset) = (factor[channel], offset[channel]);
            let x = &x[plane * positions..][..positions];
            for (y, x) in y.iter_mut().zip(x) {
                *y = *x * factor + offset;
            }
        },
    );
}

/// `z = x * a + y * b + c` of the channel.
///
/// # Panics
/// Where a length does not fit.
pub fn combine([a, b, c]: [&[f32]; 3], positions: usize, x: &[f32], y: &[f32], z: &mut [f32]) {
    check(a.len(), positions, z.len());
    assert!(x.len() == z.len() && y.len() == z.len(), "lengths");
    assert!(a.len() == b.len() && b.len() == c.len(), "channels");
    each_plane(
        positions,
        z,
        #[inline(always)]
        |plane, z| {
            let channel = plane % a.len();
            let (a, b, c) = (a[channel], b[channel], c[channel]);
            let range = plane * positions..(plane + 1) * positions;
            for ((z, x), y) in z.iter_mut().zip(&x[range.clone()]).zip(&y[range]) {
                *z = *x * a + *y * b + c;
            }
        },
    );
}

/// For each channel, sums over images and positions of `f(channel)(x, y)`, in `f64`.
///
/// # Panics
/// Where a length does not fit.
pub fn sums<G: Fn(f32, f32) -> [f32; N], const N: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    f: impl Fn(usize) -> G + Sync,
) -> [Vec<f64>; N] {
    check(channels, positions, x.len());
    assert_eq!(x.len(), y.len(), "lengths");
    let mut sums = [(); N].map(|()| vec![0.0; channels]);
    if x.is_empty() {
        return sums;
    }
    let mut add = |channel: usize, terms: [f64; N]| {
        for (sums, term) in sums.iter_mut().zip(terms) {
            sums[channel] += term;
        }
    };
    if positions == 1 {
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
            for (channel, (x, y)) in x.iter().zip(y).enumerate() {
                add(channel, f(channel)(*x, *y).map(f64::from));
            }
        }
        return sums;
    }
    if positions == BUNDLE {
        let len = part_len(channels);
        let parts: Vec<Vec<[f64; N]>> = x
            .par_chunks(len)
            .zip(y.par_chunks(len))
            .map(|(x, y)| {
                let f = &f;
                dispatch(RowSums { channels, x, y, f })
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
                    let mut totals = [0.0; N];
                    for image in 0..images {
                        let start = (image * channels + channel) * positions;
                        let (x, y) = (&x[start..][..positions], &y[start..][..positions]);
                        let sums = sums_of(x, y, f(channel));
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

/// Floats of each part of bundles. So few rows that small terms are not lost in sums of `f32`.
fn part_len(channels: usize) -> usize {
    let row = channels * BUNDLE;
    (PART / row).clamp(1, 256) * row
}

/// [`sums`] of some rows of bundles, by channel.
struct RowSums<'a, F, const N: usize> {
    channels: usize,
    x: &'a [f32],
    y: &'a [f32],
    f: F,
}

impl<F, G, const N: usize> WithSimd for RowSums<'_, F, N>
where
    F: Fn(usize) -> G,
    G: Fn(f32, f32) -> [f32; N],
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

impl<F, G, const N: usize> RowSums<'_, F, N>
where
    F: Fn(usize) -> G,
    G: Fn(f32, f32) -> [f32; N],
{
    // Both arrays are indexed by place and by sum: only so does the compiler see registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn get(self) -> Vec<[f64; N]> {
        let mut sums = vec![[[0.0_f32; BUNDLE]; N]; self.channels];
        let row = self.channels * BUNDLE;
        for (x, y) in self.x.chunks_exact(row).zip(self.y.chunks_exact(row)) {
            let rows = x.as_chunks::<BUNDLE>().0.iter();
            let rows = rows.zip(y.as_chunks::<BUNDLE>().0).zip(&mut sums);
            for (channel, ((x, y), sums)) in rows.enumerate() {
                let f = (self.f)(channel);
                for lane in 0..BUNDLE {
                    let terms = f(x[lane], y[lane]);
                    for n in 0..N {
                        sums[n][lane] += terms[n];
                    }
                }
            }
        }
        sums.into_iter().map(|sums| sums.map(total)).collect()
    }
}

/// The sum of all lanes, eight at a time.
#[inline(always)]
fn total(lanes: [f32; BUNDLE]) -> f64 {
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
    let [first, second] = sums(channels, positions, x, x, |channel| {
        let centre = centre[channel];
        move |x, _| [x - centre, (x - centre) * (x - centre)]
    });
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
