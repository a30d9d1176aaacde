//! What is done channel by channel, on values `[images, channels, positions]`. Values in bundles are such values,
//! too: each place of a bundle is an image whose positions are the images of the bundle.

mod rows;

use self::rows::Rows;
use crate::elementwise::sums_of;
use crate::level::{compiled, dispatch};
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
    map(
        factor.len(),
        positions,
        x,
        y,
        [factor, offset],
        #[inline(always)]
        |[factor, offset], x| x * factor + offset,
    );
}

/// `y = f(the channel's parameters, x)`.
///
/// # Panics
/// Where a length does not fit.
pub(crate) fn map<const P: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &mut [f32],
    parameters: [&[f32]; P],
    f: impl Fn([f32; P], f32) -> f32 + Copy + Sync,
) {
    zip(
        channels,
        positions,
        x,
        x,
        y,
        parameters,
        #[inline(always)]
        move |own, x, _| f(own, x),
    );
}

/// `z = f(the channel's parameters, x, y)`.
///
/// # Panics
/// Where a length does not fit.
pub(crate) fn zip<const P: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    z: &mut [f32],
    parameters: [&[f32]; P],
    f: impl Fn([f32; P], f32, f32) -> f32 + Copy + Sync,
) {
    check(channels, positions, z.len());
    assert!(x.len() == z.len() && y.len() == z.len(), "lengths");
    check_parameters(&parameters, channels);
    if let Some(rows) = Rows::of(channels, positions) {
        return rows.zip(x, y, z, parameters, f);
    }
    each_plane(
        positions,
        z,
        #[inline(always)]
        |plane, z| {
            let own = parameters.map(|values| values[plane % channels]);
            let range = plane * positions..(plane + 1) * positions;
            for ((z, x), y) in z.iter_mut().zip(&x[range.clone()]).zip(&y[range]) {
                *z = f(own, *x, *y);
            }
        },
    );
}

/// The sum of each channel.
///
/// # Panics
/// Where `x` is no whole number of images.
#[must_use]
pub fn totals(channels: usize, positions: usize, x: &[f32]) -> Vec<f64> {
    let [totals] = sums(
        channels,
        positions,
        x,
        x,
        [],
        #[inline(always)]
        |[], x, _| [x],
    );
    totals
}

/// The sum of `x * y` of each channel.
///
/// # Panics
/// Where a length does not fit.
#[must_use]
pub fn products(channels: usize, positions: usize, x: &[f32], y: &[f32]) -> Vec<f64> {
    let [products] = sums(
        channels,
        positions,
        x,
        y,
        [],
        #[inline(always)]
        |[], x, y| [x * y],
    );
    products
}

/// For each channel, sums over images and positions of `f(the channel's parameters, x, y)`, in `f64`.
///
/// # Panics
/// Where a length does not fit.
pub(crate) fn sums<const P: usize, const N: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    parameters: [&[f32]; P],
    f: impl Fn([f32; P], f32, f32) -> [f32; N] + Copy + Sync,
) -> [Vec<f64>; N] {
    check(channels, positions, x.len());
    assert_eq!(x.len(), y.len(), "lengths");
    check_parameters(&parameters, channels);
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
    if let Some(rows) = Rows::of(channels, positions) {
        for part in rows.sums(x, y, parameters, f) {
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
            compiled(
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

fn check_parameters(parameters: &[&[f32]], channels: usize) {
    let fits = parameters.iter().all(|values| values.len() == channels);
    assert!(fits, "one parameter of a kind for each channel");
}

/// Calls `work(index, plane)` for every plane.
pub(crate) fn each_plane(positions: usize, y: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
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
    fn with_simd<S: Simd>(self, _: S) {
        for (index, y) in self.y.chunks_exact_mut(self.positions).enumerate() {
            (self.work)(self.first + index, y);
        }
    }
}
