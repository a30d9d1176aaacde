//! Random weights in the place of those of the file: what pre-training is worth is seen beside them (Hubens et al.,
//! arXiv 2112.08227; docs/method.md, section 8).

use crate::graph::{Graph, Node, Op};
use crate::tensor::Tensor;
use crate::train::{Role, parameters};
use ndarray::{ArcArray, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which weights the network starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Those of the file.
    #[default]
    Given,
    /// Random ones: nothing that the file learned is used.
    Random,
}

// PyTorch's default of `PReLU`.
const SLOPE: f32 = 0.25;

/// A network as if it had never been trained.
pub struct Untrained {
    /// The network.
    pub graph: Graph,
    /// Initializers that may hold what was learned and are no layer's, sorted: they stay as they are.
    pub left: Vec<String>,
}

/// `graph` with weights uniform within `sqrt(6 / fan_in)` of zero, which has the variance `2 / fan_in` (He et al.,
/// arXiv 1502.01852, eq. (10)), scales 1, biases 0, slopes 1/4, stored batch-norm statistics those of values that are
/// normalised. What is done to images before the first layer stays. The same `seed` gives the same weights.
#[must_use]
pub fn with_random_weights(graph: &Graph, seed: u64) -> Untrained {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut started = BTreeMap::new();
    let mut images: BTreeSet<&str> = graph.inputs.iter().map(|input| &input.name[..]).collect();
    let mut of_images = BTreeSet::new();
    for (node, parameters) in parameters(graph) {
        if is_arithmetic_of(&images, graph, node) {
            images.extend(node.outputs.iter().map(String::as_str));
            of_images.extend(node.inputs.iter().map(String::as_str));
            continue;
        }
        for (role, name) in parameters {
            let Some(shape) = graph.initializers.get(name).map(Tensor::shape) else {
                continue;
            };
            // Layers that share a weight share its start.
            started
                .entry(name.to_owned())
                .or_insert_with(|| match role {
                    Role::Weight => {
                        let bound = (6.0 / fan_in(node, name, shape).max(1) as f32).sqrt();
                        filled(shape, || random.random_range(-bound..=bound))
                    }
                    Role::Scale => filled(shape, || 1.0),
                    Role::Shift => filled(shape, || 0.0),
                    Role::Slope => filled(shape, || SLOPE),
                });
        }
        if let Op::BatchNormalization { .. } = node.op {
            for (slot, value) in [(3, 0.0), (4, 1.0)] {
                let name = node.inputs.get(slot);
                if let Some((name, old)) =
                    name.and_then(|name| Some((name, graph.initializers.get(name)?)))
                {
                    started.insert(name.clone(), filled(old.shape(), || value));
                }
            }
        }
    }
    let may_be_learned = |name: &&String, tensor: &Tensor| {
        let is_float = matches!(tensor, Tensor::F32(_) | Tensor::F64(_));
        let is_known = started.contains_key(*name) || of_images.contains(name.as_str());
        is_float && !is_known && tensor.shape().iter().product::<usize>() > 1
    };
    let all = graph.initializers.iter();
    let left = all.filter(|(name, tensor)| may_be_learned(name, tensor));
    let left = left.map(|(name, _)| name.clone()).collect();
    let mut new = graph.clone();
    new.initializers.extend(started);
    Untrained { graph: new, left }
}

/// Whether `node` does nothing but arithmetic with images and constants.
fn is_arithmetic_of(images: &BTreeSet<&str>, graph: &Graph, node: &Node) -> bool {
    let is_known =
        |name: &String| images.contains(name.as_str()) || graph.initializers.contains_key(name);
    matches!(node.op, Op::Arithmetic(_))
        && node.inputs.iter().all(is_known)
        && node
            .inputs
            .iter()
            .any(|name| images.contains(name.as_str()))
}

fn filled(shape: &[usize], value: impl FnMut() -> f32) -> Tensor {
    Tensor::F32(ArcArray::from_shape_simple_fn(IxDyn(shape), value))
}

/// The number of values that one output of the layer sums.
fn fan_in(node: &Node, name: &str, shape: &[usize]) -> usize {
    let axis = |axis: usize| shape.get(axis).copied().unwrap_or(1);
    let behind_first = shape.iter().skip(1).product();
    if let Op::ConvTranspose(attrs) = &node.op {
        // `[in, out / groups, kernel_h, kernel_w]`; of the kernel an output sums what the strides leave.
        let taps = behind_first / axis(1).max(1);
        let strides = attrs.strides[0].saturating_mul(attrs.strides[1]).max(1);
        axis(0) / attrs.groups.max(1) * taps / strides
    } else if let Op::Gemm { trans_b: false, .. } = node.op {
        axis(0)
    } else if let (Op::MatMul, Some(right)) = (&node.op, node.inputs.get(1))
        && right == name
    {
        // `[in, out]`, here and above.
        axis(shape.len().saturating_sub(2))
    } else if let Op::MatMul = node.op {
        axis(shape.len().saturating_sub(1))
    } else {
        // `[out, in / groups, kernel_h, kernel_w]`, or `[out, in]`.
        behind_first
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::samples::{Builder, conv_and_batch_norm};
    use crate::graph::{Arithmetic, ConvAttrs};

    fn values(graph: &Graph, name: &str) -> Vec<f32> {
        graph.float(name).unwrap().iter().copied().collect()
    }

    #[test]
    fn nothing_that_was_learned_is_left() {
        let weight = ArcArray::from_elem(IxDyn(&[4, 1, 3, 3]), 7.0_f32);
        let mut graph = conv_and_batch_norm(weight, 50.0, 900.0);
        let learned = ArcArray::from_elem(IxDyn(&[4]), 3.0_f32);
        for name in ["norm.scale", "norm.bias"] {
            let learned = Tensor::F32(learned.clone());
            graph.initializers.insert(name.to_owned(), learned);
        }
        let random = with_random_weights(&graph, 1);
        assert!(random.left.is_empty(), "{:?}", random.left);
        let weights = values(&random.graph, "conv.weight");
        assert!(weights.iter().all(|&w| w.abs() <= (6.0_f32 / 9.0).sqrt()));
        for (name, want) in [
            ("norm.scale", 1.0),
            ("norm.bias", 0.0),
            ("norm.mean", 0.0),
            ("norm.variance", 1.0),
        ] {
            assert_eq!(values(&random.graph, name), [want; 4], "{name}");
        }
        assert_eq!(random.graph, with_random_weights(&graph, 1).graph);
        assert_ne!(random.graph, with_random_weights(&graph, 2).graph);
    }

    #[test]
    fn what_is_done_to_images_stays_and_what_is_no_layers_is_named() {
        let mut b = Builder::new(3);
        let means = b.zeros("means", &[1, 3, 1, 1]);
        let made = b.node("centred", Op::Arithmetic(Arithmetic::Add), &["x", &means]);
        let made = b.conv("conv", &made, [8, 3, 3, 3], 1);
        let gain = b.zeros("gain", &[8, 1, 1]);
        let made = b.node("sub", Op::Arithmetic(Arithmetic::Sub), &[&made, &gain]);
        let mut graph = b.output(&made);
        let mean = Tensor::F32(ArcArray::from_elem(IxDyn(&[1, 3, 1, 1]), -0.5));
        graph.initializers.insert("means".to_owned(), mean);
        let random = with_random_weights(&graph, 1);
        assert_eq!(values(&random.graph, "means"), [-0.5; 3]);
        assert_eq!(random.left, ["gain"]);
    }

    #[test]
    fn weights_have_the_variance_that_keeps_the_scale_of_values() {
        let conv = |groups| {
            Op::Conv(ConvAttrs {
                groups,
                ..ConvAttrs::default()
            })
        };
        let gemm = |trans_b| Op::Gemm {
            alpha: 1.0,
            beta: 1.0,
            trans_a: false,
            trans_b,
        };
        for (op, inputs, shape, fan_in) in [
            (conv(1), ["x", "w"], vec![256, 16, 3, 3], 144),
            // Of 64 channels that go in, each output sees 16.
            (conv(4), ["x", "w"], vec![256, 16, 3, 3], 144),
            (gemm(false), ["x", "w"], vec![300, 100], 300),
            (gemm(true), ["x", "w"], vec![300, 100], 100),
            (Op::MatMul, ["x", "w"], vec![300, 100], 300),
            (Op::MatMul, ["w", "x"], vec![300, 100], 100),
        ] {
            let mut b = Builder::new(16);
            b.zeros("w", &shape);
            let name = op.name();
            let made = b.node("layer", op, &inputs);
            let graph = b.output(&made);
            let weights = values(&with_random_weights(&graph, 3).graph, "w");
            let squares = weights.iter().map(|&w| f64::from(w).powi(2));
            let mean_square = squares.sum::<f64>() / weights.len() as f64;
            let ratio = mean_square * f64::from(fan_in) / 2.0;
            // 30,000 draws and more: the mean of their squares has a relative standard error of 0.5 %.
            assert!((ratio - 1.0).abs() < 0.02, "{name} {shape:?}: {ratio}");
        }
    }
}
