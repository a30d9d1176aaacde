//! Subspaces of what a convolution reads (docs/method.md, section 4).
//!
//! A convolution larger than 1x1 weighs each input channel at every position of its window. Where its
//! input is projected, `x -> P Q^T x` at every pixel, `Q^T` is a 1x1 convolution before it and `P` goes
//! into its kernel, whose input channels are then as many as the subspace has directions. To the loss this
//! is a change of the value `x` itself, so it is a layer whose weight is the identity: with the second
//! moment `M` of `x` and the second moment `G` of the loss gradient there, the best subspace is that of
//! `M^{1/2} G^{1/2}`, and leaving direction `j` out costs its singular value squared, in the unit that
//! directions of outputs are scored in. `M` is not centred: where the convolution pads by zeros no bias can
//! stand in for the mean.

use super::basis::{Basis, OutputMoments, principal};
use ndarray::Array2;

/// Directions of a value with `c` channels, in falling order of what the basis is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Subspace {
    /// What makes the coordinates of a value, unit columns `[c, c]`: `Q`.
    pub analysis: Array2<f64>,
    /// What makes the value of its coordinates, `[c, c]`: the rows of `P^T`.
    pub synthesis: Array2<f64>,
    /// What leaving each direction out costs.
    pub scores: Vec<f64>,
}

/// The directions of the value that `moments` are of. `None` for [`Basis::Svd`], which knows no data, where
/// shapes do not fit, a value is not finite, or an iteration does not converge.
#[must_use]
pub fn subspace(basis: Basis, moments: &OutputMoments) -> Option<Subspace> {
    let channels = moments.mean.len();
    let square = (channels, channels);
    if moments.covariance.dim() != square || moments.gradient.dim() != square {
        return None;
    }
    let second = moments.second();
    let metric = match basis {
        Basis::Svd => return None,
        Basis::White => None,
        Basis::Fisher => Some(moments.gradient.view()),
    };
    let pair = principal(second.view(), metric, channels)?;
    let (mut analysis, mut synthesis) = (pair.analysis, pair.synthesis);
    for (mut column, mut row) in analysis.columns_mut().into_iter().zip(synthesis.rows_mut()) {
        let norm = column.dot(&column).sqrt();
        if norm > 0.0 {
            column /= norm;
            row *= norm;
        }
    }
    let along = |matrix: &Array2<f64>, vector: ndarray::ArrayView1<'_, f64>| {
        vector.dot(&matrix.dot(&vector)).max(0.0)
    };
    let scores = analysis
        .columns()
        .into_iter()
        .zip(synthesis.rows())
        .map(|(read, made)| along(&second, read) * along(&moments.gradient, made))
        .collect();
    Some(Subspace {
        analysis,
        synthesis,
        scores,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::{Array1, Axis, s};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Values `[samples, c]` with a mean, gradients there, and their moments.
    fn case(channels: usize) -> (Array2<f64>, Array2<f64>, OutputMoments) {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut random = |shape: (usize, usize)| {
            Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
        };
        let samples = 50;
        let mixing = (random((channels, channels)), random((channels, channels)));
        let values = random((samples, channels)).dot(&mixing.0) + &random((1, channels));
        let gradients = random((samples, channels)).dot(&mixing.1);
        let mean: Array1<f64> = values.mean_axis(Axis(0)).unwrap();
        let centred = &values - &mean;
        let moments = OutputMoments {
            mean,
            positions: 1.0,
            covariance: centred.t().dot(&centred) / samples as f64,
            gradient: gradients.t().dot(&gradients) / samples as f64,
        };
        (values, gradients, moments)
    }

    #[test]
    fn all_directions_together_are_the_value() {
        let (_, _, moments) = case(6);
        for basis in [Basis::White, Basis::Fisher] {
            let found = subspace(basis, &moments).unwrap();
            let product = found.analysis.dot(&found.synthesis);
            let error = (&product - &Array2::<f64>::eye(6)).mapv(f64::abs).sum();
            assert!(error < 1e-8, "{basis:?}: {error}");
        }
        assert_eq!(subspace(Basis::Svd, &moments), None);
    }

    #[test]
    fn what_is_left_out_costs_its_scores() {
        // `E |G^{1/2} dx|^2` over the samples, mean included: the metric of section 4 with W = 1.
        let (values, _, moments) = case(5);
        let found = subspace(Basis::Fisher, &moments).unwrap();
        assert!(found.scores.is_sorted_by(|a, b| a >= b));
        for rank in 1..5 {
            let kept = found
                .analysis
                .slice(s![.., ..rank])
                .dot(&found.synthesis.slice(s![..rank, ..]));
            let change = &values - &values.dot(&kept);
            let cost = (&change.dot(&moments.gradient) * &change).sum() / values.nrows() as f64;
            let scored: f64 = found.scores[rank..].iter().sum();
            assert!(
                (cost - scored).abs() < 1e-9 * scored.max(1.0),
                "{rank}: {cost} {scored}"
            );
        }
    }

    #[test]
    fn moments_of_unequal_sizes_are_refused() {
        let (_, _, mut moments) = case(4);
        moments.gradient = Array2::zeros((3, 3));
        assert_eq!(subspace(Basis::Fisher, &moments), None);
    }
}
