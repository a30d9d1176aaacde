//! Decomposition: every convolution becomes basis convolution, scaling factors and projection.
//!
//! Stands between `transfer` and the training of scaling factors. Thin singular value decomposition
//! `W = U S V^T` of the weight `[n, co]` of each layer (method, section 2; Wong et al.,
//! arXiv 2108.02893): `U` holds the filters of the basis convolution, the rows `sigma_j v_j` are the
//! projection, a 1x1 convolution with the original bias, and between them stand the basis scaling
//! factors, ones at the start. The value that a layer makes keeps its name, so no neighbour changes.
//!
//! Of a node `conv` come the nodes `conv.basis`, `conv.scale` and `conv.projection`, the
//! initializers `conv.basis.weight`, `conv.scaling` and `conv.projection.weight`, and, where asked
//! for, `conv.scale_output` with `conv.output_scale`. No node shares the name of an initializer: tract
//! refuses that. In a grouped convolution each group has its own decomposition and its
//! own factor per direction (`groups * r` factors in all), so that group `k`'s `j`-th direction is
//! channel `k * r + j`; the `j`-th directions of all groups are kept or removed together.

mod basis;
mod cholesky;
mod evd;
mod rewrite;
mod subspace;
mod svd;

pub use crate::graph::{FactoredKind, FactoredLayer, factored_layers};
pub use basis::{Basis, Directions, OutputMoments, directions};
pub(crate) use cholesky::solve_positive;
pub use subspace::{Subspace, subspace};
pub use svd::{Factors, cap_ranks, factorize};

use crate::graph::{Graph, LayerShape, Node, Op, Uses, optional};
use crate::progress::Progress;
use crate::tensor::Tensor;
use std::collections::BTreeSet;

/// Where a trainable scale of the output channels is inserted. It folds away exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputScale {
    /// Nowhere.
    #[default]
    Nowhere,
    /// After each factored layer that batch normalisation does not follow.
    Factored,
    /// After each convolution, factored or not, that batch normalisation does not follow, and after
    /// each factored dense layer. The excluded layers and the head never get one.
    All,
}

/// What to decompose.
#[derive(Clone, Debug, Default)]
pub struct DecomposeConfig {
    /// Layers whose node name matches stay as they are.
    pub exclude: Option<regex::Regex>,
    /// The node of the head that is being trained; it stays as it is.
    pub head: Option<String>,
    /// Where to insert output scales.
    pub output_scale: OutputScale,
}

/// Why a layer is not decomposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The user said so.
    #[error("excluded by name")]
    Excluded,
    /// It is being trained whole.
    #[error("the head is trained whole")]
    Head,
    /// One input channel per group: its rank is 1.
    #[error("depthwise: its rank is 1")]
    Depthwise,
    /// Two factors are never smaller.
    #[error("no rank is smaller than the layer itself")]
    NeverPays,
    /// It is a part of a factored layer.
    #[error("already factored")]
    AlreadyFactored,
    /// The weight is computed by the graph, or is not `f32`.
    #[error("its weight is not a stored f32 constant")]
    WeightComputed,
    /// Another node reads the weight too, or it is an output: factors of its own would make the
    /// file larger.
    #[error("its weight is used elsewhere too")]
    WeightShared,
    /// A matrix product in which the constant is on the left or transposed input is asked for.
    #[error("its product is not of the form input times constant matrix")]
    OtherProduct,
}

/// One convolution or dense layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerRecord {
    /// The node's name.
    pub name: String,
    /// The ONNX operator.
    pub op: &'static str,
    /// The matrix shape; `None` where the weight is not a constant of known shape.
    pub shape: Option<LayerShape>,
    /// The number of directions, `min(n, co / groups)`; 0 where the shape is not known.
    pub full_rank: usize,
    /// The largest rank at which two factors are smaller than the layer.
    pub break_even_rank: usize,
    /// Why the layer is not decomposed; `None` where it is.
    pub kept: Option<Kept>,
}

/// What was decomposed and what was not, in node order.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DecomposeSummary {
    /// Every `Conv`, `Gemm` and `MatMul`.
    pub layers: Vec<LayerRecord>,
}

/// A graph that cannot be decomposed as asked.
#[derive(Debug, thiserror::Error)]
pub enum DecomposeError {
    /// The exclusion matches no layer.
    #[error("the exclusion `{0}` matches no convolution or dense layer")]
    ExcludesNothing(String),
    /// The head is not in the graph.
    #[error("the head `{0}` is no convolution or dense layer of the graph")]
    NoSuchHead(String),
    /// Statistics or weights hold infinities or are not numbers, or an iteration failed.
    #[error(
        "node `{node}`: its activations or gradients on the data are not finite, so it has no basis"
    )]
    NoBasis {
        /// The node's name.
        node: String,
    },
    /// A weight holds infinities or is not a number, or the iteration failed.
    #[error(
        "node `{node}`: its weight has no singular value decomposition (are all values finite?)"
    )]
    NoDecomposition {
        /// The node's name.
        node: String,
    },
}

/// Tells which layers [`convolutions`] would decompose, at no cost.
///
/// # Errors
/// [`DecomposeError`] where an option of `config` matches nothing.
pub fn examine(
    graph: &Graph,
    config: &DecomposeConfig,
) -> Result<DecomposeSummary, DecomposeError> {
    let uses = Uses::of(graph);
    let factored = factored_layers(graph);
    let factored_nodes: BTreeSet<&str> = factored
        .iter()
        .flat_map(|layer| [layer.basis.as_str(), layer.projection.as_str()])
        .collect();
    let mut layers = Vec::new();
    for node in graph.nodes.iter().filter(|node| is_layer(&node.op)) {
        let found = weight_shape(graph, node);
        let shape = found.as_ref().ok().copied();
        let kept = if factored_nodes.contains(node.name.as_str()) {
            Some(Kept::AlreadyFactored)
        } else if config.head.as_ref() == Some(&node.name) {
            Some(Kept::Head)
        } else if config
            .exclude
            .as_ref()
            .is_some_and(|exclude| exclude.is_match(&node.name))
        {
            Some(Kept::Excluded)
        } else {
            match found {
                Err(kept) => Some(kept),
                Ok(_) if is_depthwise(graph, node) => Some(Kept::Depthwise),
                Ok(_)
                    if optional(node, 1)
                        .and_then(|weight| uses.sole_reader(weight))
                        .is_none() =>
                {
                    Some(Kept::WeightShared)
                }
                Ok(shape) if shape.break_even_rank() == 0 => Some(Kept::NeverPays),
                Ok(_) => None,
            }
        };
        layers.push(LayerRecord {
            name: node.name.clone(),
            op: node.op.name(),
            shape,
            full_rank: shape.map_or(0, |shape| shape.full_rank()),
            break_even_rank: shape.map_or(0, |shape| shape.break_even_rank()),
            kept,
        });
    }
    if let Some(head) = &config.head
        && !layers.iter().any(|layer| layer.name == *head)
    {
        return Err(DecomposeError::NoSuchHead(head.clone()));
    }
    if let Some(exclude) = &config.exclude
        && !layers.iter().any(|layer| exclude.is_match(&layer.name))
    {
        return Err(DecomposeError::ExcludesNothing(exclude.as_str().to_owned()));
    }
    Ok(DecomposeSummary { layers })
}

/// Splits every convolution and dense layer that `config` does not leave out into basis, scaling
/// factors and projection, all factors being 1: the function is unchanged.
///
/// The decompositions run in parallel; the result does not depend on the number of threads.
///
/// # Errors
/// [`DecomposeError`] where an option of `config` matches nothing, or a weight is not finite.
pub fn convolutions(
    graph: &Graph,
    config: &DecomposeConfig,
    progress: &dyn Progress,
) -> Result<(Graph, DecomposeSummary), DecomposeError> {
    let summary = examine(graph, config)?;
    let graph = rewrite::factor(graph, &summary, config.output_scale, progress)?;
    Ok((graph, summary))
}

/// Whether a weight of the operator is a matrix that could be decomposed.
fn is_layer(op: &Op) -> bool {
    match op {
        Op::Conv(_) | Op::Gemm { .. } | Op::MatMul => true,
        Op::BatchNormalization { .. }
        | Op::Activation(_)
        | Op::PRelu
        | Op::Clip { .. }
        | Op::Arithmetic(_)
        | Op::Variadic(_)
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::GlobalAveragePool
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::ConvTranspose(_)
        | Op::LayerNormalization { .. }
        | Op::InstanceNormalization { .. }
        | Op::GroupNormalization { .. }
        | Op::GlobalMaxPool
        | Op::Resize(_)
        | Op::Upsample { .. }
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Split { .. }
        | Op::Expand
        | Op::Where
        | Op::Flatten { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Squeeze { .. }
        | Op::Unsqueeze { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::Dropout { .. }
        | Op::Identity
        | Op::Lrn { .. }
        | Op::Cast { .. }
        | Op::Shape { .. }
        | Op::Gather { .. }
        | Op::ConstantOfShape { .. } => false,
    }
}

/// The matrix shape of the node's weight, or why it has none.
fn weight_shape(graph: &Graph, node: &Node) -> Result<LayerShape, Kept> {
    let constant = |slot: usize| optional(node, slot).and_then(|name| graph.initializers.get(name));
    let Some(Tensor::F32(weight)) = constant(1) else {
        let on_left = node.op == Op::MatMul && constant(0).is_some();
        return Err(if on_left {
            Kept::OtherProduct
        } else {
            Kept::WeightComputed
        });
    };
    let shape = match (&node.op, weight.shape()) {
        (Op::Conv(attrs), [co, in_channels, kernel_h, kernel_w])
            if attrs.groups > 0 && co % attrs.groups == 0 =>
        {
            LayerShape {
                n: in_channels * kernel_h * kernel_w,
                co: *co,
                groups: attrs.groups,
            }
        }
        (
            Op::Gemm {
                trans_a: false,
                trans_b: false,
                ..
            }
            | Op::MatMul,
            [n, co],
        )
        | (
            Op::Gemm {
                trans_a: false,
                trans_b: true,
                ..
            },
            [co, n],
        ) => LayerShape {
            n: *n,
            co: *co,
            groups: 1,
        },
        _ => return Err(Kept::OtherProduct),
    };
    if shape.n == 0 || shape.co == 0 {
        Err(Kept::NeverPays)
    } else {
        Ok(shape)
    }
}

fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let Op::Conv(attrs) = &node.op else {
        return false;
    };
    let weight = optional(node, 1).and_then(|name| graph.initializers.get(name));
    attrs.groups > 1 && weight.is_some_and(|weight| weight.shape().get(1) == Some(&1))
}
