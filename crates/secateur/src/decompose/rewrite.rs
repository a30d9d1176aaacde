//! Puts the factors in the place of the layers.

use super::svd::{Factors, factorize};
use super::{DecomposeError, DecomposeSummary, Kept, OutputScale};
use crate::graph::{
    Arithmetic, ConvAttrs, Graph, LayerShape, Node, OUTPUT_SCALE, Op, Uses, optional,
};
use crate::progress::Progress;
use crate::tensor::{Floats, Tensor};
use ndarray::{Array3, Axis, IxDyn};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The arrays of one factored layer, in the layout of the graph.
struct Weights {
    basis: Floats,
    factors: Floats,
    projection: Floats,
}

pub(super) fn factor(
    graph: &Graph,
    summary: &DecomposeSummary,
    output_scale: OutputScale,
    progress: &dyn Progress,
) -> Result<Graph, DecomposeError> {
    let nodes: BTreeMap<&str, &Node> = graph
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node))
        .collect();
    let wanted: Vec<(&Node, LayerShape)> = summary
        .layers
        .iter()
        .filter(|layer| layer.kept.is_none())
        .filter_map(|layer| Some((*nodes.get(layer.name.as_str())?, layer.shape?)))
        .collect();
    progress.begin("decompose", wanted.len() as u64);
    let weights: Vec<Result<(&str, Weights), DecomposeError>> = wanted
        .par_iter()
        .map(|&(node, shape)| {
            let weights = decompose_layer(graph, node, shape).ok_or_else(|| {
                DecomposeError::NoDecomposition {
                    node: node.name.clone(),
                }
            })?;
            progress.advance(1);
            Ok((node.name.as_str(), weights))
        })
        .collect();
    progress.end();
    let mut weights = weights.into_iter().collect::<Result<BTreeMap<_, _>, _>>()?;

    let uses = Uses::of(graph);
    let mut result = graph.clone();
    let mut nodes = Vec::with_capacity(graph.nodes.len() + 3 * weights.len());
    let left_out: BTreeMap<&str, &Kept> = summary
        .layers
        .iter()
        .filter_map(|layer| Some((layer.name.as_str(), layer.kept.as_ref()?)))
        .collect();
    for node in &graph.nodes {
        let factors = weights.remove(node.name.as_str());
        let scaled = match (output_scale, &factors) {
            (OutputScale::Nowhere, _) | (OutputScale::Factored, None) => false,
            (OutputScale::Factored | OutputScale::All, Some(_)) => true,
            (OutputScale::All, None) => {
                let fixed = left_out
                    .get(node.name.as_str())
                    .is_some_and(|kept| match kept {
                        Kept::Excluded
                        | Kept::Head
                        | Kept::AlreadyFactored
                        | Kept::WeightComputed => true,
                        Kept::Depthwise
                        | Kept::NeverPays
                        | Kept::WeightShared
                        | Kept::OtherProduct => false,
                    });
                matches!(node.op, Op::Conv(_)) && !fixed
            }
        } && node.op != Op::MatMul
            && !feeds_batch_norm(graph, &uses, node);
        let out_channels = optional(node, 1)
            .and_then(|weight| out_channels(&node.op, graph.initializers.get(weight)?));
        let mut last = node.clone();
        if let Some(weights) = factors {
            last = push_factors(&mut result, &mut nodes, node, weights);
        }
        match (scaled, out_channels) {
            (true, Some(out_channels)) => {
                push_scaled(&mut result, &mut nodes, &node.name, last, out_channels)
            }
            _ => nodes.push(last),
        }
    }
    result.nodes = nodes;
    Ok(result)
}

fn decompose_layer(graph: &Graph, node: &Node, shape: LayerShape) -> Option<Weights> {
    let weight = graph
        .initializers
        .get(optional(node, 1)?)?
        .as_floats()?
        .mapv(f64::from);
    let LayerShape { n, co, groups } = shape;
    let group_co = co / groups;
    let rank = shape.full_rank();
    if let Op::Conv(_) = node.op {
        let kernel_shape = weight.shape().to_vec();
        let rows = weight.to_shape((groups, group_co, n)).ok()?;
        let factors = factorize(rows.view().permuted_axes([0, 2, 1]))?;
        // Channel `k * r + j` of the basis is `u_kj`; the projection's row for output `o` of
        // group `k` holds `sigma_kj v_kj[o]` at `j`.
        let basis = factors
            .left
            .view()
            .permuted_axes([0, 2, 1])
            .mapv(|value| value as f32);
        let basis_shape = [
            groups * rank,
            kernel_shape[1],
            kernel_shape[2],
            kernel_shape[3],
        ];
        let projection = projection_rows(&factors).mapv(|value| value as f32);
        Some(Weights {
            basis: in_order(basis, &basis_shape)?,
            factors: Floats::from_elem(IxDyn(&[1, groups * rank, 1, 1]), 1.0),
            projection: in_order(projection, &[co, rank, 1, 1])?,
        })
    } else if let Op::Gemm { alpha, trans_b, .. } = node.op {
        let factor = f64::from(alpha);
        let matrix = if trans_b {
            weight.t().to_owned()
        } else {
            weight
        };
        dense(
            matrix
                .mapv(|value| value * factor)
                .to_shape((1, n, co))
                .ok()?
                .to_owned(),
        )
    } else {
        dense(weight.to_shape((1, n, co)).ok()?.to_owned())
    }
}

fn dense(matrix: Array3<f64>) -> Option<Weights> {
    let (_, n, co) = matrix.dim();
    let factors = factorize(matrix.view())?;
    let rank = n.min(co);
    let projection = projection_rows(&factors)
        .permuted_axes([0, 2, 1])
        .mapv(|value| value as f32);
    Some(Weights {
        basis: in_order(factors.left.mapv(|value| value as f32), &[n, rank])?,
        factors: Floats::from_elem(IxDyn(&[rank]), 1.0),
        projection: in_order(projection, &[rank, co])?,
    })
}

/// `sigma_kj v_kj[o]` at `[k, o, j]`.
fn projection_rows(factors: &Factors) -> Array3<f64> {
    &factors.right * &factors.singular.view().insert_axis(Axis(1))
}

/// The elements in logical order under another shape of as many elements.
fn in_order(array: Array3<f32>, shape: &[usize]) -> Option<Floats> {
    let array = array.to_shape(IxDyn(shape)).ok()?.to_owned();
    Some(array.into_shared())
}

/// Pushes basis and scaling, and returns the projection, which makes the layer's output.
fn push_factors(result: &mut Graph, nodes: &mut Vec<Node>, node: &Node, weights: Weights) -> Node {
    let name = &node.name;
    let basis_weight = result.fresh_value(&format!("{name}.basis.weight"));
    let factors = result.fresh_value(&format!("{name}.scaling"));
    let projection_weight = result.fresh_value(&format!("{name}.projection.weight"));
    let basis_output = result.fresh_value(&format!("{name}.basis.output"));
    let scaled = result.fresh_value(&format!("{name}.scaling.output"));
    let (basis_op, projection_op) = if let Op::Conv(attrs) = &node.op {
        (
            node.op.clone(),
            Op::Conv(ConvAttrs {
                groups: attrs.groups,
                ..ConvAttrs::default()
            }),
        )
    } else if let Op::Gemm { beta, .. } = node.op {
        // `alpha` is part of the singular values; `MatMul` needs no third input in any operator set.
        (
            Op::MatMul,
            Op::Gemm {
                alpha: 1.0,
                beta,
                trans_a: false,
                trans_b: false,
            },
        )
    } else {
        (Op::MatMul, Op::MatMul)
    };
    if let Some(weight) = node.inputs.get(1) {
        result.initializers.remove(weight);
    }
    result
        .initializers
        .insert(basis_weight.clone(), Tensor::F32(weights.basis));
    result
        .initializers
        .insert(factors.clone(), Tensor::F32(weights.factors));
    result
        .initializers
        .insert(projection_weight.clone(), Tensor::F32(weights.projection));
    nodes.push(Node {
        name: result.fresh_node(&format!("{name}.basis")),
        op: basis_op,
        inputs: vec![
            node.inputs.first().cloned().unwrap_or_default(),
            basis_weight,
        ],
        outputs: vec![basis_output.clone()],
    });
    nodes.push(Node {
        name: result.fresh_node(&format!("{name}.scale")),
        op: Op::Arithmetic(Arithmetic::Mul),
        inputs: vec![basis_output, factors],
        outputs: vec![scaled.clone()],
    });
    let mut inputs = vec![scaled, projection_weight];
    inputs.extend(optional(node, 2).map(str::to_owned));
    Node {
        name: result.fresh_node(&format!("{name}.projection")),
        op: projection_op,
        inputs,
        outputs: node.outputs.clone(),
    }
}

/// Pushes `last` and a scale of its output channels, which makes the value that `last` made.
fn push_scaled(
    result: &mut Graph,
    nodes: &mut Vec<Node>,
    layer: &str,
    mut last: Node,
    out_channels: usize,
) {
    let output = last.outputs.first().cloned().unwrap_or_default();
    let unscaled = result.fresh_value(&format!("{layer}.unscaled"));
    let scale = result.fresh_value(&format!("{layer}{OUTPUT_SCALE}"));
    let is_conv = matches!(last.op, Op::Conv(_));
    let shape = if is_conv {
        vec![1, out_channels, 1, 1]
    } else {
        vec![out_channels]
    };
    result.initializers.insert(
        scale.clone(),
        Tensor::F32(Floats::from_elem(IxDyn(&shape), 1.0)),
    );
    last.outputs = vec![unscaled.clone()];
    nodes.push(last);
    nodes.push(Node {
        name: result.fresh_node(&format!("{layer}.scale_output")),
        op: Op::Arithmetic(Arithmetic::Mul),
        inputs: vec![unscaled, scale],
        outputs: vec![output],
    });
}

fn out_channels(op: &Op, weight: &Tensor) -> Option<usize> {
    let axis = usize::from(!matches!(op, Op::Conv(_) | Op::Gemm { trans_b: true, .. }));
    weight.shape().get(axis).copied()
}

fn feeds_batch_norm(graph: &Graph, uses: &Uses<'_>, node: &Node) -> bool {
    node.outputs.iter().any(|output| {
        uses.readers(output)
            .iter()
            .any(|&reader| matches!(graph.nodes[reader].op, Op::BatchNormalization { .. }))
    })
}
