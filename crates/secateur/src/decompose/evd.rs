//! The eigendecomposition of a symmetric matrix, in `f64`.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par};
use ndarray::{Array1, Array2, ArrayView2};

/// `A = sum_j values_j vectors_j vectors_j^T`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Eigen {
    /// Eigenvalues, not increasing.
    pub values: Array1<f64>,
    /// Orthonormal eigenvectors, the columns.
    pub vectors: Array2<f64>,
}

impl Eigen {
    /// Decomposes the symmetric `matrix`, of which the lower half is read. The entry of each vector
    /// that is largest in magnitude is positive. One thread works, so the result does not depend on
    /// how many there are. `None` where a value is not finite or the iteration does not converge.
    pub fn of(matrix: ArrayView2<'_, f64>) -> Option<Self> {
        let (n, columns) = matrix.dim();
        if n != columns || !matrix.iter().all(|value| value.is_finite()) {
            return None;
        }
        if n == 0 {
            // The library's bound on memory underflows.
            return Some(Self {
                values: Array1::zeros(0),
                vectors: Array2::zeros((0, 0)),
            });
        }
        let matrix = Mat::from_fn(n, n, |row, column| matrix[[row, column]]);
        let mut u = Mat::<f64>::zeros(n, n);
        let mut s = faer::diag::Diag::<f64>::zeros(n);
        let compute = ComputeEigenvectors::Yes;
        let scratch = self_adjoint_evd_scratch::<f64>(n, compute, Par::Seq, Default::default());
        self_adjoint_evd(
            matrix.as_ref(),
            s.as_mut(),
            Some(u.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .ok()?;
        // The library's order is the increasing one.
        let values = Array1::from_shape_fn(n, |j| s.column_vector()[n - 1 - j]);
        let mut vectors = Array2::from_shape_fn((n, n), |(row, j)| u[(row, n - 1 - j)]);
        for mut vector in vectors.columns_mut() {
            let largest = vector.iter().copied().fold(0.0_f64, |largest, value| {
                if value.abs() > largest.abs() {
                    value
                } else {
                    largest
                }
            });
            if largest < 0.0 {
                vector.mapv_inplace(|value| -value);
            }
        }
        Some(Self { values, vectors })
    }

    /// `sum_j f(values_j) vectors_j vectors_j^T`.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Array2<f64> {
        (&self.vectors * &self.values.mapv(f)).dot(&self.vectors.t())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn eigenvalues_are_those_of_the_closed_form() {
        // [[2, 1], [1, 2]] has 3 with (1, 1) and 1 with (1, -1).
        let found = Eigen::of(array![[2.0, 1.0], [1.0, 2.0]].view()).unwrap();
        assert!((found.values[0] - 3.0).abs() < 1e-14 && (found.values[1] - 1.0).abs() < 1e-14);
        let half = 0.5_f64.sqrt();
        assert!((found.vectors[[0, 0]] - half).abs() < 1e-14);
        assert!((found.vectors[[1, 0]] - half).abs() < 1e-14);
        let root = found.map(f64::sqrt);
        let square = root.dot(&root);
        assert!((square[[0, 0]] - 2.0).abs() < 1e-14 && (square[[0, 1]] - 1.0).abs() < 1e-14);
        assert_eq!(Eigen::of(array![[f64::NAN]].view()), None);
        assert_eq!(
            Eigen::of(Array2::zeros((0, 0)).view())
                .unwrap()
                .values
                .len(),
            0
        );
    }
}
