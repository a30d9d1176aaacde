//! A window that slides over the rows and columns of a plane.

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

/// The outputs along one axis whose tap lies inside the plane, and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    /// First such output.
    pub first: usize,
    /// One past the last.
    pub last: usize,
    /// Input index of the tap for output `first`.
    pub start: usize,
}

impl Window {
    /// The input row of tap `tap` for output row `row`; `None` in the padding.
    pub(crate) fn row(&self, row: usize, tap: usize, height: usize) -> Option<usize> {
        (row * self.strides[0] + tap * self.dilations[0])
            .checked_sub(self.before[0])
            .filter(|&row| row < height)
    }

    /// The output columns, of `n_outputs`, for which tap `tap` lies within `width` columns.
    pub(crate) fn columns(&self, tap: usize, n_outputs: usize, width: usize) -> Inside {
        let (stride, offset) = (self.strides[1], tap * self.dilations[1]);
        let first = self.before[1].saturating_sub(offset).div_ceil(stride);
        // The largest output with `output * stride + offset - before < width`.
        let last = (width + self.before[1])
            .saturating_sub(offset)
            .div_ceil(stride);
        let first = first.min(n_outputs);
        let last = last.min(n_outputs).max(first);
        Inside {
            first,
            last,
            start: (first * stride + offset).saturating_sub(self.before[1]),
        }
    }
}
