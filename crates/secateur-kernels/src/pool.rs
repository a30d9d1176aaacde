//! Pooling.

use crate::layout::Batch;
use crate::level::dispatch;
use crate::{Layout, Window, bundle};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Shapes of a pooling. Planes are images times channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Height and width of an input plane.
    pub input: [usize; 2],
    /// Height and width of an output plane.
    pub output: [usize; 2],
    /// How the window slides.
    pub window: Window,
}

/// `y` is the largest input under the window; padding never wins.
///
/// # Panics
/// Where the lengths are not of the same number of planes.
pub fn max_forward(batch: Batch, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    let (plane_in, plane_out) = check(shape, x.len(), y.len());
    batch.check(plane_in, x.len());
    if let Layout::Bundles(images) = batch.layout {
        return bundle::pool::max_forward(images, shape, batch.channels, x, y);
    }
    y.par_chunks_mut(plane_out)
        .zip(x.par_chunks(plane_in))
        .with_min_len(8)
        .for_each_init(
            || Rows::new(shape),
            |rows, (y, x)| dispatch(Forward { rows, x, y }),
        );
}

/// `dx`: each gradient goes to the first of the largest inputs under its window.
///
/// # Panics
/// Where the lengths are not of the same number of planes.
pub fn max_backward(batch: Batch, shape: &PoolShape, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (plane_in, plane_out) = check(shape, x.len(), dy.len());
    assert_eq!(x.len(), dx.len(), "lengths");
    batch.check(plane_in, x.len());
    if let Layout::Bundles(images) = batch.layout {
        return bundle::pool::max_backward(images, shape, batch.channels, x, dy, dx);
    }
    dx.par_chunks_mut(plane_in)
        .zip(x.par_chunks(plane_in).zip(dy.par_chunks(plane_out)))
        .with_min_len(8)
        .for_each_init(
            || Rows::new(shape),
            |rows, (dx, (x, dy))| dispatch(Backward { rows, x, dy, dx }),
        );
}

/// `y` is the mean of each channel of each image over its `positions`.
///
/// # Panics
/// Where the lengths do not fit.
pub fn average(batch: Batch, positions: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len() * positions, "lengths");
    batch.check(positions, x.len());
    if let Layout::Bundles(images) = batch.layout {
        return bundle::pool::average(images, batch.channels, positions, x, y);
    }
    for (y, plane) in y.iter_mut().zip(x.chunks_exact(positions)) {
        let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
        *y = (sum / positions as f64) as f32;
    }
}

/// `dx` for [`average`], given `dy`.
///
/// # Panics
/// Where the lengths do not fit.
pub fn average_backward(batch: Batch, positions: usize, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dx.len(), dy.len() * positions, "lengths");
    batch.check(positions, dx.len());
    if let Layout::Bundles(images) = batch.layout {
        return bundle::pool::average_backward(images * batch.channels, positions, dy, dx);
    }
    let share = 1.0 / positions as f32;
    for (dx, dy) in dx.chunks_exact_mut(positions).zip(dy) {
        dx.fill(dy * share);
    }
}

/// One plane of [`max_forward`].
struct Forward<'a, 's> {
    rows: &'a mut Rows<'s>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.rows.largest.len();
        for (row, y) in self.y.chunks_exact_mut(width).enumerate() {
            self.rows.find_largest(self.x, row);
            y.copy_from_slice(&self.rows.largest);
        }
    }
}

/// One plane of [`max_backward`].
struct Backward<'a, 's> {
    rows: &'a mut Rows<'s>,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl WithSimd for Backward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.dx.fill(0.0);
        let width = self.rows.largest.len();
        for (row, dy) in self.dy.chunks_exact(width).enumerate() {
            self.rows.find_largest(self.x, row);
            for (index, dy) in self.rows.indices().zip(dy) {
                // A window without inputs has no such index.
                if let Some(dx) = self.dx.get_mut(index) {
                    *dx += *dy;
                }
            }
        }
    }
}

/// No input lies under the window.
const NONE: i32 = i32::MIN;

/// The largest inputs of one row of outputs.
struct Rows<'a> {
    shape: &'a PoolShape,
    largest: Vec<f32>,
    /// Input index of the largest, less the output's column times the stride; or [`NONE`].
    places: Vec<i32>,
    /// For each tap of a row, the outputs for which it lies inside the plane, and the first of its
    /// input columns.
    taps: Vec<(Range<usize>, usize)>,
}

impl<'a> Rows<'a> {
    fn new(shape: &'a PoolShape) -> Self {
        let window = &shape.window;
        let tap = |tap: usize| {
            let outputs = window.columns(tap, shape.output[1], shape.input[1]);
            let distance = outputs.start * window.strides[1] + tap * window.dilations[1];
            (outputs, distance.saturating_sub(window.before[1]))
        };
        Self {
            shape,
            taps: (0..window.kernel[1]).map(tap).collect(),
            largest: vec![0.0; shape.output[1]],
            places: vec![NONE; shape.output[1]],
        }
    }

    /// Finds the first of the largest inputs under each window of that row of outputs. A NaN wins.
    #[inline(always)]
    fn find_largest(&mut self, x: &[f32], row: usize) {
        let PoolShape { input, window, .. } = self.shape;
        let [_, stride] = window.strides;
        self.largest.fill(f32::NEG_INFINITY);
        self.places.fill(NONE);
        for tap_y in 0..window.kernel[0] {
            let Some(y) = window.row(row, tap_y, input[0]) else {
                continue;
            };
            let x = &x[y * input[1]..][..input[1]];
            for (outputs, first) in &self.taps {
                if outputs.is_empty() {
                    continue;
                }
                let (outputs, first) = (outputs.clone(), *first);
                let place = (y * input[1] + first) as i32 - (outputs.start * stride) as i32;
                let largest = &mut self.largest[outputs.clone()];
                let places = &mut self.places[outputs];
                match stride {
                    1 => take_larger(&x[first..], |x| *x, place, largest, places),
                    2 => {
                        // The last output may read the row's last input, which has no neighbour.
                        let (pairs, _) = x[first..].as_chunks::<2>();
                        take_larger(pairs, |[x, _]| *x, place, largest, places);
                        if let (Some(largest), Some(places)) = (
                            largest.get_mut(pairs.len()..),
                            places.get_mut(pairs.len()..),
                        ) {
                            let rest = &x[first + 2 * pairs.len()..];
                            take_larger(rest, |x| *x, place, largest, places);
                        }
                    }
                    _ => {
                        let x = x[first..].chunks(stride);
                        for ((x, largest), found) in x.zip(largest).zip(places) {
                            take(x[0], place, largest, found);
                        }
                    }
                }
            }
        }
    }

    /// The input index of each output's largest input; one that is too large where there is none.
    #[inline(always)]
    fn indices(&self) -> impl Iterator<Item = usize> {
        let stride = self.shape.window.strides[1] as i32;
        let places = self.places.iter().enumerate();
        places.map(move |(column, place)| place.wrapping_add(column as i32 * stride) as usize)
    }
}

#[inline(always)]
fn take_larger<T>(
    values: &[T],
    value: impl Fn(&T) -> f32,
    place: i32,
    largest: &mut [f32],
    places: &mut [i32],
) {
    for ((input, largest), found) in values.iter().zip(largest).zip(places) {
        take(value(input), place, largest, found);
    }
}

#[inline(always)]
fn take(value: f32, place: i32, largest: &mut f32, found: &mut i32) {
    let is_first = *found == NONE;
    let wins = is_first | (value > *largest) | (value.is_nan() & !largest.is_nan());
    *largest = if wins { value } else { *largest };
    *found = if wins { place } else { *found };
}

fn check(shape: &PoolShape, x: usize, y: usize) -> (usize, usize) {
    let plane_in = shape.input[0] * shape.input[1];
    let plane_out = shape.output[0] * shape.output[1];
    assert!(plane_in > 0 && plane_out > 0, "planes of no size");
    assert_eq!(x * plane_out, y * plane_in, "numbers of planes");
    (plane_in, plane_out)
}
