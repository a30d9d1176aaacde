//! How many inputs and outputs each operator has.

use super::op::Op;
use std::ops::RangeInclusive;

/// The numbers of inputs and outputs that an operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Inputs; those up to the lower bound cannot be left out by an empty name.
    pub inputs: RangeInclusive<usize>,
    /// Outputs; only the first one is computed by every engine.
    pub outputs: RangeInclusive<usize>,
}

impl Op {
    /// The numbers of inputs and outputs, in the attribute or the input form that the fields state.
    #[must_use]
    pub fn arity(&self) -> Arity {
        let inputs = match self {
            Self::Activation(_)
            | Self::MaxPool(_)
            | Self::AveragePool(_)
            | Self::GlobalAveragePool
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
            | Self::Gather { .. } => 2..=2,
            Self::Conv(_) | Self::Gemm { .. } => 2..=3,
            Self::BatchNormalization { .. } => 5..=5,
            Self::Clip {
                min: None,
                max: None,
            }
            | Self::Dropout { ratio: None } => 1..=3,
            Self::Clip { .. } | Self::Dropout { .. } => 1..=1,
            Self::Sum | Self::Concat { .. } => 1..=usize::MAX,
            Self::ReduceMean { axes: None, .. } | Self::Squeeze { axes: None } => 1..=2,
            Self::Unsqueeze { axes: None } => 2..=2,
            Self::ReduceMean { .. } | Self::Squeeze { .. } | Self::Unsqueeze { .. } => 1..=1,
            Self::Slice { bounds: None } => 3..=5,
            Self::Slice { .. } => 1..=1,
            Self::Pad { pads: None, .. } => 2..=4,
            Self::Pad { .. } => 1..=1,
        };
        let with_mask_or_indices = matches!(self, Self::Dropout { .. } | Self::MaxPool(_));
        Arity {
            inputs,
            outputs: 1..=if with_mask_or_indices { 2 } else { 1 },
        }
    }
}
