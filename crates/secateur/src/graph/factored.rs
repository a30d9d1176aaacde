//! Factored layers: the pattern of standard nodes that stands for a decomposed layer.
//!
//! A convolution `W [n, co]` is written as basis convolution (no bias) -> `Mul` by the scaling
//! factors -> 1x1 convolution, the projection (method, section 2). A dense layer is `MatMul` ->
//! `Mul` -> `Gemm` or `MatMul`. The pattern is recognised in any graph, so a file that was written
//! and read again is pruned like one that was just decomposed.

use super::{
    Arithmetic, AutoPad, ConvAttrs, Graph, INPUT_FACTOR, Inferred, LayerShape, Node, Op, Size,
    SpatialPads,
};
use crate::tensor::Tensor;
use ndarray::{Array2, Array3, Axis, IxDyn};
use std::collections::{BTreeMap, BTreeSet};

/// The layer that a node of a folded graph belongs to: the nodes of its factors are named after it.
pub(crate) fn layer_of(node: &str) -> &str {
    [".basis", ".projection", INPUT_FACTOR]
        .into_iter()
        .find_map(|part| node.strip_suffix(part))
        .unwrap_or(node)
}

/// What the two factors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactoredKind {
    /// `Conv -> Mul -> Conv`: weights `[groups * r, ci / groups, kh, kw]` and `[co, r, 1, 1]`,
    /// factors `[1, groups * r, 1, 1]`, channel `k * r + j` being direction `j` of group `k`.
    Convolution,
    /// `MatMul -> Mul -> Gemm` or `MatMul`: weights `[n, r]` and `[r, co]`, factors `[r]`.
    Dense,
}

/// A factored layer found in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactoredLayer {
    /// The layer's name: that of the node that was decomposed.
    pub name: String,
    /// What the two factors are.
    pub kind: FactoredKind,
    /// Name of the basis node.
    pub basis: String,
    /// Name of the `Mul` node.
    pub scaling: String,
    /// Name of the projection node.
    pub projection: String,
    /// Initializer of the basis filters.
    pub basis_weight: String,
    /// Initializer of the scaling factors.
    pub factors: String,
    /// Initializer of the projection.
    pub projection_weight: String,
    /// The bias, where the projection has one.
    pub bias: Option<String>,
    /// Value that the basis makes: the activations `z`.
    pub basis_output: String,
    /// Value that the layer makes.
    pub output: String,
    /// Directions per group that are there now.
    pub rank: usize,
    /// The matrix shape of the layer.
    pub shape: LayerShape,
}

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
}

impl FactorMatrices {
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
    /// What one direction costs at `positions` output positions of one image.
    #[must_use]
    pub fn cost_per_direction(&self, positions: u64) -> Size {
        let params = self.shape.direction_params();
        Size {
            params,
            macs: params.saturating_mul(positions),
            nanos: 0,
        }
    }

    /// Output positions of one image, or `None` where the shape of the output is not known.
    #[must_use]
    pub fn positions(&self, inferred: &Inferred) -> Option<u64> {
        let shape = inferred.shapes.get(&self.output)?;
        let axes = match self.kind {
            FactoredKind::Convolution => shape.get(2..)?,
            FactoredKind::Dense => shape.get(1..shape.len().checked_sub(1)?).unwrap_or(&[]),
        };
        Some(
            axes.iter()
                .fold(1_u64, |product, &axis| product.saturating_mul(axis as u64)),
        )
    }

    /// What the projection adds to its output, `[co]`: the stored bias, times `beta` in a `Gemm`, a
    /// single value repeated. `Some(None)` where there is none, `None` where it is not stored or has
    /// another length.
    #[must_use]
    pub fn bias_values(&self, graph: &Graph) -> Option<Option<Vec<f64>>> {
        let Some(name) = &self.bias else {
            return Some(None);
        };
        let beta = match graph.node(&self.projection)?.op {
            Op::Gemm { beta, .. } => f64::from(beta),
            _ => 1.0,
        };
        let stored = graph.initializers.get(name)?.as_floats()?;
        let values = stored.iter().map(|&value| beta * f64::from(value));
        match stored.len() {
            1 => Some(Some(vec![values.sum(); self.shape.co])),
            length if length == self.shape.co => Some(Some(values.collect())),
            _ => None,
        }
    }

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

/// How the initializer of an output scale ends, by which it is told from scaling factors.
pub(crate) const OUTPUT_SCALE: &str = ".output_scale";

/// Who makes and who reads each value.
pub(crate) struct Uses<'g> {
    readers: BTreeMap<&'g str, Vec<usize>>,
    outputs: BTreeSet<&'g str>,
}

impl<'g> Uses<'g> {
    pub(crate) fn of(graph: &'g Graph) -> Self {
        let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in node.inputs.iter().filter(|input| !input.is_empty()) {
                readers.entry(input).or_default().push(index);
            }
        }
        let outputs = graph
            .outputs
            .iter()
            .map(|output| output.name.as_str())
            .collect();
        Self { readers, outputs }
    }

    /// Indices of the nodes that read `value`, once per input slot.
    pub(crate) fn readers(&self, value: &str) -> &[usize] {
        self.readers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The one node that reads `value`, where it is read once and is no output of the graph.
    pub(crate) fn sole_reader(&self, value: &str) -> Option<usize> {
        match self.readers(value) {
            [reader] if !self.outputs.contains(value) => Some(*reader),
            _ => None,
        }
    }
}

/// Finds the factored layers of `graph`, in node order.
///
/// The values between the nodes must be read by nobody else, and no other node may read the
/// weights or the scaling factors.
#[must_use]
pub fn factored_layers(graph: &Graph) -> Vec<FactoredLayer> {
    let uses = Uses::of(graph);
    graph
        .nodes
        .iter()
        .filter_map(|node| factored_layer(graph, &uses, node))
        .collect()
}

fn factored_layer(graph: &Graph, uses: &Uses<'_>, basis: &Node) -> Option<FactoredLayer> {
    let kind = if let Op::Conv(_) = basis.op {
        FactoredKind::Convolution
    } else if basis.op == Op::MatMul {
        FactoredKind::Dense
    } else {
        return None;
    };
    let own = |name: &str| uses.sole_reader(name).is_some();
    let shape_of = |name: &str| match graph.initializers.get(name) {
        Some(Tensor::F32(array)) => Some(array.shape()),
        _ => None,
    };

    if optional(basis, 2).is_some() {
        return None;
    }
    let basis_weight = optional(basis, 1)?;
    let basis_output = basis.outputs.first()?;
    let scaling = &graph.nodes[uses.sole_reader(basis_output)?];
    if scaling.op != Op::Arithmetic(Arithmetic::Mul) {
        return None;
    }
    let factors = scaling.inputs.iter().find(|input| *input != basis_output)?;
    if factors.ends_with(OUTPUT_SCALE) {
        return None;
    }
    let scaled = scaling.outputs.first()?;
    let projection = &graph.nodes[uses.sole_reader(scaled)?];
    if projection.inputs.first() != Some(scaled) {
        return None;
    }
    let projection_weight = optional(projection, 1)?;
    if !(own(basis_weight) && own(factors) && own(projection_weight)) {
        return None;
    }

    let basis_shape = shape_of(basis_weight)?;
    let factors_shape = shape_of(factors)?;
    let projection_shape = shape_of(projection_weight)?;
    let (rank, shape) = match (kind, &basis.op, &projection.op) {
        (FactoredKind::Convolution, Op::Conv(attrs), Op::Conv(pointwise)) => convolution_shape(
            attrs,
            pointwise,
            basis_shape,
            factors_shape,
            projection_shape,
        )?,
        (FactoredKind::Dense, Op::MatMul, Op::MatMul)
        | (
            FactoredKind::Dense,
            Op::MatMul,
            Op::Gemm {
                trans_a: false,
                trans_b: false,
                ..
            },
        ) => {
            if let Op::Gemm { alpha, .. } = projection.op
                && alpha != 1.0
            {
                return None;
            }
            let ([n, rank], [inner, co]) = (basis_shape, projection_shape) else {
                return None;
            };
            if inner != rank || factors_shape != [*rank] {
                return None;
            }
            (
                *rank,
                LayerShape {
                    n: *n,
                    co: *co,
                    groups: 1,
                },
            )
        }
        _ => return None,
    };
    if rank == 0 || shape.n == 0 || shape.co == 0 {
        return None;
    }
    Some(FactoredLayer {
        name: basis
            .name
            .strip_suffix(".basis")
            .unwrap_or(&basis.name)
            .to_owned(),
        kind,
        basis: basis.name.clone(),
        scaling: scaling.name.clone(),
        projection: projection.name.clone(),
        basis_weight: basis_weight.to_owned(),
        factors: factors.clone(),
        projection_weight: projection_weight.to_owned(),
        bias: optional(projection, 2).map(str::to_owned),
        basis_output: basis_output.clone(),
        output: projection.outputs.first()?.clone(),
        rank,
        shape,
    })
}

fn convolution_shape(
    basis: &ConvAttrs,
    projection: &ConvAttrs,
    basis_shape: &[usize],
    factors_shape: &[usize],
    projection_shape: &[usize],
) -> Option<(usize, LayerShape)> {
    let ([channels, in_channels, kernel_h, kernel_w], [co, rank, 1, 1]) =
        (basis_shape, projection_shape)
    else {
        return None;
    };
    let groups = basis.groups;
    let padded =
        projection.auto_pad == AutoPad::NotSet && projection.pads != SpatialPads::default();
    let fits = projection.groups == groups
        && projection.strides == [1, 1]
        && !padded
        && groups > 0
        && co % groups == 0
        && groups.checked_mul(*rank) == Some(*channels)
        && factors_shape == [1, *channels, 1, 1];
    fits.then_some((
        *rank,
        LayerShape {
            n: in_channels * kernel_h * kernel_w,
            co: *co,
            groups,
        },
    ))
}

/// The name of input `slot`, where the node has one there.
pub(crate) fn optional(node: &Node, slot: usize) -> Option<&str> {
    node.inputs
        .get(slot)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}
