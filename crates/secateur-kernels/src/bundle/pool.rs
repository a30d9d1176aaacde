//! Pooling of bundles.

use super::geometry::{Correlation, Pairs};
use crate::level::{compiled, dispatch};
use crate::pool::PoolShape;
use crate::scratch::{with_scratch, with_shared};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Positions of a part.
const POSITIONS: usize = 8;
/// The tap of a window that sees no input.
const NONE: f32 = -1.0;

/// `y` is the largest input under the window; a NaN wins, padding never does.
pub(crate) fn max_forward(
    images: usize,
    shape: &PoolShape,
    channels: usize,
    x: &[f32],
    y: &mut [f32],
) {
    let window = Correlation::of_window(images, &shape.window, shape.input, shape.output);
    each_position(
        &window,
        channels,
        x,
        y,
        #[inline(always)]
        |_, mut pairs, x, y, _| {
            let Some(first) = pairs.next() else {
                return y.fill(f32::NEG_INFINITY);
            };
            y.copy_from_slice(row(x, first.place, y.len()));
            for pair in pairs {
                let x = row(x, pair.place, y.len());
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if (*x > *y) | x.is_nan() { *x } else { *y };
                }
            }
        },
    );
}

/// `dx`: each gradient goes to the first of the largest inputs under its window.
pub(crate) fn max_backward(
    images: usize,
    shape: &PoolShape,
    channels: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let window = Correlation::of_window(images, &shape.window, shape.input, shape.output);
    with_shared(dy.len(), |taps| {
        find_largest(&window, channels, x, taps);
        let image = window.positions() * channels * images;
        each_position(
            &window.turned(),
            channels,
            dy,
            dx,
            #[inline(always)]
            |bundle, pairs, dy, dx, _| {
                dx.fill(0.0);
                for pair in pairs {
                    let own = pair.tap as f32;
                    let taps = row(&taps[bundle * image..], pair.place, dx.len());
                    let dy = row(dy, pair.place, dx.len());
                    for ((dx, tap), dy) in dx.iter_mut().zip(taps).zip(dy) {
                        *dx += if *tap == own { *dy } else { 0.0 };
                    }
                }
            },
        );
    });
}

/// Writes for each output the tap of the first of the largest inputs under its window.
fn find_largest(window: &Correlation, channels: usize, x: &[f32], taps: &mut [f32]) {
    each_position(
        window,
        channels,
        x,
        taps,
        #[inline(always)]
        |_, mut pairs, x, taps, largest| {
            let Some(first) = pairs.next() else {
                return taps.fill(NONE);
            };
            taps.fill(first.tap as f32);
            largest.copy_from_slice(row(x, first.place, taps.len()));
            for pair in pairs {
                let own = pair.tap as f32;
                let x = row(x, pair.place, taps.len());
                for ((largest, x), tap) in largest.iter_mut().zip(x).zip(&mut *taps) {
                    let wins = (*x > *largest) | (x.is_nan() & !largest.is_nan());
                    *largest = if wins { *x } else { *largest };
                    *tap = if wins { own } else { *tap };
                }
            }
        },
    );
}

/// The values of all channels at a place.
#[inline(always)]
fn row(x: &[f32], place: usize, len: usize) -> &[f32] {
    &x[place * len..][..len]
}

/// The mean over all positions.
pub(crate) fn average(images: usize, channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    match images {
        32 => average_of::<32>(channels, positions, x, y),
        16 => average_of::<16>(channels, positions, x, y),
        _ => average_of::<8>(channels, positions, x, y),
    }
}

fn average_of<const IMAGES: usize>(channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    let (x, y) = (x.as_chunks::<IMAGES>().0, y.as_chunks_mut::<IMAGES>().0);
    y.par_chunks_mut(channels)
        .zip(x.par_chunks(channels * positions))
        .for_each(|(y, x)| {
            compiled(
                #[inline(always)]
                || {
                    for (channel, y) in y.iter_mut().enumerate() {
                        let mut sums = [0.0_f64; IMAGES];
                        for x in x.iter().skip(channel).step_by(channels) {
                            for (sum, x) in sums.iter_mut().zip(x) {
                                *sum += f64::from(*x);
                            }
                        }
                        *y = sums.map(|sum| (sum / positions as f64) as f32);
                    }
                },
            );
        });
}

/// The gradient of [`average`]'s input, with `len` floats at a position.
pub(crate) fn average_backward(len: usize, positions: usize, dy: &[f32], dx: &mut [f32]) {
    let share = 1.0 / positions as f32;
    dx.par_chunks_mut(len).enumerate().for_each(|(point, dx)| {
        let dy = &dy[point / positions * len..][..len];
        for (dx, dy) in dx.iter_mut().zip(dy) {
            *dx = dy * share;
        }
    });
}

/// Calls `work(bundle, what the position reads, the bundle's source, target, as much memory)` for each position
/// of the target.
fn each_position(
    window: &Correlation,
    channels: usize,
    source: &[f32],
    target: &mut [f32],
    work: impl Fn(usize, Pairs<'_>, &[f32], &mut [f32], &mut [f32]) + Sync,
) {
    let row = channels * window.images;
    target
        .par_chunks_mut(POSITIONS * row)
        .enumerate()
        .for_each(|(part, target)| {
            with_scratch(|scratch| {
                dispatch(Positions {
                    window,
                    first: part * POSITIONS,
                    row,
                    image: window.places() * row,
                    source,
                    target,
                    spare: scratch.sums.floats(row),
                    work: &work,
                });
            });
        });
}

/// Some positions of [`each_position`].
struct Positions<'a, F> {
    window: &'a Correlation,
    /// The first position, over all bundles.
    first: usize,
    /// Floats of a position, and of the source of a bundle.
    row: usize,
    image: usize,
    source: &'a [f32],
    target: &'a mut [f32],
    spare: &'a mut [f32],
    work: &'a F,
}

impl<F: Fn(usize, Pairs<'_>, &[f32], &mut [f32], &mut [f32])> WithSimd for Positions<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let positions = self.window.positions();
        for (index, target) in self.target.chunks_exact_mut(self.row).enumerate() {
            let point = self.first + index;
            let bundle = point / positions;
            let source = &self.source[bundle * self.image..][..self.image];
            let pairs = self.window.pairs(point % positions);
            (self.work)(bundle, pairs, source, target, self.spare);
        }
    }
}
