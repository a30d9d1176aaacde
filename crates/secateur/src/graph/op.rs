//! The operators that secateur knows, with their attributes.
//!
//! Attributes hold what the file states; where an attribute became an input in a later operator
//! set, the field is an `Option` that is `Some` only for the attribute form.

use super::activation::Activation;
use super::resize::{Interpolation, ResizeAttrs};
use super::transposed::ConvTransposeAttrs;
use crate::tensor::ElementType;

/// Spatial padding of a two-dimensional window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpatialPads {
    /// Rows added above.
    pub top: usize,
    /// Columns added to the left.
    pub left: usize,
    /// Rows added below.
    pub bottom: usize,
    /// Columns added to the right.
    pub right: usize,
}

/// How ONNX's `auto_pad` chooses padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPad {
    /// The stated pads.
    #[default]
    NotSet,
    /// Output is input divided by stride, rounded up; an odd row goes below.
    SameUpper,
    /// As `SameUpper`, but an odd row goes above.
    SameLower,
    /// No padding.
    Valid,
}

/// Attributes of a two-dimensional convolution. Pairs are `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvAttrs {
    /// Step of the window.
    pub strides: [usize; 2],
    /// Explicit padding; ignored unless `auto_pad` is [`AutoPad::NotSet`].
    pub pads: SpatialPads,
    /// Spacing of kernel taps.
    pub dilations: [usize; 2],
    /// Number of groups.
    pub groups: usize,
    /// How padding is chosen.
    pub auto_pad: AutoPad,
}

impl ConvAttrs {
    /// Whether a window of one pixel stays where it is: one group, no stride, no padding.
    pub(crate) fn is_plain(&self) -> bool {
        let Self {
            strides,
            pads,
            dilations: _,
            groups,
            auto_pad,
        } = self;
        (strides, *groups, *auto_pad) == (&[1, 1], 1, AutoPad::NotSet)
            && *pads == SpatialPads::default()
    }
}

impl Default for ConvAttrs {
    fn default() -> Self {
        Self {
            strides: [1, 1],
            pads: SpatialPads::default(),
            dilations: [1, 1],
            groups: 1,
            auto_pad: AutoPad::NotSet,
        }
    }
}

/// Attributes of two-dimensional pooling. Pairs are `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolAttrs {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub strides: [usize; 2],
    /// Explicit padding; ignored unless `auto_pad` is [`AutoPad::NotSet`].
    pub pads: SpatialPads,
    /// Spacing of window taps.
    pub dilations: [usize; 2],
    /// How padding is chosen.
    pub auto_pad: AutoPad,
    /// Whether a last, partial window counts.
    pub ceil_mode: bool,
    /// Average pooling only: whether padding counts in the divisor.
    pub count_include_pad: bool,
}

/// An elementwise function of two inputs, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// `a ^ b`.
    Pow,
}

/// An elementwise function of any number of inputs, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variadic {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// What a reduction makes of the elements along its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The sum of squares.
    SumSquare,
}

/// The order of the channels that `DepthToSpace` makes positions of, and `SpaceToDepth` of positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DepthOrder {
    /// Position first, then channel (`DCR`).
    #[default]
    DepthFirst,
    /// Channel first, then position (`CRD`).
    ColumnFirst,
}

/// How `Pad` fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PadMode {
    /// With a constant.
    #[default]
    Constant,
    /// By reflection without repeating the edge.
    Reflect,
    /// With the edge value.
    Edge,
}

/// Over what `Softmax` and `LogSoftmax` normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftmaxAxis {
    /// Along one axis (operator set 13 and newer); negative counts from the last.
    Single(i64),
    /// Over all axes from this one on, taken as one (before operator set 13).
    FlattenFrom(i64),
}

/// An operator. Inputs are listed in ONNX's order; `?` marks an optional one.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `x, weight [out, in/groups, kh, kw], bias? [out]`.
    Conv(ConvAttrs),
    /// `a, b, c?`: `alpha * a' b' + beta * c`.
    Gemm {
        /// Factor of the product.
        alpha: f32,
        /// Factor of `c`.
        beta: f32,
        /// Whether `a` is transposed.
        trans_a: bool,
        /// Whether `b` is transposed.
        trans_b: bool,
    },
    /// `a, b`, with broadcasting over leading axes.
    MatMul,
    /// `x, scale, bias, mean, variance`, each `[channels]`; inference form.
    BatchNormalization {
        /// Added to the variance.
        epsilon: f32,
        /// Kept for the file only.
        momentum: f32,
    },
    /// `x, weight [in, out/groups, kh, kw], bias? [out]`.
    ConvTranspose(ConvTransposeAttrs),
    /// `x, scale, bias?`: the axes from `axis` on normalised together; the further outputs are their
    /// mean and the inverse of their standard deviation.
    LayerNormalization {
        /// First axis; negative counts from the last.
        axis: i64,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x, scale, bias`, each `[channels]`: each image's channels normalised.
    InstanceNormalization {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x, scale, bias`: each image's groups of channels normalised. Scale and bias are
    /// `[channels]`, before operator set 21 `[groups]`.
    GroupNormalization {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x`.
    Activation(Activation),
    /// `x, slope`, broadcast to `x`.
    PRelu,
    /// `x, min?, max?`; the fields hold the attribute form of operator sets before 11.
    Clip {
        /// Lower bound as an attribute.
        min: Option<f32>,
        /// Upper bound as an attribute.
        max: Option<f32>,
    },
    /// `a, b`.
    Arithmetic(Arithmetic),
    /// One or more inputs, with broadcasting.
    Variadic(Variadic),
    /// One or more inputs, joined.
    Concat {
        /// Axis; negative counts from the last.
        axis: i64,
    },
    /// `x`.
    MaxPool(PoolAttrs),
    /// `x`.
    AveragePool(PoolAttrs),
    /// `x [n, c, h, w]` to `[n, c, 1, 1]`.
    GlobalAveragePool,
    /// `x [n, c, h, w]` to `[n, c, 1, 1]`.
    GlobalMaxPool,
    /// `x, axes?`.
    Reduce {
        /// What is made of the reduced elements.
        reduction: Reduction,
        /// Axes as an attribute (before operator set 18; 13 for sums).
        axes: Option<Vec<i64>>,
        /// Whether reduced axes stay with length 1.
        keep_dims: bool,
        /// Whether no axes means no reduction.
        noop_with_empty_axes: bool,
    },
    /// `x` to the indices of the largest elements along an axis, `i64`. Engines compute them as `f32`.
    ArgMax {
        /// Axis; negative counts from the last.
        axis: i64,
        /// Whether the axis stays with length 1.
        keep_dims: bool,
        /// Whether the last of equal elements counts, not the first.
        select_last_index: bool,
    },
    /// `x` to `[product before axis, product from axis]`.
    Flatten {
        /// Axis; negative counts from the last.
        axis: i64,
    },
    /// `x, shape`.
    Reshape {
        /// Whether 0 in the shape is a length and not "copy".
        allow_zero: bool,
    },
    /// `x`.
    Transpose {
        /// The permutation; `None` reverses.
        perm: Option<Vec<usize>>,
    },
    /// `x, axes?`.
    Squeeze {
        /// Axes as an attribute (before operator set 13).
        axes: Option<Vec<i64>>,
    },
    /// `x, axes?`.
    Unsqueeze {
        /// Axes as an attribute (before operator set 13).
        axes: Option<Vec<i64>>,
    },
    /// `x, starts?, ends?, axes?, steps?`.
    Slice {
        /// `(starts, ends, axes)` as attributes (before operator set 10).
        bounds: Option<SliceBounds>,
    },
    /// `x, pads?, value?, axes?`.
    Pad {
        /// How to fill.
        mode: PadMode,
        /// Pads as an attribute (before operator set 11).
        pads: Option<Vec<i64>>,
        /// Value as an attribute (before operator set 11).
        value: Option<f32>,
    },
    /// `x, roi?, scales?, sizes?`; `x, scales` in operator set 10.
    Resize(ResizeAttrs),
    /// `x, scales?`; the forerunner of `Resize`.
    Upsample {
        /// How values between elements are found.
        interpolation: Interpolation,
        /// Scales as an attribute (before operator set 9).
        scales: Option<Vec<f32>>,
    },
    /// `x [n, c, h, w]` to `[n, c / block^2, h * block, w * block]`.
    DepthToSpace {
        /// Side of the square of positions.
        block: usize,
        /// The order of channels.
        order: DepthOrder,
    },
    /// `x [n, c, h, w]` to `[n, c * block^2, h / block, w / block]`.
    SpaceToDepth {
        /// Side of the square of positions.
        block: usize,
        /// The order of channels.
        order: DepthOrder,
    },
    /// `x, sizes?` to as many outputs as the node has.
    Split {
        /// Axis; negative counts from the last.
        axis: i64,
        /// Lengths as an attribute (before operator set 13).
        sizes: Option<Vec<i64>>,
        /// The number of outputs as an attribute (from operator set 18).
        num_outputs: Option<usize>,
    },
    /// `x, shape`: broadcast to `shape` and `x`'s own.
    Expand,
    /// `condition, a, b`: `a` where the constant `condition` holds, else `b`.
    Where,
    /// `x`.
    Softmax(SoftmaxAxis),
    /// `x`.
    LogSoftmax(SoftmaxAxis),
    /// `x, ratio?, training_mode?`; computes the identity.
    Dropout {
        /// Ratio as an attribute (before operator set 12).
        ratio: Option<f32>,
    },
    /// `x`.
    Identity,
    /// `x`; local response normalisation over channels.
    Lrn {
        /// Scale.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Offset.
        bias: f32,
        /// Number of channels summed over.
        size: usize,
    },
    /// `x`.
    Cast {
        /// Target element type.
        to: ElementType,
    },
    /// `x` to its shape, `i64 [rank]`.
    Shape {
        /// First axis.
        start: i64,
        /// One past the last axis.
        end: Option<i64>,
    },
    /// `data, indices`; of constants and shapes only.
    Gather {
        /// Axis; negative counts from the last.
        axis: i64,
    },
    /// `shape` to a tensor filled with `value`; of constants and shapes only.
    ConstantOfShape {
        /// One element.
        value: crate::tensor::Tensor,
    },
}

/// Bounds of a `Slice` in its attribute form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceBounds {
    /// First index of each axis.
    pub starts: Vec<i64>,
    /// One past the last index of each axis.
    pub ends: Vec<i64>,
    /// Axes; `None` is the first ones in order.
    pub axes: Option<Vec<i64>>,
}

impl Op {
    /// The ONNX name of the operator.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::Gemm { .. } => "Gemm",
            Self::MatMul => "MatMul",
            Self::BatchNormalization { .. } => "BatchNormalization",
            Self::Activation(activation) => activation.name(),
            Self::PRelu => "PRelu",
            Self::Clip { .. } => "Clip",
            Self::Arithmetic(Arithmetic::Add) => "Add",
            Self::Arithmetic(Arithmetic::Sub) => "Sub",
            Self::Arithmetic(Arithmetic::Mul) => "Mul",
            Self::Arithmetic(Arithmetic::Div) => "Div",
            Self::Arithmetic(Arithmetic::Pow) => "Pow",
            Self::Variadic(Variadic::Sum) => "Sum",
            Self::Variadic(Variadic::Mean) => "Mean",
            Self::Variadic(Variadic::Max) => "Max",
            Self::Variadic(Variadic::Min) => "Min",
            Self::Concat { .. } => "Concat",
            Self::MaxPool(_) => "MaxPool",
            Self::AveragePool(_) => "AveragePool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::GlobalMaxPool => "GlobalMaxPool",
            Self::Reduce { reduction, .. } => match reduction {
                Reduction::Mean => "ReduceMean",
                Reduction::Sum => "ReduceSum",
                Reduction::Max => "ReduceMax",
                Reduction::Min => "ReduceMin",
                Reduction::L1 => "ReduceL1",
                Reduction::L2 => "ReduceL2",
                Reduction::SumSquare => "ReduceSumSquare",
            },
            Self::ArgMax { .. } => "ArgMax",
            Self::ConvTranspose(_) => "ConvTranspose",
            Self::LayerNormalization { .. } => "LayerNormalization",
            Self::InstanceNormalization { .. } => "InstanceNormalization",
            Self::GroupNormalization { .. } => "GroupNormalization",
            Self::Resize(_) => "Resize",
            Self::Upsample { .. } => "Upsample",
            Self::DepthToSpace { .. } => "DepthToSpace",
            Self::SpaceToDepth { .. } => "SpaceToDepth",
            Self::Split { .. } => "Split",
            Self::Expand => "Expand",
            Self::Where => "Where",
            Self::Flatten { .. } => "Flatten",
            Self::Reshape { .. } => "Reshape",
            Self::Transpose { .. } => "Transpose",
            Self::Squeeze { .. } => "Squeeze",
            Self::Unsqueeze { .. } => "Unsqueeze",
            Self::Slice { .. } => "Slice",
            Self::Pad { .. } => "Pad",
            Self::Softmax(_) => "Softmax",
            Self::LogSoftmax(_) => "LogSoftmax",
            Self::Dropout { .. } => "Dropout",
            Self::Identity => "Identity",
            Self::Lrn { .. } => "LRN",
            Self::Cast { .. } => "Cast",
            Self::Shape { .. } => "Shape",
            Self::Gather { .. } => "Gather",
            Self::ConstantOfShape { .. } => "ConstantOfShape",
        }
    }
}
