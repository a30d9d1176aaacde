//! `Resize` and `Upsample`: one axis after the other, each output a weighted sum of a few elements.

use super::apply::Args;
use super::value::Value;
use crate::exec::ExecError;
use ::burn::tensor::{Int, Tensor, TensorData};

pub(super) fn resize(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let (attrs, axes) = args.operands.resize()?;
    let mut shape = args.shape(0)?.to_vec();
    let mut value = args.take(0)?;
    for axis in axes {
        let taps = attrs.taps(&axis);
        let outer: usize = shape[..axis.axis].iter().product();
        let inner: usize = shape[axis.axis + 1..].iter().product();
        let x = value.reshape([outer, axis.length, inner]);
        let device = x.device().without_autodiff();
        let mut total: Option<Tensor<3>> = None;
        for tap in 0..taps.count {
            let every = |i: &usize| i % taps.count == tap;
            let indices: Vec<i64> = (0..taps.indices.len())
                .filter(every)
                .map(|i| taps.indices[i] as i64)
                .collect();
            let weights: Vec<f32> = (0..taps.weights.len())
                .filter(every)
                .map(|i| taps.weights[i])
                .collect();
            if weights.iter().all(|&weight| weight == 0.0) {
                continue;
            }
            let count = indices.len();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &device);
            let mut part = x.clone().select(1, indices);
            if weights.iter().any(|&weight| weight != 1.0) {
                let weights = TensorData::new(weights, [1, count, 1]);
                part = part * Tensor::<3>::from_data(weights, &device);
            }
            total = Some(match total {
                Some(total) => total + part,
                None => part,
            });
        }
        shape[axis.axis] = axis.resized;
        let total = total.ok_or_else(|| args.error("no element has a weight"))?;
        value = Value::from(total).reshaped(&shape);
    }
    Ok(value)
}
