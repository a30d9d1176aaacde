//! Device tensors of any rank, and their way from and to the host.

use crate::exec::ExecError;
use crate::tensor::Floats;
use ::burn::tensor::{Device, Tensor, TensorData};
use ndarray::{ArrayD, IxDyn};

/// A device tensor; a scalar is held as one element of rank 1.
#[derive(Clone, Debug)]
pub(super) enum Value {
    R1(Tensor<1>),
    R2(Tensor<2>),
    R3(Tensor<3>),
    R4(Tensor<4>),
    R5(Tensor<5>),
    R6(Tensor<6>),
}

/// Evaluates an expression with the tensor of whatever rank a [`Value`] holds.
macro_rules! with_tensor {
    ($value:expr, $tensor:ident => $body:expr) => {
        match $value {
            $crate::exec::burn::value::Value::R1($tensor) => $body,
            $crate::exec::burn::value::Value::R2($tensor) => $body,
            $crate::exec::burn::value::Value::R3($tensor) => $body,
            $crate::exec::burn::value::Value::R4($tensor) => $body,
            $crate::exec::burn::value::Value::R5($tensor) => $body,
            $crate::exec::burn::value::Value::R6($tensor) => $body,
        }
    };
}

/// Applies an expression that keeps the rank.
macro_rules! map_tensor {
    ($value:expr, $tensor:ident => $body:expr) => {
        $crate::exec::burn::value::with_tensor!($value, $tensor => {
            $crate::exec::burn::value::Value::from($body)
        })
    };
}

/// Combines two values with broadcasting, aligned at the last axis.
macro_rules! zip_tensors {
    ($left:expr, $right:expr, ($a:ident, $b:ident) => $body:expr) => {{
        use $crate::exec::burn::value::Value;
        let (left, right) = (Value::from($left), Value::from($right));
        let rank = left.rank().max(right.rank());
        match (left.with_rank(rank), right.with_rank(rank)) {
            (Value::R1($a), Value::R1($b)) => Value::R1($body),
            (Value::R2($a), Value::R2($b)) => Value::R2($body),
            (Value::R3($a), Value::R3($b)) => Value::R3($body),
            (Value::R4($a), Value::R4($b)) => Value::R4($body),
            (Value::R5($a), Value::R5($b)) => Value::R5($body),
            (left, right) => {
                let ($a, $b) = (left.into_rank::<6>(), right.into_rank::<6>());
                Value::R6($body)
            }
        }
    }};
}

pub(super) use {map_tensor, with_tensor, zip_tensors};

macro_rules! from_tensor {
    ($($rank:literal => $variant:ident),*) => {
        $(impl From<Tensor<$rank>> for Value {
            fn from(tensor: Tensor<$rank>) -> Self {
                Self::$variant(tensor)
            }
        })*
    };
}
from_tensor!(1 => R1, 2 => R2, 3 => R3, 4 => R4, 5 => R5, 6 => R6);

impl Value {
    /// Copies `array` to `device`. Its rank is at most [`MAX_RANK`].
    pub(super) fn from_host(array: &Floats, device: &Device) -> Self {
        let values: Vec<f32> = match array.as_slice() {
            Some(slice) => slice.to_vec(),
            None => array.iter().copied().collect(),
        };
        let len = values.len();
        let flat = Tensor::<1>::from_data(TensorData::new(values, [len]), device);
        Self::R1(flat).reshaped(array.shape())
    }

    /// Copies to the host, as `shape`.
    pub(super) fn into_host(self, shape: &[usize]) -> Result<Floats, ExecError> {
        let data = with_tensor!(self, tensor => tensor.without_autodiff().try_into_data())
            .map_err(|e| ExecError::Device(e.to_string()))?;
        let values = data
            .try_into_vec::<f32>()
            .map_err(|e| ExecError::Device(format!("{e:?}")))?;
        ArrayD::from_shape_vec(IxDyn(shape), values)
            .map(ndarray::ArrayBase::into_shared)
            .map_err(|e| ExecError::Device(e.to_string()))
    }

    /// The length of each axis.
    pub(super) fn dims(&self) -> Vec<usize> {
        with_tensor!(self, tensor => tensor.dims().to_vec())
    }

    /// The rank as held.
    pub(super) fn rank(&self) -> usize {
        with_tensor!(self, tensor => tensor.dims().len())
    }

    /// Whether a backward pass goes through this value.
    pub(super) fn is_tracked(&self) -> bool {
        with_tensor!(self, tensor => tensor.is_autodiff())
    }

    /// This value as a leaf whose gradient is kept.
    pub(super) fn leaf(self) -> Self {
        map_tensor!(self, tensor => tensor.without_autodiff().autodiff().require_grad())
    }

    /// The same elements in another shape.
    pub(super) fn reshaped(self, shape: &[usize]) -> Self {
        if self.dims() == shape {
            return self;
        }
        match *shape {
            [] => Self::R1(self.reshape([1])),
            [a] => Self::R1(self.reshape([a])),
            [a, b] => Self::R2(self.reshape([a, b])),
            [a, b, c] => Self::R3(self.reshape([a, b, c])),
            [a, b, c, d] => Self::R4(self.reshape([a, b, c, d])),
            [a, b, c, d, e] => Self::R5(self.reshape([a, b, c, d, e])),
            [a, b, c, d, e, ref rest @ ..] => {
                Self::R6(self.reshape([a, b, c, d, e, rest.iter().product()]))
            }
        }
    }

    /// Repeated along axes of length 1, and along new ones in front, up to `shape`.
    pub(super) fn expanded(self, shape: &[usize]) -> Self {
        if self.dims() == shape {
            return self;
        }
        map_tensor!(self.with_rank(shape.len().max(1)), tensor => {
            let mut lengths = tensor.dims().map(|_| 1);
            for (length, &wanted) in lengths.iter_mut().zip(shape) {
                *length = wanted;
            }
            tensor.expand(lengths)
        })
    }

    /// The same elements as a tensor of this shape.
    pub(super) fn reshape<const D: usize>(self, shape: [usize; D]) -> Tensor<D> {
        with_tensor!(self, tensor => tensor.reshape(shape))
    }

    /// This value with axes of length 1 put before the others.
    pub(super) fn with_rank(self, rank: usize) -> Self {
        let dims = self.dims();
        if dims.len() >= rank {
            return self;
        }
        let mut shape = vec![1; rank - dims.len()];
        shape.extend(dims);
        self.reshaped(&shape)
    }

    /// As a tensor of rank `D`: axes of length 1 are put before the others, and where there are
    /// too many axes the first ones are joined.
    pub(super) fn into_rank<const D: usize>(self) -> Tensor<D> {
        let dims = self.dims();
        let mut shape = [1; D];
        for (index, &dim) in dims.iter().rev().enumerate() {
            shape[D - 1 - index.min(D - 1)] *= dim;
        }
        self.reshape(shape)
    }

    /// As a tensor of rank 4, without a reshape where it is one already.
    pub(super) fn into_rank4(self) -> Tensor<4> {
        match self {
            Self::R4(tensor) => tensor,
            other => other.into_rank(),
        }
    }

    /// As a tensor of rank 1, without a reshape where it is one already.
    pub(super) fn into_rank1(self) -> Tensor<1> {
        match self {
            Self::R1(tensor) => tensor,
            other => other.into_rank(),
        }
    }

    /// As a tensor of rank 2, without a reshape where it is one already.
    pub(super) fn into_rank2(self) -> Tensor<2> {
        match self {
            Self::R2(tensor) => tensor,
            other => other.into_rank(),
        }
    }
}
