//! Convolution, also transposed, and the padding that it shares with pooling.

use super::apply::Args;
use super::value::Value;
use crate::exec::ExecError;
use crate::graph::{ConvAttrs, ConvTransposeAttrs, SpatialPads};
use ::burn::tensor::Slice;
use ::burn::tensor::module::{conv_transpose2d, conv2d};
use ::burn::tensor::ops::{ConvOptions, ConvTransposeOptions, PadMode};

/// The padding before and after, of rows and of columns.
pub(super) fn pairs(pads: SpatialPads) -> [(usize, usize); 2] {
    [(pads.top, pads.bottom), (pads.left, pads.right)]
}

/// `Conv`.
pub(super) fn conv(args: &mut Args<'_>, attrs: &ConvAttrs) -> Result<Value, ExecError> {
    let [_, _, height, width] = args.image_shape(0)?;
    let [_, _, kernel_h, kernel_w] = args.image_shape(1)?;
    let pads = attrs
        .resolved_pads([height, width], [kernel_h, kernel_w])
        .map_err(|e| args.error(e.to_string()))?;
    let x = args.take(0)?.into_rank4();
    let weight = args.take(1)?.into_rank4();
    let bias = args.take_optional(2)?.map(Value::into_rank1);
    let options =
        ConvOptions::new_with_padding(attrs.strides, pairs(pads), attrs.dilations, attrs.groups);
    Ok(conv2d(x, weight, bias, options).into())
}

/// `ConvTranspose`: everything that the kernels cover, then cut.
pub(super) fn conv_transpose(
    args: &mut Args<'_>,
    attrs: &ConvTransposeAttrs,
) -> Result<Value, ExecError> {
    let [_, _, height, width] = args.image_shape(0)?;
    let [_, _, kernel_h, kernel_w] = args.image_shape(1)?;
    let extents = attrs
        .extents([height, width], [kernel_h, kernel_w])
        .map_err(|problem| args.error(problem))?;
    let x = args.take(0)?.into_rank4();
    let weight = args.take(1)?.into_rank4();
    let bias = args.take_optional(2)?.map(Value::into_rank1);
    let options =
        ConvTransposeOptions::new(attrs.strides, [0, 0], [0, 0], attrs.dilations, attrs.groups);
    let mut y = conv_transpose2d(x, weight, None, options);
    let [images, channels, ..] = y.dims();
    let kept = extents.map(|e| e.before..e.full.min(e.before + e.output));
    // The output may end after the last kernel.
    let missing = [0, 1].map(|axis| extents[axis].output - kept[axis].len());
    let [rows, columns] = kept.map(Slice::from);
    let all = |length: usize| Slice::from(0..length);
    y = y.slice([all(images), all(channels), rows, columns]);
    if missing != [0, 0] {
        y = y.pad(missing.map(|after| (0, after)), PadMode::Constant(0.0));
    }
    Ok(match bias {
        Some(bias) => (y + bias.reshape([1, channels, 1, 1])).into(),
        None => y.into(),
    })
}
