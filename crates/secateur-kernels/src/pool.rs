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
    let taps = Taps::new(shape);
    y.par_chunks_mut(plane_out)
        .zip(x.par_chunks(plane_in))
        .with_min_len(8)
        .for_each(|(y, x)| {
            taps.each_largest(x, |position, largest| {
                y[position] = largest.map_or(f32::NEG_INFINITY, |index| x[index]);
            });
        });
}

/// `dx`: each gradient goes to the first of the largest inputs under its window.
///
/// # Panics
/// Where the lengths are not of the same number of planes.
pub fn max_backward(shape: &PoolShape, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (plane_in, plane_out) = check(shape, x.len(), dy.len());
    assert_eq!(x.len(), dx.len(), "lengths");
    let taps = Taps::new(shape);
    dx.par_chunks_mut(plane_in)
        .zip(x.par_chunks(plane_in).zip(dy.par_chunks(plane_out)))
        .with_min_len(8)
        .for_each(|(dx, (x, dy))| {
            dx.fill(0.0);
            taps.each_largest(x, |position, largest| {
                if let Some(index) = largest {
                    dx[index] += dy[position];
                }
            });
        });
}

/// The taps that lie inside the plane, for each output row and column.
struct Taps {
    width: usize,
    dilations: [usize; 2],
    rows: Vec<Run>,
    columns: Vec<Run>,
}

/// Taps inside the plane along one axis: the first one's input index, and their number.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    len: usize,
}

impl Taps {
    fn new(shape: &PoolShape) -> Self {
        let run = |axis: usize, output: usize| {
            let window = &shape.window;
            let inside = |tap: usize| {
                (output * window.strides[axis] + tap * window.dilations[axis])
                    .checked_sub(window.before[axis])
                    .filter(|&index| index < shape.input[axis])
            };
            let mut taps = (0..window.kernel[axis]).filter_map(inside);
            match taps.next() {
                Some(first) => Run {
                    first,
                    len: 1 + taps.count(),
                },
                None => Run { first: 0, len: 0 },
            }
        };
        let runs = |axis: usize| (0..shape.output[axis]).map(|o| run(axis, o)).collect();
        Self {
            width: shape.input[1],
            dilations: shape.window.dilations,
            rows: runs(0),
            columns: runs(1),
        }
    }

    /// Calls `work` for every output with the index of the first of the largest inputs under its
    /// window. A NaN wins.
    #[inline(always)]
    fn each_largest(&self, x: &[f32], mut work: impl FnMut(usize, Option<usize>)) {
        let mut position = 0;
        for rows in &self.rows {
            for columns in &self.columns {
                let mut best: Option<(usize, f32)> = None;
                for row in 0..rows.len {
                    let row = (rows.first + row * self.dilations[0]) * self.width;
                    for column in 0..columns.len {
                        let index = row + columns.first + column * self.dilations[1];
                        let value = x[index];
                        let wins = |best: f32| value > best || value.is_nan() && !best.is_nan();
                        if best.is_none_or(|(_, best)| wins(best)) {
                            best = Some((index, value));
                        }
                    }
                }
                work(position, best.map(|(index, _)| index));
                position += 1;
            }
        }
    }
}

fn check(shape: &PoolShape, x: usize, y: usize) -> (usize, usize) {
    let plane_in = shape.input[0] * shape.input[1];
    let plane_out = shape.output[0] * shape.output[1];
    assert!(plane_in > 0 && plane_out > 0, "planes of no size");
    assert_eq!(x * plane_out, y * plane_in, "numbers of planes");
    (plane_in, plane_out)
}
