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
