//! Batch normalisations and sums with the activation after them, computed together: the value between them is
//! neither written nor kept, and each pass over memory does the work of both.

use super::arithmetic::{Spread, bounds, spread};
use crate::exec::plan::{Plan, Wanted, computed_outputs};
use crate::graph::{Activation, Arithmetic, Graph, Node, Op, Operands};
use secateur_kernels::Clamp;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that are computed with their activations.
#[derive(Clone, Debug, Default)]
pub(super) struct Fused {
    /// By index of the first node: the activation, and the name of its output.
    clamps: BTreeMap<usize, (Clamp, String)>,
    /// Indices of the activations' nodes.
    followers: BTreeSet<usize>,
}

impl Fused {
    /// Finds the activations that are all that reads a normalisation, or a sum of values of one shape.
    pub(super) fn new(graph: &Graph, plan: &Plan, wanted: &Wanted) -> Self {
        let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                readers.entry(input).or_default().push(index);
            }
        }
        let mut fused = Self::default();
        for (index, node) in graph.nodes.iter().enumerate() {
            let mut outputs = computed_outputs(node);
            let (Some((_, between)), None) = (outputs.next(), outputs.next()) else {
                continue;
            };
            let Some(&[follower]) = readers.get(between.as_str()).map(Vec::as_slice) else {
                continue;
            };
            let reader = &graph.nodes[follower];
            let is_first = reader.inputs.first() == Some(between);
            if let (true, false, Some(clamp), [output]) = (
                is_first,
                wanted.step.contains(between),
                clamp_after(graph, plan, node, reader),
                &reader.outputs[..],
            ) {
                fused.clamps.insert(index, (clamp, output.clone()));
                fused.followers.insert(follower);
            }
        }
        fused
    }

    /// Whether the node is computed with the one before it.
    pub(super) fn is_follower(&self, index: usize) -> bool {
        self.followers.contains(&index)
    }

    /// What is done to the output of a node.
    pub(super) fn clamp(&self, index: usize) -> Clamp {
        self.clamps
            .get(&index)
            .map_or(Clamp::NONE, |(clamp, _)| *clamp)
    }

    /// The outputs that are computed at a node: which, and the name of what is written.
    pub(super) fn outputs<'a>(&'a self, index: usize, node: &'a Node) -> Vec<(usize, &'a String)> {
        match self.clamps.get(&index) {
            Some((_, name)) => vec![(0, name)],
            None => computed_outputs(node).collect(),
        }
    }
}

/// Whether the operands of a node have the shape of its output.
fn is_plain(graph: &Graph, plan: &Plan, node: &Node) -> bool {
    let operands = Operands::new(graph, &plan.inferred, node);
    let Some(output) = node.outputs.first() else {
        return false;
    };
    let is_same = |slot: usize| {
        let shape = operands.shape(slot);
        shape.is_ok_and(|shape| matches!(spread(shape, plan.shape(output)), Spread::Same))
    };
    is_same(0) && is_same(1)
}

/// What `reader` does to the output of `node`, where both can be computed together. The slope of a `Clip` cannot be
/// read off its output, which is all that is kept of a sum.
fn clamp_after(graph: &Graph, plan: &Plan, node: &Node, reader: &Node) -> Option<Clamp> {
    let is_sum = matches!(node.op, Op::Arithmetic(Arithmetic::Add));
    let is_normalised = matches!(node.op, Op::BatchNormalization { .. });
    match reader.op {
        Op::Activation(Activation::Relu) => {
            (is_normalised || is_sum && is_plain(graph, plan, node)).then_some(Clamp::RELU)
        }
        Op::Clip { .. } if is_normalised => {
            bounds(Operands::new(graph, &plan.inferred, reader)).ok()
        }
        _ => None,
    }
}
