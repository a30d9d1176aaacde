//! A plan becomes a smaller graph.

use super::{PruneError, PruningPlan};
use crate::graph::{
    Arithmetic, FactoredKind, FactoredLayer, Graph, LayerShape, Node, Op, Uses, factored_layers,
};
use crate::tensor::{Floats, Tensor};
use ndarray::{Axis, IxDyn};
use std::collections::BTreeMap;

/// Removes the directions that `plan` does not keep: filters of the basis, scaling factors, and
/// columns of the projection. The result computes what `graph` computes with their factors at 0.
///
/// # Errors
/// [`PruneError`] names the layer that does not fit.
pub fn apply(graph: &Graph, plan: &PruningPlan) -> Result<Graph, PruneError> {
    let mut result = graph.clone();
    for (layer, keep) in planned(graph, plan)? {
        let LayerShape { groups, .. } = layer.shape;
        let channels: Vec<usize> = (0..groups)
            .flat_map(|k| keep.iter().map(move |&j| k * layer.rank + j))
            .collect();
        let [basis_axis, factors_axis, projection_axis] = match layer.kind {
            FactoredKind::Convolution => [0, 1, 1],
            FactoredKind::Dense => [1, 0, 0],
        };
        slice(&mut result, &layer.basis_weight, basis_axis, &channels);
        slice(&mut result, &layer.factors, factors_axis, &channels);
        slice(
            &mut result,
            &layer.projection_weight,
            projection_axis,
            &keep,
        );
    }
    Ok(result)
}

/// Sets the scaling factors of the directions that `plan` does not keep to 0, and changes no shape.
///
/// # Errors
/// As [`apply`].
pub fn mask(graph: &Graph, plan: &PruningPlan) -> Result<Graph, PruneError> {
    let mut result = graph.clone();
    for (layer, keep) in planned(graph, plan)? {
        if let Some(Tensor::F32(factors)) = result.initializers.get_mut(&layer.factors) {
            for (channel, factor) in factors.iter_mut().enumerate() {
                if keep.binary_search(&(channel % layer.rank)).is_err() {
                    *factor = 0.0;
                }
            }
        }
    }
    Ok(result)
}

/// Adds to each bias what the directions that `plan` removes contribute on average,
/// `sum_P s_j sigma_j v_j E[z_j]` (method, section 3, identity 9); [`apply`] comes after it.
///
/// `means` holds, by layer name, the mean over images and positions of each channel of the basis
/// output (`groups * r` of them). Layers without an entry keep their bias. A layer without a bias
/// gets one.
///
/// # Errors
/// [`PruneError`] names the layer that does not fit.
pub fn compensate(
    graph: &Graph,
    plan: &PruningPlan,
    means: &BTreeMap<String, Vec<f64>>,
) -> Result<Graph, PruneError> {
    let mut result = graph.clone();
    for (layer, _) in planned(graph, plan)? {
        let (Some(means), Some(layer_plan)) =
            (means.get(&layer.name), plan.layers.get(&layer.name))
        else {
            continue;
        };
        if layer_plan.keep.len() == layer_plan.rank {
            continue;
        }
        let LayerShape { co, groups, .. } = layer.shape;
        let want = groups * layer.rank;
        if means.len() != want {
            return Err(PruneError::Means {
                layer: layer.name.clone(),
                got: means.len(),
                want,
            });
        }
        let Some(matrices) = layer.matrices(graph) else {
            continue;
        };
        let mut shift = vec![0.0_f64; co];
        for (channel, shift) in shift.iter_mut().enumerate() {
            let (k, o) = (channel / (co / groups), channel % (co / groups));
            for j in layer_plan.removed() {
                *shift += matrices.factors[[k, j]]
                    * matrices.projection[[k, j, o]]
                    * means[k * layer.rank + j];
            }
        }
        add_to_bias(&mut result, &layer, &shift)?;
    }
    Ok(result)
}

/// The planned layers with their kept directions, checked.
fn planned(
    graph: &Graph,
    plan: &PruningPlan,
) -> Result<Vec<(FactoredLayer, Vec<usize>)>, PruneError> {
    plan.check_version()?;
    let mut layers: BTreeMap<String, Vec<FactoredLayer>> = BTreeMap::new();
    for layer in factored_layers(graph) {
        layers.entry(layer.name.clone()).or_default().push(layer);
    }
    let mut planned = Vec::with_capacity(plan.layers.len());
    for (name, layer_plan) in &plan.layers {
        layer_plan.check(name)?;
        let mut found = layers.remove(name).unwrap_or_default();
        let Some(layer) = found.pop() else {
            return Err(PruneError::NoSuchLayer(name.clone()));
        };
        if !found.is_empty() {
            return Err(PruneError::Ambiguous(name.clone()));
        }
        if layer.rank != layer_plan.rank {
            return Err(PruneError::Rank {
                layer: name.clone(),
                plan: layer_plan.rank,
                graph: layer.rank,
            });
        }
        planned.push((layer, layer_plan.keep.clone()));
    }
    Ok(planned)
}

fn slice(graph: &mut Graph, name: &str, axis: usize, indices: &[usize]) {
    if let Some(Tensor::F32(array)) = graph.initializers.get_mut(name) {
        *array = array.select(Axis(axis), indices).into_shared();
    }
}

/// Adds `shift` `[co]` to the layer's bias, which the layer gets where it has none.
pub(super) fn add_to_bias(
    graph: &mut Graph,
    layer: &FactoredLayer,
    shift: &[f64],
) -> Result<(), PruneError> {
    let fails = || PruneError::Bias {
        layer: layer.name.clone(),
    };
    let index = graph
        .nodes
        .iter()
        .position(|node| node.name == layer.projection)
        .ok_or_else(fails)?;
    let co = layer.shape.co;
    let floats =
        |values: Vec<f32>| Floats::from_shape_vec(IxDyn(&[co]), values).map_err(|_| fails());
    let old = layer.bias_values(graph).ok_or_else(fails)?;
    let old = old.unwrap_or_else(|| vec![0.0; co]);
    let bias = floats(
        old.iter()
            .zip(shift)
            .map(|(old, shift)| (old + shift) as f32)
            .collect(),
    )?;

    // The bias may be shared with another node, so the layer gets one of its own.
    let name = graph.fresh_value(&format!("{}.bias", layer.name));
    graph.initializers.insert(name.clone(), Tensor::F32(bias));
    if let Some(add) = &layer.bias_add {
        let old = layer.bias.as_ref();
        let inputs = &mut graph.node_mut(add).ok_or_else(fails)?.inputs;
        let place = inputs.iter_mut().find(|input| Some(&**input) == old);
        *place.ok_or_else(fails)? = name;
    } else if graph.nodes[index].op == Op::MatMul {
        let unshifted = graph.fresh_value(&format!("{}.projection.output", layer.name));
        let node = &mut graph.nodes[index];
        let outputs = std::mem::replace(&mut node.outputs, vec![unshifted.clone()]);
        let add = Node {
            name: graph.fresh_node(&format!("{}.bias", layer.name)),
            op: Op::Arithmetic(Arithmetic::Add),
            inputs: vec![unshifted, name],
            outputs,
        };
        graph.nodes.insert(index + 1, add);
    } else {
        let node = &mut graph.nodes[index];
        node.inputs.truncate(2);
        node.inputs.push(name);
        if let Op::Gemm { beta, .. } = &mut node.op {
            *beta = 1.0;
        }
    }
    if let Some(old) = &layer.bias
        && Uses::of(graph).readers(old).is_empty()
        && !graph.outputs.iter().any(|output| output.name == *old)
    {
        graph.initializers.remove(old);
    }
    Ok(())
}
