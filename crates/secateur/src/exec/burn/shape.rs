//! Values cut, joined, padded and turned.

use super::apply::Args;
use super::value::{Value, map_tensor};
use crate::exec::ExecError;
use crate::graph::PadMode;
use crate::tensor::Tensor;
use ::burn::tensor::ops::PadMode as DevicePadMode;
use ::burn::tensor::{Bool, Int, Slice, Tensor as DeviceTensor, TensorData};

/// `Concat`.
pub(super) fn concat(args: &mut Args<'_>, axis: i64) -> Result<Value, ExecError> {
    let shape = args.out_shape;
    let axis = args.operands.axis(axis, shape.len())?;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut parts = Vec::with_capacity(args.len());
    for index in 0..args.len() {
        let len = args.shape(index)?.get(axis).copied().unwrap_or(0);
        if len > 0 {
            parts.push(args.take(index)?.reshape([outer, len, inner]));
        }
    }
    Ok(Value::from(DeviceTensor::cat(parts, 1)).reshaped(shape))
}

/// `Gather` of constant indices.
pub(super) fn gather(args: &mut Args<'_>, axis: i64) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let axis = args.operands.axis(axis, shape.len())?;
    let len = shape[axis] as i64;
    let indices: Vec<i64> = match args.operands.constant(1) {
        Some(Tensor::I64(indices)) => indices.iter().copied().collect(),
        Some(Tensor::I32(indices)) => indices.iter().map(|&index| i64::from(index)).collect(),
        Some(_) | None => return Err(args.error("the indices must be constant integers")),
    };
    if let Some(index) = indices.iter().find(|&&index| index < -len || index >= len) {
        return Err(args.error(format!("index {index} on an axis of length {len}")));
    }
    let indices: Vec<i64> = indices
        .into_iter()
        .map(|index| index.rem_euclid(len))
        .collect();
    let outer = shape[..axis].iter().product();
    let inner = shape[axis + 1..].iter().product();
    let tensor = args.take(0)?.reshape([outer, shape[axis], inner]);
    let count = indices.len();
    let data = TensorData::new(indices, [count]);
    let device = tensor.device().without_autodiff();
    let indices = DeviceTensor::<1, Int>::from_data(data, &device);
    Ok(Value::from(tensor.select(1, indices)).reshaped(args.out_shape))
}

/// `Split`: the output that the operands look at.
pub(super) fn split(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let (axis, parts) = args.operands.parts()?;
    let Some(part) = parts.get(args.operands.output) else {
        return Err(args.error("has too many outputs"));
    };
    let outer = shape[..axis].iter().product();
    let inner = shape[axis + 1..].iter().product();
    let x = args.take(0)?.reshape([outer, shape[axis], inner]);
    let y = x.narrow(1, part.start, part.len);
    Ok(Value::from(y).reshaped(args.out_shape))
}

/// `Where`, whose condition is a constant.
pub(super) fn choose(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let shape = args.out_shape;
    let len = shape.iter().product();
    let Some(Tensor::Bool(condition)) = args.operands.constant(0) else {
        return Err(args.error("the condition must be a constant of type bool"));
    };
    let Some(condition) = condition.broadcast(shape) else {
        return Err(args.error(format!("the condition does not broadcast to {shape:?}")));
    };
    let condition: Vec<bool> = condition.iter().copied().collect();
    let a = args.take(1)?.expanded(shape).reshape([len]);
    let b = args.take(2)?.expanded(shape).reshape([len]);
    let device = a.device().without_autodiff();
    let data = TensorData::new(condition, [len]);
    let mask = DeviceTensor::<1, Bool>::from_data(data, &device);
    Ok(Value::from(b.mask_where(mask, a)).reshaped(shape))
}

/// `Transpose`.
pub(super) fn transpose(args: &mut Args<'_>, perm: Option<&[usize]>) -> Result<Value, ExecError> {
    let rank = args.shape(0)?.len();
    let perm: Vec<usize> = match perm {
        Some(perm) => perm.to_vec(),
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(args.error(format!("{perm:?} does not permute {rank} axes")));
    }
    let value = args.take(0)?;
    Ok(map_tensor!(value, tensor => {
        let mut axes: [isize; _] = tensor.dims().map(|_| 0);
        for (axis, &from) in axes.iter_mut().zip(&perm) {
            *axis = from as isize;
        }
        tensor.permute(axes)
    }))
}

/// `Slice`, with steps of either sign.
pub(super) fn slice(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let mut slices = Vec::new();
    for axis in args.operands.slices()? {
        // Burn walks the range `first..last` backwards where the step is negative.
        let reach = (axis.len - 1) * axis.step.unsigned_abs() as usize;
        let (first, last) = if axis.step > 0 {
            (axis.start, axis.start + reach + 1)
        } else {
            (axis.start - reach, axis.start + 1)
        };
        let step = if axis.len == 1 { 1 } else { axis.step as isize };
        slices.push(Slice::new(first as isize, Some(last as isize), step));
    }
    let value = args.take(0)?;
    if slices.is_empty() {
        return Ok(value);
    }
    Ok(map_tensor!(value, tensor => tensor.slice(slices.as_slice())))
}

/// `Pad`. Negative pads crop.
pub(super) fn pad(args: &mut Args<'_>, mode: PadMode) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let mut padding = Vec::with_capacity(shape.len());
    let mut kept = Vec::with_capacity(shape.len());
    let mut is_cropped = false;
    for (&len, [before, after]) in shape.iter().zip(args.operands.pad_widths()?) {
        let cropped = [before, after].map(|pad| pad.min(0).unsigned_abs() as usize);
        let grown = [before, after].map(|pad| pad.max(0).unsigned_abs() as usize);
        let rest = len.saturating_sub(cropped[0]).saturating_sub(cropped[1]);
        let longest = grown[0].max(grown[1]);
        let is_possible = match mode {
            PadMode::Constant | PadMode::Edge => rest > 0,
            PadMode::Reflect => longest < rest,
        };
        if !is_possible {
            let problem = format!("pads {before} and {after} on an axis of length {len}");
            return Err(args.error(problem));
        }
        is_cropped |= rest < len;
        kept.push(Slice::from(cropped[0]..cropped[0] + rest));
        padding.push((grown[0], grown[1]));
    }
    let mode = match mode {
        PadMode::Constant => DevicePadMode::Constant(args.operands.pad_value()?),
        PadMode::Reflect => DevicePadMode::Reflect,
        PadMode::Edge => DevicePadMode::Edge,
    };
    let mut value = args.take(0)?;
    if is_cropped {
        value = map_tensor!(value, tensor => tensor.slice(kept.as_slice()));
    }
    if padding.iter().all(|&pads| pads == (0, 0)) {
        return Ok(value);
    }
    Ok(map_tensor!(value, tensor => tensor.pad(padding.as_slice(), mode)))
}
