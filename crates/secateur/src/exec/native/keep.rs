//! Which values the backward pass needs. What it does not read is let go, and where the rest is much, normalised
//! values are computed again from what was normalised, which is kept anyway.

use super::convolution::dense_shape;
use super::fuse::Fused;
use super::node::keeps_elements;
use crate::exec::plan::{Plan, Schedule};
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
    /// Finds them, given through which values gradients flow, and how many floats are kept at most before any are
    /// computed again.
    pub(super) fn new(
        graph: &Graph,
        plan: &Plan,
        schedule: &Schedule,
        fused: &Fused,
        differentiated: &BTreeSet<String>,
        most: usize,
    ) -> Self {
        let mut kept = Self::default();
        let mut normalised = BTreeMap::new();
        for &index in &schedule.nodes {
            let node = &graph.nodes[index];
            let wanted = wanted_gradients(node, differentiated);
            if fused.is_follower(index) || !wanted.contains(&true) {
                continue;
            }
            let operands = Operands::new(graph, &plan.inferred, node);
            for (slot, input) in node.inputs.iter().enumerate() {
                if reads_input(operands, slot, &wanted) {
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
            let read = |name: &String, _: &mut usize| kept.names.contains(name);
            kept.again = normalised.extract_if(.., read).collect();
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
