//! Obvious loops in `f64` for convolution and pooling.

use crate::graph::{ConvAttrs, PoolAttrs, SpatialPads};
use ndarray::{ArrayD, IxDyn};

/// The output length of one axis without partial windows.
fn positions(len: usize, kernel: usize, stride: usize, dilation: usize, pads: usize) -> usize {
    (len + pads - (dilation * (kernel - 1) + 1)) / stride + 1
}

/// The index into the image of a tap, `None` in the padding.
fn place(position: usize, stride: usize, tap: usize, before: usize, len: usize) -> Option<usize> {
    (position * stride + tap)
        .checked_sub(before)
        .filter(|&index| index < len)
}

/// `[images, out, height, width]` of a convolution with explicit pads.
pub(super) fn conv(
    x: &ArrayD<f64>,
    weight: &ArrayD<f64>,
    bias: Option<&ArrayD<f64>>,
    attrs: &ConvAttrs,
) -> ArrayD<f64> {
    let (xs, ws) = (x.shape(), weight.shape());
    let SpatialPads {
        top,
        left,
        bottom,
        right,
    } = attrs.pads;
    let [stride_h, stride_w] = attrs.strides;
    let [dilation_h, dilation_w] = attrs.dilations;
    let out_h = positions(xs[2], ws[2], stride_h, dilation_h, top + bottom);
    let out_w = positions(xs[3], ws[3], stride_w, dilation_w, left + right);
    let out_per_group = ws[0] / attrs.groups;
    ArrayD::from_shape_fn(IxDyn(&[xs[0], ws[0], out_h, out_w]), |at| {
        let (image, out, row, column) = (at[0], at[1], at[2], at[3]);
        let mut sum = bias.map_or(0.0, |bias| bias[[out]]);
        for channel in 0..ws[1] {
            for kh in 0..ws[2] {
                for kw in 0..ws[3] {
                    let h = place(row, stride_h, kh * dilation_h, top, xs[2]);
                    let w = place(column, stride_w, kw * dilation_w, left, xs[3]);
                    if let (Some(h), Some(w)) = (h, w) {
                        let input = out / out_per_group * ws[1] + channel;
                        sum += x[[image, input, h, w]] * weight[[out, channel, kh, kw]];
                    }
                }
            }
        }
        sum
    })
}

/// What a pooling computes from the values in a window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pool {
    Max,
    Average,
}

/// Pooling with explicit pads, for an output of `[out_h, out_w]`. The divisor of an average counts
/// the padding where `count_include_pad` says so, but nothing beyond it.
pub(super) fn pool(
    x: &ArrayD<f64>,
    attrs: &PoolAttrs,
    [out_h, out_w]: [usize; 2],
    kind: Pool,
) -> ArrayD<f64> {
    let xs = x.shape();
    let pads = attrs.pads;
    ArrayD::from_shape_fn(IxDyn(&[xs[0], xs[1], out_h, out_w]), |at| {
        let (mut sum, mut count, mut max) = (0.0, 0, f64::NEG_INFINITY);
        for kh in 0..attrs.kernel[0] {
            for kw in 0..attrs.kernel[1] {
                let tap_h = at[2] * attrs.strides[0] + kh * attrs.dilations[0];
                let tap_w = at[3] * attrs.strides[1] + kw * attrs.dilations[1];
                let h = tap_h.checked_sub(pads.top).filter(|&h| h < xs[2]);
                let w = tap_w.checked_sub(pads.left).filter(|&w| w < xs[3]);
                if let (Some(h), Some(w)) = (h, w) {
                    let value = x[[at[0], at[1], h, w]];
                    sum += value;
                    max = max.max(value);
                    count += 1;
                } else if attrs.count_include_pad
                    && tap_h < xs[2] + pads.top + pads.bottom
                    && tap_w < xs[3] + pads.left + pads.right
                {
                    count += 1;
                }
            }
        }
        match kind {
            Pool::Max => max,
            Pool::Average => sum / f64::from(count),
        }
    })
}

/// The gradient by `parameter` of a function that is linear (or quadratic) in it: central
/// differences are exact, whatever the step.
pub(super) fn gradient(
    parameter: &ArrayD<f64>,
    step: f64,
    mut loss: impl FnMut(&ArrayD<f64>) -> f64,
) -> ArrayD<f64> {
    let mut gradient = ArrayD::zeros(parameter.raw_dim());
    let mut moved = parameter.clone();
    for (index, &value) in parameter.indexed_iter() {
        moved[&index] = value + step;
        let above = loss(&moved);
        moved[&index] = value - step;
        gradient[&index] = (above - loss(&moved)) / (2.0 * step);
        moved[&index] = value;
    }
    gradient
}
