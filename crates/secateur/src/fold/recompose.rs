//! Scaling factors go into the projection, or both factors into one dense kernel.

use super::FoldError;
use crate::graph::{FactoredKind, FactoredLayer, Graph, LayerShape, Node};
use crate::tensor::{Floats, Tensor};
use ndarray::{Array3, Axis, IxDyn};

/// Puts one dense node in the place of a factored layer: its weight is `sum_j s_j u_j sigma_j v_j^T`.
///
/// # Errors
/// [`FoldError`] where `layer` was not found in this graph.
pub fn recompose(graph: &Graph, layer: &FactoredLayer) -> Result<Graph, FoldError> {
    let mut result = graph.clone();
    recompose_in_place(&mut result, layer)?;
    Ok(result)
}

pub(super) fn recompose_in_place(
    graph: &mut Graph,
    layer: &FactoredLayer,
) -> Result<(), FoldError> {
    let fails = || FoldError::NoSuchLayer(layer.name.clone());
    let basis = graph.node(&layer.basis).ok_or_else(fails)?.clone();
    let projection = graph.node(&layer.projection).ok_or_else(fails)?.clone();
    let product = layer.matrices(graph).ok_or_else(fails)?.product();
    let weight = match layer.kind {
        FactoredKind::Convolution => {
            let kernel = graph
                .float(&layer.basis_weight)
                .ok_or_else(fails)?
                .shape()
                .to_vec();
            let [_, in_channels, kernel_h, kernel_w] = kernel[..] else {
                return Err(fails());
            };
            let rows = product.permuted_axes([0, 2, 1]);
            floats(&rows, &[layer.shape.co, in_channels, kernel_h, kernel_w])
        }
        FactoredKind::Dense => floats(&product, &[layer.shape.n, layer.shape.co]),
    }
    .ok_or_else(fails)?;
    let op = match layer.kind {
        FactoredKind::Convolution => basis.op.clone(),
        FactoredKind::Dense => projection.op.clone(),
    };

    graph
        .nodes
        .retain(|node| node.name != layer.basis && node.name != layer.scaling);
    for name in [
        &layer.basis_weight,
        &layer.factors,
        &layer.projection_weight,
    ] {
        graph.initializers.remove(name);
    }
    let weight_name = graph.fresh_value(&format!("{}.weight", layer.name));
    graph
        .initializers
        .insert(weight_name.clone(), Tensor::F32(weight));
    let name = graph.fresh_node(&layer.name);
    let node = graph.node_mut(&layer.projection).ok_or_else(fails)?;
    let mut inputs = vec![
        basis.inputs.first().cloned().unwrap_or_default(),
        weight_name,
    ];
    if layer.bias_add.is_none() {
        inputs.extend(layer.bias.clone());
    }
    *node = Node {
        name,
        op,
        inputs,
        outputs: projection.outputs,
    };
    Ok(())
}

/// Multiplies the projection by the scaling factors and removes their node.
pub(super) fn absorb_factors(graph: &mut Graph, layer: &FactoredLayer) -> Result<(), FoldError> {
    let fails = || FoldError::NoSuchLayer(layer.name.clone());
    let matrices = layer.matrices(graph).ok_or_else(fails)?;
    let scaled = matrices.projection * &matrices.factors.insert_axis(Axis(2));
    let LayerShape { co, .. } = layer.shape;
    let weight = match layer.kind {
        FactoredKind::Convolution => {
            floats(&scaled.permuted_axes([0, 2, 1]), &[co, layer.rank, 1, 1])
        }
        FactoredKind::Dense => floats(&scaled, &[layer.rank, co]),
    }
    .ok_or_else(fails)?;
    let projection = graph.node_mut(&layer.projection).ok_or_else(fails)?;
    let input = projection.inputs.first_mut().ok_or_else(fails)?;
    layer.basis_output.clone_into(input);
    graph.nodes.retain(|node| node.name != layer.scaling);
    graph.initializers.remove(&layer.factors);
    graph
        .initializers
        .insert(layer.projection_weight.clone(), Tensor::F32(weight));
    Ok(())
}

/// The elements in logical order, as `f32` of another shape.
fn floats(array: &Array3<f64>, shape: &[usize]) -> Option<Floats> {
    let array = array.mapv(|value| value as f32);
    Some(array.to_shape(IxDyn(shape)).ok()?.to_owned().into_shared())
}
