//! Input factors: the 1x1 convolution that stands before a layer whose input space was cut.
//!
//! `Conv` 1x1 (no bias, stride 1, no padding) -> `Conv`: what the second one reads are coordinates in a
//! subspace of what the first one reads (docs/method.md, section 4).

use super::{ConvAttrs, Graph, LayerShape, Node, Op, Uses, optional};
use crate::tensor::Tensor;

/// How the node of an input factor is named, after its layer's name.
pub(crate) const INPUT_FACTOR: &str = ".input";

/// An input factor found in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFactor {
    /// The 1x1 convolution.
    pub node: String,
    /// Its weight, `[rank, in_channels, 1, 1]`.
    pub weight: String,
    /// The value that it makes.
    pub output: String,
    /// The weight of the convolution that reads it, `[co, rank, kh, kw]`.
    pub reader_weight: String,
    /// What both would be as one: `n` is `in_channels`, `co` is `co * kh * kw`.
    pub shape: LayerShape,
    /// Directions of the subspace.
    pub rank: usize,
}

/// The input factor before the convolution `reader`.
pub(crate) fn input_factor(graph: &Graph, uses: &Uses<'_>, reader: &Node) -> Option<InputFactor> {
    let Op::Conv(ConvAttrs { groups: 1, .. }) = reader.op else {
        return None;
    };
    let output = reader.inputs.first()?;
    let node = &graph.nodes[*graph.producers().get(output.as_str())?];
    let Op::Conv(attrs) = &node.op else {
        return None;
    };
    let (weight, reader_weight) = (optional(node, 1)?, optional(reader, 1)?);
    let own = |name: &str| uses.sole_reader(name).is_some();
    if !attrs.is_plain()
        || !node.name.ends_with(INPUT_FACTOR)
        || optional(node, 2).is_some()
        || ![output, weight, reader_weight].into_iter().all(own)
    {
        return None;
    }
    let shape_of = |name: &str| match graph.initializers.get(name) {
        Some(Tensor::F32(array)) => Some(array.shape()),
        _ => None,
    };
    let (&[rank, n, 1, 1], &[co, channels, kernel_h, kernel_w]) =
        (shape_of(weight)?, shape_of(reader_weight)?)
    else {
        return None;
    };
    (rank == channels).then(|| InputFactor {
        node: node.name.clone(),
        weight: weight.to_owned(),
        output: output.clone(),
        reader_weight: reader_weight.to_owned(),
        shape: LayerShape {
            n,
            co: co * kernel_h * kernel_w,
            groups: 1,
        },
        rank,
    })
}
