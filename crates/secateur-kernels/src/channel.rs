//! What is done channel by channel, on values `[images, channels, positions]`. Values in bundles are such values,
//! too: each place of a bundle is an image whose positions are the images of the bundle.

use crate::elementwise::sums_of;
use crate::layout::BUNDLE;
use crate::level::dispatch;
use rayon::prelude::*;

/// Planes that one part of the work takes.
const PLANES: usize = 16;

/// `y += bias` of the channel.
///
/// # Panics
/// Where `y` is no whole number of images.
pub fn add(bias: &[f32], positions: usize, y: &mut [f32]) {
    check(bias.len(), positions, y.len());
    each_plane(positions, y, |plane, y| {
        let bias = bias[plane % bias.len()];
        for y in y {
            *y += bias;
        }
    });
}

/// `y = x * factor + offset` of the channel.
///
/// # Panics
/// Where a length does not fit.
pub fn affine(factor: &[f32], offset: &[f32], positions: usize, x: &[f32], y: &mut [f32]) {
    check(factor.len(), positions, y.len());
    assert_eq!(x.len(), y.len(), "lengths");
    assert_eq!(factor.len(), offset.len(), "channels");
    each_plane(positions, y, |plane, y| {
        let channel = plane % factor.len();
        let (factor, offset) = (factor[channel], offset[channel]);
        let x = &x[plane * positions..][..positions];
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x * factor + offset;
        }
    });
}

/// `z = x * a + y * b + c` of the channel.
///
/// # Panics
/// Where a length does not fit.
pub fn combine([a, b, c]: [&[f32]; 3], positions: usize, x: &[f32], y: &[f32], z: &mut [f32]) {
    check(a.len(), positions, z.len());
    assert!(x.len() == z.len() && y.len() == z.len(), "lengths");
    assert!(a.len() == b.len() && b.len() == c.len(), "channels");
    each_plane(positions, z, |plane, z| {
        let channel = plane % a.len();
        let (a, b, c) = (a[channel], b[channel], c[channel]);
        let range = plane * positions..(plane + 1) * positions;
        for ((z, x), y) in z.iter_mut().zip(&x[range.clone()]).zip(&y[range]) {
            *z = *x * a + *y * b + c;
        }
    });
}

/// For each channel, sums over images and positions of `f(x, y, channel)`, in `f64`.
///
/// # Panics
/// Where a length does not fit.
pub fn sums<const N: usize>(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    f: impl Fn(f32, f32, usize) -> [f32; N] + Sync,
) -> [Vec<f64>; N] {
    check(channels, positions, x.len());
    assert_eq!(x.len(), y.len(), "lengths");
    let mut sums = [(); N].map(|()| vec![0.0; channels]);
    let mut add = |channel: usize, terms: [f64; N]| {
        for (sums, term) in sums.iter_mut().zip(terms) {
            sums[channel] += term;
        }
    };
    if positions == 1 {
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
            for (channel, (x, y)) in x.iter().zip(y).enumerate() {
                add(channel, f(*x, *y, channel).map(f64::from));
            }
        }
        return sums;
    }
    if positions == BUNDLE {
        let parts = parts(
            channels,
            x,
            y,
            #[inline(always)]
            |x, y| sums_of_part(channels, x, y, &f),
        );
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
                        let sums = sums_of(x, y, |x, y| f(x, y, channel));
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
const PART: usize = 1 << 16;

/// What `work` finds in each part of bundles, in the order of memory.
fn parts<T: Send>(
    channels: usize,
    x: &[f32],
    y: &[f32],
    work: impl Fn(&[f32], &[f32]) -> T + Sync,
) -> Vec<T> {
    let row = channels * BUNDLE;
    // So few rows that small terms are not lost in sums of `f32`.
    let len = (PART / row).clamp(1, 256) * row;
    x.par_chunks(len)
        .zip(y.par_chunks(len))
        .map(|(x, y)| {
            dispatch(
                #[inline(always)]
                || work(x, y),
            )
        })
        .collect()
}

/// [`sums`] of some rows of bundles, by channel.
#[inline(always)]
fn sums_of_part<const N: usize>(
    channels: usize,
    x: &[f32],
    y: &[f32],
    f: impl Fn(f32, f32, usize) -> [f32; N],
) -> Vec<[f64; N]> {
    let mut lanes = vec![[[0.0_f32; BUNDLE]; N]; channels];
    let row = channels * BUNDLE;
    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact(row)) {
        let rows = x.as_chunks::<BUNDLE>().0.iter();
        let rows = rows.zip(y.as_chunks::<BUNDLE>().0).zip(&mut lanes);
        for (channel, ((x, y), sums)) in rows.enumerate() {
            for lane in 0..BUNDLE {
                let terms = f(x[lane], y[lane], channel);
                for (sums, term) in sums.iter_mut().zip(terms) {
                    sums[lane] += term;
                }
            }
        }
    }
    let total = |lanes: [f32; BUNDLE]| lanes.iter().map(|&lane| f64::from(lane)).sum();
    lanes.into_iter().map(|sums| sums.map(total)).collect()
}

/// Mean and biased variance of each channel.
///
/// # Panics
/// Where `x` is no whole number of images.
#[must_use]
pub fn moments(channels: usize, positions: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    check(channels, positions, x.len());
    if positions == BUNDLE {
        return moments_of_bundles(channels, x);
    }
    let count = (x.len() / channels.max(1)).max(1) as f64;
    let [mut mean] = sums(channels, positions, x, x, |x, _, _| [x]);
    for mean in &mut mean {
        *mean /= count;
    }
    let centre: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
    let [mut variance] = sums(channels, positions, x, x, |x, _, channel| {
        let distance = x - centre[channel];
        [distance * distance]
    });
    for ((variance, mean), centre) in variance.iter_mut().zip(&mean).zip(&centre) {
        *variance = spread(*variance, *mean, *centre, count);
    }
    (mean, variance)
}

/// The variance of `count` values from the sum of their squared distances from `centre`, which is nearly their
/// mean.
fn spread(squares: f64, mean: f64, centre: f32, count: f64) -> f64 {
    let rounding = mean - f64::from(centre);
    (squares / count - rounding * rounding).max(0.0)
}

/// Number, means and variances of some rows of bundles.
#[inline(always)]
fn moments_of_part(channels: usize, x: &[f32]) -> (f64, Vec<f64>, Vec<f64>) {
    let count = (x.len() / channels) as f64;
    let sums = sums_of_part(channels, x, x, |x, _, _| [x]);
    let means: Vec<f64> = sums.into_iter().map(|[sum]| sum / count).collect();
    let centre: Vec<f32> = means.iter().map(|&mean| mean as f32).collect();
    let squares = sums_of_part(channels, x, x, |x, _, channel| {
        let distance = x - centre[channel];
        [distance * distance]
    });
    let variances = squares
        .into_iter()
        .zip(means.iter().zip(&centre))
        .map(|([squares], (mean, centre))| spread(squares, *mean, *centre, count))
        .collect();
    (count, means, variances)
}

/// [`moments`], reading memory once: means and variances of parts are joined (Chan, Golub & LeVeque 1983).
fn moments_of_bundles(channels: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let parts = parts(
        channels,
        x,
        x,
        #[inline(always)]
        |x, _| moments_of_part(channels, x),
    );
    let (mut seen, mut mean, mut squares) = (0.0, vec![0.0; channels], vec![0.0; channels]);
    for (count, means, variances) in parts {
        let total = seen + count;
        for channel in 0..channels {
            let step = means[channel] - mean[channel];
            mean[channel] += step * count / total;
            squares[channel] += variances[channel] * count + step * step * seen * count / total;
        }
        seen = total;
    }
    let variance = squares.into_iter().map(|s| s / seen.max(1.0)).collect();
    (mean, variance)
}

fn check(channels: usize, positions: usize, len: usize) {
    let image = channels * positions;
    assert!(
        image > 0 && len.is_multiple_of(image) || len == 0,
        "{len} values are no whole number of images of {channels} x {positions}"
    );
}

fn each_plane(positions: usize, y: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    if y.is_empty() {
        return;
    }
    // Small planes are joined so that a part is worth its while.
    let planes = PLANES.max(4096 / positions);
    y.par_chunks_mut(planes * positions)
        .enumerate()
        .for_each(|(part, y)| {
            dispatch(
                #[inline(always)]
                || {
                    for (index, y) in y.chunks_exact_mut(positions).enumerate() {
                        work(part * planes + index, y);
                    }
                },
            );
        });
}
