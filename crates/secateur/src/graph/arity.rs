//! How many inputs and outputs each operator has.

use super::op::Op;
use std::ops::RangeInclusive;

/// The numbers of inputs and outputs that an operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Inputs; those up to the lower bound cannot be left out by an empty name.
    pub inputs: RangeInclusive<usize>,
    /// Outputs; only the first one is computed unless [`Op::computes_all_outputs`].
    pub outputs: RangeInclusive<usize>,
}

impl Op {
    /// Whether outputs beyond the first are computed too.
    #[must_use]
    pub fn computes_all_outputs(&self) -> bool {
        matches!(self, Self::Split { .. } | Self::LayerNormalization { .. })
    }

    /// The numbers of inputs and outputs, in the attribute or the input form that the fields state.
    #[must_use]
    pub fn arity(&self) -> Arity {
        let inputs = match self {
            Self::Activation(_)
            | Self::MaxPool(_)
            | Self::AveragePool(_)
            | Self::GlobalAveragePool
            | Self::GlobalMaxPool
            | Self::ArgMax { .. }
            | Self::DepthToSpace { .. }
            | Self::SpaceToDepth { .. }
            | Self::Flatten { .. }
            | Self::Transpose { .. }
            | Self::Softmax(_)
            | Self::LogSoftmax(_)
            | Self::Identity
            | Self::Lrn { .. }
            | Self::Cast { .. }
            | Self::Shape { .. }
            | Self::ConstantOfShape { .. } => 1..=1,
            Self::MatMul
            | Self::PRelu
            | Self::Arithmetic(_)
            | Self::Reshape { .. }
            | Self::Expand
            | Self::Gather { .. } => 2..=2,
            Self::Conv(_)
            | Self::ConvTranspose(_)
            | Self::Gemm { .. }
            | Self::LayerNormalization { .. } => 2..=3,
            Self::Where | Self::InstanceNormalization { .. } | Self::GroupNormalization { .. } => {
                3..=3
            }
            Self::Resize(_) => 1..=4,
            Self::Upsample { scales: None, .. } => 2..=2,
            Self::Upsample { .. } => 1..=1,
            Self::Split { sizes: None, .. } => 1..=2,
            Self::Split { .. } => 1..=1,
            Self::BatchNormalization { .. } => 5..=5,
            Self::Clip {
                min: None,
                max: None,
            }
            | Self::Dropout { ratio: None } => 1..=3,
            Self::Clip { .. } | Self::Dropout { .. } => 1..=1,
            Self::Variadic(_) | Self::Concat { .. } => 1..=usize::MAX,
            Self::Reduce { axes: None, .. } | Self::Squeeze { axes: None } => 1..=2,
            Self::Unsqueeze { axes: None } => 2..=2,
            Self::Reduce { .. } | Self::Squeeze { .. } | Self::Unsqueeze { .. } => 1..=1,
            Self::Slice { bounds: None } => 3..=5,
            Self::Slice { .. } => 1..=1,
            Self::Pad { pads: None, .. } => 2..=4,
            Self::Pad { .. } => 1..=1,
        };
        let most_outputs = match self {
            Self::Dropout { .. } | Self::MaxPool(_) => 2,
            Self::LayerNormalization { .. } => 3,
            _ if self.computes_all_outputs() => usize::MAX,
            _ => 1,
        };
        Arity {
            inputs,
            outputs: 1..=most_outputs,
        }
    }
}
