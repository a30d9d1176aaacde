//! Matrix products on slices.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// A matrix in a slice, row after row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    /// Distance of one row's start from the next one's.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self {
            values,
            rows,
            columns,
            stride: columns,
        }
    }

    fn view(&self) -> MatRef<'a, f32> {
        let len = extent(self.rows, self.columns, self.stride);
        // A row-major matrix is the transpose of a column-major one.
        MatRef::from_column_major_slice_with_stride(
            &self.values[..len],
            self.columns,
            self.rows,
            self.stride,
        )
        .transpose()
    }
}

/// Elements from the first to the last of a matrix with that stride.
fn extent(rows: usize, columns: usize, stride: usize) -> usize {
    match rows {
        0 => 0,
        rows => (rows - 1) * stride + columns,
    }
}

/// Whether an operand is read as it stands or transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Is,
    Transposed,
}

/// `target = a b` on the calling thread. Rows of `target` are `stride` apart.
pub(crate) fn product(
    target: &mut [f32],
    stride: usize,
    (a, as_a): (Rows<'_>, As),
    (b, as_b): (Rows<'_>, As),
) {
    let turned = |m: Rows<'_>, how: As| match how {
        As::Is => (m.rows, m.columns),
        As::Transposed => (m.columns, m.rows),
    };
    let ((rows, _), (_, columns)) = (turned(a, as_a), turned(b, as_b));
    if rows == 0 || columns == 0 {
        return;
    }
    let len = extent(rows, columns, stride);
    let target =
        MatMut::from_column_major_slice_with_stride_mut(&mut target[..len], columns, rows, stride)
            .transpose_mut();
    let (a, b) = (a.view(), b.view());
    let a = if as_a == As::Is { a } else { a.transpose() };
    let b = if as_b == As::Is { b } else { b.transpose() };
    matmul(target, Accum::Replace, a, b, 1.0_f32, Par::Seq);
}
