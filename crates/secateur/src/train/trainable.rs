//! Which initializers are trained.

use crate::graph::{Arithmetic, Graph, Node, Op, factored_layers, optional};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is trained; everything else is frozen and costs no weight gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// The head's weight and bias.
    Head,
    /// Scaling factors, batch-norm affine (or bias and output scale), and the head.
    Scaling,
    /// Every weight, bias, scale and slope.
    All,
}

/// What a trained initializer is to the node that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Multiplied with what the layer reads, and summed.
    Weight,
    /// A factor for each channel.
    Scale,
    /// An addend for each channel.
    Shift,
    /// The slope of `PRelu` below zero.
    Slope,
}

/// Names of the `f32` initializers that `trainable` stands for, sorted. `head` names the
/// classifier's node.
///
/// Of the nodes in front of a batch norm the bias is left out: normalisation takes it away again.
#[must_use]
pub fn names(graph: &Graph, trainable: Trainable, head: Option<&str>) -> Vec<String> {
    let mut names = BTreeSet::new();
    let normalised: BTreeSet<&str> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::BatchNormalization { .. }))
        .filter_map(|node| node.inputs.first().map(String::as_str))
        .collect();
    for (node, parameters) in parameters(graph) {
        let is_head = head == Some(node.name.as_str());
        let before_batch_norm = node
            .outputs
            .first()
            .is_some_and(|output| normalised.contains(output.as_str()));
        for (role, name) in parameters {
            let is_trained = match role {
                Role::Weight | Role::Slope => trainable == Trainable::All,
                Role::Scale | Role::Shift => trainable != Trainable::Head && !before_batch_norm,
            };
            if is_head || is_trained {
                names.insert(name.to_owned());
            }
        }
    }
    names.into_iter().collect()
}

/// The `f32` initializers that training can change, node by node.
#[must_use]
pub fn parameters(graph: &Graph) -> Vec<(&Node, Vec<(Role, &str)>)> {
    let layers = factored_layers(graph);
    let factors: BTreeSet<&str> = layers.iter().map(|layer| layer.factors.as_str()).collect();
    let is_trained = |name: &str| matches!(graph.initializers.get(name), Some(Tensor::F32(_)));
    let of_node = |node| {
        let read = roles(graph, node, &factors).into_iter();
        let found = read.filter_map(|(role, slot)| Some((role, optional(node, slot)?)));
        (node, found.filter(|(_, name)| is_trained(name)).collect())
    };
    graph.nodes.iter().map(of_node).collect()
}

/// Which inputs of `node` hold what training can change.
fn roles(graph: &Graph, node: &Node, factors: &BTreeSet<&str>) -> Vec<(Role, usize)> {
    match &node.op {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } => {
            vec![(Role::Weight, 1), (Role::Shift, 2)]
        }
        Op::MatMul => vec![(Role::Weight, 0), (Role::Weight, 1)],
        Op::BatchNormalization { .. }
        | Op::LayerNormalization { .. }
        | Op::InstanceNormalization { .. }
        | Op::GroupNormalization { .. } => vec![(Role::Scale, 1), (Role::Shift, 2)],
        Op::PRelu => vec![(Role::Slope, 1)],
        // A factor or an addend for each channel: scaling factors, output scales, biases of
        // `MatMul`. A single number is a constant of the architecture, where it is not the scaling
        // factor of a layer of one direction.
        Op::Arithmetic(arithmetic @ (Arithmetic::Mul | Arithmetic::Add)) => {
            let role = match arithmetic {
                Arithmetic::Mul => Role::Scale,
                _ => Role::Shift,
            };
            let is_one = |&slot: &usize| {
                optional(node, slot)
                    .is_some_and(|name| factors.contains(name) || is_per_channel(graph, name))
            };
            [0, 1]
                .into_iter()
                .filter(is_one)
                .map(|slot| (role, slot))
                .collect()
        }
        Op::Arithmetic(Arithmetic::Sub | Arithmetic::Div | Arithmetic::Pow)
        | Op::Activation(_)
        | Op::Clip { .. }
        | Op::Variadic(_)
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::GlobalAveragePool
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
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
        | Op::ConstantOfShape { .. } => Vec::new(),
    }
}

fn is_per_channel(graph: &Graph, name: &str) -> bool {
    graph
        .initializers
        .get(name)
        .is_some_and(|tensor| tensor.shape().iter().filter(|&&n| n > 1).count() == 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decompose::{Basis, DecomposeConfig, convolutions};
    use crate::graph::Size;
    use crate::graph::samples::Builder;
    use crate::progress::Silent;
    use crate::prune::{LayerPlan, PLAN_VERSION, PruningPlan, apply};

    #[test]
    fn slopes_are_trained_with_all_weights_alone() {
        let mut b = Builder::new(3);
        let made = b.conv("conv", "x", [8, 3, 3, 3], 1);
        let slope = b.zeros("slope", &[8, 1, 1]);
        let made = b.node("prelu", Op::PRelu, &[&made, &slope]);
        let made = b.batch_norm("norm", &made, 8);
        let graph = b.output(&made);
        let wanted = ["norm.bias", "norm.scale"];
        assert_eq!(names(&graph, Trainable::Scaling, None), wanted);
        let wanted = ["conv.weight", "norm.bias", "norm.scale", "slope"];
        assert_eq!(names(&graph, Trainable::All, None), wanted);
    }

    #[test]
    fn the_scaling_factor_of_one_direction_is_trained() {
        let mut builder = Builder::new(3);
        let made = builder.conv("conv", "x", [8, 3, 3, 3], 1);
        let graph = builder.output(&made);
        let (graph, _) = convolutions(&graph, &DecomposeConfig::default(), &Silent).unwrap();
        for keep in [vec![0, 2], vec![0]] {
            let plan = PruningPlan {
                version: PLAN_VERSION,
                basis: Basis::Svd,
                layers: [("conv".to_owned(), LayerPlan { rank: 8, keep })].into(),
                predicted: Size::default(),
            };
            let cut = apply(&graph, &plan).unwrap();
            let names = names(&cut, Trainable::Scaling, None);
            assert!(names.contains(&"conv.scaling".to_owned()), "{names:?}");
        }
    }
}
