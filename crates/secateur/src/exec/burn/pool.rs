//! Max and average pooling.

use super::apply::Args;
use super::conv::pairs;
use super::value::Value;
use crate::exec::ExecError;
use crate::graph::{PoolAttrs, WindowError};
use ::burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use ::burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode};
use ::burn::tensor::{Tensor, TensorData};

/// The padding of a pooling: as resolved, and with what the last window of `ceil_mode` adds.
struct Padding {
    stated: [(usize, usize); 2],
    reached: [(usize, usize); 2],
}

impl Padding {
    fn new(args: &Args<'_>, attrs: &PoolAttrs) -> Result<Self, ExecError> {
        let [_, _, height, width] = args.image_shape(0)?;
        let failed = |e: WindowError| args.error(e.to_string());
        let stated = pairs(attrs.resolved_pads([height, width]).map_err(failed)?);
        let [rows, columns] = attrs.overhang([height, width]).map_err(failed)?;
        let reached = [
            (stated[0].0, stated[0].1 + rows),
            (stated[1].0, stated[1].1 + columns),
        ];
        Ok(Self { stated, reached })
    }
}

/// `MaxPool`, first output. Padding never wins.
pub(super) fn max_pool(args: &mut Args<'_>, attrs: &PoolAttrs) -> Result<Value, ExecError> {
    let padding = Padding::new(args, attrs)?.reached;
    let options = MaxPoolOptions::new(attrs.kernel)
        .with_stride(attrs.strides)
        .with_dilation(attrs.dilations)
        .with_padding_pairs(padding);
    Ok(max_pool2d(args.take(0)?.into_rank4(), options).into())
}

/// `AveragePool`. With `count_include_pad` the divisor counts the padding, but not what `ceil_mode`
/// adds after it.
pub(super) fn average_pool(args: &mut Args<'_>, attrs: &PoolAttrs) -> Result<Value, ExecError> {
    let padding = Padding::new(args, attrs)?;
    let [_, _, height, width] = args.image_shape(0)?;
    let output = attrs
        .output_size([height, width])
        .map_err(|e| args.error(e.to_string()))?;
    let counts = [(0, height), (1, width)].map(|(axis, len)| {
        let (before, after) = padding.stated[axis];
        let counted = if attrs.count_include_pad {
            0..before + len + after
        } else {
            before..before + len
        };
        let taps = |position: usize| {
            let start = position * attrs.strides[axis];
            let taps = (0..attrs.kernel[axis]).map(|tap| start + tap * attrs.dilations[axis]);
            taps.filter(|tap| counted.contains(tap)).count()
        };
        (0..output[axis]).map(taps).collect::<Vec<usize>>()
    });
    let x = args.take(0)?.into_rank4();
    let device = x.device().without_autodiff();
    let mean = mean_of_windows(x, attrs, padding.reached);
    if counts
        .iter()
        .zip(attrs.kernel)
        .all(|(axis, taps)| axis.iter().all(|&n| n == taps))
    {
        return Ok(mean.into());
    }
    let area = (attrs.kernel[0] * attrs.kernel[1]) as f32;
    let mut corrections = Vec::with_capacity(output[0] * output[1]);
    for &rows in &counts[0] {
        for &columns in &counts[1] {
            corrections.push(area / (rows * columns).max(1) as f32);
        }
    }
    let data = TensorData::new(corrections, [1, 1, output[0], output[1]]);
    Ok((mean * Tensor::<4>::from_data(data, &device)).into())
}

/// The sum over each window, zeros outside, divided by the window's area.
fn mean_of_windows(x: Tensor<4>, attrs: &PoolAttrs, padding: [(usize, usize); 2]) -> Tensor<4> {
    if attrs.dilations == [1, 1] {
        let is_padded = padding != [(0, 0); 2];
        let x = if is_padded {
            x.pad(padding, PadMode::Constant(0.0))
        } else {
            x
        };
        let options = AvgPoolOptions::new(attrs.kernel).with_stride(attrs.strides);
        return avg_pool2d(x, options);
    }
    // Burn's average pooling knows no dilation: a convolution of each channel with equal weights.
    let [images, channels, height, width] = x.dims();
    let [kernel_h, kernel_w] = attrs.kernel;
    let weight = 1.0 / (kernel_h * kernel_w) as f32;
    let device = x.device().without_autodiff();
    let weight = Tensor::<4>::full([1, 1, kernel_h, kernel_w], weight, &device);
    let options = ConvOptions::new_with_padding(attrs.strides, padding, attrs.dilations, 1);
    let y = conv2d(
        x.reshape([images * channels, 1, height, width]),
        weight,
        None,
        options,
    );
    let [_, _, out_h, out_w] = y.dims();
    y.reshape([images, channels, out_h, out_w])
}
