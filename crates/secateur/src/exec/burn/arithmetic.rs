//! Elementwise functions of one and of two values.

use super::apply::Args;
use super::value::{Value, map_tensor, zip_tensors};
use crate::exec::ExecError;
use crate::graph::{Activation, Arithmetic, GeluForm, Variadic};
use crate::tensor::ElementType;
use ::burn::tensor::activation;

/// Functions of one value. They are Burn's own where it has them: the native engine's are checked
/// against them.
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
        Activation::Exp => map_tensor!(x, x => x.exp()),
        Activation::Log => map_tensor!(x, x => x.log()),
        Activation::Sqrt => map_tensor!(x, x => x.sqrt()),
        Activation::Erf => map_tensor!(x, x => x.erf()),
        Activation::Abs => map_tensor!(x, x => x.abs()),
        Activation::Neg => map_tensor!(x, x => x.neg()),
        Activation::Reciprocal => map_tensor!(x, x => x.recip()),
        Activation::Floor => map_tensor!(x, x => x.without_autodiff().floor()),
        Activation::Ceil => map_tensor!(x, x => x.without_autodiff().ceil()),
        Activation::Round => map_tensor!(x, x => x.without_autodiff().round()),
        Activation::Softplus => map_tensor!(x, x => activation::softplus(x, 1.0)),
        Activation::Softsign => map_tensor!(x, x => activation::softsign(x)),
        Activation::Mish => map_tensor!(x, x => x.clone() * activation::softplus(x, 1.0).tanh()),
        Activation::Elu { alpha } => elu(x, alpha, 1.0, 1.0),
        Activation::Selu { alpha, gamma } => elu(x, gamma * alpha, 1.0, gamma),
        Activation::Celu { alpha } => elu(x, alpha, 1.0 / alpha, 1.0),
        Activation::ThresholdedRelu { alpha } => {
            map_tensor!(x, x => {
                let is_below = x.clone().lower_equal_elem(alpha);
                x.mask_fill(is_below, 0.0)
            })
        }
        Activation::Gelu(GeluForm::Exact) => map_tensor!(x, x => activation::gelu(x)),
        Activation::Gelu(GeluForm::Tanh) => map_tensor!(x, x => activation::gelu_approximate(x)),
        Activation::Swish { alpha } => {
            map_tensor!(x, x => x.clone() * activation::sigmoid(x * alpha))
        }
    })
}

/// `slope * x` above 0, `limit * (e^(rate * x) - 1)` below.
fn elu(x: Value, limit: f32, rate: f32, slope: f32) -> Value {
    map_tensor!(x, x => {
        let below = (x.clone().clamp_max(0.0) * rate).exp().sub_scalar(1.0) * limit;
        activation::relu(x) * slope + below
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

/// `Add`, `Sub`, `Mul`, `Div`, `Pow`, with broadcasting.
pub(super) fn arithmetic(args: &mut Args<'_>, operation: Arithmetic) -> Result<Value, ExecError> {
    let (left, right) = (args.take(0)?, args.take(1)?);
    Ok(match operation {
        Arithmetic::Add => zip_tensors!(left, right, (a, b) => a + b),
        Arithmetic::Sub => zip_tensors!(left, right, (a, b) => a - b),
        Arithmetic::Mul => zip_tensors!(left, right, (a, b) => a * b),
        Arithmetic::Div => zip_tensors!(left, right, (a, b) => a / b),
        Arithmetic::Pow => zip_tensors!(left, right, (a, b) => a.powf(b)),
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

/// `Sum`, `Mean`, `Max`, `Min`: all inputs in order, with broadcasting.
pub(super) fn variadic(args: &mut Args<'_>, function: Variadic) -> Result<Value, ExecError> {
    let count = args.len();
    let mut total = args.take(0)?.expanded(args.out_shape);
    for index in 1..count {
        let value = args.take(index)?.expanded(args.out_shape);
        total = match function {
            Variadic::Sum | Variadic::Mean => zip_tensors!(total, value, (a, b) => a + b),
            Variadic::Max => zip_tensors!(total, value, (a, b) => {
                let is_less = a.clone().lower(b.clone());
                a.mask_where(is_less, b)
            }),
            Variadic::Min => zip_tensors!(total, value, (a, b) => {
                let is_more = a.clone().greater(b.clone());
                a.mask_where(is_more, b)
            }),
        };
    }
    Ok(match function {
        Variadic::Mean => map_tensor!(total, x => x / count as f32),
        Variadic::Sum | Variadic::Max | Variadic::Min => total,
    })
}
