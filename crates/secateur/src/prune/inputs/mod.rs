//! Cuts of what convolutions read: the input space of a factored layer becomes a subspace of it, by a 1x1
//! convolution before the layer (docs/method.md, section 4).

use super::LayerPlan;
use crate::decompose::{DecomposeError, Subspace, cap_ranks};
use crate::graph::{
    ConvAttrs, FactoredKind, FactoredLayer, Graph, INPUT_FACTOR, InputFactor, LayerShape, Node, Op,
    Uses, factored_layers, input_factor,
};
use crate::tensor::{Floats, Tensor};
use ndarray::{Array2, Array4, Axis, Ix4};
use std::collections::BTreeSet;

/// Channels of a value beyond which its directions are not looked for: its moments would take 170 MB each.
const MAX_CHANNELS: usize = 4_608;

/// The input space of a factored layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpace {
    /// Its name in plans: the layer's, and `.input`.
    pub name: String,
    /// The value whose channels are its coordinates, in the graph that [`observed`] makes.
    pub value: String,
    /// Its dimension now.
    pub rank: usize,
    /// What the layer's basis and an input factor of it would be as one: `n` channels are read, `co` counts
    /// outputs and window positions.
    pub shape: LayerShape,
    layer: FactoredLayer,
    /// The value that the basis reads.
    read: String,
    factor: Option<InputFactor>,
}

/// The input spaces of `graph` that can be cut: of ungrouped convolutions larger than 1x1 with stride 1, of
/// values that a node makes. None where a layer has the name that the space would have.
#[must_use]
pub fn input_spaces(graph: &Graph) -> Vec<InputSpace> {
    let uses = Uses::of(graph);
    let layers = factored_layers(graph);
    let taken: BTreeSet<String> = layers.iter().map(|layer| layer.name.clone()).collect();
    let producers = graph.producers();
    let space = |layer: FactoredLayer| {
        let basis = graph.node(&layer.basis)?;
        let Op::Conv(ConvAttrs {
            groups: 1,
            strides: [1, 1],
            ..
        }) = basis.op
        else {
            return None;
        };
        let read = basis.inputs.first()?.clone();
        producers.get(read.as_str())?;
        let kernel = graph.float(&layer.basis_weight)?.shape();
        let (&[_, channels, kernel_h, kernel_w], FactoredKind::Convolution) = (kernel, layer.kind)
        else {
            return None;
        };
        let name = format!("{}{INPUT_FACTOR}", layer.name);
        if kernel_h * kernel_w < 2 || channels > MAX_CHANNELS || taken.contains(&name) {
            return None;
        }
        let factor = input_factor(graph, &uses, basis);
        // Above break-even the layer is exported as one kernel.
        let outputs = match layer.rank <= layer.shape.break_even_rank() {
            true => layer.rank,
            false => layer.shape.co,
        };
        let value = match uses.sole_reader(&read) {
            Some(_) => read.clone(),
            None => graph.fresh_value(&format!("{}.read", layer.name)),
        };
        Some(InputSpace {
            name,
            value,
            rank: channels,
            shape: LayerShape {
                n: factor.as_ref().map_or(channels, |factor| factor.shape.n),
                co: outputs * kernel_h * kernel_w,
                groups: 1,
            },
            layer,
            read,
            factor,
        })
    };
    layers.into_iter().filter_map(space).collect()
}

impl InputSpace {
    /// The value that the layer reads, which the network makes.
    #[must_use]
    pub fn read(&self) -> &str {
        &self.read
    }

    /// The factored layer that reads it.
    #[must_use]
    pub fn layer(&self) -> &FactoredLayer {
        &self.layer
    }
}

/// `graph` with a node that does nothing before each layer whose input others read, too: the gradient at
/// its output is the one of that layer alone.
#[must_use]
pub fn observed(graph: &Graph, spaces: &[InputSpace]) -> Graph {
    let mut result = graph.clone();
    for space in spaces.iter().filter(|space| space.value != space.read) {
        let identity = Node {
            name: result.fresh_node(&space.value),
            op: Op::Identity,
            inputs: vec![space.read.clone()],
            outputs: vec![space.value.clone()],
        };
        let at = |node: &Node| node.name == space.layer.basis;
        if let Some(index) = result.nodes.iter().position(at) {
            if let Some(input) = result.nodes[index].inputs.first_mut() {
                input.clone_from(&space.value);
            }
            result.nodes.insert(index, identity);
        }
    }
    result
}

/// `graph` with each input space written in its directions, and the values that are its coordinates there, in order: a 1x1
/// convolution makes them, and a second one what the layer reads. The network computes what it did.
///
/// # Errors
/// [`DecomposeError`] names the layer that does not fit.
pub fn spelled_out<'s>(
    graph: &Graph,
    spaces: impl IntoIterator<Item = (&'s InputSpace, &'s Subspace)>,
) -> Result<(Graph, Vec<String>), DecomposeError> {
    let (mut result, mut values) = (graph.clone(), Vec::new());
    for (space, subspace) in spaces {
        let name = |what: &str| format!("{}.{what}", space.name);
        let read = subspace.analysis.t().to_owned();
        let made = subspace.synthesis.t().to_owned();
        let coordinates = insert(&mut result, space, &name("coordinates"), &read);
        let whole = insert(&mut result, space, &name("whole"), &made);
        let (Some(coordinates), Some(_)) = (coordinates, whole) else {
            let node = space.layer.name.clone();
            return Err(DecomposeError::NoBasis { node });
        };
        values.push(coordinates);
    }
    Ok((result, values))
}

/// Leaves of each input space the directions that its plan keeps. A layer that has more directions of its own
/// than it can tell apart afterwards is decomposed again.
///
/// # Errors
/// [`DecomposeError`] names the layer that does not fit.
pub fn cut_inputs<'c>(
    graph: &Graph,
    cuts: impl IntoIterator<Item = (&'c InputSpace, &'c Subspace, &'c LayerPlan)>,
) -> Result<Graph, DecomposeError> {
    let mut result = graph.clone();
    for (space, subspace, plan) in cuts {
        if narrow(&mut result, space, subspace, &plan.keep).is_none() {
            let node = space.layer.name.clone();
            return Err(DecomposeError::NoBasis { node });
        }
    }
    cap_ranks(&result)
}

fn narrow(
    graph: &mut Graph,
    space: &InputSpace,
    subspace: &Subspace,
    keep: &[usize],
) -> Option<()> {
    let whole = (space.rank, space.rank);
    let is_inside = keep.iter().all(|&at| at < space.rank);
    if subspace.analysis.dim() != whole || subspace.synthesis.dim() != whole || !is_inside {
        return None;
    }
    let synthesis = subspace.synthesis.select(Axis(0), keep);
    let analysis = subspace.analysis.select(Axis(1), keep);
    let kernel = floats::<Ix4>(graph, &space.layer.basis_weight)?;
    let kernel = weighted(&synthesis, &kernel)?;
    let read = match &space.factor {
        Some(factor) => {
            let before = floats::<Ix4>(graph, &factor.weight)?;
            let before = before.to_shape((factor.rank, factor.shape.n)).ok()?;
            analysis.t().dot(&before)
        }
        None => analysis.t().to_owned(),
    };
    store(graph, &space.layer.basis_weight, &kernel);
    match &space.factor {
        Some(factor) => store(graph, &factor.weight, &pointwise(&read)?),
        None => _ = insert(graph, space, &space.name, &read)?,
    }
    Some(())
}

/// Puts a 1x1 convolution `name` with the filters `rows` before the layer, and gives the value that it makes.
fn insert(graph: &mut Graph, space: &InputSpace, name: &str, rows: &Array2<f64>) -> Option<String> {
    let weight = graph.fresh_value(&format!("{name}.weight"));
    let output = graph.fresh_value(&format!("{name}.output"));
    store(graph, &weight, &pointwise(rows)?);
    let at = |node: &Node| node.name == space.layer.basis;
    let index = graph.nodes.iter().position(at)?;
    let node = Node {
        name: graph.fresh_node(name),
        op: Op::Conv(ConvAttrs::default()),
        inputs: vec![graph.nodes[index].inputs.first()?.clone(), weight],
        outputs: vec![output.clone()],
    };
    graph.nodes[index].inputs.first_mut()?.clone_from(&output);
    graph.nodes.insert(index, node);
    Some(output)
}

/// `rows` `[co, ci]` as the weight of a 1x1 convolution.
fn pointwise(rows: &Array2<f64>) -> Option<Array4<f64>> {
    let (co, ci) = rows.dim();
    Some(rows.to_shape((co, ci, 1, 1)).ok()?.into_owned())
}

/// A kernel `[co, c, kh, kw]` whose input channels are weighed: `rows` is `[r, c]`, the result
/// `[co, r, kh, kw]`.
fn weighted(rows: &Array2<f64>, kernel: &Array4<f64>) -> Option<Array4<f64>> {
    let (co, channels, kernel_h, kernel_w) = kernel.dim();
    let by_channel = kernel.view().permuted_axes([1, 0, 2, 3]);
    let by_channel = by_channel
        .to_shape((channels, co * kernel_h * kernel_w))
        .ok()?;
    let made = rows.dot(&by_channel);
    let made = made
        .into_shape_with_order((rows.nrows(), co, kernel_h, kernel_w))
        .ok()?;
    Some(made.permuted_axes([1, 0, 2, 3]))
}

fn floats<D: ndarray::Dimension>(graph: &Graph, name: &str) -> Option<ndarray::Array<f64, D>> {
    let values = graph.float(name)?.mapv(f64::from);
    Some(values.into_dimensionality::<D>().ok()?.into_owned())
}

fn store(graph: &mut Graph, name: &str, values: &Array4<f64>) {
    let values = values
        .mapv(|value| value as f32)
        .as_standard_layout()
        .into_owned();
    let values: Floats = values.into_dyn().into_shared();
    graph
        .initializers
        .insert(name.to_owned(), Tensor::F32(values));
}

#[cfg(test)]
mod tests;
