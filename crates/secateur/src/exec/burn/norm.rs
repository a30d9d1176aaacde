//! Normalisation: over the batch, within an image, over neighbouring channels, over classes.

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

/// `LayerNormalization`.
pub(super) fn layer_norm(args: &mut Args<'_>, axis: i64, epsilon: f32) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let axis = args.operands.axis(axis, shape.len())?;
    let rows: usize = shape[..axis].iter().product();
    let x = args.take(0)?;
    if args.operands.output > 0 {
        let (_, mean, deviation) = centred(x, rows, epsilon);
        let value = match args.operands.output {
            1 => mean,
            _ => deviation.recip(),
        };
        return Ok(Value::from(value).reshaped(args.out_shape));
    }
    let x = standardised(x, rows, shape, epsilon);
    let scale = args.take(1)?;
    let y = zip_tensors!(x, scale, (x, scale) => x * scale);
    Ok(match args.take_optional(2)? {
        Some(bias) => zip_tensors!(y, bias, (y, bias) => y + bias),
        None => y,
    })
}

/// `InstanceNormalization`: every channel is a group.
pub(super) fn instance_norm(args: &mut Args<'_>, epsilon: f32) -> Result<Value, ExecError> {
    let channels = args.shape(0)?.get(1).copied().unwrap_or(1);
    group_norm(args, channels, epsilon)
}

/// `GroupNormalization`, with a scale and a bias for each channel, or for each group.
pub(super) fn group_norm(
    args: &mut Args<'_>,
    groups: usize,
    epsilon: f32,
) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let &[images, channels, ref positions @ ..] = shape else {
        return Err(args.error(format!("shape {shape:?} has no channels")));
    };
    let count = args.shape(1)?.iter().product::<usize>();
    if groups == 0 || count == 0 || channels % groups != 0 || channels % count != 0 {
        let problem = format!("{channels} channels, {groups} groups and {count} scales");
        return Err(args.error(problem));
    }
    let rest = channels / count * positions.iter().product::<usize>();
    let x = standardised(
        args.take(0)?,
        images * groups,
        &[images, count, rest],
        epsilon,
    );
    let scale = args.take(1)?.reshape([1, count, 1]);
    let bias = args.take(2)?.reshape([1, count, 1]);
    let y = x.into_rank::<3>() * scale + bias;
    Ok(Value::from(y).reshaped(shape))
}

/// `x` taken as `rows`, each with its mean removed and divided by its standard deviation; then in
/// `shape`.
fn standardised(x: Value, rows: usize, shape: &[usize], epsilon: f32) -> Value {
    let (x, _, deviation) = centred(x, rows, epsilon);
    Value::from(x / deviation).reshaped(shape)
}

/// Each of `rows` without its mean, the means, and the roots of variance plus `epsilon`.
fn centred(x: Value, rows: usize, epsilon: f32) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let len = x.dims().iter().product::<usize>() / rows.max(1);
    let x = x.reshape([rows, len]);
    let mean = x.clone().mean_dim(1);
    let x = x - mean.clone();
    let variance = (x.clone() * x.clone()).mean_dim(1);
    (x, mean, (variance + epsilon).sqrt())
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
    // Burn takes a whole exponent as an `i64`, and infinity for whole.
    if beta.abs() >= i64::MAX as f32 {
        return Err(args.error(format!("the exponent {beta} is out of range")));
    }
    let shape = args.shape(0)?;
    if shape.len() < 2 {
        return Err(args.error(format!("shape {shape:?} has no channels")));
    }
    let positions: usize = shape[2..].iter().product();
    let x = args.take(0)?.reshape([shape[0], 1, shape[1], positions]);
    let squares = x.clone() * x.clone();
    // Further away there are no channels.
    let below = (size - 1) / 2;
    let furthest = shape[1].saturating_sub(1);
    let (below, above) = (below.min(furthest), (size - 1 - below).min(furthest));
    let window = below + 1 + above;
    let padded = squares.pad([(below, above), (0, 0)], PadMode::Constant(0.0));
    let mean = avg_pool2d(padded, AvgPoolOptions::new([window, 1]).with_stride([1, 1]));
    let alpha = alpha * (window as f32 / size as f32);
    let divisor = (mean * alpha + bias).powf_scalar(beta);
    Ok(Value::from(x / divisor).reshaped(shape))
}
