//! A channel plan becomes a smaller graph, or one with zeros.

use super::{ChannelError, ChannelPlan};
use crate::graph::{Dim, Graph, Inferred, Node, Op, Operands, Uses, infer, optional};
use crate::groups::{AxisChannels, ChannelGroups, Removed, Role, discover};
use crate::tensor::Tensor;
use ndarray::{ArcArray, Axis};
use std::collections::{BTreeMap, BTreeSet};

/// Removes the channels that `plan` does not keep, from weights, biases, batch norm and whatever
/// else has a slice for them. Attributes and lists that count channels follow: the groups of
/// depthwise convolutions, the shapes of `Reshape`, the bounds of `Slice` and the widths of `Pad`.
///
/// `inferred` is what [`infer`] says of `graph` for a size of images that the network will see; it
/// decides how many columns of a dense layer a channel of a flattened map has.
///
/// # Errors
/// [`ChannelError`] names the group, the node or the value that does not fit.
pub fn apply(
    graph: &Graph,
    inferred: &Inferred,
    plan: &ChannelPlan,
) -> Result<Graph, ChannelError> {
    let groups = discover(graph, inferred);
    let removed = plan.removed(&groups)?;
    let mut result = graph.clone();
    for (name, axes) in groups.stored() {
        for axis in axes {
            let keep = axis.kept(&removed);
            if keep.len() < axis.channels.len()
                && let Some(tensor) = result.initializers.get_mut(name)
            {
                *tensor = select(tensor, axis.axis, &keep);
            }
        }
    }
    follow_declarations(&mut result);
    let mut replaced = BTreeSet::new();
    for node in &graph.nodes {
        let edit = Edit {
            graph,
            inferred,
            groups: &groups,
            removed: &removed,
            node,
        };
        edit.follow(&mut result, &mut replaced)?;
    }
    drop_unread(&mut result, &replaced);
    check_shapes(&result, graph, inferred, &groups, &removed)?;
    Ok(result)
}

/// Sets the weights that read a channel that `plan` does not keep to 0, and changes no shape: what
/// [`apply`] must equal.
///
/// # Errors
/// As [`apply`].
pub fn zero(graph: &Graph, inferred: &Inferred, plan: &ChannelPlan) -> Result<Graph, ChannelError> {
    let groups = discover(graph, inferred);
    let removed = plan.removed(&groups)?;
    let mut result = graph.clone();
    for (index, group) in groups.groups.iter().enumerate() {
        let consumers = group.members.iter();
        for member in consumers.filter(|member| member.role == Role::Consumes) {
            let Some(Tensor::F32(weight)) = result.initializers.get_mut(&member.initializer) else {
                continue;
            };
            for channel in removed.of_group(index) {
                for &at in member.indices.get(channel).into_iter().flatten() {
                    weight.index_axis_mut(Axis(member.axis), at).fill(0.0);
                }
            }
        }
    }
    Ok(result)
}

fn select(tensor: &Tensor, axis: usize, keep: &[usize]) -> Tensor {
    let axis = Axis(axis);
    match tensor {
        Tensor::F32(array) => Tensor::F32(array.select(axis, keep).into_shared()),
        Tensor::F64(array) => Tensor::F64(array.select(axis, keep).into_shared()),
        Tensor::I32(array) => Tensor::I32(array.select(axis, keep).into_shared()),
        Tensor::I64(array) => Tensor::I64(array.select(axis, keep).into_shared()),
        Tensor::Bool(array) => Tensor::Bool(array.select(axis, keep).into_shared()),
    }
}

/// Old files list initializers among the inputs, with their shapes.
fn follow_declarations(graph: &mut Graph) {
    for input in &mut graph.inputs {
        if let Some(tensor) = graph.initializers.get(&input.name) {
            let dims = tensor.shape().iter().map(|&length| Dim::Fixed(length));
            input.dims = Some(dims.collect());
        }
    }
}

/// Drops those of the initializers that were written anew which nobody reads any more.
fn drop_unread(graph: &mut Graph, replaced: &BTreeSet<String>) {
    let uses = Uses::of(graph);
    let gone: Vec<String> = replaced
        .iter()
        .filter(|name| uses.readers(name).is_empty() && !graph.is_output(name))
        .cloned()
        .collect();
    for name in gone {
        graph.initializers.remove(&name);
        graph.inputs.retain(|input| input.name != name);
    }
}

/// The smaller graph must have exactly the shapes that the groups foresee.
fn check_shapes(
    result: &Graph,
    graph: &Graph,
    inferred: &Inferred,
    groups: &ChannelGroups,
    removed: &Removed,
) -> Result<(), ChannelError> {
    let inputs: BTreeMap<String, Vec<usize>> = graph
        .inputs
        .iter()
        .filter_map(|input| Some((input.name.clone(), inferred.shape(&input.name)?.to_vec())))
        .collect();
    let after = infer(result, &inputs)?;
    let foreseen = groups.shapes_after(inferred, removed);
    for node in &graph.nodes {
        for value in node.outputs.iter().filter(|name| !name.is_empty()) {
            let (got, want) = (after.shape(value), foreseen.shape(value));
            if got != want {
                return Err(ChannelError::Shape {
                    value: value.clone(),
                    got: got.unwrap_or_default().to_vec(),
                    want: want.unwrap_or_default().to_vec(),
                });
            }
        }
    }
    Ok(())
}

/// One node, with what is removed around it.
struct Edit<'a> {
    graph: &'a Graph,
    inferred: &'a Inferred,
    groups: &'a ChannelGroups,
    removed: &'a Removed,
    node: &'a Node,
}

impl Edit<'_> {
    /// Changes the attributes and lists of the node in `result`.
    fn follow(
        &self,
        result: &mut Graph,
        replaced: &mut BTreeSet<String>,
    ) -> Result<(), ChannelError> {
        let channels = |name: Option<&str>| name.and_then(|name| self.groups.value(name));
        let input = channels(optional(self.node, 0));
        let output = channels(self.node.outputs.first().map(String::as_str));
        let (Some(input), Some(output)) = (input, output) else {
            return Ok(());
        };
        let changes = |axis: &AxisChannels| axis.kept(self.removed).len() < axis.channels.len();
        if !changes(input) && !changes(output) {
            return Ok(());
        }
        let mut node = self.node.clone();
        let mut lists = Vec::new();
        match &mut node.op {
            Op::Conv(attrs) => {
                if self.groups.is_depthwise(&self.node.name) {
                    attrs.groups = input.kept(self.removed).len();
                }
            }
            Op::Reshape { allow_zero } => {
                lists = self.reshaped(input, output, *allow_zero)?;
            }
            Op::Slice { bounds } => {
                if input.channels.len() == output.channels.len() {
                    return Ok(());
                }
                let (position, start, end) = self.bounds(input, output)?;
                match bounds {
                    Some(bounds) => {
                        put(&mut bounds.starts, position, start);
                        put(&mut bounds.ends, position, end);
                    }
                    None => lists = self.moved(&[(1, position, start), (2, position, end)])?,
                }
            }
            Op::Pad { pads, .. } => {
                let added = output.channels.len() - input.channels.len().min(output.channels.len());
                if added == 0 {
                    return Ok(());
                }
                let (entries, widths) = self.widths(input, output)?;
                match pads {
                    Some(pads) => {
                        put(pads, entries[0], widths[0]);
                        put(pads, entries[1], widths[1]);
                    }
                    None => {
                        let changes = [(1, entries[0], widths[0]), (1, entries[1], widths[1])];
                        lists = self.moved(&changes)?;
                    }
                }
            }
            Op::Gemm { .. }
            | Op::MatMul
            | Op::BatchNormalization { .. }
            | Op::Activation(_)
            | Op::PRelu
            | Op::Clip { .. }
            | Op::Arithmetic(_)
            | Op::Variadic(_)
            | Op::Concat { .. }
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::GlobalAveragePool
            | Op::GlobalMaxPool
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::ConvTranspose(_)
            | Op::LayerNormalization { .. }
            | Op::InstanceNormalization { .. }
            | Op::GroupNormalization { .. }
            | Op::Resize(_)
            | Op::Upsample { .. }
            | Op::DepthToSpace { .. }
            | Op::SpaceToDepth { .. }
            | Op::Split { .. }
            | Op::Expand
            | Op::Where
            | Op::Flatten { .. }
            | Op::Transpose { .. }
            | Op::Squeeze { .. }
            | Op::Unsqueeze { .. }
            | Op::Softmax(_)
            | Op::LogSoftmax(_)
            | Op::Dropout { .. }
            | Op::Identity
            | Op::Lrn { .. }
            | Op::Cast { .. }
            | Op::Shape { .. }
            | Op::Gather { .. }
            | Op::ConstantOfShape { .. } => return Ok(()),
        }
        for (slot, values) in lists {
            let old = node.inputs.get(slot).cloned().unwrap_or_default();
            let what = ["data", "first", "second", "axes", "steps"];
            let hint = format!(
                "{}.{}",
                node.name,
                what.get(slot).copied().unwrap_or("list")
            );
            let name = result.fresh_value(&hint);
            let list = match self.graph.initializers.get(&old) {
                Some(Tensor::I32(_)) => {
                    let values = values.iter().map(|&value| value as i32).collect::<Vec<_>>();
                    Tensor::I32(ArcArray::from(values).into_dyn())
                }
                _ => Tensor::I64(ArcArray::from(values).into_dyn()),
            };
            result.initializers.insert(name.clone(), list);
            if let Some(input) = node.inputs.get_mut(slot) {
                *input = name;
            }
            replaced.insert(old);
        }
        if let Some(place) = result.node_mut(&node.name) {
            *place = node;
        }
        Ok(())
    }

    fn fails(&self, problem: &'static str) -> ChannelError {
        ChannelError::Node {
            node: self.node.name.clone(),
            op: self.node.op.name(),
            problem,
        }
    }

    /// The list in `slot`.
    fn list(&self, slot: usize) -> Result<Option<Vec<i64>>, ChannelError> {
        let operands = Operands::new(self.graph, self.inferred, self.node);
        Ok(operands.integers(slot)?)
    }

    /// The lists of the changed slots, given `(slot, position, value)`.
    fn moved(
        &self,
        changes: &[(usize, usize, i64)],
    ) -> Result<Vec<(usize, Vec<i64>)>, ChannelError> {
        let mut lists: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        for &(slot, position, value) in changes {
            if let std::collections::btree_map::Entry::Vacant(entry) = lists.entry(slot) {
                let list = self.list(slot)?;
                entry.insert(list.ok_or_else(|| self.fails("a list is missing"))?);
            }
            if let Some(list) = lists.get_mut(&slot) {
                put(list, position, value);
            }
        }
        Ok(lists.into_iter().collect())
    }

    /// The shape of a `Reshape`, where its entry for the channels is a length.
    fn reshaped(
        &self,
        input: &AxisChannels,
        output: &AxisChannels,
        allow_zero: bool,
    ) -> Result<Vec<(usize, Vec<i64>)>, ChannelError> {
        let shape = self.list(1)?;
        let entry = shape.and_then(|shape| shape.get(output.axis).copied());
        let kept = output.kept(self.removed).len();
        match entry {
            Some(-1) => Ok(Vec::new()),
            Some(0) if !allow_zero && input.axis == output.axis => Ok(Vec::new()),
            Some(_) if kept == output.channels.len() => Ok(Vec::new()),
            Some(_) => self.moved(&[(1, output.axis, kept as i64)]),
            None => Err(self.fails("its shape has no entry for the channels")),
        }
    }

    /// The position of the channel axis in the lists of a `Slice`, and its new bounds.
    fn bounds(
        &self,
        input: &AxisChannels,
        output: &AxisChannels,
    ) -> Result<(usize, i64, i64), ChannelError> {
        let operands = Operands::new(self.graph, self.inferred, self.node);
        let slices = operands.slices()?;
        let slice = slices.get(input.axis);
        let slice = slice.ok_or_else(|| self.fails("the channel axis does not exist"))?;
        let axes = match &self.node.op {
            Op::Slice {
                bounds: Some(bounds),
            } => bounds.axes.clone(),
            _ => self.list(3)?,
        };
        let position = self.position(axes, input)?;
        let start = input.kept_below(slice.start, self.removed);
        let end = start + output.kept(self.removed).len();
        Ok((position, start as i64, end as i64))
    }

    /// The positions of the channel axis in the list of a `Pad`, and its new widths.
    fn widths(
        &self,
        input: &AxisChannels,
        output: &AxisChannels,
    ) -> Result<([usize; 2], [i64; 2]), ChannelError> {
        let operands = Operands::new(self.graph, self.inferred, self.node);
        let widths = operands.pad_widths()?;
        let width = widths.get(input.axis).map(|&[before, _]| before);
        let before = width.and_then(|before| usize::try_from(before).ok());
        let before = before.ok_or_else(|| self.fails("the channel axis is cut"))?;
        let (listed, axes) = match &self.node.op {
            Op::Pad {
                pads: Some(pads), ..
            } => (pads.len() / 2, None),
            _ => (
                self.list(1)?.map_or(0, |pads| pads.len() / 2),
                self.list(3)?,
            ),
        };
        let position = self.position(axes, input)?;
        let inner = before + input.channels.len();
        let kept_before = output.kept_below(before, self.removed);
        let kept_inner = output.kept_below(inner, self.removed);
        let kept = output.kept(self.removed).len();
        Ok((
            [position, position + listed],
            [kept_before as i64, (kept - kept_inner) as i64],
        ))
    }

    /// Where the channel axis stands in a list of axes; no list means all in order.
    fn position(
        &self,
        axes: Option<Vec<i64>>,
        input: &AxisChannels,
    ) -> Result<usize, ChannelError> {
        let Some(axes) = axes else {
            return Ok(input.axis);
        };
        let operands = Operands::new(self.graph, self.inferred, self.node);
        let rank = operands.shape(0)?.len();
        for (position, &axis) in axes.iter().enumerate() {
            if operands.axis(axis, rank)? == input.axis {
                return Ok(position);
            }
        }
        Err(self.fails("the channel axis is not among its axes"))
    }
}

fn put(list: &mut [i64], position: usize, value: i64) {
    if let Some(place) = list.get_mut(position) {
        *place = value;
    }
}
