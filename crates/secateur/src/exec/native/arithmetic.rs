//! Elementwise functions of one and of two values.
//!
//! Functions of one value that networks spend time in are written out here, so that the compiler
//! sees straight loops; the others take value and slope from the table of `graph`.

use super::keep::is_read_off_output;
use super::node::{Call, InputGradients};
use crate::exec::ExecError;
use crate::graph::{Activation, Arithmetic, Operands};
use crate::tensor::Floats;
use ndarray::{ArrayViewD, Axis, IxDyn, Zip};
use secateur_kernels::{Clamp, channel, elementwise};

/// Functions of one value.
pub(super) fn activation(call: &Call<'_>, function: Activation) -> Result<Floats, ExecError> {
    let (_, x) = call.input(0)?;
    let mut y = call.buffer(x.len());
    match function {
        Activation::Relu => elementwise::clamp(Clamp::RELU, x, &mut y),
        Activation::LeakyRelu { alpha } => {
            elementwise::map(x, &mut y, |x| if x < 0.0 { alpha * x } else { x });
        }
        Activation::Sigmoid => elementwise::map(x, &mut y, |x| 1.0 / (1.0 + (-x).exp())),
        Activation::HardSigmoid { alpha, beta } => {
            elementwise::map(x, &mut y, |x| clamp(alpha * x + beta));
        }
        Activation::HardSwish => elementwise::map(x, &mut y, |x| x * clamp(x / 6.0 + 0.5)),
        Activation::Tanh => elementwise::map(x, &mut y, f32::tanh),
        other => elementwise::map(x, &mut y, |x| other.value(x)),
    }
    call.output(y)
}

fn clamp(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

pub(super) fn activation_backward(
    call: &Call<'_>,
    function: Activation,
    output: Option<&Floats>,
    gradient: &Floats,
) -> Result<InputGradients, ExecError> {
    // The value and the output are the same length; only one of them is there.
    let (x, y) = match is_read_off_output(function) {
        true => (&[][..], output_of(call, output)?),
        false => (call.input(0)?.1, &[][..]),
    };
    let dy = in_order(call, gradient)?;
    let (shape, mut dx) = call.gradient_buffer(0)?;
    let dx_slice = &mut dx[..];
    match function {
        Activation::Relu => {
            elementwise::clamp_backward(Clamp::RELU, dy, y, dx_slice);
        }
        Activation::LeakyRelu { alpha } => {
            elementwise::zip(dy, x, dx_slice, |g, x| if x > 0.0 { g } else { alpha * g });
        }
        Activation::Sigmoid => elementwise::zip(dy, y, dx_slice, |g, y| g * y * (1.0 - y)),
        Activation::HardSigmoid { alpha, beta } => {
            elementwise::zip(dy, x, dx_slice, |g, x| {
                let inner = alpha * x + beta;
                if inner > 0.0 && inner < 1.0 {
                    alpha * g
                } else {
                    0.0
                }
            });
        }
        Activation::HardSwish => elementwise::zip(dy, x, dx_slice, |g, x| {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                g
            } else {
                g * (x / 3.0 + 0.5)
            }
        }),
        Activation::Tanh => elementwise::zip(dy, y, dx_slice, |g, y| g * (1.0 - y * y)),
        Activation::Exp => elementwise::zip(dy, y, dx_slice, |g, y| g * y),
        other => elementwise::zip(dy, x, dx_slice, |g, x| g * other.slope(x)),
    }
    Ok(vec![Some(call.buffered(shape, dx)?)])
}

/// `Clip`, with bounds as attributes or as constant inputs; the upper bound wins.
pub(super) fn clip(call: &Call<'_>) -> Result<Floats, ExecError> {
    let (_, x) = call.input(0)?;
    let mut y = call.buffer(x.len());
    elementwise::clamp(bounds(call.operands)?, x, &mut y);
    call.output(y)
}

pub(super) fn clip_backward(
    call: &Call<'_>,
    gradient: &Floats,
) -> Result<InputGradients, ExecError> {
    // Not the output: the bounds have the slope of what lies between them.
    let (_, x) = call.input(0)?;
    let (shape, mut dx) = call.gradient_buffer(0)?;
    elementwise::clamp_backward(
        bounds(call.operands)?,
        in_order(call, gradient)?,
        x,
        &mut dx,
    );
    let mut gradients = vec![None; call.operands.node.inputs.len()];
    gradients[0] = Some(call.buffered(shape, dx)?);
    Ok(gradients)
}

/// What a `Clip` does.
pub(super) fn bounds(operands: Operands<'_>) -> Result<Clamp, ExecError> {
    let (min, max) = operands.clip_bounds()?;
    Ok(Clamp::clip(
        min.unwrap_or(f32::NEG_INFINITY),
        max.unwrap_or(f32::INFINITY),
    ))
}

/// How an operand spreads over the output.
pub(super) enum Spread {
    /// One element for each of the output's.
    Same,
    /// One for each channel, over `positions` of an image.
    Channel { channels: usize, positions: usize },
    /// Any other way.
    Other,
}

pub(super) fn spread(operand: &[usize], output: &[usize]) -> Spread {
    if operand == output {
        return Spread::Same;
    }
    let offset = output.len() - operand.len().min(output.len());
    let along = |axis: usize| match axis.checked_sub(offset) {
        Some(axis) => operand[axis],
        None => 1,
    };
    let is_channel = output.len() >= 2
        && along(1) == output[1]
        && (0..output.len()).all(|axis| axis == 1 || along(axis) == 1);
    if is_channel {
        Spread::Channel {
            channels: output[1],
            positions: output[2..].iter().product(),
        }
    } else {
        Spread::Other
    }
}

/// `Add`, `Sub`, `Mul`, `Div`, `Pow`, with broadcasting.
pub(super) fn forward(call: &Call<'_>, operation: Arithmetic) -> Result<Floats, ExecError> {
    let ((a_array, a), (b_array, b)) = (call.input(0)?, call.input(1)?);
    let mut y = call.buffer(call.out_len());
    let spreads = [a_array, b_array].map(|array| spread(array.shape(), call.out_shape));
    match (spreads, operation) {
        ([Spread::Same, Spread::Same], Arithmetic::Add) => {
            elementwise::add(call.clamp, a, b, &mut y);
        }
        ([Spread::Same, Spread::Same], Arithmetic::Mul) => {
            elementwise::multiply(a, b, &mut y);
        }
        (
            [
                Spread::Same,
                Spread::Channel {
                    channels,
                    positions,
                },
            ],
            Arithmetic::Mul,
        ) => {
            channel::affine(b, &vec![0.0; channels], call.run(positions), a, &mut y);
        }
        (
            [
                Spread::Channel {
                    channels,
                    positions,
                },
                Spread::Same,
            ],
            Arithmetic::Mul,
        ) => {
            channel::affine(a, &vec![0.0; channels], call.run(positions), b, &mut y);
        }
        (
            [
                Spread::Same,
                Spread::Channel {
                    channels,
                    positions,
                },
            ],
            Arithmetic::Add,
        ) => {
            channel::affine(&vec![1.0; channels], b, call.run(positions), a, &mut y);
        }
        _ => {
            let f = match operation {
                Arithmetic::Add => |a: f32, b: f32| a + b,
                Arithmetic::Sub => |a, b| a - b,
                Arithmetic::Mul => |a, b| a * b,
                Arithmetic::Div => |a, b| a / b,
                Arithmetic::Pow => power,
            };
            let mut output = call.output(y)?;
            let (a, b) = (stretched(call, a_array)?, stretched(call, b_array)?);
            Zip::from(output.view_mut())
                .and(&a)
                .and(&b)
                .for_each(|y, &a, &b| *y = f(a, b));
            return Ok(output);
        }
    }
    call.output(y)
}

/// `a ^ b`; squares, which normalisations are written with, without a logarithm.
fn power(a: f32, b: f32) -> f32 {
    if b == 2.0 { a * a } else { a.powf(b) }
}

/// An operand as large as the output.
fn stretched<'a>(call: &Call<'_>, array: &'a Floats) -> Result<ArrayViewD<'a, f32>, ExecError> {
    array.broadcast(IxDyn(call.out_shape)).ok_or_else(|| {
        let (shape, out) = (array.shape(), call.out_shape);
        call.error(format!("shape {shape:?} does not spread over {out:?}"))
    })
}

pub(super) fn backward(
    call: &Call<'_>,
    operation: Arithmetic,
    output: Option<&Floats>,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    // Of what the clamp let through.
    let clamped = match call.clamp {
        Clamp::NONE => None,
        clamp => {
            let (y, dy) = (output_of(call, output)?, in_order(call, gradient)?);
            let mut dx = call.buffer(dy.len());
            elementwise::clamp_backward(clamp, dy, y, &mut dx);
            Some(call.output(dx)?)
        }
    };
    let gradient = clamped.as_ref().unwrap_or(gradient);
    let mut gradients: InputGradients = vec![None; wanted.len()];
    let operand = |slot: usize| call.input(slot).map(|(array, _)| array);
    for slot in (0..2).filter(|slot| wanted[*slot]) {
        let shape = call.operands.shape(slot)?;
        gradients[slot] = Some(match operation {
            Arithmetic::Add => reduced(call, gradient, shape)?,
            Arithmetic::Sub if slot == 0 => reduced(call, gradient, shape)?,
            Arithmetic::Sub => reduced(call, gradient, shape)?.mapv(|g| -g).into_shared(),
            Arithmetic::Mul => {
                product_gradient(call, gradient, operand(slot)?, operand(1 - slot)?)?
            }
            Arithmetic::Div => {
                let (a, b) = (stretched(call, operand(0)?)?, stretched(call, operand(1)?)?);
                let mut scaled = gradient.to_owned();
                Zip::from(&mut scaled)
                    .and(&a)
                    .and(&b)
                    .for_each(|g, &a, &b| {
                        *g *= if slot == 0 { 1.0 / b } else { -a / (b * b) };
                    });
                reduced(call, &scaled.into_shared(), shape)?
            }
            Arithmetic::Pow => {
                let (a, b) = (stretched(call, operand(0)?)?, stretched(call, operand(1)?)?);
                let mut scaled = gradient.to_owned();
                Zip::from(&mut scaled)
                    .and(&a)
                    .and(&b)
                    .for_each(|g, &a, &b| {
                        *g *= match slot {
                            0 if b == 0.0 => 0.0,
                            0 => b * power(a, b - 1.0),
                            // The limit for a positive exponent.
                            _ if a == 0.0 => 0.0,
                            _ => a.powf(b) * a.ln(),
                        };
                    });
                reduced(call, &scaled.into_shared(), shape)?
            }
        });
    }
    Ok(gradients)
}

/// The gradient of `own` in `own * other`.
fn product_gradient(
    call: &Call<'_>,
    gradient: &Floats,
    own: &Floats,
    other: &Floats,
) -> Result<Floats, ExecError> {
    let dy = in_order(call, gradient)?;
    let values = in_order(call, other)?;
    let spreads = [own, other].map(|array| spread(array.shape(), call.out_shape));
    match spreads {
        [Spread::Same, Spread::Same] => {
            let mut product = call.buffer(dy.len());
            elementwise::multiply(dy, values, &mut product);
            call.output(product)
        }
        [
            Spread::Same,
            Spread::Channel {
                channels,
                positions,
            },
        ] => {
            let mut product = call.buffer(dy.len());
            let zeros = vec![0.0; channels];
            channel::affine(values, &zeros, call.run(positions), dy, &mut product);
            call.output(product)
        }
        [
            Spread::Channel {
                channels,
                positions,
            },
            Spread::Same,
        ] => {
            let run = call.run(positions);
            let sums = channel::products(channels, run, dy, values);
            call.array(own.shape(), sums.into_iter().map(|s| s as f32).collect())
        }
        _ => {
            let mut product = gradient.to_owned();
            product *= &stretched(call, other)?;
            reduced(call, &product.into_shared(), own.shape())
        }
    }
}

/// A gradient of the output's shape, summed over the axes along which an operand was spread.
fn reduced(call: &Call<'_>, gradient: &Floats, shape: &[usize]) -> Result<Floats, ExecError> {
    if gradient.shape() == shape {
        return Ok(gradient.clone());
    }
    if let Spread::Channel {
        channels,
        positions,
    } = spread(shape, call.out_shape)
    {
        let dy = in_order(call, gradient)?;
        let sums = channel::totals(channels, call.run(positions), dy);
        return call.array(shape, sums.into_iter().map(|s| s as f32).collect());
    }
    let mut sum = gradient.to_owned();
    while sum.ndim() > shape.len() {
        sum = sum.sum_axis(Axis(0));
    }
    for (axis, &length) in shape.iter().enumerate() {
        if length == 1 && sum.shape()[axis] != 1 {
            sum = sum.sum_axis(Axis(axis)).insert_axis(Axis(axis));
        }
    }
    let values = sum.as_standard_layout().iter().copied().collect();
    call.array(shape, values)
}

/// The output, which the gradient is read off.
fn output_of<'a>(call: &Call<'_>, output: Option<&'a Floats>) -> Result<&'a [f32], ExecError> {
    let output = output.ok_or_else(|| call.error("its output was not kept"))?;
    in_order(call, output)
}

fn in_order<'a>(call: &Call<'_>, array: &'a Floats) -> Result<&'a [f32], ExecError> {
    array
        .as_slice()
        .ok_or_else(|| call.error("a value is not in memory order"))
}
