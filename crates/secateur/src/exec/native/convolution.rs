//! Convolution, and dense layers, which are convolutions of images of one pixel.

use super::node::{Call, InputGradients};
use crate::exec::ExecError;
use crate::graph::{ConvAttrs, Op, Operands};
use crate::tensor::Floats;
use secateur_kernels::Window;
use secateur_kernels::conv::{self, ConvShape, Finish};
use secateur_kernels::packed::Weight;

fn shape(call: &Call<'_>, attrs: &ConvAttrs) -> Result<ConvShape, ExecError> {
    let image = |shape: &[usize]| -> Result<[usize; 4], ExecError> {
        shape
            .try_into()
            .map_err(|_| call.error(format!("shape {shape:?} has not four axes")))
    };
    let [images, channels, height, width] = image(call.operands.shape(0)?)?;
    let [_, group_in, kernel_h, kernel_w] = image(call.operands.shape(1)?)?;
    let [_, out_channels, out_height, out_width] = image(call.out_shape)?;
    let groups = attrs.groups;
    let fits = groups > 0
        && channels == group_in.saturating_mul(groups)
        && out_channels.is_multiple_of(groups);
    if !fits {
        return Err(call.error(format!(
            "{groups} groups do not fit {channels} and {out_channels} channels"
        )));
    }
    let pads = attrs
        .resolved_pads([height, width], [kernel_h, kernel_w])
        .map_err(|e| call.error(e.to_string()))?;
    Ok(ConvShape {
        images,
        groups,
        input: [channels, height, width],
        output: [out_channels, out_height, out_width],
        window: Window {
            kernel: [kernel_h, kernel_w],
            strides: attrs.strides,
            dilations: attrs.dilations,
            before: [pads.top, pads.left],
        },
    })
}

pub(super) fn forward(call: &Call<'_>, attrs: &ConvAttrs) -> Result<Floats, ExecError> {
    run(call, &shape(call, attrs)?)
}

pub(super) fn backward(
    call: &Call<'_>,
    attrs: &ConvAttrs,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    run_backward(call, &shape(call, attrs)?, gradient, wanted)
}

fn weight<'c>(call: &'c Call<'_>) -> Result<Weight<'c>, ExecError> {
    let (_, values) = call.input(1)?;
    let packed = call.packed;
    Ok(Weight { values, packed })
}

fn run(call: &Call<'_>, shape: &ConvShape) -> Result<Floats, ExecError> {
    let (_, x) = call.input(0)?;
    let bias = call.optional(2)?.map(|(_, bias)| bias);
    if bias.is_some_and(|bias| bias.len() != shape.output[0]) {
        return Err(call.error("the bias does not fit the channels"));
    }
    let line = call.normalised.map(|affine| affine.line(call.clamp));
    if line.is_some_and(|line| line.factor.len() != shape.output[0]) {
        return Err(call.error("the batch norm after it does not fit the channels"));
    }
    let mut y = call.buffer(shape.output_len());
    let finish = Finish { bias, line };
    conv::forward(call.layout, shape, x, weight(call)?, finish, &mut y);
    call.output(y)
}

fn run_backward(
    call: &Call<'_>,
    shape: &ConvShape,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    let is_wanted = |slot: usize| wanted.get(slot).copied().unwrap_or(false);
    let dy = gradient
        .as_slice()
        .ok_or_else(|| call.error("a gradient is not in memory order"))?;
    let mut gradients: InputGradients = vec![None; wanted.len()];
    if is_wanted(0) {
        let (of_x, mut dx) = call.gradient_buffer(0)?;
        conv::backward_data(call.layout, shape, weight(call)?, dy, &mut dx);
        gradients[0] = Some(call.buffered(of_x, dx)?);
    }
    if is_wanted(1) {
        let (_, x) = call.input(0)?;
        let mut dw = vec![0.0; shape.weight_len()];
        conv::backward_weight(call.layout, shape, x, dy, &mut dw);
        gradients[1] = Some(call.array(call.operands.shape(1)?, dw)?);
    }
    if is_wanted(2) {
        let positions = call.run(shape.output[1] * shape.output[2]);
        let sums = secateur_kernels::channel::totals(shape.output[0], positions, dy);
        let db = sums.into_iter().map(|sum| sum as f32).collect();
        gradients[2] = Some(call.array(call.operands.shape(2)?, db)?);
    }
    Ok(gradients)
}

/// The convolution that a `Gemm` is: `x [images, features]`, a weight that is stored
/// `[outputs, features]`, a bias `[outputs]`. `None` for any other `Gemm`.
pub(super) fn dense_shape(operands: Operands<'_>) -> Option<ConvShape> {
    let plain = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    };
    let (&[images, features], &[outputs, _]) = (operands.shape(0).ok()?, operands.shape(1).ok()?)
    else {
        return None;
    };
    let bias = operands.optional_shape(2).ok()?;
    let is_bias = bias.is_none_or(|bias| bias == [outputs]);
    (operands.node.op == plain && is_bias).then_some(ConvShape {
        images,
        groups: 1,
        input: [features, 1, 1],
        output: [outputs, 1, 1],
        window: Window {
            kernel: [1, 1],
            strides: [1, 1],
            dilations: [1, 1],
            before: [0, 0],
        },
    })
}

pub(super) fn dense_forward(call: &Call<'_>, shape: &ConvShape) -> Result<Floats, ExecError> {
    run(call, shape)
}

pub(super) fn dense_backward(
    call: &Call<'_>,
    shape: &ConvShape,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    run_backward(call, shape, gradient, wanted)
}
