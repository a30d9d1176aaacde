//! Elementwise functions of one and of two values.

use super::apply::Args;
use super::value::{Value, map_tensor, zip_tensors};
use crate::exec::ExecError;
use crate::graph::{Activation, Arithmetic};
use crate::tensor::ElementType;
use ::burn::tensor::activation;

/// `Relu`, `LeakyRelu`, `Sigmoid`, `HardSigmoid`, `HardSwish`, `Tanh`.
pub(super) fn activation(args: &mut Args<'_>, function: Activation) -> Result<Value, ExecError> {
    let x = args.take(0)?;
    Ok(match function {
        Activation::Relu => map_tensor!(x, x => activation::relu(x)),
        Activation::LeakyRelu { alpha } => {
            map_tensor!(x, x => activation::leaky_relu(x, f64::from(alpha)))
        }
        Activation::Sigmoid => map_tensor!(x, x => activation::sigmoid(x)),
        Activation::HardSigmoid { alpha, beta } => {
            map_tensor!(x, x => (x * alpha + beta).clamp(0.0, 1.0))
        }
        Activation::HardSwish => {
            // ONNX defines HardSwish as x times HardSigmoid with alpha 1/6 and beta 1/2.
            map_tensor!(x, x => x.clone() * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0))
        }
        Activation::Tanh => map_tensor!(x, x => x.tanh()),
    })
}

/// `PRelu`: `x` above 0, `slope * x` below.
pub(super) fn prelu(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let (x, slope) = (args.take(0)?, args.take(1)?);
    let positive = map_tensor!(x.clone(), x => activation::relu(x));
    let negative = map_tensor!(x, x => x.clamp_max(0.0));
    let scaled = zip_tensors!(negative, slope, (x, slope) => x * slope);
    Ok(zip_tensors!(positive, scaled, (a, b) => a + b))
}

/// `Clip`, with bounds as attributes or as constant inputs.
pub(super) fn clip(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let bounds = args.operands.clip_bounds()?;
    let x = args.take(0)?;
    Ok(match bounds {
        (Some(min), Some(max)) if min <= max => map_tensor!(x, x => x.clamp(min, max)),
        // ONNX lets the upper bound win.
        (Some(min), Some(max)) => map_tensor!(x, x => x.clamp_min(min).clamp_max(max)),
        (Some(min), None) => map_tensor!(x, x => x.clamp_min(min)),
        (None, Some(max)) => map_tensor!(x, x => x.clamp_max(max)),
        (None, None) => x,
    })
}

/// `Add`, `Sub`, `Mul`, `Div`, with broadcasting.
pub(super) fn arithmetic(args: &mut Args<'_>, operation: Arithmetic) -> Result<Value, ExecError> {
    let (left, right) = (args.take(0)?, args.take(1)?);
    Ok(match operation {
        Arithmetic::Add => zip_tensors!(left, right, (a, b) => a + b),
        Arithmetic::Sub => zip_tensors!(left, right, (a, b) => a - b),
        Arithmetic::Mul => zip_tensors!(left, right, (a, b) => a * b),
        Arithmetic::Div => zip_tensors!(left, right, (a, b) => a / b),
    })
}

/// `Cast`. `Plan` lets a value of another type through only where it is cast back to `f32` at once,
/// so it is held as the `f32` values that it has. Rounding has no gradient.
pub(super) fn cast(args: &mut Args<'_>, to: ElementType) -> Result<Value, ExecError> {
    let x = args.take(0)?;
    Ok(match to {
        ElementType::F32 | ElementType::F64 => x,
        ElementType::I32 | ElementType::I64 => {
            map_tensor!(x, x => x.without_autodiff().trunc())
        }
        ElementType::Bool => {
            map_tensor!(x, x => x.without_autodiff().not_equal_scalar(0.0).float())
        }
    })
}

/// `Sum`: all inputs added in order, with broadcasting.
pub(super) fn sum(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let mut total = args.take(0)?;
    for index in 1..args.len() {
        let value = args.take(index)?;
        total = zip_tensors!(total, value, (a, b) => a + b);
    }
    Ok(total)
}
