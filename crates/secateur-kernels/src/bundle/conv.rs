//! Convolution of bundles.

use super::correlate::correlate;
use super::geometry::Correlation;
use super::panels::Kernel;
use super::{depthwise, weight};
use crate::conv::{ConvShape, Finish};

/// `y = w * x`, finished.
pub(crate) fn forward(
    bundle: usize,
    shape: &ConvShape,
    x: &[f32],
    w: &[f32],
    finish: Finish<'_>,
    y: &mut [f32],
) {
    let correlation = Correlation::forward(bundle, shape);
    if shape.group() == [1, 1] {
        depthwise::correlate(&correlation, x, w, finish, y);
    } else {
        correlate(&correlation, x, Kernel::Forward(w), finish, y);
    }
}

/// `dx`, given `dy`.
pub(crate) fn backward_data(
    bundle: usize,
    shape: &ConvShape,
    w: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let correlation = Correlation::forward(bundle, shape).turned();
    if shape.group() == [1, 1] {
        depthwise::correlate(&correlation, dy, w, Finish::default(), dx);
    } else {
        correlate(&correlation, dy, Kernel::Backward(w), Finish::default(), dx);
    }
}

/// `dw`, given `dy`.
pub(crate) fn backward_weight(
    bundle: usize,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let correlation = Correlation::forward(bundle, shape);
    if shape.group() == [1, 1] {
        depthwise::gradient(&correlation, x, dy, dw);
    } else {
        weight::gradient(&correlation, x, dy, dw);
    }
}
