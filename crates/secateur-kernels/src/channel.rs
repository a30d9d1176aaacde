//! What is done channel by channel, on values `[images, channels, positions]`.

use crate::elementwise::sum_of;
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

/// For each channel, the sum over images and positions of `f(x, y, channel)`, in `f64`.
///
/// # Panics
/// Where a length does not fit.
pub fn sums(
    channels: usize,
    positions: usize,
    x: &[f32],
    y: &[f32],
    f: impl Fn(f32, f32, usize) -> f32 + Sync,
) -> Vec<f64> {
    check(channels, positions, x.len());
    assert_eq!(x.len(), y.len(), "lengths");
    if positions == 1 {
        let mut sums = vec![0.0; channels];
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
            for (channel, (x, y)) in x.iter().zip(y).enumerate() {
                sums[channel] += f64::from(f(*x, *y, channel));
            }
        }
        return sums;
    }
    let images = x.len() / (channels * positions).max(1);
    (0..channels)
        .into_par_iter()
        .map(|channel| {
            dispatch(
                #[inline(always)]
                || {
                    let mut sum = 0.0;
                    for image in 0..images {
                        let start = (image * channels + channel) * positions;
                        let (x, y) = (&x[start..][..positions], &y[start..][..positions]);
                        sum += sum_of(x, y, |x, y| f(x, y, channel));
                    }
                    sum
                },
            )
        })
        .collect()
}

/// Mean and biased variance of each channel.
///
/// # Panics
/// Where `x` is no whole number of images.
#[must_use]
pub fn moments(channels: usize, positions: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let count = (x.len() / channels.max(1)).max(1) as f64;
    let mut mean = sums(channels, positions, x, x, |x, _, _| x);
    for mean in &mut mean {
        *mean /= count;
    }
    let centre: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
    let mut variance = sums(channels, positions, x, x, |x, _, channel| {
        let distance = x - centre[channel];
        distance * distance
    });
    for ((variance, mean), centre) in variance.iter_mut().zip(&mean).zip(&centre) {
        let rounding = mean - f64::from(*centre);
        *variance = (*variance / count - rounding * rounding).max(0.0);
    }
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
