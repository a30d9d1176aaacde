//! Means over axes.

use super::apply::Args;
use super::value::Value;
use crate::exec::ExecError;

/// `GlobalAveragePool`: the mean over all positions.
pub(super) fn global_average_pool(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let rank = args.shape(0)?.len();
    if rank < 3 {
        return Err(args.error(format!("a value of rank {rank} has no positions")));
    }
    let axes: Vec<usize> = (2..rank).collect();
    mean_over(args, &axes)
}

/// `ReduceMean`.
pub(super) fn mean(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let axes = args.operands.reduced_axes()?;
    mean_over(args, &axes)
}

/// The mean over sorted axes; neighbouring ones are taken as one.
fn mean_over(args: &mut Args<'_>, axes: &[usize]) -> Result<Value, ExecError> {
    let mut shape = args.shape(0)?.to_vec();
    let mut value = args.take(0)?;
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
            value = Value::from(value.reshape([outer, reduced, inner]).mean_dim(1));
        }
        shape[first..first + run].fill(1);
        rest = &rest[run..];
    }
    Ok(value.reshaped(args.out_shape))
}
