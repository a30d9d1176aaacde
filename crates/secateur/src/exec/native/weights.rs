//! Weights that stay as they are, kept in the order in which kernels read them: packing them is part of every pass otherwise.

use super::convolution::dense_shape;
use crate::exec::plan::{Plan, Wanted};
use crate::graph::{Graph, Op, Operands};
use secateur_kernels::Layout;
use secateur_kernels::packed::Packed;
use std::collections::BTreeMap;

/// Floats of the weights that are kept at most: 128 MiB.
const MOST: usize = 32 << 20;
/// Packed they are up to 16/9 as many, in one order for the forward pass and in another one for the gradient of the input.
const PACKED: usize = 4;

/// By index of the node: its weight, once it has been packed.
#[derive(Debug, Default)]
pub(super) struct Weights(BTreeMap<usize, Packed>);

impl Weights {
    /// Nothing packed yet, for the nodes of a plan whose weights are stored and do not change, as far as so many floats go,
    /// those of all values included: where values take the memory, packing weights is not what takes the time.
    pub(super) fn new(graph: &Graph, plan: &Plan, wanted: &Wanted, most: usize) -> Self {
        let mut weights = BTreeMap::new();
        let images = plan.input_shape.first().copied().unwrap_or(0);
        if Layout::best(images) == Layout::Planes {
            return Self(weights);
        }
        let outputs = plan
            .step
            .nodes
            .iter()
            .flat_map(|&index| &graph.nodes[index].outputs);
        let values = outputs.map(|name| plan.shape(name).iter().product::<usize>());
        let room = most.saturating_sub(values.sum());
        let mut rest = MOST.min(room / PACKED);
        for &index in &plan.step.nodes {
            let node = &graph.nodes[index];
            let is_packed = match &node.op {
                Op::Conv(_) => true,
                Op::Gemm { .. } => {
                    dense_shape(Operands::new(graph, &plan.inferred, node)).is_some()
                }
                _ => false,
            };
            let Some(name) = node.inputs.get(1).filter(|_| is_packed) else {
                continue;
            };
            let Some(weight) = plan.constant(graph, name) else {
                continue;
            };
            let len: usize = weight.shape().iter().product();
            if !wanted.trainable.contains(name) && len <= rest {
                rest -= len;
                weights.insert(index, Packed::default());
            }
        }
        Self(weights)
    }

    /// That of a node, where it is kept.
    pub(super) fn packed(&self, index: usize) -> Option<&Packed> {
        self.0.get(&index)
    }
}
