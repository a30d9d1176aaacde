//! The one place that says which function runs an operator.

use super::value::Value;
use super::{arithmetic, blocks, conv, linear, norm, pool, reduce, resize, shape};
use crate::exec::{BatchNormMode, ExecError};
use crate::graph::{Op, Operands};

/// A node's inputs: on the device, or on the host where they are constants that steer it.
pub(super) struct Args<'a> {
    pub(super) operands: Operands<'a>,
    pub(super) out_shape: &'a [usize],
    pub(super) batch_norm: BatchNormMode,
    /// Hands out an input by its index. A value that nothing reads afterwards is given away, so
    /// that the device may overwrite it.
    pub(super) fetch: &'a mut dyn FnMut(usize) -> Option<Value>,
}

impl<'a> Args<'a> {
    /// An error that names the node.
    pub(super) fn error(&self, problem: impl Into<String>) -> ExecError {
        ExecError::Node {
            node: self.operands.node.name.clone(),
            op: self.operands.node.op.name(),
            problem: problem.into(),
        }
    }

    /// The number of inputs, those left out included.
    pub(super) fn len(&self) -> usize {
        self.operands.node.inputs.len()
    }

    /// An input on the device.
    pub(super) fn take(&mut self, index: usize) -> Result<Value, ExecError> {
        match self.take_optional(index)? {
            Some(value) => Ok(value),
            None => Err(self.error(format!("input {index} is missing"))),
        }
    }

    /// An optional input on the device.
    pub(super) fn take_optional(&mut self, index: usize) -> Result<Option<Value>, ExecError> {
        let Some(name) = self.operands.name(index) else {
            return Ok(None);
        };
        match (self.fetch)(index) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(format!("input `{name}` is not an `f32` value"))),
        }
    }

    /// The shape of an input.
    pub(super) fn shape(&self, index: usize) -> Result<&'a [usize], ExecError> {
        Ok(self.operands.shape(index)?)
    }

    /// The shape of an input of four axes: images, channels, height and width.
    pub(super) fn image_shape(&self, index: usize) -> Result<[usize; 4], ExecError> {
        let shape = self.shape(index)?;
        shape
            .try_into()
            .map_err(|_| self.error(format!("shape {shape:?} has not four axes")))
    }
}

/// Computes the output of a node that the operands look at.
pub(super) fn apply(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let node = args.operands.node;
    match &node.op {
        Op::Conv(attrs) => conv::conv(args, attrs),
        Op::Gemm {
            alpha,
            beta,
            trans_a,
            trans_b,
        } => linear::gemm(args, *alpha, *beta, [*trans_a, *trans_b]),
        Op::MatMul => linear::matmul(args),
        Op::BatchNormalization {
            epsilon,
            momentum: _,
        } => norm::batch_norm(args, *epsilon),
        Op::Activation(activation) => arithmetic::activation(args, *activation),
        Op::PRelu => arithmetic::prelu(args),
        Op::Clip { min: _, max: _ } => arithmetic::clip(args),
        Op::Arithmetic(operation) => arithmetic::arithmetic(args, *operation),
        Op::Variadic(function) => arithmetic::variadic(args, *function),
        Op::Concat { axis } => shape::concat(args, *axis),
        Op::MaxPool(attrs) => pool::max_pool(args, attrs),
        Op::AveragePool(attrs) => pool::average_pool(args, attrs),
        Op::GlobalAveragePool => reduce::global_average_pool(args),
        Op::GlobalMaxPool => reduce::global_max_pool(args),
        Op::Reduce { reduction, .. } => reduce::reduce(args, *reduction),
        Op::ArgMax {
            axis,
            keep_dims: _,
            select_last_index,
        } => reduce::arg_max(args, *axis, *select_last_index),
        Op::ConvTranspose(attrs) => conv::conv_transpose(args, attrs),
        Op::LayerNormalization { axis, epsilon } => norm::layer_norm(args, *axis, *epsilon),
        Op::InstanceNormalization { epsilon } => norm::instance_norm(args, *epsilon),
        Op::GroupNormalization { groups, epsilon } => norm::group_norm(args, *groups, *epsilon),
        Op::Resize(_) | Op::Upsample { .. } => resize::resize(args),
        Op::DepthToSpace { block, order } => blocks::depth_to_space(args, *block, *order),
        Op::SpaceToDepth { block, order } => blocks::space_to_depth(args, *block, *order),
        Op::Split { .. } => shape::split(args),
        Op::Expand => {
            let value = args.take(0)?;
            Ok(value.expanded(args.out_shape))
        }
        Op::Where => shape::choose(args),
        Op::Flatten { axis: _ }
        | Op::Reshape { allow_zero: _ }
        | Op::Squeeze { axes: _ }
        | Op::Unsqueeze { axes: _ } => {
            let value = args.take(0)?;
            Ok(value.reshaped(args.out_shape))
        }
        Op::Transpose { perm } => shape::transpose(args, perm.as_deref()),
        Op::Slice { bounds: _ } => shape::slice(args),
        Op::Pad {
            mode,
            pads: _,
            value: _,
        } => shape::pad(args, *mode),
        Op::Softmax(axis) => norm::softmax(args, *axis),
        Op::LogSoftmax(axis) => norm::log_softmax(args, *axis),
        Op::Dropout { ratio: _ } | Op::Identity => args.take(0),
        Op::Lrn {
            alpha,
            beta,
            bias,
            size,
        } => norm::lrn(args, *alpha, *beta, *bias, *size),
        Op::Cast { to } => arithmetic::cast(args, *to),
        Op::Gather { axis } => shape::gather(args, *axis),
        Op::Shape { .. } | Op::ConstantOfShape { .. } => {
            Err(args.error("runs on constants and shapes only"))
        }
    }
}
