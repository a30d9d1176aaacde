//! Reductions over axes.

use super::apply::Args;
use super::value::{Value, map_tensor};
use crate::exec::ExecError;
use crate::graph::Reduction;
use ::burn::tensor::{Tensor, TensorData};

/// `GlobalAveragePool`: the mean over all positions.
pub(super) fn global_average_pool(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let axes = positions(args)?;
    let value = args.take(0)?;
    along(args, value, &axes, |x| x.mean_dim(1))
}

/// `GlobalMaxPool`: the largest over all positions.
pub(super) fn global_max_pool(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let axes = positions(args)?;
    let value = args.take(0)?;
    along(args, value, &axes, |x| x.max_dim(1))
}

fn positions(args: &Args<'_>) -> Result<Vec<usize>, ExecError> {
    let rank = args.shape(0)?.len();
    if rank < 3 {
        return Err(args.error(format!("a value of rank {rank} has no positions")));
    }
    Ok((2..rank).collect())
}

/// `ReduceMean`, `ReduceSum` and the like.
pub(super) fn reduce(args: &mut Args<'_>, reduction: Reduction) -> Result<Value, ExecError> {
    let axes = args.operands.reduced_axes()?;
    let x = args.take(0)?;
    match reduction {
        Reduction::Mean => along(args, x, &axes, |x| x.mean_dim(1)),
        Reduction::Sum => along(args, x, &axes, |x| x.sum_dim(1)),
        Reduction::Max => along(args, x, &axes, |x| x.max_dim(1)),
        Reduction::Min => along(args, x, &axes, |x| x.min_dim(1)),
        Reduction::L1 => along(args, map_tensor!(x, x => x.abs()), &axes, |x| x.sum_dim(1)),
        Reduction::SumSquare => {
            let squares = map_tensor!(x, x => x.clone() * x);
            along(args, squares, &axes, |x| x.sum_dim(1))
        }
        Reduction::L2 => {
            let squares = map_tensor!(x, x => x.clone() * x);
            let sums = along(args, squares, &axes, |x| x.sum_dim(1))?;
            Ok(map_tensor!(sums, x => x.sqrt()))
        }
    }
}

/// `ArgMax`: indices as floats. No gradient goes through them.
pub(super) fn arg_max(
    args: &mut Args<'_>,
    axis: i64,
    select_last_index: bool,
) -> Result<Value, ExecError> {
    let shape = args.shape(0)?;
    let axis = args.operands.axis(axis, shape.len())?;
    let outer = shape[..axis].iter().product();
    let inner = shape[axis + 1..].iter().product();
    let (len, cube) = (shape[axis], [outer, shape[axis], inner]);
    let x = args.take(0)?.reshape(cube).without_autodiff();
    let indices: Vec<f32> = (0..len).map(|index| index as f32).collect();
    let indices = Tensor::<1>::from_data(TensorData::new(indices, [len]), &x.device());
    let indices = indices.reshape([1, len, 1]).expand(cube);
    let is_less = x.clone().lower(x.max_dim(1).expand(cube));
    let found = if select_last_index {
        indices.mask_fill(is_less, -1.0).max_dim(1)
    } else {
        indices.mask_fill(is_less, len as f32).min_dim(1)
    };
    Ok(Value::from(found).reshaped(args.out_shape))
}

/// A reduction of the middle axis of three, over sorted axes; neighbouring ones are taken as one.
fn along(
    args: &Args<'_>,
    value: Value,
    axes: &[usize],
    reduction: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Result<Value, ExecError> {
    let mut shape = args.shape(0)?.to_vec();
    let mut value = value;
    let mut rest = axes;
    while let Some(&first) = rest.first() {
        let run = rest
            .iter()
            .enumerate()
            .take_while(|&(i, &axis)| axis == first + i)
            .count();
        let outer: usize = shape[..first].iter().product();
        let reduced: usize = shape[first..first + run].iter().product();
        let inner: usize = shape[first + run..].iter().product();
        if reduced > 1 {
            value = Value::from(reduction(value.reshape([outer, reduced, inner])));
        }
        shape[first..first + run].fill(1);
        rest = &rest[run..];
    }
    Ok(value.reshaped(args.out_shape))
}
