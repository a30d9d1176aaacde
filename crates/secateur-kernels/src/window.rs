//! A window that slides over the rows and columns of a plane.

use std::ops::Range;

/// How a window of a convolution or pooling slides. Pairs are `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Size in taps.
    pub kernel: [usize; 2],
    /// Step from one output to the next.
    pub strides: [usize; 2],
    /// Distance between taps.
    pub dilations: [usize; 2],
    /// Padding above and to the left. Whatever lies outside of the plane is padding.
    pub before: [usize; 2],
}

impl Window {
    /// The input row of tap `tap` for output row `row`; `None` in the padding.
    pub(crate) fn row(&self, row: usize, tap: usize, height: usize) -> Option<usize> {
        (row * self.strides[0] + tap * self.dilations[0])
            .checked_sub(self.before[0])
            .filter(|&row| row < height)
    }

    /// The output columns, of `n_outputs`, for which tap `tap` lies within `width` columns.
    pub(crate) fn columns(&self, tap: usize, n_outputs: usize, width: usize) -> Range<usize> {
        let (stride, distance) = (self.strides[1], tap * self.dilations[1]);
        let first = self.before[1].saturating_sub(distance).div_ceil(stride);
        // The largest output with `output * stride + distance - before < width`.
        let last = (width + self.before[1])
            .saturating_sub(distance)
            .div_ceil(stride);
        let first = first.min(n_outputs);
        first..last.min(n_outputs).max(first)
    }
}
