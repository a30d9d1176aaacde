//! Host arrays: the values that graphs store and engines exchange.
//!
//! A thin name over `ndarray`. Arrays are reference counted and copied on write, so cloning a graph
//! costs no weights.

use ndarray::{ArcArray, IxDyn};

/// An `f32` array of any rank: weights, images, activations, gradients.
pub type Floats = ArcArray<f32, IxDyn>;

/// An `i64` array of any rank: shapes, axes, indices.
pub type Ints = ArcArray<i64, IxDyn>;

/// A stored constant of a graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// 32-bit floats: everything that is computed with.
    F32(Floats),
    /// 64-bit floats: constants that are cast before use.
    F64(ArcArray<f64, IxDyn>),
    /// 32-bit integers.
    I32(ArcArray<i32, IxDyn>),
    /// 64-bit integers: shapes, axes, indices.
    I64(Ints),
    /// Booleans, such as `Dropout`'s `training_mode`.
    Bool(ArcArray<bool, IxDyn>),
}

/// The element type of a [`Tensor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Boolean.
    Bool,
}

impl Tensor {
    /// The length of each axis; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::F64(a) => a.shape(),
            Self::I32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::Bool(a) => a.shape(),
        }
    }

    /// The element type.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::F64(_) => ElementType::F64,
            Self::I32(_) => ElementType::I32,
            Self::I64(_) => ElementType::I64,
            Self::Bool(_) => ElementType::Bool,
        }
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The array, where this is `f32`.
    #[must_use]
    pub fn as_floats(&self) -> Option<&Floats> {
        match self {
            Self::F32(a) => Some(a),
            _ => None,
        }
    }

    /// The array, where this is `i64`.
    #[must_use]
    pub fn as_ints(&self) -> Option<&Ints> {
        match self {
            Self::I64(a) => Some(a),
            _ => None,
        }
    }
}

impl From<Floats> for Tensor {
    fn from(array: Floats) -> Self {
        Self::F32(array)
    }
}
