//! Concatenation.

use super::node::{Call, InputGradients};
use crate::exec::ExecError;
use crate::tensor::Floats;
use secateur_kernels::Layout;

/// For each input how many of its elements stand together in the output. In bundles the channels are joined.
fn runs(call: &Call<'_>, axis: i64) -> Result<Vec<usize>, ExecError> {
    let axis = call.operands.axis(axis, call.out_shape.len())?;
    let run = |slot: usize| -> Result<usize, ExecError> {
        let shape = call.operands.shape(slot)?;
        Ok(match call.layout {
            Layout::Planes => shape[axis..].iter().product(),
            Layout::Bundles(images) => images * shape[axis],
        })
    };
    (0..call.operands.node.inputs.len()).map(run).collect()
}

/// `Concat`.
pub(super) fn forward(call: &Call<'_>, axis: i64) -> Result<Floats, ExecError> {
    let runs = runs(call, axis)?;
    let row: usize = runs.iter().sum();
    let mut y = call.buffer(call.out_len());
    let mut start = 0;
    for (slot, run) in runs.into_iter().enumerate() {
        let (_, x) = call.input(slot)?;
        if run > 0 {
            for (y, x) in y.chunks_exact_mut(row).zip(x.chunks_exact(run)) {
                y[start..start + run].copy_from_slice(x);
            }
        }
        start += run;
    }
    call.output(y)
}

pub(super) fn backward(
    call: &Call<'_>,
    axis: i64,
    gradient: &Floats,
    wanted: &[bool],
) -> Result<InputGradients, ExecError> {
    let runs = runs(call, axis)?;
    let row: usize = runs.iter().sum();
    let dy = gradient
        .as_slice()
        .ok_or_else(|| call.error("a gradient is not in memory order"))?;
    let mut gradients: InputGradients = vec![None; wanted.len()];
    let mut start = 0;
    for (slot, run) in runs.into_iter().enumerate() {
        if wanted[slot] {
            let (shape, mut dx) = call.gradient_buffer(slot)?;
            if run > 0 {
                for (dx, dy) in dx.chunks_exact_mut(run).zip(dy.chunks_exact(row)) {
                    dx.copy_from_slice(&dy[start..start + run]);
                }
            }
            gradients[slot] = Some(call.buffered(shape, dx)?);
        }
        start += run;
    }
    Ok(gradients)
}
