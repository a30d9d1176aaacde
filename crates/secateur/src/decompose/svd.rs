//! The thin singular value decomposition of a layer's weight, one per group, in `f64`.

use super::DecomposeError;
use crate::graph::{FactorMatrices, Graph, factored_layers};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, Par};
use ndarray::{Array2, Array3, ArrayView3, Axis};

/// `W_k = sum_j sigma_kj u_kj v_kj^T` for every group `k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Left singular vectors `[groups, n, r]`: orthonormal columns, the basis filters.
    pub left: Array3<f64>,
    /// Singular values `[groups, r]`, not increasing along a row.
    pub singular: Array2<f64>,
    /// Right singular vectors `[groups, co / groups, r]`: orthonormal columns.
    pub right: Array3<f64>,
}

/// Decomposes `weight` `[groups, n, co / groups]`; `r` is `min(n, co / groups)`.
///
/// The sign of each pair of vectors is chosen such that the entry of `u` that is largest in
/// magnitude is positive. Each decomposition runs on one thread, so the result does not depend on
/// how many there are.
///
/// Returns `None` where a value is not finite or the iteration does not converge.
#[must_use]
pub fn factorize(weight: ArrayView3<'_, f64>) -> Option<Factors> {
    let (groups, n, group_co) = weight.dim();
    let rank = n.min(group_co);
    let mut factors = Factors {
        left: Array3::zeros((groups, n, rank)),
        singular: Array2::zeros((groups, rank)),
        right: Array3::zeros((groups, group_co, rank)),
    };
    if !weight.iter().all(|value| value.is_finite()) {
        return None;
    }
    for k in 0..groups {
        let matrix = Mat::from_fn(n, group_co, |row, column| weight[[k, row, column]]);
        let mut u = Mat::<f64>::zeros(n, rank);
        let mut v = Mat::<f64>::zeros(group_co, rank);
        let mut s = faer::diag::Diag::<f64>::zeros(rank);
        let thin = ComputeSvdVectors::Thin;
        let scratch = svd_scratch::<f64>(n, group_co, thin, thin, Par::Seq, Default::default());
        svd(
            matrix.as_ref(),
            s.as_mut(),
            Some(u.as_mut()),
            Some(v.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .ok()?;
        for j in 0..rank {
            let mut largest = 0.0_f64;
            for row in 0..n {
                if u[(row, j)].abs() > largest.abs() {
                    largest = u[(row, j)];
                }
            }
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            for row in 0..n {
                factors.left[[k, row, j]] = sign * u[(row, j)];
            }
            for row in 0..group_co {
                factors.right[[k, row, j]] = sign * v[(row, j)];
            }
            factors.singular[[k, j]] = s.column_vector()[j];
        }
    }
    Some(factors)
}

/// Decomposes again the factored layers that have more directions than their weight has rank, as
/// they do once channels are gone; the function is unchanged.
///
/// # Errors
/// [`DecomposeError`] where a weight is not finite.
pub fn cap_ranks(graph: &Graph) -> Result<Graph, DecomposeError> {
    let mut result = graph.clone();
    for layer in factored_layers(graph) {
        let rank = layer.shape.full_rank();
        if layer.rank <= rank {
            continue;
        }
        let capped = || {
            let product = layer.matrices(graph)?.product();
            let factors = factorize(product.view())?;
            let matrices = FactorMatrices {
                projection: (&factors.right * &factors.singular.view().insert_axis(Axis(1)))
                    .permuted_axes([0, 2, 1])
                    .as_standard_layout()
                    .into_owned(),
                factors: Array2::ones(factors.singular.dim()),
                basis: factors.left,
            };
            matrices.store(&mut result, &layer)
        };
        let mut capped = capped;
        if capped().is_none() {
            let node = layer.name.clone();
            return Err(DecomposeError::NoDecomposition { node });
        }
    }
    Ok(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(groups: usize, n: usize, co: usize, seed: u64) -> Array3<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array3::from_shape_simple_fn((groups, n, co), || rng.random_range(-1.0..1.0))
    }

    fn max_abs(values: impl IntoIterator<Item = f64>) -> f64 {
        values
            .into_iter()
            .fold(0.0, |largest, value| largest.max(value.abs()))
    }

    #[test]
    fn factors_are_orthonormal_and_compose_to_the_weight() {
        for (groups, n, co) in [(1, 27, 16), (1, 16, 27), (3, 18, 4), (2, 1, 5), (1, 300, 7)] {
            let weight = random(groups, n, co, 1);
            let factors = factorize(weight.view()).unwrap();
            for k in 0..groups {
                let u = factors.left.index_axis(Axis(0), k);
                let v = factors.right.index_axis(Axis(0), k);
                let s = factors.singular.row(k);
                let identity = Array2::<f64>::eye(n.min(co));
                assert!(max_abs(u.t().dot(&u) - &identity) < 1e-13);
                assert!(max_abs(v.t().dot(&v) - &identity) < 1e-13);
                assert!(max_abs((&u * &s).dot(&v.t()) - weight.index_axis(Axis(0), k)) < 1e-12);
                assert!(s.iter().zip(s.iter().skip(1)).all(|(a, b)| a >= b));
            }
        }
    }

    #[test]
    fn singular_values_are_those_of_the_closed_form() {
        // [[3, 0], [4, 5]] has singular values sqrt(45) and sqrt(5).
        let factors = factorize(array![[[3.0, 0.0], [4.0, 5.0]]].view()).unwrap();
        assert!((factors.singular[[0, 0]] - 45_f64.sqrt()).abs() < 1e-14);
        assert!((factors.singular[[0, 1]] - 5_f64.sqrt()).abs() < 1e-14);
    }

    #[test]
    fn a_weight_of_zeros_still_has_an_orthonormal_basis() {
        let factors = factorize(Array3::zeros((1, 9, 4)).view()).unwrap();
        let u = factors.left.index_axis(Axis(0), 0);
        assert!(max_abs(u.t().dot(&u) - Array2::<f64>::eye(4)) < 1e-14);
        assert!(factors.singular.iter().all(|&s| s == 0.0));
    }

    #[test]
    fn a_weight_that_is_not_finite_has_no_decomposition() {
        let mut weight = random(1, 4, 4, 2);
        weight[[0, 1, 2]] = f64::NAN;
        assert_eq!(factorize(weight.view()), None);
    }
}
