//! The one place that says which function runs an operator, forward and backward.

use super::buffers::Buffers;
use super::norm::Affine;
use super::{arithmetic, convolution, join, norm, pool, reduce};
use crate::exec::burn::node as burn_node;
use crate::exec::{BatchNormMode, ExecError};
use crate::graph::{Op, Operands};
use crate::tensor::Floats;
use ::burn::tensor::Device;
use ndarray::{ArcArray, IxDyn};
use secateur_kernels::aligned::Aligned;
use secateur_kernels::layout::Batch;
use secateur_kernels::packed::Packed;
use secateur_kernels::{Clamp, Layout};

/// A node with its inputs at hand.
pub(super) struct Call<'c> {
    pub(super) operands: Operands<'c>,
    /// `None` for one that is left out or is no `f32` value.
    pub(super) inputs: &'c [Option<Floats>],
    pub(super) out_shape: &'c [usize],
    /// The order of the inputs that have one part for each image, of the output, and of their gradients.
    pub(super) layout: Layout,
    pub(super) batch_norm: BatchNormMode,
    /// What is done to the output.
    pub(super) clamp: Clamp,
    /// For a convolution, the batch normalisation that is computed with it, before the clamp.
    pub(super) normalised: Option<&'c Affine>,
    /// For a convolution whose weight does not change, where it is kept packed.
    pub(super) packed: Option<&'c Packed>,
    pub(super) buffers: &'c Buffers,
    /// For the operators that Burn runs.
    pub(super) device: &'c Device,
}

/// What a forward pass computed besides the output, for the backward pass.
pub(super) enum Saved {
    /// Mean and variance of each channel of a batch.
    Moments(Vec<f64>, Vec<f64>),
}

/// Gradients in the order of the inputs; `None` where none is wanted.
pub(super) type InputGradients = Vec<Option<Floats>>;

impl Call<'_> {
    /// An error that names the node.
    pub(super) fn error(&self, problem: impl Into<String>) -> ExecError {
        ExecError::Node {
            node: self.operands.node.name.clone(),
            op: self.operands.node.op.name(),
            problem: problem.into(),
        }
    }

    /// An input, with its elements in memory order.
    pub(super) fn input(&self, slot: usize) -> Result<(&Floats, &[f32]), ExecError> {
        match self.optional(slot)? {
            Some(input) => Ok(input),
            None => Err(self.error(format!("input {slot} is missing"))),
        }
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, slot: usize) -> Result<Option<(&Floats, &[f32])>, ExecError> {
        let Some(name) = self.operands.name(slot) else {
            return Ok(None);
        };
        let array = self.inputs.get(slot).and_then(Option::as_ref);
        match array.map(|array| (array, array.as_slice())) {
            Some((array, Some(slice))) => Ok(Some((array, slice))),
            _ => Err(self.error(format!("input `{name}` is not an `f32` value"))),
        }
    }

    /// Memory for `len` floats that will all be written.
    pub(super) fn buffer(&self, len: usize) -> Aligned {
        self.buffers.take(len)
    }

    /// Values as an array of the output's shape.
    pub(super) fn output(&self, values: Aligned) -> Result<Floats, ExecError> {
        self.buffered(self.out_shape, values)
    }

    /// Values in a buffer as an array.
    pub(super) fn buffered(&self, shape: &[usize], values: Aligned) -> Result<Floats, ExecError> {
        self.buffers.array(shape, values)
    }

    /// How the values of images are ordered.
    pub(super) fn batch(&self, channels: usize) -> Batch {
        let layout = self.layout;
        Batch { layout, channels }
    }

    /// The distance of a channel's values from the next one's, `positions` being those of an image.
    pub(super) fn run(&self, positions: usize) -> usize {
        match self.layout {
            Layout::Planes => positions,
            Layout::Bundles(images) => images,
        }
    }

    /// Values as an array.
    pub(super) fn array(&self, shape: &[usize], values: Vec<f32>) -> Result<Floats, ExecError> {
        ArcArray::from_shape_vec(IxDyn(shape), values).map_err(|e| self.error(e.to_string()))
    }

    /// The same elements in another shape.
    pub(super) fn reshaped(&self, array: &Floats, shape: &[usize]) -> Result<Floats, ExecError> {
        let array = array.clone().into_shape_with_order(IxDyn(shape));
        array.map_err(|e| self.error(e.to_string()))
    }

    /// A buffer for the gradient of an input, and the input's shape.
    pub(super) fn gradient_buffer(&self, slot: usize) -> Result<(&[usize], Aligned), ExecError> {
        let shape = self.operands.shape(slot)?;
        Ok((shape, self.buffer(shape.iter().product())))
    }

    /// Elements of the output.
    pub(super) fn out_len(&self) -> usize {
        self.out_shape.iter().product()
    }

    fn burn_forward(&self) -> Result<(Floats, Option<Saved>), ExecError> {
        let value = burn_node::forward(
            self.operands,
            self.inputs,
            self.out_shape,
            self.batch_norm,
            self.device,
        )?;
        Ok((value, None))
    }
}

/// Whether the output has the input's elements in their order.
pub(super) fn keeps_elements(op: &Op) -> bool {
    matches!(
        op,
        Op::Flatten { .. }
            | Op::Reshape { .. }
            | Op::Squeeze { .. }
            | Op::Unsqueeze { .. }
            | Op::Dropout { .. }
            | Op::Identity
    )
}

/// Computes the first output of a node.
pub(super) fn forward(call: &Call<'_>) -> Result<(Floats, Option<Saved>), ExecError> {
    let plain = |value: Floats| (value, None);
    match &call.operands.node.op {
        Op::Conv(attrs) => convolution::forward(call, attrs).map(plain),
        Op::Gemm { .. } => match convolution::dense_shape(call.operands) {
            Some(shape) => convolution::dense_forward(call, &shape).map(plain),
            None => call.burn_forward(),
        },
        Op::BatchNormalization { epsilon, .. } => norm::forward(call, *epsilon),
        Op::Activation(activation) => arithmetic::activation(call, *activation).map(plain),
        Op::Clip { .. } => arithmetic::clip(call).map(plain),
        Op::Arithmetic(operation) => arithmetic::forward(call, *operation).map(plain),
        Op::MaxPool(attrs) => pool::max_forward(call, attrs).map(plain),
        Op::GlobalAveragePool => pool::global_average(call).map(plain),
        &Op::Concat { axis } => join::forward(call, axis).map(plain),
        &Op::ArgMax {
            axis,
            keep_dims: _,
            select_last_index,
        } => reduce::arg_max(call, axis, select_last_index).map(plain),
        op if keeps_elements(op) => call.reshaped(call.input(0)?.0, call.out_shape).map(plain),
        _ => call.burn_forward(),
    }
}

/// Computes a normalised value again.
pub(super) fn again(call: &Call<'_>, saved: Option<&Saved>) -> Result<Floats, ExecError> {
    match &call.operands.node.op {
        Op::BatchNormalization { epsilon, .. } => norm::again(call, *epsilon, saved),
        _ => Err(call.error("is no normalisation")),
    }
}

/// The gradients of the inputs that are `wanted`, given the output where they are read off it, what the forward
/// pass saved, and the gradient of the output. `super::keep` says which inputs have to be there.
pub(super) fn backward(
    call: &Call<'_>,
    output: Option<&Floats>,
    saved: Option<Saved>,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    let burn = || {
        burn_node::backward(
            call.operands,
            call.inputs,
            gradient,
            wanted,
            call.batch_norm,
            call.device,
        )
    };
    match &call.operands.node.op {
        Op::Conv(attrs) => convolution::backward(call, attrs, gradient, wanted),
        Op::Gemm { .. } => match convolution::dense_shape(call.operands) {
            Some(shape) => convolution::dense_backward(call, &shape, gradient, wanted),
            None => burn(),
        },
        Op::BatchNormalization { epsilon, .. } => {
            norm::backward(call, *epsilon, saved, gradient, wanted)
        }
        Op::Activation(activation) => {
            arithmetic::activation_backward(call, *activation, output, gradient)
        }
        Op::Clip { .. } => arithmetic::clip_backward(call, gradient),
        Op::Arithmetic(operation) => {
            arithmetic::backward(call, *operation, output, gradient, wanted)
        }
        Op::MaxPool(attrs) => pool::max_backward(call, attrs, gradient),
        Op::GlobalAveragePool => pool::global_average_backward(call, gradient),
        &Op::Concat { axis } => join::backward(call, axis, gradient, wanted),
        op if keeps_elements(op) => {
            let shape = call.operands.shape(0)?;
            let mut gradients = vec![None; wanted.len()];
            gradients[0] = Some(call.reshaped(gradient, shape)?);
            Ok(gradients)
        }
        _ => burn(),
    }
}
