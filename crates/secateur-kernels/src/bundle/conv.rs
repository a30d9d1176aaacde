//! Convolution of bundles.

use super::correlate::correlate;
use super::geometry::Correlation;
use super::panels::{Kernel, Order};
use super::{depthwise, weight};
use crate::conv::{ConvShape, Finish};
use crate::packed::{Slot, Weight};

/// A weight with the place where it is kept packed in that order.
fn kernel<'a>(w: Weight<'a>, order: Order, shape: &'a ConvShape, bundle: usize) -> Kernel<'a> {
    let kept = w.packed.map(|packed| match order {
        Order::Forward => &packed.forward,
        Order::Backward => &packed.backward,
    });
    Kernel {
        values: w.values,
        order,
        slot: kept.map(|kept| Slot {
            kept,
            shape,
            bundle,
        }),
    }
}

/// `y = w * x`, finished.
pub(crate) fn forward(
    bundle: usize,
    shape: &ConvShape,
    x: &[f32],
    w: Weight<'_>,
    finish: Finish<'_>,
    y: &mut [f32],
) {
    let correlation = Correlation::forward(bundle, shape);
    if shape.group() == [1, 1] {
        depthwise::correlate(&correlation, x, w.values, finish, y);
    } else {
        let kernel = kernel(w, Order::Forward, shape, bundle);
        correlate(&correlation, x, kernel, finish, y);
    }
}

/// `dx`, given `dy`.
pub(crate) fn backward_data(
    bundle: usize,
    shape: &ConvShape,
    w: Weight<'_>,
    dy: &[f32],
    dx: &mut [f32],
) {
    let correlation = Correlation::forward(bundle, shape).turned();
    if shape.group() == [1, 1] {
        depthwise::correlate(&correlation, dy, w.values, Finish::default(), dx);
    } else {
        let kernel = kernel(w, Order::Backward, shape, bundle);
        correlate(&correlation, dy, kernel, Finish::default(), dx);
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
