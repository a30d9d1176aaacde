//! Batch normalisations and sums with the activation after them, and in evaluation convolutions with the batch
//! normalisation after them, computed together: the value between them is neither written nor kept, and each pass over
//! memory does the work of both.

use super::arithmetic::{Spread, bounds, spread};
use super::keep::wanted_gradients;
use crate::exec::plan::{Plan, Wanted, computed_outputs};
use crate::graph::{Activation, Arithmetic, Graph, Node, Op, Operands};
use secateur_kernels::Clamp;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that are computed with their activations.
#[derive(Clone, Debug, Default)]
pub(super) struct Fused {
    /// By index of the first node: the activation, and the name of its output.
    clamps: BTreeMap<usize, (Clamp, String)>,
    /// By index of a convolution: that of the normalisation, and what is added to its variances.
    norms: BTreeMap<usize, (usize, f32)>,
    /// Indices of the nodes that are computed with the one before them.
    followers: BTreeSet<usize>,
}

impl Fused {
    /// Finds the activations that are all that reads a normalisation, or a sum of values of one shape.
    pub(super) fn new(graph: &Graph, plan: &Plan, wanted: &Wanted) -> Self {
        let mut fused = Self::default();
        for (index, follower) in pairs(graph, wanted) {
            let reader = &graph.nodes[follower];
            if let (Some(clamp), [output]) = (
                clamp_after(graph, plan, &graph.nodes[index], reader),
                &reader.outputs[..],
            ) {
                fused.clamps.insert(index, (clamp, output.clone()));
                fused.followers.insert(follower);
            }
        }
        fused
    }

    /// Finds the normalisations by stored statistics that are all that reads a convolution, given through which values
    /// gradients flow: theirs read the value between.
    pub(super) fn add_norms(
        &mut self,
        graph: &Graph,
        plan: &Plan,
        wanted: &Wanted,
        differentiated: &BTreeSet<String>,
    ) {
        for (index, follower) in pairs(graph, wanted) {
            let (node, reader) = (&graph.nodes[index], &graph.nodes[follower]);
            let is_stored = |name: &String| plan.constant(graph, name).is_some();
            if let (Op::Conv(_), &Op::BatchNormalization { epsilon, .. }) = (&node.op, &reader.op)
                && let Some((_, output)) = computed_outputs(reader).next()
                && reader.inputs.iter().skip(1).all(is_stored)
                && !wanted_gradients(reader, differentiated).contains(&true)
            {
                let after = self.clamps.remove(&follower);
                let after = after.unwrap_or_else(|| (Clamp::NONE, output.clone()));
                self.clamps.insert(index, after);
                self.norms.insert(index, (follower, epsilon));
                self.followers.insert(follower);
            }
        }
    }

    /// The normalisation that is computed with a convolution, and what is added to its variances.
    pub(super) fn norm(&self, index: usize) -> Option<(usize, f32)> {
        self.norms.get(&index).copied()
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

/// Nodes of one output, and the node that alone reads it, as its first input.
fn pairs(graph: &Graph, wanted: &Wanted) -> Vec<(usize, usize)> {
    let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            readers.entry(input).or_default().push(index);
        }
    }
    let pair = |(index, node): (usize, &Node)| {
        let mut outputs = computed_outputs(node);
        let (Some((_, between)), None) = (outputs.next(), outputs.next()) else {
            return None;
        };
        let &[follower] = readers.get(between.as_str())?.as_slice() else {
            return None;
        };
        let is_first = graph.nodes[follower].inputs.first() == Some(between);
        (is_first && !wanted.step.contains(between)).then_some((index, follower))
    };
    graph.nodes.iter().enumerate().filter_map(pair).collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exec::{BatchNormMode, Request};
    use crate::graph::samples::Builder;

    /// The name of what is computed at the convolution, where all is stored, given what else is wanted and
    /// through which values gradients flow.
    fn computed(output: &str, differentiated: &[&str]) -> (String, Clamp) {
        let mut builder = Builder::new(3);
        let a = builder.conv("a", "x", [4, 3, 1, 1], 1);
        let a = builder.batch_norm("norm", &a, 4);
        let a = builder.relu("relu", &a);
        let graph = builder.output(&a);
        let request = Request {
            graph: &graph,
            outputs: vec![a, output.to_owned()],
            trainable: Vec::new(),
            taps: Vec::new(),
            batch_norm: BatchNormMode::Stored,
        };
        let (wanted, input) = Wanted::of(&request).unwrap();
        let plan = Plan::new(&graph, &input, &[2, 3, 5, 5], &wanted).unwrap();
        let mut fused = Fused::new(&graph, &plan, &wanted);
        let differentiated = differentiated.iter().map(|&name| name.to_owned()).collect();
        fused.add_norms(&graph, &plan, &wanted, &differentiated);
        let outputs = fused.outputs(0, &graph.nodes[0]);
        (outputs[0].1.clone(), fused.clamp(0))
    }

    #[test]
    fn a_convolution_takes_the_norm_and_the_activation_that_nothing_else_reads() {
        let whole = ("relu".to_owned(), Clamp::RELU);
        assert_eq!(computed("relu", &[]), whole);
        assert_eq!(computed("norm", &[]), ("norm".to_owned(), Clamp::NONE));
        assert_eq!(computed("a", &[]).0, "a");
        for name in ["norm.scale", "norm.bias", "a"] {
            assert_eq!(computed("relu", &[name]).0, "a", "{name}");
        }
        assert_eq!(computed("relu", &["x"]), whole);
    }
}
