//! Taylor importance of basis directions.
//!
//! Runs while the scaling factors train, between two cuts. Direction `j` is worth
//! `I_j = mean_B (s_j dL_B/ds_j)^2` over mini-batches B (method, section 3; Wong et al.,
//! arXiv 2108.02893): the squared first-order change of the loss when `s_j` becomes 0. In a grouped
//! layer the `j`-th directions of all groups go together, so `s_j dL/ds_j` is summed over the groups
//! before it is squared.

use super::Scores;
use crate::graph::{FactorMatrices, FactoredLayer};
use crate::tensor::Floats;
use ndarray::{Array2, ArrayView3};
use std::collections::BTreeMap;

/// Gradients that cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum ImportanceError {
    /// An array is absent.
    #[error("layer `{layer}`: no {what} of `{factors}` is given")]
    Missing {
        /// The layer.
        layer: String,
        /// Which array: `gradient` or `value`.
        what: &'static str,
        /// The initializer of the scaling factors.
        factors: String,
    },
    /// An array has another number of elements than the layer has factors.
    #[error(
        "layer `{layer}`: its {what} has {got} elements, but the layer has {want} scaling factors"
    )]
    Length {
        /// The layer.
        layer: String,
        /// Which array: `gradient` or `value`.
        what: &'static str,
        /// Elements found.
        got: usize,
        /// Factors of the layer.
        want: usize,
    },
    /// A product of factor and gradient is infinite or not a number.
    #[error(
        "layer `{layer}`: the gradient of direction {direction} is not finite; training has diverged"
    )]
    NotFinite {
        /// The layer.
        layer: String,
        /// The direction.
        direction: usize,
    },
    /// Scores are asked for before any batch was added.
    #[error("no batch was added to the window")]
    Empty,
}

/// Gathers Taylor scores over a window of mini-batches.
#[derive(Clone, Debug)]
pub struct TaylorWindow {
    layers: Vec<WindowLayer>,
    batches: u64,
}

#[derive(Clone, Debug)]
struct WindowLayer {
    name: String,
    factors: String,
    groups: usize,
    sums: Vec<f64>,
}

impl TaylorWindow {
    /// An empty window for `layers`. After a cut make a new one, as ranks have changed.
    #[must_use]
    pub fn new(layers: &[FactoredLayer]) -> Self {
        let layers = layers.iter().map(|layer| WindowLayer {
            name: layer.name.clone(),
            factors: layer.factors.clone(),
            groups: layer.shape.groups,
            sums: vec![0.0; layer.rank],
        });
        Self {
            layers: layers.collect(),
            batches: 0,
        }
    }

    /// The initializers whose gradients and values the window needs.
    pub fn initializers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.factors.as_str())
    }

    /// The number of batches added since the start or the last [`Self::reset`].
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Adds one mini-batch. `gradients` holds `dL_B/ds` and `values` holds `s`, both by the name of
    /// the initializer; `L_B` is the mean loss of the batch, so that batches of one size compare.
    ///
    /// # Errors
    /// [`ImportanceError`] names the layer; the window is unchanged then.
    pub fn add(
        &mut self,
        gradients: &BTreeMap<String, Floats>,
        values: &BTreeMap<String, Floats>,
    ) -> Result<(), ImportanceError> {
        let mut products = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let gradient = layer.array("gradient", gradients)?;
            let value = layer.array("value", values)?;
            let rank = layer.sums.len();
            let mut product = vec![0.0; rank];
            for (channel, (s, ds)) in value.iter().zip(gradient.iter()).enumerate() {
                product[channel % rank] += f64::from(*s) * f64::from(*ds);
            }
            if let Some(direction) = product.iter().position(|product| !product.is_finite()) {
                return Err(ImportanceError::NotFinite {
                    layer: layer.name.clone(),
                    direction,
                });
            }
            products.push(product);
        }
        for (layer, product) in self.layers.iter_mut().zip(products) {
            for (sum, product) in layer.sums.iter_mut().zip(product) {
                *sum += product * product;
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// The mean over the batches so far.
    ///
    /// # Errors
    /// [`ImportanceError::Empty`] before the first batch.
    pub fn scores(&self) -> Result<Scores, ImportanceError> {
        if self.batches == 0 {
            return Err(ImportanceError::Empty);
        }
        let batches = self.batches as f64;
        let score = |layer: &WindowLayer| layer.sums.iter().map(|sum| sum / batches).collect();
        Ok(self
            .layers
            .iter()
            .map(|layer| (layer.name.clone(), score(layer)))
            .collect())
    }

    /// Forgets every batch.
    pub fn reset(&mut self) {
        self.batches = 0;
        for layer in &mut self.layers {
            layer.sums.fill(0.0);
        }
    }
}

impl WindowLayer {
    fn array<'a>(
        &self,
        what: &'static str,
        arrays: &'a BTreeMap<String, Floats>,
    ) -> Result<&'a Floats, ImportanceError> {
        let array = arrays
            .get(&self.factors)
            .ok_or_else(|| ImportanceError::Missing {
                layer: self.name.clone(),
                what,
                factors: self.factors.clone(),
            })?;
        let want = self.groups * self.sums.len();
        if array.len() == want {
            Ok(array)
        } else {
            Err(ImportanceError::Length {
                layer: self.name.clone(),
                what,
                got: array.len(),
                want,
            })
        }
    }
}

/// The second route to `dL/ds` (method, section 3, identity 2): from the gradient of the
/// undecomposed weight.
///
/// `dL/ds_kj = u_kj^T G_k (sigma_kj v_kj)` for the basis and projection of `layer` and
/// `weight_gradient` `[groups, n, co / groups]`. It does not depend on the scaling factors at which
/// `G` was taken, except through `G`. The result is `[groups, r]`; `None` where shapes differ.
#[must_use]
pub fn scaling_gradient(
    layer: &FactorMatrices,
    weight_gradient: ArrayView3<'_, f64>,
) -> Option<Array2<f64>> {
    let (groups, n, rank) = layer.basis.dim();
    if weight_gradient.dim() != (groups, n, layer.projection.dim().2) {
        return None;
    }
    let mut gradient = Array2::zeros((groups, rank));
    for k in 0..groups {
        let axis = ndarray::Axis(0);
        let inner = layer
            .basis
            .index_axis(axis, k)
            .t()
            .dot(&weight_gradient.index_axis(axis, k));
        let product = inner * layer.projection.index_axis(axis, k);
        gradient
            .row_mut(k)
            .assign(&product.sum_axis(ndarray::Axis(1)));
    }
    Some(gradient)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::{FactoredKind, LayerShape};
    use ndarray::{Array3, ArrayD, IxDyn};

    fn layer(groups: usize, rank: usize) -> FactoredLayer {
        FactoredLayer {
            name: "a".into(),
            kind: FactoredKind::Convolution,
            basis: "a.basis".into(),
            scaling: "a.scaling".into(),
            projection: "a.projection".into(),
            basis_weight: "a.basis.weight".into(),
            factors: "a.scaling".into(),
            projection_weight: "a.projection.weight".into(),
            bias: None,
            bias_add: None,
            basis_output: "a.basis.output".into(),
            output: "y".into(),
            rank,
            shape: LayerShape {
                n: 9,
                co: 4 * groups,
                groups,
            },
        }
    }

    fn arrays(values: &[f32]) -> BTreeMap<String, Floats> {
        let array =
            ArrayD::from_shape_vec(IxDyn(&[1, values.len(), 1, 1]), values.to_vec()).unwrap();
        BTreeMap::from([("a.scaling".to_owned(), array.into_shared())])
    }

    #[test]
    fn scores_are_the_mean_square_over_batches() {
        let mut window = TaylorWindow::new(&[layer(1, 2)]);
        window
            .add(&arrays(&[1.0, -2.0]), &arrays(&[1.0, 0.5]))
            .unwrap();
        window
            .add(&arrays(&[3.0, 4.0]), &arrays(&[1.0, 0.5]))
            .unwrap();
        // (1^2 + 3^2) / 2 and ((-1)^2 + 2^2) / 2: signs do not cancel between batches.
        assert_eq!(window.scores().unwrap()["a"], [5.0, 2.5]);
        window.reset();
        assert!(matches!(window.scores(), Err(ImportanceError::Empty)));
    }

    #[test]
    fn the_groups_of_a_direction_are_summed_before_squaring() {
        let mut window = TaylorWindow::new(&[layer(2, 2)]);
        // Channels are (group 0: directions 0, 1), (group 1: directions 0, 1).
        window
            .add(&arrays(&[1.0, 2.0, -1.0, 3.0]), &arrays(&[1.0; 4]))
            .unwrap();
        assert_eq!(window.scores().unwrap()["a"], [0.0, 25.0]);
    }

    #[test]
    fn a_bad_batch_names_the_layer_and_changes_nothing() {
        let mut window = TaylorWindow::new(&[layer(1, 2)]);
        window
            .add(&arrays(&[1.0, 1.0]), &arrays(&[1.0, 1.0]))
            .unwrap();
        let nan = window
            .add(&arrays(&[f32::NAN, 1.0]), &arrays(&[1.0, 1.0]))
            .unwrap_err();
        assert!(
            matches!(nan, ImportanceError::NotFinite { ref layer, direction: 0 } if layer == "a")
        );
        let short = window
            .add(&arrays(&[1.0]), &arrays(&[1.0, 1.0]))
            .unwrap_err();
        assert!(matches!(
            short,
            ImportanceError::Length {
                got: 1,
                want: 2,
                what: "gradient",
                ..
            }
        ));
        assert!(matches!(
            window.add(&BTreeMap::new(), &arrays(&[1.0, 1.0])),
            Err(ImportanceError::Missing { .. })
        ));
        assert_eq!(
            (window.batches(), window.scores().unwrap()["a"].as_slice()),
            (1, [1.0, 1.0].as_slice())
        );
    }

    #[test]
    fn the_second_route_is_the_bilinear_form_of_each_direction() {
        let value = |seed: usize| {
            move |(k, i, j): (usize, usize, usize)| {
                ((seed + 7 * k + 5 * i + 3 * j) % 11) as f64 - 5.0
            }
        };
        let matrices = FactorMatrices {
            basis: Array3::from_shape_fn((2, 4, 3), value(1)),
            factors: Array2::ones((2, 3)),
            projection: Array3::from_shape_fn((2, 3, 5), value(2)),
        };
        let gradient = Array3::from_shape_fn((2, 4, 5), value(3));
        let found = scaling_gradient(&matrices, gradient.view()).unwrap();
        for k in 0..2 {
            for j in 0..3 {
                let mut expected = 0.0;
                for i in 0..4 {
                    for o in 0..5 {
                        expected += matrices.basis[[k, i, j]]
                            * gradient[[k, i, o]]
                            * matrices.projection[[k, j, o]];
                    }
                }
                // Integers: exact.
                assert_eq!(found[[k, j]], expected);
            }
        }
        assert_eq!(
            scaling_gradient(&matrices, Array3::zeros((2, 5, 5)).view()),
            None
        );
    }
}
