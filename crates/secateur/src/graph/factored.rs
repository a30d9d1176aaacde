//! Factored layers: the pattern of standard nodes that stands for a decomposed layer.
//!
//! A convolution `W [n, co]` is written as basis convolution (no bias) -> `Mul` by the scaling
//! factors -> 1x1 convolution, the projection (method, section 2). A dense layer is `MatMul` ->
//! `Mul` -> `Gemm` or `MatMul`, the latter with an `Add` where there is a bias. The pattern is recognised in any graph, so a file that was written
//! and read again is pruned like one that was just decomposed.

use super::{
    Arithmetic, AutoPad, ConvAttrs, Graph, INPUT_FACTOR, Inferred, LayerShape, Node, Op,
    SpatialPads,
};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The layer that a node of a folded graph belongs to: the nodes of its factors are named after it.
pub(crate) fn layer_of(node: &str) -> &str {
    [".basis", ".projection", INPUT_FACTOR]
        .into_iter()
        .find_map(|part| node.strip_suffix(part))
        .unwrap_or(node)
}

/// Whether `node` computes `layer`: by its own name, which a file that was compressed before has, or as a factor of it.
pub(crate) fn is_of_layer(node: &str, layer: &str) -> bool {
    node == layer || layer_of(node) == layer
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
    /// Initializer of the bias, where there is one.
    pub bias: Option<String>,
    /// The `Add` of the bias after a `MatMul`, which has no input for one.
    pub bias_add: Option<String>,
    /// Value that the basis makes: the activations `z`.
    pub basis_output: String,
    /// Value that the layer makes, its bias included.
    pub output: String,
    /// Directions per group that are there now.
    pub rank: usize,
    /// The matrix shape of the layer.
    pub shape: LayerShape,
}

impl FactoredLayer {
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

    /// What is added to the output of the projection, `[co]`: the stored bias, times `beta` in a `Gemm`, a
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
    let projected = projection.outputs.first()?;
    let added = match projection.op {
        Op::MatMul => added_bias(graph, uses, projected, shape.co),
        _ => None,
    };
    let (bias, bias_add, output) = match added {
        Some((add, bias)) => (Some(bias), Some(add.name.clone()), add.outputs.first()?),
        None => (optional(projection, 2), None, projected),
    };
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
        bias: bias.map(str::to_owned),
        bias_add,
        basis_output: basis_output.clone(),
        output: output.clone(),
        rank,
        shape,
    })
}

/// The node that adds a stored bias `[co]` to `value`, and the name of that bias, where nobody else reads `value`.
fn added_bias<'g>(
    graph: &'g Graph,
    uses: &Uses<'_>,
    value: &str,
    co: usize,
) -> Option<(&'g Node, &'g str)> {
    let add = &graph.nodes[uses.sole_reader(value)?];
    if add.op != Op::Arithmetic(Arithmetic::Add) {
        return None;
    }
    let bias = add.inputs.iter().find(|input| *input != value)?;
    let stored = graph.initializers.get(bias)?.as_floats()?;
    (stored.shape() == [co]).then_some((add, bias.as_str()))
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
