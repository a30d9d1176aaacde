//! Input factors that do not pay are joined with the convolution that reads them.

use crate::graph::{Graph, InputFactor, Uses, input_factor};
use crate::tensor::Tensor;
use ndarray::{ArrayD, Ix4};

/// Puts one kernel in the place of each input factor and the convolution that reads it that `joins`
/// names, and gives the names of the convolutions with what was joined. They keep their names.
pub(super) fn join_inputs(
    graph: &mut Graph,
    joins: impl Fn(&InputFactor) -> bool,
) -> Vec<(String, InputFactor)> {
    let mut joined = Vec::new();
    let uses = Uses::of(graph);
    let found = graph.nodes.iter().filter_map(|node| {
        let factor = input_factor(graph, &uses, node)?;
        joins(&factor).then(|| (node.name.clone(), factor))
    });
    for (reader, factor) in found.collect::<Vec<_>>() {
        let Some(kernel) = product(graph, &factor) else {
            continue;
        };
        let read = graph
            .node(&factor.node)
            .and_then(|node| node.inputs.first());
        let read = read.cloned().unwrap_or_default();
        let input = graph
            .node_mut(&reader)
            .and_then(|node| node.inputs.first_mut());
        if let Some(input) = input {
            *input = read;
            graph.nodes.retain(|node| node.name != factor.node);
            graph.initializers.remove(&factor.weight);
            let kernel = Tensor::F32(kernel.mapv(|value| value as f32).into_shared());
            let weight = factor.reader_weight.clone();
            graph.initializers.insert(weight, kernel);
            joined.push((reader, factor));
        }
    }
    joined
}

/// The kernel `[co, in_channels, kh, kw]` of both.
fn product(graph: &Graph, factor: &InputFactor) -> Option<ArrayD<f64>> {
    let floats = |name: &str| Some(graph.float(name)?.mapv(f64::from));
    let rows = floats(&factor.weight)?;
    let rows = rows.to_shape((factor.rank, factor.shape.n)).ok()?;
    let kernel = floats(&factor.reader_weight)?;
    let kernel = kernel.into_dimensionality::<Ix4>().ok()?;
    let (co, rank, kernel_h, kernel_w) = kernel.dim();
    let kernel = kernel.permuted_axes([0, 2, 3, 1]);
    let kernel = kernel.to_shape((co * kernel_h * kernel_w, rank)).ok()?;
    let made = kernel.dot(&rows);
    let made = made
        .into_shape_with_order((co, kernel_h, kernel_w, factor.shape.n))
        .ok()?;
    let made = made.permuted_axes([0, 3, 1, 2]);
    Some(made.as_standard_layout().into_owned().into_dyn())
}
