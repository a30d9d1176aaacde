//! Max pooling of planes.

use crate::Window;
use rayon::prelude::*;

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
pub fn max_forward(shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    let (plane_in, plane_out) = check(shape, x.len(), y.len());
    y.par_chunks_mut(plane_out)
        .zip(x.par_chunks(plane_in))
        .with_min_len(8)
        .for_each(|(y, x)| {
            for (position, y) in y.iter_mut().enumerate() {
                let best = largest(shape, x, position);
                *y = best.map_or(f32::NEG_INFINITY, |index| x[index]);
            }
        });
}

/// `dx`: each gradient goes to the first of the largest inputs under its window.
///
/// # Panics
/// Where the lengths are not of the same number of planes.
pub fn max_backward(shape: &PoolShape, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (plane_in, plane_out) = check(shape, x.len(), dy.len());
    assert_eq!(x.len(), dx.len(), "lengths");
    dx.par_chunks_mut(plane_in)
        .zip(x.par_chunks(plane_in).zip(dy.par_chunks(plane_out)))
        .with_min_len(8)
        .for_each(|(dx, (x, dy))| {
            dx.fill(0.0);
            for (position, dy) in dy.iter().enumerate() {
                if let Some(index) = largest(shape, x, position) {
                    dx[index] += dy;
                }
            }
        });
}

/// The index of the first of the largest inputs under the window at an output. A NaN wins.
#[inline]
fn largest(shape: &PoolShape, x: &[f32], position: usize) -> Option<usize> {
    let [height, width] = shape.input;
    let window = &shape.window;
    let (row, column) = (position / shape.output[1], position % shape.output[1]);
    let mut best: Option<(usize, f32)> = None;
    for tap_y in 0..window.kernel[0] {
        let Some(row) = window.row(row, tap_y, height) else {
            continue;
        };
        for tap_x in 0..window.kernel[1] {
            let column = (column * window.strides[1] + tap_x * window.dilations[1])
                .checked_sub(window.before[1])
                .filter(|&column| column < width);
            let Some(column) = column else { continue };
            let index = row * width + column;
            let value = x[index];
            let wins =
                best.is_none_or(|(_, best)| value > best || value.is_nan() && !best.is_nan());
            if wins {
                best = Some((index, value));
            }
        }
    }
    best.map(|(index, _)| index)
}

fn check(shape: &PoolShape, x: usize, y: usize) -> (usize, usize) {
    let plane_in = shape.input[0] * shape.input[1];
    let plane_out = shape.output[0] * shape.output[1];
    assert!(plane_in > 0 && plane_out > 0, "planes of no size");
    assert_eq!(x * plane_out, y * plane_in, "numbers of planes");
    (plane_in, plane_out)
}
