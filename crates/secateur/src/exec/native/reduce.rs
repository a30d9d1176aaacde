//! Reductions that have a loop of their own.

use super::node::Call;
use crate::exec::ExecError;
use crate::tensor::Floats;

/// `ArgMax`: indices as floats.
pub(super) fn arg_max(
    call: &Call<'_>,
    axis: i64,
    select_last_index: bool,
) -> Result<Floats, ExecError> {
    let (array, x) = call.input(0)?;
    let shape = array.shape();
    let axis = call.operands.axis(axis, shape.len())?;
    let inner: usize = shape[axis + 1..].iter().product();
    if x.is_empty() {
        return Err(call.error(format!("a value of shape {shape:?} has no largest element")));
    }
    let mut y = call.buffer(call.out_len());
    let mut largest = vec![0.0; inner];
    for (block, y) in x
        .chunks_exact(shape[axis] * inner)
        .zip(y.chunks_exact_mut(inner))
    {
        largest.copy_from_slice(&block[..inner]);
        y.fill(0.0);
        for (index, row) in block.chunks_exact(inner).enumerate() {
            for ((&value, largest), y) in row.iter().zip(&mut largest).zip(&mut *y) {
                if value > *largest || (select_last_index && value == *largest) {
                    (*largest, *y) = (value, index as f32);
                }
            }
        }
    }
    call.output(y)
}
