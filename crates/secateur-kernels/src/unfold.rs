//! Patches of a plane as columns of a matrix, and back.

use crate::Window;
use crate::window::Inside;
use std::ops::Range;

/// A plane's size and that of its output, with the window between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub window: Window,
    pub height: usize,
    pub width: usize,
    pub out_width: usize,
}

impl Planes {
    /// For each tap of a row of the window, the output columns for which it lies inside the plane.
    fn columns(&self) -> Vec<Inside> {
        (0..self.window.kernel[1])
            .map(|tap| self.window.columns(tap, self.out_width, self.width))
            .collect()
    }

    /// Writes the patches at output rows `rows` of all channels in `x` to `matrix`: one row for each
    /// channel and tap, `stride` apart, one column for each output position, from `offset` on.
    pub(crate) fn unfold(
        &self,
        x: &[f32],
        rows: Range<usize>,
        matrix: &mut [f32],
        stride: usize,
        offset: usize,
    ) {
        let window = &self.window;
        let plane = self.height * self.width;
        let columns = self.columns();
        let mut start = offset;
        for x in x.chunks_exact(plane) {
            for tap_y in 0..window.kernel[0] {
                for inside in &columns {
                    let target = &mut matrix[start..][..rows.len() * self.out_width];
                    for (row, target) in rows.clone().zip(target.chunks_exact_mut(self.out_width)) {
                        let Some(row) = window.row(row, tap_y, self.height) else {
                            target.fill(0.0);
                            continue;
                        };
                        let source = &x[row * self.width..][..self.width];
                        target[..inside.first].fill(0.0);
                        target[inside.last..].fill(0.0);
                        let target = &mut target[inside.first..inside.last];
                        if target.is_empty() {
                            continue;
                        }
                        if window.strides[1] == 1 {
                            target.copy_from_slice(&source[inside.start..][..target.len()]);
                        } else {
                            let source = source[inside.start..].iter().step_by(window.strides[1]);
                            for (target, source) in target.iter_mut().zip(source) {
                                *target = *source;
                            }
                        }
                    }
                    start += stride;
                }
            }
        }
    }

    /// Adds what [`Planes::unfold`] would have read from: the transpose of it.
    pub(crate) fn fold(
        &self,
        x: &mut [f32],
        rows: Range<usize>,
        matrix: &[f32],
        stride: usize,
        offset: usize,
    ) {
        let window = &self.window;
        let plane = self.height * self.width;
        let columns = self.columns();
        let mut start = offset;
        for x in x.chunks_exact_mut(plane) {
            for tap_y in 0..window.kernel[0] {
                for inside in &columns {
                    let source = &matrix[start..][..rows.len() * self.out_width];
                    for (row, source) in rows.clone().zip(source.chunks_exact(self.out_width)) {
                        let Some(row) = window.row(row, tap_y, self.height) else {
                            continue;
                        };
                        let source = &source[inside.first..inside.last];
                        if source.is_empty() {
                            continue;
                        }
                        let target = &mut x[row * self.width..][..self.width];
                        if window.strides[1] == 1 {
                            let target = &mut target[inside.start..][..source.len()];
                            for (target, source) in target.iter_mut().zip(source) {
                                *target += *source;
                            }
                        } else {
                            let target = target[inside.start..].iter_mut();
                            for (target, source) in target.step_by(window.strides[1]).zip(source) {
                                *target += *source;
                            }
                        }
                    }
                    start += stride;
                }
            }
        }
    }
}
