//! The matrices of a factored layer: read from its initializers, and written back.

use super::{FactoredKind, FactoredLayer, Graph, LayerShape};
use crate::tensor::Tensor;
use ndarray::{Array2, Array3, Axis, IxDyn};

/// The matrices of a factored layer in `f64`: `W_k = sum_j s_kj basis[k, :, j] projection[k, j, :]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorMatrices {
    /// Basis directions `[groups, n, r]`.
    pub basis: Array3<f64>,
    /// Scaling factors `[groups, r]`.
    pub factors: Array2<f64>,
    /// Projection rows `sigma_j v_j` `[groups, r, co / groups]`.
    pub projection: Array3<f64>,
}

/// By how much products of unit vectors, stored as `f32`, may be off.
const ROUNDING: f64 = 1e-3;

impl FactorMatrices {
    /// The weight that the factors stand for, `[groups, n, co / groups]`.
    #[must_use]
    pub fn product(&self) -> Array3<f64> {
        let (groups, n, _) = self.basis.dim();
        let mut product = Array3::zeros((groups, n, self.projection.dim().2));
        for (k, mut weight) in product.outer_iter_mut().enumerate() {
            let scaled = &self.basis.index_axis(Axis(0), k) * &self.factors.row(k);
            weight.assign(&scaled.dot(&self.projection.index_axis(Axis(0), k)));
        }
        product
    }

    /// Whether the directions are singular vectors in falling order, as a decomposition makes them: in each group columns
    /// of the basis and rows of the projection at right angles, the rows falling in length; to rounding.
    #[must_use]
    pub fn are_singular(&self) -> bool {
        let groups = self.basis.outer_iter().zip(self.projection.outer_iter());
        groups.into_iter().all(|(basis, rows)| {
            let (columns, rows) = (basis.t().dot(&basis), rows.dot(&rows.t()));
            let longest = rows
                .diag()
                .iter()
                .copied()
                .fold(f64::MIN_POSITIVE, f64::max);
            let off_diagonal = |gram: &Array2<f64>, unit: f64| {
                let entries = gram.indexed_iter();
                let off = entries.filter(|((i, j), _)| i != j).map(|(_, x)| x.abs());
                off.fold(0.0, f64::max) <= ROUNDING * unit
            };
            let squares = rows.diag();
            let falls = squares
                .windows(2)
                .into_iter()
                .all(|pair| pair[1] <= pair[0] + ROUNDING * longest);
            falls && off_diagonal(&columns, 1.0) && off_diagonal(&rows, longest)
        })
    }

    /// Writes the matrices into the initializers of `layer`, whose rank they may change; scaling
    /// factors, basis and projection keep their names. `None` where `graph` is not the one in which
    /// the layer was found, or the shapes do not fit it.
    #[must_use]
    pub fn store(&self, graph: &mut Graph, layer: &FactoredLayer) -> Option<()> {
        let LayerShape { n, co, groups } = layer.shape;
        let (found_groups, found_n, rank) = self.basis.dim();
        let group_co = co / groups.max(1);
        if (found_groups, found_n) != (groups, n)
            || self.factors.dim() != (groups, rank)
            || self.projection.dim() != (groups, rank, group_co)
        {
            return None;
        }
        let old = graph
            .initializers
            .get(&layer.basis_weight)?
            .shape()
            .to_vec();
        let floats = |array: Array3<f64>, shape: &[usize]| {
            let array = array.mapv(|value| value as f32);
            let array = array.to_shape(IxDyn(shape)).ok()?.to_owned();
            Some(Tensor::F32(array.into_shared()))
        };
        let transposed = |array: &Array3<f64>| array.view().permuted_axes([0, 2, 1]).to_owned();
        let factors = self.factors.clone().insert_axis(Axis(0));
        let (basis, factors, projection) = match (layer.kind, old.as_slice()) {
            (FactoredKind::Convolution, &[_, in_channels, kernel_h, kernel_w]) => (
                floats(
                    transposed(&self.basis),
                    &[groups * rank, in_channels, kernel_h, kernel_w],
                )?,
                floats(factors, &[1, groups * rank, 1, 1])?,
                floats(transposed(&self.projection), &[co, rank, 1, 1])?,
            ),
            (FactoredKind::Dense, _) => (
                floats(self.basis.clone(), &[n, rank])?,
                floats(factors, &[rank])?,
                floats(self.projection.clone(), &[rank, co])?,
            ),
            (FactoredKind::Convolution, _) => return None,
        };
        let arrays = [
            (&layer.basis_weight, basis),
            (&layer.factors, factors),
            (&layer.projection_weight, projection),
        ];
        for (name, array) in arrays {
            graph.initializers.insert(name.clone(), array);
        }
        Some(())
    }
}

impl FactoredLayer {
    /// The layer's matrices, or `None` where `graph` is not the one in which it was found.
    #[must_use]
    pub fn matrices(&self, graph: &Graph) -> Option<FactorMatrices> {
        let floats = |name: &str| graph.initializers.get(name).and_then(Tensor::as_floats);
        let LayerShape { n, co, groups } = self.shape;
        let (rank, group_co) = (self.rank, co / groups.max(1));
        let basis = floats(&self.basis_weight)?.mapv(f64::from);
        let factors = floats(&self.factors)?.mapv(f64::from);
        let projection = floats(&self.projection_weight)?.mapv(f64::from);
        let factors = factors.to_shape((groups, rank)).ok()?.to_owned();
        let (basis, projection) = match self.kind {
            FactoredKind::Convolution => {
                let basis = basis.to_shape((groups, rank, n)).ok()?;
                let projection = projection.to_shape((groups, group_co, rank)).ok()?;
                (
                    basis.permuted_axes([0, 2, 1]).to_owned(),
                    projection.permuted_axes([0, 2, 1]).to_owned(),
                )
            }
            FactoredKind::Dense => (
                basis.to_shape((1, n, rank)).ok()?.to_owned(),
                projection.to_shape((1, rank, co)).ok()?.to_owned(),
            ),
        };
        Some(FactorMatrices {
            basis,
            factors,
            projection,
        })
    }
}
