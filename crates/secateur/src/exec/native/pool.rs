//! Max pooling, and the mean over all positions.

use super::node::{Call, InputGradients};
use crate::exec::ExecError;
use crate::graph::PoolAttrs;
use crate::tensor::Floats;
use secateur_kernels::Window;
use secateur_kernels::pool::{self, PoolShape};

fn shape(call: &Call<'_>, attrs: &PoolAttrs) -> Result<PoolShape, ExecError> {
    let shapes = (call.operands.shape(0)?, call.out_shape);
    let (&[_, _, height, width], &[_, _, out_height, out_width]) = shapes else {
        return Err(call.error(format!("shape {:?} has not four axes", shapes.0)));
    };
    let pads = attrs
        .resolved_pads([height, width])
        .map_err(|e| call.error(e.to_string()))?;
    Ok(PoolShape {
        input: [height, width],
        output: [out_height, out_width],
        window: Window {
            kernel: attrs.kernel,
            strides: attrs.strides,
            dilations: attrs.dilations,
            before: [pads.top, pads.left],
        },
    })
}

/// `MaxPool`, first output.
pub(super) fn max_forward(call: &Call<'_>, attrs: &PoolAttrs) -> Result<Floats, ExecError> {
    let (array, x) = call.input(0)?;
    let mut y = call.buffer(call.out_len());
    let batch = call.batch(array.shape()[1]);
    pool::max_forward(batch, &shape(call, attrs)?, x, &mut y);
    call.output(y)
}

pub(super) fn max_backward(
    call: &Call<'_>,
    attrs: &PoolAttrs,
    gradient: &Floats,
) -> Result<InputGradients, ExecError> {
    let (array, x) = call.input(0)?;
    let dy = gradient
        .as_slice()
        .ok_or_else(|| call.error("a gradient is not in memory order"))?;
    let mut dx = call.buffer(x.len());
    let batch = call.batch(array.shape()[1]);
    pool::max_backward(batch, &shape(call, attrs)?, x, dy, &mut dx);
    Ok(vec![Some(call.buffered(array.shape(), dx)?)])
}

/// Channels of an image, and their positions.
fn sizes(call: &Call<'_>) -> Result<(usize, usize), ExecError> {
    let shape = call.operands.shape(0)?;
    if shape.len() < 3 {
        let rank = shape.len();
        return Err(call.error(format!("a value of rank {rank} has no positions")));
    }
    Ok((shape[1], shape[2..].iter().product::<usize>().max(1)))
}

/// `GlobalAveragePool`.
pub(super) fn global_average(call: &Call<'_>) -> Result<Floats, ExecError> {
    let (channels, positions) = sizes(call)?;
    let (_, x) = call.input(0)?;
    let mut y = call.buffer(call.out_len());
    pool::average(call.batch(channels), positions, x, &mut y);
    call.output(y)
}

pub(super) fn global_average_backward(
    call: &Call<'_>,
    gradient: &Floats,
) -> Result<InputGradients, ExecError> {
    let (channels, positions) = sizes(call)?;
    let dy = gradient
        .as_slice()
        .ok_or_else(|| call.error("a gradient is not in memory order"))?;
    let (shape, mut dx) = call.gradient_buffer(0)?;
    pool::average_backward(call.batch(channels), positions, dy, &mut dx);
    Ok(vec![Some(call.buffered(shape, dx)?)])
}
