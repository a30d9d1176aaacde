//! Linear systems of symmetric positive matrices, by the library's Cholesky decomposition, on one thread like the other
//! decompositions: nothing then depends on how many there are.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::cholesky::llt::solve::{solve_in_place, solve_in_place_scratch};
use faer::{Mat, Par};
use ndarray::Array2;

/// The solution `X` `[n, m]` of `A X = B`, with `A` `[n, n]` symmetric (its lower half is read) and `B` `[n, m]` by
/// element. `None` where `A` is not positive, or a value is not finite.
pub(crate) fn solve_positive(
    [n, m]: [usize; 2],
    matrix: impl Fn(usize, usize) -> f64,
    right: impl Fn(usize, usize) -> f64,
) -> Option<Array2<f64>> {
    let mut factor = Mat::from_fn(n, n, |i, j| if i < j { 0.0 } else { matrix(i, j) });
    let scratch = cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
    cholesky_in_place(
        factor.as_mut(),
        Default::default(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .ok()?;
    let mut solution = Mat::from_fn(n, m, right);
    let scratch = solve_in_place_scratch::<f64>(n, m, Par::Seq);
    let stack = &mut MemBuffer::new(scratch);
    solve_in_place(
        factor.as_ref(),
        solution.as_mut(),
        Par::Seq,
        MemStack::new(stack),
    );
    let solution = Array2::from_shape_fn((n, m), |(i, j)| solution[(i, j)]);
    solution
        .iter()
        .all(|value| value.is_finite())
        .then_some(solution)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A positive matrix and a right side, by noise.
    fn case(n: usize, m: usize) -> (Array2<f64>, Array2<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut noise = |shape: (usize, usize)| {
            Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
        };
        let half = noise((n, n + 5));
        (half.dot(&half.t()), noise((n, m)))
    }

    #[test]
    fn the_solution_solves() {
        let (matrix, right) = case(20, 3);
        let found = solve_positive([20, 3], |i, j| matrix[[i, j]], |i, j| right[[i, j]]).unwrap();
        let left = (matrix.dot(&found) - &right).mapv(f64::abs).sum();
        assert!(left < 1e-8, "{left}");
    }

    #[test]
    fn what_is_not_positive_has_none() {
        let diagonal = |value: f64| move |i: usize, j: usize| if i == j { value } else { 0.0 };
        for value in [-1.0, 0.0, f64::NAN] {
            assert_eq!(solve_positive([4, 1], diagonal(value), |_, _| 1.0), None);
        }
        assert_eq!(solve_positive([4, 1], diagonal(1.0), |_, _| f64::NAN), None);
    }

    #[test]
    fn the_bits_do_not_depend_on_the_threads() {
        // As many unknowns as a 3x3 convolution of 64 channels has.
        let (matrix, right) = case(576, 64);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let solve =
                || solve_positive([576, 64], |i, j| matrix[[i, j]], |i, j| right[[i, j]]).unwrap();
            pool.build().unwrap().install(solve)
        };
        assert!(on(1) == on(2));
    }
}
