//! Convolution, and the padding that it shares with pooling.

use super::apply::Args;
use super::value::Value;
use crate::exec::ExecError;
use crate::graph::{ConvAttrs, SpatialPads};
use ::burn::tensor::module::conv2d;
use ::burn::tensor::ops::ConvOptions;

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
