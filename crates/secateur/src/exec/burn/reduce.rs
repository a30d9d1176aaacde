//! Reductions over axes.

use super::apply::Args;
use super::value::{Value, map_tensor};
use crate::exec::ExecError;
use crate::graph::Reduction;
use ::burn::tensor::Tensor;

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
