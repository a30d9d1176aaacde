//! Normalisation: over the batch, over neighbouring channels, over classes.

use super::apply::Args;
use super::value::{Value, map_tensor, zip_tensors};
use crate::exec::{BatchNormMode, ExecError};
use crate::graph::SoftmaxAxis;
use ::burn::tensor::Tensor;
use ::burn::tensor::activation::{log_softmax as device_log_softmax, softmax as device_softmax};
use ::burn::tensor::module::{avg_pool2d, batch_norm_train};
use ::burn::tensor::ops::{AvgPoolOptions, PadMode};

/// `BatchNormalization`, by the stored statistics or by those of the batch.
pub(super) fn batch_norm(args: &mut Args<'_>, epsilon: f32) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let &[_, channels, ..] = shape else {
        return Err(args.error(format!("shape {shape:?} has no channels")));
    };
    let x = args.take(0)?;
    let scale = args.take(1)?.into_rank1();
    let bias = args.take(2)?.into_rank1();
    if args.batch_norm == BatchNormMode::Batch {
        let epsilon = f64::from(epsilon);
        return Ok(map_tensor!(x, x => batch_norm_train(x, scale, bias, epsilon).output));
    }
    let mean = args.take(3)?.into_rank1();
    let variance = args.take(4)?.into_rank1();
    // x * scale / std + (bias - mean * scale / std): one factor and one offset per channel.
    let factor = scale / (variance + epsilon).sqrt();
    let offset = bias - mean * factor.clone();
    let mut per_channel = vec![1; shape.len()];
    per_channel[1] = channels;
    let factor = Value::from(factor).reshaped(&per_channel);
    let offset = Value::from(offset).reshaped(&per_channel);
    let scaled = zip_tensors!(x, factor, (x, factor) => x * factor);
    Ok(zip_tensors!(scaled, offset, (x, offset) => x + offset))
}

/// `Softmax`.
pub(super) fn softmax(args: &mut Args<'_>, axis: SoftmaxAxis) -> Result<Value, ExecError> {
    along(args, axis, |x| device_softmax(x, 1))
}

/// `LogSoftmax`.
pub(super) fn log_softmax(args: &mut Args<'_>, axis: SoftmaxAxis) -> Result<Value, ExecError> {
    along(args, axis, |x| device_log_softmax(x, 1))
}

/// Applies a function of the middle axis of three to the axis of `Softmax`.
fn along(
    args: &mut Args<'_>,
    axis: SoftmaxAxis,
    function: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let rank = shape.len();
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    let split = match axis {
        // A scalar is its own only class.
        _ if rank == 0 => [1, 1, 1],
        SoftmaxAxis::Single(axis) => {
            let axis = args.operands.axis(axis, rank)?;
            [
                product(&shape[..axis]),
                shape[axis],
                product(&shape[axis + 1..]),
            ]
        }
        SoftmaxAxis::FlattenFrom(axis) if axis == rank as i64 => [product(shape), 1, 1],
        SoftmaxAxis::FlattenFrom(axis) => {
            let axis = args.operands.axis(axis, rank)?;
            [product(&shape[..axis]), product(&shape[axis..]), 1]
        }
    };
    let x = args.take(0)?.reshape(split);
    Ok(Value::from(function(x)).reshaped(shape))
}

/// `LRN`: `x / (bias + alpha / size * sum x^2)^beta`, the sum over `size` neighbouring channels,
/// the extra one of an even `size` above.
pub(super) fn lrn(
    args: &mut Args<'_>,
    alpha: f32,
    beta: f32,
    bias: f32,
    size: usize,
) -> Result<Value, ExecError> {
    if size == 0 {
        return Err(args.error("size 0"));
    }
    let shape = args.shape(0)?;
    if shape.len() < 2 {
        return Err(args.error(format!("shape {shape:?} has no channels")));
    }
    let positions: usize = shape[2..].iter().product();
    let x = args.take(0)?.reshape([shape[0], 1, shape[1], positions]);
    let squares = x.clone() * x.clone();
    let below = (size - 1) / 2;
    let padded = squares.pad([(below, size - 1 - below), (0, 0)], PadMode::Constant(0.0));
    let mean = avg_pool2d(padded, AvgPoolOptions::new([size, 1]).with_stride([1, 1]));
    let divisor = (mean * alpha + bias).powf_scalar(beta);
    Ok(Value::from(x / divisor).reshaped(shape))
}
