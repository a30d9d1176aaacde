//! Bases that know the data: the directions of a layer in the metric of its activations and of the
//! loss (docs/method.md, section 4).
//!
//! With `C` the covariance of what the layer makes and `Ga` the second moment of the loss gradient
//! there, a change `D` of the weight raises the loss by about `1/2 tr(D^T Om D Ga)`, `Om` being the
//! second moment of the patches. The best directions come from the singular value decomposition of
//! `Om^{1/2} W Ga^{1/2}`, whose Gram matrix is `M = Ga^{1/2} C Ga^{1/2}`, as `C = W^T Om W`. With
//! `M = V diag(mu) V^T` the weight is `sum_j p_j q_j^T`, `p_j = W Ga^{1/2} v_j`,
//! `q_j = Ga^{-1/2} v_j`, and direction `j` costs `mu_j`: matrices of the size of the *outputs* are
//! enough, no second moment of patches is ever gathered or inverted. `C` is centred, which is exact
//! where the mean of a removed direction goes to the bias (section 3, identity 9) or to batch norm.

use super::evd::Eigen;
use super::svd::factorize;
use crate::graph::FactorMatrices;
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayView3, Axis, s};
use serde::{Deserialize, Serialize};

/// In which directions a layer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Singular vectors of the weight: they know no data (Wong et al., arXiv 2108.02893).
    Svd,
    /// Principal components of what the layer makes on the data at hand.
    White,
    /// Those components in the metric of the loss.
    #[default]
    Fisher,
}

impl Basis {
    /// The basis as settings write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Svd => "svd",
            Self::White => "white",
            Self::Fisher => "fisher",
        }
    }
}

/// What is known of a layer's output `[images, co, ...]` on the data at hand.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputMoments {
    /// Mean over images and positions `[co]`.
    pub mean: Array1<f64>,
    /// Positions of one image.
    pub positions: f64,
    /// Covariance over images and positions, times the number of positions `[co, co]`.
    pub covariance: Array2<f64>,
    /// Mean over images and positions of `d d^T`, `d` the gradient of one image's loss `[co, co]`.
    pub gradient: Array2<f64>,
}

impl OutputMoments {
    /// The second moment about 0, times the number of positions `[co, co]`.
    #[must_use]
    pub fn second(&self) -> Array2<f64> {
        let mean = self.mean.view().insert_axis(Axis(1));
        &self.covariance + mean.dot(&mean.t()) * self.positions
    }
}

/// A layer in another basis, with what each direction is worth. Directions of a group are in
/// falling order of what the basis is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// Basis of unit columns, factors of 1, and projection; their product is the layer's weight, or
    /// what of it acts on the data at hand.
    pub matrices: FactorMatrices,
    /// Mean of each basis activation `[groups, r]`, for a bias in the place of what is removed.
    pub means: Array2<f64>,
    /// Variance of each basis activation, summed over the positions `[groups, r]`.
    pub variance: Array2<f64>,
    /// `q_j^T Ga q_j`, the second moment of the loss gradient along a projection row `[groups, r]`.
    pub curvature: Array2<f64>,
}

/// Eigenvalues of `Ga` below this share of the largest are raised to it: they are not known better,
/// and their inverse roots would blow up.
const GRADIENT_FLOOR: f64 = 1e-4;

/// Writes `weight` `[groups, n, co / groups]` of a layer with `bias` `[co]` (0 where it has none) in
/// `rank` directions per group of `basis`. At a rank below `min(n, co / groups)` the directions that
/// matter least are left out.
///
/// Returns `None` where shapes do not fit, a value is not finite, or an iteration does not converge.
#[must_use]
pub fn directions(
    basis: Basis,
    weight: ArrayView3<'_, f64>,
    bias: Option<ArrayView1<'_, f64>>,
    moments: &OutputMoments,
    rank: usize,
) -> Option<Directions> {
    let (groups, n, group_co) = weight.dim();
    let co = groups * group_co;
    let fits = moments.mean.len() == co
        && moments.covariance.dim() == (co, co)
        && moments.gradient.dim() == (co, co)
        && bias.is_none_or(|bias| bias.len() == co)
        && (1..=n.min(group_co)).contains(&rank);
    if !fits {
        return None;
    }
    let mut result = Directions {
        matrices: FactorMatrices {
            basis: Array3::zeros((groups, n, rank)),
            factors: Array2::ones((groups, rank)),
            projection: Array3::zeros((groups, rank, group_co)),
        },
        means: Array2::zeros((groups, rank)),
        variance: Array2::zeros((groups, rank)),
        curvature: Array2::zeros((groups, rank)),
    };
    for k in 0..groups {
        let channels = s![k * group_co..(k + 1) * group_co];
        let block = |matrix: &Array2<f64>| {
            let range = k * group_co..(k + 1) * group_co;
            matrix.slice(s![range.clone(), range]).to_owned()
        };
        let (covariance, gradient) = (block(&moments.covariance), block(&moments.gradient));
        let mut mean = moments.mean.slice(channels).to_owned();
        if let Some(bias) = bias {
            mean -= &bias.slice(channels);
        }
        let weight = weight.index_axis(Axis(0), k);
        let pair = match basis {
            Basis::Svd => singular(weight, rank)?,
            Basis::White => principal(covariance.view(), None, rank)?,
            Basis::Fisher => principal(covariance.view(), Some(gradient.view()), rank)?,
        };
        let mut filters = weight.dot(&pair.analysis);
        for j in 0..rank {
            let mut filter = filters.column_mut(j);
            let norm = filter.dot(&filter).sqrt();
            let norm = if norm > 0.0 { norm } else { 1.0 };
            filter /= norm;
            let analysis = &pair.analysis.column(j) / norm;
            let row = &pair.synthesis.row(j) * norm;
            result.means[[k, j]] = analysis.dot(&mean);
            result.variance[[k, j]] = analysis.dot(&covariance.dot(&analysis)).max(0.0);
            result.curvature[[k, j]] = row.dot(&gradient.dot(&row)).max(0.0);
            let mut into = result.matrices.projection.slice_mut(s![k, j, ..]);
            into.assign(&row);
        }
        result
            .matrices
            .basis
            .index_axis_mut(Axis(0), k)
            .assign(&filters);
    }
    Some(result)
}

/// `W = (W analysis) synthesis`: basis activations are `analysis^T (y - b)`, for an output `y` with
/// bias `b`, and `synthesis` `[r, co]` makes the output of them.
pub(super) struct Pair {
    pub analysis: Array2<f64>,
    pub synthesis: Array2<f64>,
}

pub(super) fn principal(
    covariance: ArrayView2<'_, f64>,
    gradient: Option<ArrayView2<'_, f64>>,
    rank: usize,
) -> Option<Pair> {
    let Some(gradient) = gradient else {
        let vectors = Eigen::of(covariance)?.vectors;
        let analysis = vectors.slice(s![.., ..rank]).to_owned();
        let synthesis = analysis.t().to_owned();
        return Some(Pair {
            analysis,
            synthesis,
        });
    };
    let metric = Eigen::of(gradient)?;
    let largest = metric.values.first().copied().unwrap_or_default();
    // A layer without any gradient is measured by its outputs alone.
    let floor = if largest > 0.0 {
        GRADIENT_FLOOR * largest
    } else {
        1.0
    };
    let root = metric.map(|value| value.max(floor).sqrt());
    let inverse_root = metric.map(|value| value.max(floor).sqrt().recip());
    let vectors = Eigen::of(root.dot(&covariance).dot(&root).view())?.vectors;
    let vectors = vectors.slice(s![.., ..rank]);
    Some(Pair {
        analysis: root.dot(&vectors),
        synthesis: vectors.t().dot(&inverse_root),
    })
}

fn singular(weight: ArrayView2<'_, f64>, rank: usize) -> Option<Pair> {
    let factors = factorize(weight.insert_axis(Axis(0)))?;
    let right = factors.right.slice(s![0, .., ..rank]);
    let singular = factors.singular.slice(s![0, ..rank]);
    // Directions of singular value 0 do nothing: their filters come out as 0.
    let inverse = singular.mapv(|value| if value > 0.0 { value.recip() } else { 0.0 });
    Some(Pair {
        analysis: &right * &inverse,
        synthesis: (&right * &singular).t().to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    struct Case {
        weight: Array3<f64>,
        bias: Array1<f64>,
        /// Centred patches `[samples, n]` of each group.
        patches: Vec<Array2<f64>>,
        /// The means that were taken from them `[n]`.
        means: Vec<Array1<f64>>,
        moments: OutputMoments,
    }

    /// A layer with patches and gradients of its own, all moments over the samples exact.
    fn case(groups: usize, n: usize, group_co: usize, seed: u64) -> Case {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut random = |shape: (usize, usize)| {
            Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
        };
        let (samples, co) = (4 * n.max(group_co) + 3, groups * group_co);
        let mut weight = Array3::zeros((groups, n, group_co));
        let mut outputs = Array2::zeros((samples, co));
        let bias = random((1, co)).row(0).to_owned();
        let (mut patches, mut means) = (Vec::new(), Vec::new());
        for k in 0..groups {
            let mixing = random((n, n));
            let mut patch = random((samples, n)).dot(&mixing) + &random((1, n));
            let matrix = random((n, group_co));
            let made = patch.dot(&matrix) + bias.slice(s![k * group_co..(k + 1) * group_co]);
            outputs
                .slice_mut(s![.., k * group_co..(k + 1) * group_co])
                .assign(&made);
            weight.index_axis_mut(Axis(0), k).assign(&matrix);
            let mean = patch.mean_axis(Axis(0)).unwrap();
            patch -= &mean;
            patches.push(patch);
            means.push(mean);
        }
        let gradients = random((samples, co)).dot(&random((co, co)));
        let mean = outputs.mean_axis(Axis(0)).unwrap();
        let centred = &outputs - &mean;
        let count = samples as f64;
        let moments = OutputMoments {
            mean,
            positions: 1.0,
            covariance: centred.t().dot(&centred) / count,
            gradient: gradients.t().dot(&gradients) / count,
        };
        Case {
            weight,
            bias,
            patches,
            means,
            moments,
        }
    }

    fn max_abs(values: impl IntoIterator<Item = f64>) -> f64 {
        values
            .into_iter()
            .fold(0.0, |largest, value: f64| largest.max(value.abs()))
    }

    const BASES: [Basis; 3] = [Basis::Svd, Basis::White, Basis::Fisher];

    #[test]
    fn at_full_rank_the_product_is_the_weight() {
        for (groups, n, co) in [(1, 9, 5), (1, 4, 7), (2, 6, 3), (1, 1, 3)] {
            let case = case(groups, n, co, 3);
            for basis in BASES {
                let found = directions(
                    basis,
                    case.weight.view(),
                    Some(case.bias.view()),
                    &case.moments,
                    n.min(co),
                )
                .unwrap();
                let error = max_abs(found.matrices.product() - &case.weight);
                assert!(error < 1e-9, "{basis:?} {groups} {n} {co}: {error}");
            }
        }
    }

    #[test]
    fn means_and_variances_are_those_of_the_basis_activations() {
        let case = case(2, 6, 4, 5);
        for basis in BASES {
            let bias = Some(case.bias.view());
            let found = directions(basis, case.weight.view(), bias, &case.moments, 3).unwrap();
            for k in 0..2 {
                let filters = found.matrices.basis.index_axis(Axis(0), k);
                let z = case.patches[k].dot(&filters);
                let samples = z.nrows() as f64;
                let means = case.means[k].dot(&filters);
                for j in 0..3 {
                    assert!((found.means[[k, j]] - means[j]).abs() < 1e-9);
                    let variance = z.column(j).dot(&z.column(j)) / samples;
                    assert!((found.variance[[k, j]] - variance).abs() < 1e-9 * variance.max(1.0));
                }
            }
        }
    }

    #[test]
    fn a_removed_direction_costs_its_variance_times_its_curvature() {
        // Identity of the metric: removing P changes tr(D^T Om D Ga) by the sum of the products,
        // for the Fisher basis without cross terms, and by no other choice of as many directions
        // by less (Eckart-Young in the metric).
        let case = case(1, 9, 6, 7);
        let omega = case.patches[0].t().dot(&case.patches[0]) / case.patches[0].nrows() as f64;
        let cost = |rank: usize, basis: Basis| {
            let bias = Some(case.bias.view());
            let found = directions(basis, case.weight.view(), bias, &case.moments, rank).unwrap();
            let change = &found.matrices.product().index_axis(Axis(0), 0)
                - &case.weight.index_axis(Axis(0), 0);
            let metric = change
                .t()
                .dot(&omega)
                .dot(&change)
                .dot(&case.moments.gradient);
            metric.diag().sum()
        };
        let bias = Some(case.bias.view());
        let all = directions(Basis::Fisher, case.weight.view(), bias, &case.moments, 6).unwrap();
        let costs = &all.variance * &all.curvature;
        assert!(costs.iter().zip(costs.iter().skip(1)).all(|(a, b)| a >= b));
        for rank in 1..6 {
            let removed = costs.slice(s![0, rank..]).sum();
            let fisher = cost(rank, Basis::Fisher);
            assert!((fisher - removed).abs() < 1e-9 * removed.max(1.0), "{rank}");
            assert!(fisher <= cost(rank, Basis::White) + 1e-9);
            assert!(fisher <= cost(rank, Basis::Svd) + 1e-9);
        }
    }

    #[test]
    fn the_white_basis_keeps_most_of_the_output() {
        let case = case(1, 8, 6, 11);
        let kept = |basis: Basis| {
            let bias = Some(case.bias.view());
            let found = directions(basis, case.weight.view(), bias, &case.moments, 3).unwrap();
            let change = &found.matrices.product().index_axis(Axis(0), 0)
                - &case.weight.index_axis(Axis(0), 0);
            let made = case.patches[0].dot(&change);
            (&made * &made).sum()
        };
        assert!(kept(Basis::White) <= kept(Basis::Svd) + 1e-9);
        assert!(kept(Basis::White) <= kept(Basis::Fisher) + 1e-9);
    }

    #[test]
    fn moments_of_another_layer_are_refused() {
        let case = case(1, 4, 4, 1);
        let mut moments = case.moments.clone();
        moments.mean = Array1::zeros(3);
        assert_eq!(
            directions(Basis::White, case.weight.view(), None, &moments, 2),
            None
        );
        assert_eq!(
            directions(Basis::White, case.weight.view(), None, &case.moments, 5),
            None
        );
    }
}
