//! Random weights in the place of those of the file: what pre-training is worth is seen beside them (Hubens et al.,
//! arXiv 2112.08227; docs/method.md, section 8).

use crate::graph::{Graph, Node, Op};
use crate::tensor::Tensor;
use crate::train::{Role, parameters};
use ndarray::{ArcArray, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// `graph` as if it had never been trained: weights uniform within `sqrt(6 / fan_in)` of zero, which has the variance
/// `2 / fan_in` (He et al., arXiv 1502.01852, eq. (10)), scales 1, biases 0, slopes 1/4, stored batch-norm statistics
/// those of values that are normalised. Constants of the architecture stay. The same `seed` gives the same weights.
#[must_use]
pub fn with_random_weights(graph: &Graph, seed: u64) -> Graph {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut started = BTreeMap::new();
    for (node, parameters) in parameters(graph) {
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
    let mut new = graph.clone();
    new.initializers.extend(started);
    new
}

fn filled(shape: &[usize], value: impl FnMut() -> f32) -> Tensor {
    Tensor::F32(ArcArray::from_shape_simple_fn(IxDyn(shape), value))
}

/// The number of values that one output of the layer sums.
fn fan_in(node: &Node, name: &str, shape: &[usize]) -> usize {
    let axis = |axis: usize| shape.get(axis).copied().unwrap_or(1);
    let behind_first = shape.iter().skip(1).product();
    if let Op::ConvTranspose(attrs) = &node.op {
        // `[in, out / groups, kernel_h, kernel_w]`.
        let taps = behind_first / axis(1).max(1);
        axis(0) / attrs.groups.max(1) * taps
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
        assert!(
            values(&random, "conv.weight")
                .iter()
                .all(|&w| w.abs() <= (6.0_f32 / 9.0).sqrt())
        );
        for (name, want) in [
            ("norm.scale", 1.0),
            ("norm.bias", 0.0),
            ("norm.mean", 0.0),
            ("norm.variance", 1.0),
        ] {
            assert_eq!(values(&random, name), [want; 4], "{name}");
        }
        assert_eq!(random, with_random_weights(&graph, 1));
        assert_ne!(random, with_random_weights(&graph, 2));
    }

    #[test]
    fn weights_have_the_variance_that_keeps_the_scale_of_values() {
        let mut builder = Builder::new(16);
        let made = builder.conv("conv", "x", [256, 16, 3, 3], 1);
        let graph = builder.output(&made);
        let weights = values(&with_random_weights(&graph, 3), "conv.weight");
        let mean_square =
            weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / weights.len() as f64;
        let want = 2.0 / (16.0 * 9.0);
        // 36,864 draws: the mean of their squares has a relative standard error of 0.5 %.
        assert!(
            (mean_square / want - 1.0).abs() < 0.02,
            "{mean_square} {want}"
        );
    }
}
