//! Refit without training: the projection of a factored layer is fitted anew to what the layer is to
//! make (layer-wise reconstruction; docs/method.md, section 5).
//!
//! Let `z` `[r]` be the scaled basis activations at one output position of the cut network, and `y`
//! `[co]` what the layer is to make there. Rows `Q` `[r, co]` and an intercept `b` minimise
//! `E |y - Q^T z - b|^2`, starting from the rows `Q0` that are there:
//! `Q = Q0 + (Cov(z) + eps diag(Cov(z)))^-1 (Cov(z, y) - Cov(z) Q0)` and `b = E[y] - Q^T E[z]`. As `z` is
//! taken from the cut network, the fit makes up for what earlier layers lost, too; where there is nothing
//! to make up for, or the images say nothing of a direction, its row stays.

use super::PruneError;
use super::apply::add_to_bias;
use crate::decompose::solve_positive;
use crate::graph::{FactoredLayer, Graph};
use ndarray::{Array1, Array2, Array3, ArrayView3, Axis, s};

/// `eps`: the rows of directions that hardly vary on the images would change without bounds.
const RIDGE: f64 = 1e-4;

/// First and second moments of `[z; y]`: all scaled basis activations (`groups * r`), then all wanted
/// outputs (`co`), over images and positions.
#[derive(Clone, Debug, PartialEq)]
pub struct JointMoments {
    /// The mean of each, `[groups * r + co]`.
    pub mean: Array1<f64>,
    /// The covariance of each pair.
    pub covariance: Array2<f64>,
}

/// A projection that fits the wanted outputs best.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Rows `[groups, r, co / groups]` that read the scaled basis activations.
    pub projection: Array3<f64>,
    /// What is added to each output, `[co]`.
    pub intercept: Vec<f64>,
}

/// The fit of a layer whose projection is `start` `[groups, r, co / groups]`; `None` where `moments` are
/// not its own, or are not finite.
#[must_use]
pub fn fit(start: ArrayView3<'_, f64>, moments: &JointMoments) -> Option<Fit> {
    let (groups, rank, group_co) = start.dim();
    let inputs = groups * rank;
    let all = inputs + groups * group_co;
    if moments.mean.len() != all || moments.covariance.dim() != (all, all) || rank == 0 {
        return None;
    }
    let mut found = Fit {
        projection: start.to_owned(),
        intercept: moments.mean.iter().skip(inputs).copied().collect(),
    };
    for k in 0..groups {
        let (z, y) = (k * rank, inputs + k * group_co);
        let variance = |j: usize| moments.covariance[[z + j, z + j]];
        let largest = (0..rank).map(variance).fold(0.0, f64::max);
        let old = start.index_axis(Axis(0), k);
        let covariance = moments.covariance.slice(s![z..z + rank, z..z + rank]);
        let wanted = moments.covariance.slice(s![z..z + rank, y..y + group_co]);
        let missing = &wanted - &covariance.dot(&old);
        let system = |i: usize, j: usize| {
            let ridge = if i == j {
                RIDGE * variance(j).max(RIDGE * largest)
            } else {
                0.0
            };
            covariance[[i, j]] + ridge
        };
        let change = if largest == 0.0 {
            missing // What never varies explains nothing: 0.
        } else {
            solve_positive([rank, group_co], system, |i, o| missing[[i, o]])?
        };
        for o in 0..group_co {
            for j in 0..rank {
                let row = old[[j, o]] + change[[j, o]];
                if !row.is_finite() {
                    return None;
                }
                found.projection[[k, j, o]] = row;
                found.intercept[k * group_co + o] -= row * moments.mean[z + j];
            }
        }
    }
    Some(found)
}

impl Fit {
    /// Writes the rows into the projection of `layer`, and the intercept in place of its bias.
    ///
    /// # Errors
    /// [`PruneError::Bias`] where `graph` is not the one in which the layer was found.
    pub fn store(&self, graph: &mut Graph, layer: &FactoredLayer) -> Result<(), PruneError> {
        self.store_rows(graph, layer)?;
        let fails = || PruneError::Bias {
            layer: layer.name.clone(),
        };
        let old = layer.bias_values(graph).ok_or_else(fails)?;
        let old = old.unwrap_or_else(|| vec![0.0; layer.shape.co]);
        let shift: Vec<f64> = self
            .intercept
            .iter()
            .zip(&old)
            .map(|(new, old)| new - old)
            .collect();
        add_to_bias(graph, layer, &shift)
    }

    /// Writes the rows alone: the intercept goes elsewhere.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn store_rows(&self, graph: &mut Graph, layer: &FactoredLayer) -> Result<(), PruneError> {
        let fails = || PruneError::Bias {
            layer: layer.name.clone(),
        };
        let mut matrices = layer.matrices(graph).ok_or_else(fails)?;
        matrices.projection = self.projection.clone();
        matrices.store(graph, layer).ok_or_else(fails)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::concatenate;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn moments(z: &Array2<f64>, y: &Array2<f64>) -> JointMoments {
        let both = concatenate(Axis(1), &[z.view(), y.view()]).unwrap();
        let mean = both.mean_axis(Axis(0)).unwrap();
        let centred = &both - &mean;
        let covariance = centred.t().dot(&centred) / both.nrows() as f64;
        JointMoments { mean, covariance }
    }

    #[test]
    fn rows_and_intercepts_are_found_again() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut random = |shape: (usize, usize)| {
            Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
        };
        // Two groups of three directions each, two outputs each.
        let z = random((400, 6)) + &random((1, 6));
        let (rows, intercept) = (random((6, 2)), random((1, 4)));
        let mut y = Array2::zeros((400, 4));
        for k in 0..2 {
            let part = z.slice(s![.., 3 * k..3 * k + 3]);
            let made = part.dot(&rows.slice(s![3 * k..3 * k + 3, ..]));
            y.slice_mut(s![.., 2 * k..2 * k + 2]).assign(&made);
        }
        y += &intercept;
        let start = Array3::zeros((2, 3, 2));
        let found = fit(start.view(), &moments(&z, &y)).unwrap();
        for k in 0..2 {
            for j in 0..3 {
                for o in 0..2 {
                    let difference = found.projection[[k, j, o]] - rows[[3 * k + j, o]];
                    assert!(difference.abs() < 1e-3, "{difference}");
                }
            }
        }
        for (found, want) in found.intercept.iter().zip(intercept.iter()) {
            assert!((found - want).abs() < 1e-3);
        }
    }

    #[test]
    fn what_is_left_over_has_nothing_to_do_with_the_inputs() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut random = |shape: (usize, usize)| {
            Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
        };
        let z = random((500, 2));
        let y = random((500, 3)) + z.dot(&random((2, 3))) + 2.0;
        let start = Array3::ones((1, 2, 3));
        let found = fit(start.view(), &moments(&z, &y)).unwrap();
        let made = z.dot(&found.projection.index_axis(Axis(0), 0));
        let left = y - made - Array1::from(found.intercept);
        for o in 0..3 {
            assert!(left.column(o).mean().unwrap().abs() < 1e-9);
            for j in 0..2 {
                let product = (&left.column(o) * &z.column(j)).mean().unwrap();
                assert!(product.abs() < 1e-4, "{product}");
            }
        }
    }

    #[test]
    fn what_the_images_say_nothing_of_stays() {
        // The second direction never varies, and the first one leaves nothing to make up for.
        let z = Array2::from_shape_fn((10, 2), |(i, j)| if j == 0 { i as f64 } else { 3.0 });
        let start = Array3::from_shape_vec((1, 2, 1), vec![2.0, 5.0]).unwrap();
        let y = Array2::from_shape_fn((10, 1), |(i, _)| 2.0 * i as f64 + 1.0);
        let found = fit(start.view(), &moments(&z, &y)).unwrap();
        assert!((found.projection[[0, 0, 0]] - 2.0).abs() < 1e-9);
        assert!((found.projection[[0, 1, 0]] - 5.0).abs() < 1e-9);
        assert!((found.intercept[0] - (1.0 - 15.0)).abs() < 1e-9);
        let still = Array2::from_elem((10, 2), 3.0);
        let found = fit(start.view(), &moments(&still, &y)).unwrap();
        assert_eq!(found.projection, start);
        assert_eq!(fit(Array3::zeros((1, 3, 1)).view(), &moments(&z, &y)), None);
    }
}
