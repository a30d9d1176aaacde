//! Products of matrices.

use super::apply::Args;
use super::value::{Value, zip_tensors};
use crate::exec::ExecError;

/// `Gemm`: `alpha * a' b' + beta * c`; `transposed` says which of `a`, `b` is transposed.
pub(super) fn gemm(
    args: &mut Args<'_>,
    alpha: f32,
    beta: f32,
    transposed: [bool; 2],
) -> Result<Value, ExecError> {
    let a = args.take(0)?.into_rank2();
    let b = args.take(1)?.into_rank2();
    let a = if transposed[0] { a.transpose() } else { a };
    let b = if transposed[1] { b.transpose() } else { b };
    let product = a.matmul(b);
    let product = if alpha == 1.0 {
        product
    } else {
        product * alpha
    };
    match args.take_optional(2)? {
        None => Ok(product.into()),
        Some(c) if beta == 1.0 => Ok(zip_tensors!(product, c, (y, c) => y + c)),
        Some(c) => Ok(zip_tensors!(product, c, (y, c) => y + c * beta)),
    }
}

/// `MatMul`: as NumPy's `matmul`, with broadcasting over leading axes.
pub(super) fn matmul(args: &mut Args<'_>) -> Result<Value, ExecError> {
    let (rank_a, rank_b) = (args.shape(0)?.len(), args.shape(1)?.len());
    let (a, b) = (args.take(0)?, args.take(1)?);
    // A vector on the left is a row, one on the right a column.
    let b = if rank_b == 1 {
        let len = b.dims()[0];
        Value::from(b.reshape([len, 1]))
    } else {
        b
    };
    let product = match (rank_a, b) {
        (_, Value::R2(b)) => {
            // All rows of `a` meet the same matrix: one large product.
            let inner = b.dims()[0];
            let rows = a.dims().iter().product::<usize>() / inner;
            Value::from(a.reshape([rows, inner]).matmul(b))
        }
        (_, b) => {
            let a = a.with_rank(2);
            zip_tensors!(a, b, (a, b) => a.matmul(b))
        }
    };
    Ok(product.reshaped(args.out_shape))
}
