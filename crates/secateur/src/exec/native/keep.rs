//! Which values the backward pass needs. What it does not read is let go, and where the rest is much, normalised
//! values are computed again from what was normalised, which is kept anyway.

use super::convolution::dense_shape;
use super::fuse::Fused;
use super::node::keeps_elements;
use crate::exec::plan::Plan;
use crate::graph::{Activation, Arithmetic, Graph, Node, Op, Operands};
use secateur_kernels::Clamp;
use std::collections::{BTreeMap, BTreeSet};

/// Floats up to which all values that the backward pass reads are kept: 512 MiB.
pub(super) const MOST: usize = 128 << 20;

/// The values of a forward pass that the backward pass after it reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    names: BTreeSet<String>,
    /// Those that are computed again: by name, the index of the normalisation that does it.
    again: BTreeMap<String, usize>,
}

impl Kept {
    /// Finds those of a step, given through which values gradients flow, and how many floats are kept at most before
    /// any are computed again.
    pub(super) fn new(
        graph: &Graph,
        plan: &Plan,
        fused: &Fused,
        differentiated: &BTreeSet<String>,
        most: usize,
    ) -> Self {
        let mut kept = Self::default();
        let mut normalised = Vec::new();
        for &index in &plan.step.nodes {
            let node = &graph.nodes[index];
            let wanted = wanted_gradients(node, differentiated);
            if fused.is_follower(index) || !wanted.contains(&true) {
                continue;
            }
            let operands = Operands::new(graph, &plan.inferred, node);
            for (slot, input) in node.inputs.iter().enumerate() {
                // Weights are there anyway.
                let is_computed = !graph.initializers.contains_key(input);
                if is_computed && reads_input(operands, slot, &wanted) {
                    kept.names.insert(input.clone());
                }
            }
            let outputs = fused.outputs(index, node);
            let outputs = outputs.into_iter().map(|(_, name)| name.clone());
            if reads_output(&node.op, fused.clamp(index)) {
                kept.names.extend(outputs);
            } else if matches!(node.op, Op::BatchNormalization { .. }) {
                normalised.extend(outputs.map(|name| (name, index)));
            }
        }
        let len = |name: &String| plan.shape(name).iter().product::<usize>();
        if kept.names.iter().map(len).sum::<usize>() > most {
            // In the order of the nodes: what one is computed from again is not computed again itself.
            for (name, index) in normalised {
                let input = graph.nodes[index].inputs.first();
                let is_there = input.is_some_and(|input| !kept.again.contains_key(input));
                if is_there && kept.names.contains(&name) {
                    kept.again.insert(name, index);
                }
            }
            kept.names.retain(|name| !kept.again.contains_key(name));
        }
        kept
    }

    /// Whether a value stays for the backward pass.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The index of the normalisation that computes a value again.
    pub(super) fn again(&self, name: &str) -> Option<usize> {
        self.again.get(name).copied()
    }
}

/// For each input of a node whether its gradient is wanted.
pub(super) fn wanted_gradients(node: &Node, differentiated: &BTreeSet<String>) -> Vec<bool> {
    let is_wanted = |name: &String| differentiated.contains(name);
    node.inputs.iter().map(is_wanted).collect()
}

/// Whether the gradient of a node reads its input `slot`, given which inputs' gradients are wanted.
pub(super) fn reads_input(operands: Operands<'_>, slot: usize, wanted: &[bool]) -> bool {
    let is_wanted = |slot: usize| wanted.get(slot) == Some(&true);
    match &operands.node.op {
        Op::Conv(_) => reads_factor(slot, is_wanted),
        Op::Gemm { .. } if dense_shape(operands).is_some() => reads_factor(slot, is_wanted),
        Op::Arithmetic(Arithmetic::Add | Arithmetic::Sub)
        | Op::GlobalAveragePool
        | Op::Concat { .. } => false,
        Op::Activation(activation) => !is_read_off_output(*activation),
        op => !keeps_elements(op),
    }
}

/// Of a product: the one factor for the gradient of the other.
fn reads_factor(slot: usize, is_wanted: impl Fn(usize) -> bool) -> bool {
    match slot {
        0 => is_wanted(1),
        1 => is_wanted(0),
        _ => false,
    }
}

/// Whether the gradient of a node reads its output, given what is done to that.
pub(super) fn reads_output(op: &Op, clamp: Clamp) -> bool {
    match op {
        Op::Activation(activation) => is_read_off_output(*activation),
        Op::Arithmetic(_) => clamp != Clamp::NONE,
        _ => false,
    }
}

/// Whether the slope of a function is computed from its value.
pub(super) fn is_read_off_output(activation: Activation) -> bool {
    matches!(
        activation,
        Activation::Relu | Activation::Sigmoid | Activation::Tanh | Activation::Exp
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exec::plan::{Wanted, dependents};
    use crate::exec::{BatchNormMode, Request};
    use crate::graph::samples::Builder;

    /// What is kept, and what is computed again, of two normalised convolutions and their sum, each with a `Relu`.
    fn kept(trainable: &[&str], most: usize) -> [Vec<String>; 2] {
        let mut builder = Builder::new(3);
        let a = builder.conv("a", "x", [4, 3, 1, 1], 1);
        let a = builder.batch_norm("a.norm", &a, 4);
        let a = builder.relu("a.relu", &a);
        let b = builder.conv("b", &a, [4, 4, 1, 1], 1);
        let b = builder.batch_norm("b.norm", &b, 4);
        let sum = builder.node("sum", Op::Arithmetic(Arithmetic::Add), &[&a, &b]);
        let graph = {
            let output = builder.relu("sum.relu", &sum);
            builder.output(&output)
        };
        let request = Request {
            graph: &graph,
            outputs: vec!["sum.relu".to_owned()],
            trainable: trainable.iter().map(|&name| name.to_owned()).collect(),
            taps: Vec::new(),
            batch_norm: BatchNormMode::Batch,
        };
        let (wanted, input) = Wanted::of(&request).unwrap();
        let plan = Plan::new(&graph, &input, &[2, 3, 5, 5], &wanted).unwrap();
        let fused = Fused::new(&graph, &plan, &wanted);
        let mut differentiated: BTreeSet<String> = dependents(&graph, &wanted.trainable)
            .into_iter()
            .map(str::to_owned)
            .collect();
        differentiated.extend(wanted.trainable);
        let kept = Kept::new(&graph, &plan, &fused, &differentiated, most);
        [
            kept.names.into_iter().collect(),
            kept.again.into_keys().collect(),
        ]
    }

    #[test]
    fn what_no_gradient_reads_is_let_go() {
        // Of weights: what their convolutions read. Never: what is added up, and the sum.
        let all = ["a.weight", "b.weight"];
        let none: [&str; 0] = [];
        let [names, again] = kept(&all, usize::MAX);
        assert_eq!(names, ["a", "a.relu", "b", "sum.relu", "x"]);
        assert_eq!(again, none);
        // Of a scale: what was normalised and comes after it.
        let [names, again] = kept(&["a.norm.scale"], usize::MAX);
        assert_eq!(names, ["a", "b", "sum.relu"]);
        assert_eq!(again, none);
        let [names, _] = kept(&["b.norm.scale"], usize::MAX);
        assert_eq!(names, ["b", "sum.relu"]);
    }

    #[test]
    fn normalised_values_are_computed_again_above_the_limit() {
        let all = ["a.weight", "b.weight"];
        // Four values of 2 x 4 x 5 x 5 numbers and the input, 2 x 3 x 5 x 5; weights do not count.
        let size = 4 * 200 + 150;
        assert_eq!(kept(&all, size), kept(&all, usize::MAX));
        let [names, again] = kept(&all, size - 1);
        assert_eq!(names, ["a", "b", "sum.relu", "x"]);
        assert_eq!(again, ["a.relu"]);
    }
}
