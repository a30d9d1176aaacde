//! A scale and shift per output channel goes into the layer before it.

use crate::graph::{Arithmetic, Graph, Node, OUTPUT_SCALE, Op, Uses, optional};
use crate::tensor::{Floats, Tensor};
use ndarray::{Axis, IxDyn};

/// `y_c -> scale_c y_c + shift_c`.
struct Affine {
    /// The shape that the scale must have to reach the channels, where that depends on the layer.
    scale_shape: Option<Vec<usize>>,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

/// Folds the output scales that decomposition inserted, known by the name of their initializer.
/// Returns how many.
pub(super) fn fold_output_scales(graph: &mut Graph) -> usize {
    fold_all(graph, |graph, node| {
        if node.op != Op::Arithmetic(Arithmetic::Mul) {
            return None;
        }
        let scale = node
            .inputs
            .iter()
            .find(|input| input.ends_with(OUTPUT_SCALE))?;
        let value = node.inputs.iter().find(|input| *input != scale)?;
        let scale = graph.float(scale)?;
        let scale_shape = Some(scale.shape().to_vec());
        let scale: Vec<f64> = scale.iter().map(|&value| f64::from(value)).collect();
        let shift = vec![0.0; scale.len()];
        Some((
            value.clone(),
            Affine {
                scale_shape,
                scale,
                shift,
            },
        ))
    })
}

/// Folds `scale * (x - mean) / sqrt(variance + epsilon) + bias`. Returns how many.
pub(super) fn fold_batch_norms(graph: &mut Graph) -> usize {
    fold_all(graph, |graph, node| {
        let Op::BatchNormalization { epsilon, .. } = node.op else {
            return None;
        };
        let parameter = |slot: usize| -> Option<Vec<f64>> {
            let array = graph.float(optional(node, slot)?)?;
            Some(array.iter().map(|&value| f64::from(value)).collect())
        };
        let (gamma, beta, mean, variance) =
            (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let channels = gamma.len();
        if [&beta, &mean, &variance]
            .iter()
            .any(|array| array.len() != channels)
        {
            return None;
        }
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(gamma, variance)| gamma / (variance + f64::from(epsilon)).sqrt())
            .collect();
        let shift = beta
            .iter()
            .zip(&mean)
            .zip(&scale)
            .map(|((beta, mean), scale)| beta - mean * scale)
            .collect();
        Some((
            node.inputs.first()?.clone(),
            Affine {
                scale_shape: None,
                scale,
                shift,
            },
        ))
    })
}

/// Folds every node for which `affine` tells what it does to which value.
fn fold_all(
    graph: &mut Graph,
    affine: impl Fn(&Graph, &Node) -> Option<(String, Affine)>,
) -> usize {
    let mut folded = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        match affine(graph, &graph.nodes[index]) {
            Some((value, affine)) if fold_into_maker(graph, index, &value, &affine) => folded += 1,
            Some(_) | None => index += 1,
        }
    }
    folded
}

/// Folds node `index` into the node that makes `value`, where that is a layer whose weight and
/// output nobody else reads. Changes nothing and returns `false` otherwise.
fn fold_into_maker(graph: &mut Graph, index: usize, value: &str, affine: &Affine) -> bool {
    let node = &graph.nodes[index];
    let [output] = &node.outputs[..] else {
        return false;
    };
    let (output, read) = (output.clone(), node.inputs.clone());
    let Some(maker) = graph.producers().get(value).copied() else {
        return false;
    };
    let uses = Uses::of(graph);
    let own_weight =
        optional(&graph.nodes[maker], 1).is_some_and(|name| uses.sole_reader(name).is_some());
    if uses.sole_reader(value) != Some(index) || !own_weight {
        return false;
    }
    let Some(change) = changed_layer(graph, &graph.nodes[maker], affine) else {
        return false;
    };

    graph
        .initializers
        .insert(change.weight_name, Tensor::F32(change.weight));
    if let Some(bias) = change.bias {
        let layer = &graph.nodes[maker];
        let own = optional(layer, 2).filter(|name| Uses::of(graph).sole_reader(name).is_some());
        let name = own.map_or_else(
            || graph.fresh_value(&format!("{}.bias", layer.name)),
            str::to_owned,
        );
        graph.initializers.insert(name.clone(), Tensor::F32(bias));
        let layer = &mut graph.nodes[maker];
        layer.inputs.truncate(2);
        layer.inputs.push(name);
        if let Op::Gemm { beta, .. } = &mut layer.op {
            *beta = 1.0;
        }
    }
    graph.nodes[maker].outputs = vec![output];
    graph.nodes.remove(index);
    for name in read {
        if Uses::of(graph).readers(&name).is_empty() && !graph.is_output(&name) {
            graph.initializers.remove(&name);
        }
    }
    true
}

struct Change {
    weight_name: String,
    weight: Floats,
    /// `None` where the layer's bias stays as it is.
    bias: Option<Floats>,
}

/// Whether the last axis of what a `MatMul` makes is the one that `affine` scales: batch norm scales the second one.
fn ends_in_channels(graph: &Graph, layer: &Node, affine: &Affine) -> bool {
    let is_matrix = |input: &String| {
        let maker = graph.producers().get(input.as_str()).copied();
        maker.is_some_and(|at| matches!(graph.nodes[at].op, Op::Flatten { .. } | Op::Gemm { .. }))
    };
    affine.scale_shape.is_some() || layer.inputs.first().is_some_and(is_matrix)
}

/// The weight and bias of `layer` with `affine` applied to its output; `None` where it cannot be.
fn changed_layer(graph: &Graph, layer: &Node, affine: &Affine) -> Option<Change> {
    let channels = affine.scale.len();
    if !affine
        .scale
        .iter()
        .chain(&affine.shift)
        .all(|value| value.is_finite())
    {
        return None;
    }
    let weight_name = optional(layer, 1)?.to_owned();
    let weight = graph.float(&weight_name)?;
    let is_conv = matches!(layer.op, Op::Conv(_));
    let reaching = if is_conv {
        vec![1, channels, 1, 1]
    } else {
        vec![channels]
    };
    if affine
        .scale_shape
        .as_ref()
        .is_some_and(|shape| *shape != reaching)
    {
        return None;
    }
    let (axis, bias_factor, takes_bias) = if let Op::Conv(_) = layer.op {
        (0, 1.0, true)
    } else if let Op::Gemm { beta, trans_b, .. } = layer.op {
        (usize::from(!trans_b), f64::from(beta), true)
    } else if layer.op == Op::MatMul && weight.ndim() == 2 && ends_in_channels(graph, layer, affine)
    {
        (1, 1.0, false)
    } else {
        return None;
    };
    if weight.shape().get(axis) != Some(&channels) {
        return None;
    }
    let shifts = affine.shift.iter().any(|&shift| shift != 0.0);
    let bias = match optional(layer, 2) {
        Some(_) | None if !takes_bias => {
            if shifts {
                return None;
            }
            None
        }
        None if !shifts => None,
        None => Some(vec![0.0; channels]),
        Some(name) => {
            let bias = graph.float(name)?;
            let values: Vec<f64> = bias
                .iter()
                .map(|&value| bias_factor * f64::from(value))
                .collect();
            let is_row = bias.shape().last().is_none_or(|&last| last == values.len());
            match values.len() {
                1 => Some(vec![values.first().copied()?; channels]),
                len if len == channels && is_row => Some(values),
                _ => return None,
            }
        }
    };
    let bias = bias.map(|bias| {
        let affine = affine.scale.iter().zip(&affine.shift);
        bias.iter()
            .zip(affine)
            .map(|(bias, (scale, shift))| (scale * bias + shift) as f32)
            .collect::<Vec<_>>()
    });
    let mut weight = weight.clone();
    for (mut channel, scale) in weight.axis_iter_mut(Axis(axis)).zip(&affine.scale) {
        channel.mapv_inplace(|value| (f64::from(value) * scale) as f32);
    }
    let bias = match bias {
        None => None,
        Some(bias) => Some(Floats::from_shape_vec(IxDyn(&[channels]), bias).ok()?),
    };
    Some(Change {
        weight_name,
        weight,
        bias,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::samples::Builder;

    #[test]
    fn batch_norm_goes_into_a_matrix_product_only_where_it_scales_the_last_axis() {
        // Of 3 channels each: `[n, 3, h, 3]` by rows of images, and `[n, 3]`.
        for (is_flat, count) in [(false, 0), (true, 1)] {
            let mut b = Builder::new(3);
            let read = match is_flat {
                true => b.node("flat", Op::Flatten { axis: 1 }, &["x"]),
                false => "x".to_owned(),
            };
            let weight = b.zeros("weight", &[12, 3]);
            let made = b.node("product", Op::MatMul, &[&read, &weight]);
            let made = b.batch_norm("norm", &made, 3);
            let mut graph = b.output(&made);
            assert_eq!(fold_batch_norms(&mut graph), count, "flat: {is_flat}");
        }
    }
}
