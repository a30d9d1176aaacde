//! What a network costs: parameters and multiply-accumulates, layer by layer.
//!
//! Parameters are the numbers in the file that a layer weighs its input with; multiply-accumulates
//! (MACs; 1 MAC is 2 FLOPs) are those of convolutions and matrix products, for one image.
//! Elementwise work counts as 0.

use crate::graph::{Graph, Inferred, Node, Op};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The cost of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Weights and biases as stored, each initializer once even where layers share it.
    pub params: u64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// The nodes that depend on the input, in the graph's order.
    pub layers: Vec<LayerCost>,
}

/// The cost of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCost {
    /// The node's name.
    pub node: String,
    /// The operator's ONNX name.
    pub op: &'static str,
    /// Parameters; a shared initializer counts at the first node that reads it.
    pub params: u64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// The shape of the first output, batch included.
    pub output_shape: Vec<usize>,
}

/// Counts the parameters and multiply-accumulates of `graph`; `inferred` is what
/// [`infer`](crate::graph::infer) says of the same graph. MACs are divided by the length of the
/// first axis of the graph's first input, the number of images.
///
/// A parameter is an element of an `f32` initializer that is read, directly or through nodes of
/// constants, as weight or bias of `Conv`, `Gemm` or `MatMul`, as one of the four vectors of
/// `BatchNormalization`, as the slope of `PRelu`, or as an operand of `Add`, `Sub`, `Mul`, `Div`,
/// `Sum` or `Concat`. Shapes, axes, bounds of `Clip` and fill values of `Pad` are none. Lengths are
/// taken from `inferred` alone, so that shapes which a cut would leave give the cost after it.
#[must_use]
pub fn of(graph: &Graph, inferred: &Inferred) -> Cost {
    let images = graph
        .inputs
        .iter()
        .find(|input| !graph.initializers.contains_key(&input.name))
        .and_then(|input| inferred.shape(&input.name)?.first())
        .map_or(1, |&images| (images as u64).max(1));
    let constants = Constants::of(graph);
    let mut counted = BTreeSet::new();
    let mut cost = Cost::default();
    for node in graph.nodes.iter().filter(|node| !constants.contains(node)) {
        let mut params = 0_u64;
        for slot in weight_slots(node) {
            params += constants.count_new(graph, inferred, slot, &mut counted);
        }
        let macs = macs(node, inferred) / images;
        cost.params += params;
        cost.macs = cost.macs.saturating_add(macs);
        let output_shape = shape(inferred, node.outputs.first());
        let (node, op) = (node.name.clone(), node.op.name());
        cost.layers.push(LayerCost {
            node,
            op,
            params,
            macs,
            output_shape,
        });
    }
    cost
}

/// The inputs that weigh or shift; those among them that are not constants count nothing.
fn weight_slots(node: &Node) -> &[String] {
    let inputs = &node.inputs[..];
    match &node.op {
        Op::Conv(_)
        | Op::ConvTranspose(_)
        | Op::BatchNormalization { .. }
        | Op::LayerNormalization { .. }
        | Op::InstanceNormalization { .. }
        | Op::GroupNormalization { .. }
        | Op::PRelu => inputs.get(1..).unwrap_or_default(),
        Op::Gemm { .. } | Op::MatMul | Op::Arithmetic(_) | Op::Variadic(_) | Op::Concat { .. } => {
            inputs
        }
        Op::Activation(_)
        | Op::Clip { .. }
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
        | Op::ConstantOfShape { .. } => &[],
    }
}

fn macs(node: &Node, inferred: &Inferred) -> u64 {
    let input = |index: usize| shape(inferred, node.inputs.get(index));
    let outputs = volume(&shape(inferred, node.outputs.first()));
    match &node.op {
        Op::Conv(_) => {
            // [out, in/groups, kh, kw]: each output is a sum over the last three.
            let weight = input(1);
            outputs.saturating_mul(volume(weight.get(1..).unwrap_or_default()))
        }
        Op::ConvTranspose(_) => {
            // [in, out/groups, kh, kw]: each input is added to that many outputs.
            let weight = input(1);
            volume(&input(0)).saturating_mul(volume(weight.get(1..).unwrap_or_default()))
        }
        Op::Gemm { trans_a, .. } => {
            let inner = if *trans_a { 0 } else { 1 };
            outputs.saturating_mul(input(0).get(inner).map_or(0, |&length| length as u64))
        }
        Op::MatMul => outputs.saturating_mul(input(0).last().map_or(0, |&length| length as u64)),
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
        | Op::ConstantOfShape { .. } => 0,
    }
}

fn shape<N: AsRef<str>>(inferred: &Inferred, value: Option<N>) -> Vec<usize> {
    value
        .and_then(|name| inferred.shape(name.as_ref()))
        .map(<[usize]>::to_vec)
        .unwrap_or_default()
}

fn volume(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &length| {
        product.saturating_mul(length as u64)
    })
}

/// The nodes whose outputs depend on no input of the graph, by the values they make. They cost
/// nothing at run time, but the weights they pass on count where these are used.
struct Constants<'g> {
    makers: BTreeMap<&'g str, &'g Node>,
}

impl<'g> Constants<'g> {
    fn of(graph: &'g Graph) -> Self {
        let mut makers: BTreeMap<&str, &Node> = BTreeMap::new();
        for node in &graph.nodes {
            let known = |name: &String| {
                name.is_empty()
                    || graph.initializers.contains_key(name)
                    || makers.contains_key(name.as_str())
            };
            // A shape depends on no content.
            if matches!(node.op, Op::Shape { .. }) || node.inputs.iter().all(known) {
                makers.extend(node.outputs.iter().map(|name| (name.as_str(), node)));
            }
        }
        Self { makers }
    }

    fn contains(&self, node: &Node) -> bool {
        node.outputs
            .first()
            .is_some_and(|name| self.makers.contains_key(name.as_str()))
    }

    /// The number of `f32` elements behind `value` that are not `counted` yet.
    fn count_new(
        &self,
        graph: &'g Graph,
        inferred: &Inferred,
        value: &'g str,
        counted: &mut BTreeSet<&'g str>,
    ) -> u64 {
        let mut count = 0;
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            if !counted.insert(value) {
                continue;
            }
            if graph.float(value).is_some() {
                count += volume(&shape(inferred, Some(value)));
            } else if let Some(node) = self.makers.get(value) {
                pending.extend(data_inputs(node).iter().map(String::as_str));
            }
        }
        count
    }
}

/// The inputs of a node of constants whose elements reach its output.
fn data_inputs(node: &Node) -> &[String] {
    let inputs = &node.inputs[..];
    match &node.op {
        Op::Shape { .. } | Op::ConstantOfShape { .. } | Op::ArgMax { .. } => &[],
        Op::Reshape { .. }
        | Op::Squeeze { .. }
        | Op::Unsqueeze { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::Clip { .. }
        | Op::Dropout { .. }
        | Op::Reduce { .. }
        | Op::Resize(_)
        | Op::Upsample { .. }
        | Op::Split { .. }
        | Op::Expand => inputs.get(..1).unwrap_or_default(),
        Op::Conv(_)
        | Op::Gemm { .. }
        | Op::MatMul
        | Op::BatchNormalization { .. }
        | Op::Activation(_)
        | Op::PRelu
        | Op::Arithmetic(_)
        | Op::Variadic(_)
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::GlobalAveragePool
        | Op::ConvTranspose(_)
        | Op::LayerNormalization { .. }
        | Op::InstanceNormalization { .. }
        | Op::GroupNormalization { .. }
        | Op::GlobalMaxPool
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Where
        | Op::Flatten { .. }
        | Op::Transpose { .. }
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::Identity
        | Op::Lrn { .. }
        | Op::Cast { .. } => inputs,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::graph::infer_images;
    use crate::graph::samples::{Builder, resnet20, vgg16_features};
    use crate::graph::{Arithmetic, ConvAttrs, Op};

    fn cost_of(graph: &Graph, batch: usize, size: usize) -> Cost {
        of(graph, &infer_images(graph, batch, size, size).unwrap())
    }

    #[test]
    fn vgg16_costs_what_the_literature_says() {
        let cost = cost_of(&vgg16_features(), 1, 224);
        assert_eq!(cost.params, 14_714_688);
        // 15.47 G with the three dense layers, which take 123,633,664.
        assert_eq!(cost.macs, 15_346_630_656);
        let first = &cost.layers[0];
        assert_eq!((first.params, first.macs), (1_792, 224 * 224 * 27 * 64));
        assert_eq!((first.node.as_str(), first.op), ("conv0_0", "Conv"));
        assert_eq!(first.output_shape, [1, 64, 224, 224]);
        assert_eq!(cost.layers.last().unwrap().output_shape, [1, 512, 7, 7]);
    }

    #[test]
    fn resnet20_costs_what_the_literature_says() {
        let cost = cost_of(&resnet20(), 1, 32);
        // He et al. state 0.27 M. By hand: 267,696 weights of convolutions (432 + 6*2304 + 4608 +
        // 5*9216 + 18432 + 5*36864), 650 of the head, and four vectors for 688 channels.
        let channels = 7 * 16 + 6 * 32 + 6 * 64;
        assert_eq!(cost.params, 267_696 + 650 + 4 * channels);
        // 40.55 M in the literature: the first layer, 16 of equal work and two of half, the head.
        assert_eq!(cost.macs, 442_368 + 2_359_296 * 17 + 640);
    }

    #[test]
    fn costs_are_those_of_one_image() {
        let graph = resnet20();
        let (one, many) = (cost_of(&graph, 1, 32), cost_of(&graph, 7, 32));
        assert_eq!((one.params, one.macs), (many.params, many.macs));
        assert_eq!(many.layers[0].output_shape, [7, 16, 32, 32]);
    }

    #[test]
    fn a_group_reads_its_own_channels_only() {
        let mut b = Builder::new(3);
        b.conv("depthwise", "x", [3, 1, 3, 3], 1);
        b.graph.nodes[0].op = match b.graph.nodes[0].op.clone() {
            Op::Conv(attrs) => Op::Conv(ConvAttrs { groups: 3, ..attrs }),
            other => other,
        };
        let cost = cost_of(&b.output("depthwise"), 1, 10);
        assert_eq!((cost.params, cost.macs), (27, 100 * 9 * 3));
    }

    #[test]
    fn shared_weights_count_once_and_work_each_time() {
        let mut b = Builder::new(3);
        b.conv("a", "x", [3, 3, 1, 1], 1);
        let op = b.graph.nodes[0].op.clone();
        b.node("b", op, &["a", "a.weight"]);
        let cost = cost_of(&b.output("b"), 1, 10);
        assert_eq!((cost.params, cost.macs), (9, 2 * 900));
        assert_eq!((cost.layers[0].params, cost.layers[1].params), (9, 0));
    }

    #[test]
    fn weights_count_behind_constant_nodes_and_bounds_do_not() {
        let mut b = Builder::new(3);
        b.zeros("bias", &[3]);
        b.zeros("six", &[]);
        b.node(
            "column",
            Op::Unsqueeze {
                axes: Some(vec![1, 2]),
            },
            &["bias"],
        );
        b.node("add", Op::Arithmetic(Arithmetic::Add), &["x", "column"]);
        b.node(
            "clip",
            Op::Clip {
                min: None,
                max: None,
            },
            &["add", "", "six"],
        );
        b.node("mul", Op::Arithmetic(Arithmetic::Mul), &["clip", "clip"]);
        b.node("slope", Op::PRelu, &["mul", "column"]);
        let cost = cost_of(&b.output("slope"), 1, 10);
        assert_eq!((cost.params, cost.macs), (3, 0));
        let names: Vec<&str> = cost
            .layers
            .iter()
            .map(|layer| layer.node.as_str())
            .collect();
        assert_eq!(names, ["add", "clip", "mul", "slope"]);
    }

    #[test]
    fn dense_layers_multiply_every_pair() {
        let mut b = Builder::new(3);
        b.node("flat", Op::Flatten { axis: 1 }, &["x"]);
        b.node("a", Op::MatMul, &["flat"]);
        b.with("weight", &[48, 5]);
        b.node(
            "b",
            Op::Gemm {
                alpha: 1.0,
                beta: 1.0,
                trans_a: false,
                trans_b: false,
            },
            &["a"],
        );
        b.with("weight", &[5, 2]);
        b.with("bias", &[2]);
        let cost = cost_of(&b.output("b"), 3, 4);
        assert_eq!((cost.params, cost.macs), (48 * 5 + 12, 48 * 5 + 10));
    }
}
