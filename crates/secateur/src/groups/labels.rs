//! The walk over the graph: which element lies where, and the rule for each operator.

use super::classes::{Classes, Id};
use super::{Fixed, Role};
use crate::graph::{
    FactoredKind, Graph, Inferred, Node, Op, Operands, SoftmaxAxis, Uses, factored_layers,
    input_factor, layer_of, optional,
};
use crate::tensor::{ElementType, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// The longest channel axis that is followed, and the most elements that one `Reshape` may sort:
/// twenty times what VGG-16 flattens at twice its image size. A damaged file may state any length.
pub(super) const MAX_CHANNELS: usize = 1 << 21;

/// The elements along the channel axis of a value.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    pub(super) axis: usize,
    pub(super) ids: Vec<Id>,
}

/// A node's use of one axis of an initializer.
#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) node: String,
    pub(super) initializer: String,
    pub(super) axis: usize,
    pub(super) role: Role,
}

/// What is known so far.
pub(super) struct Labels<'g> {
    pub(super) graph: &'g Graph,
    pub(super) inferred: &'g Inferred,
    pub(super) uses: Uses<'g>,
    pub(super) classes: Classes,
    /// Inputs and node outputs of two axes and more.
    pub(super) values: BTreeMap<String, Channels>,
    /// Axes of initializers that some node reads as channels.
    pub(super) stored: BTreeMap<(String, usize), Vec<Id>>,
    /// Values that nodes compute of initializers or shapes only.
    constants: BTreeSet<String>,
    /// The layers that make channels, with these.
    pub(super) producers: Vec<(String, Vec<Id>)>,
    pub(super) members: Vec<Use>,
    pub(super) depthwise: BTreeSet<String>,
    /// Initializers that must keep their shape.
    frozen: Vec<(String, Fixed)>,
    /// Factored layers by their basis node and by their input factor, and the names of their projections.
    pub(super) bases: BTreeMap<String, String>,
    pub(super) projections: BTreeSet<String>,
}

impl<'g> Labels<'g> {
    pub(super) fn new(graph: &'g Graph, inferred: &'g Inferred) -> Self {
        let mut bases = BTreeMap::new();
        let mut projections = BTreeSet::new();
        for layer in factored_layers(graph) {
            bases.insert(layer.basis, layer.name);
            if layer.kind == FactoredKind::Convolution {
                projections.insert(layer.projection);
            }
        }
        let uses = Uses::of(graph);
        for node in &graph.nodes {
            if let Some(factor) = input_factor(graph, &uses, node) {
                bases.insert(factor.node, layer_of(&node.name).to_owned());
            }
        }
        Self {
            graph,
            inferred,
            uses,
            classes: Classes::default(),
            values: BTreeMap::new(),
            stored: BTreeMap::new(),
            constants: BTreeSet::new(),
            producers: Vec::new(),
            members: Vec::new(),
            depthwise: BTreeSet::new(),
            frozen: Vec::new(),
            bases,
            projections,
        }
    }

    /// Follows the channels from the inputs to the outputs.
    pub(super) fn run(&mut self) {
        let graph = self.graph;
        for input in &graph.inputs {
            if !graph.initializers.contains_key(&input.name) {
                self.keep_value(&input.name, &Fixed::GraphInput(input.name.clone()));
            }
        }
        for node in &graph.nodes {
            self.visit(node);
        }
        for output in &graph.outputs {
            let reason = Fixed::GraphOutput(output.name.clone());
            if let Some(channels) = self.values.get(&output.name) {
                self.classes.fix(&channels.ids, &reason);
            } else {
                self.frozen.push((output.name.clone(), reason));
            }
        }
        for (name, reason) in std::mem::take(&mut self.frozen) {
            let axes = self.stored.range((name.clone(), 0)..=(name, usize::MAX));
            for (_, ids) in axes {
                self.classes.fix(ids, &reason);
            }
        }
        self.keep_the_last();
    }

    /// A class that is all there is of a value or of an initializer stays.
    fn keep_the_last(&mut self) {
        let values = self.values.iter().map(|(name, c)| (name, &c.ids));
        let stored = self.stored.iter().map(|((name, _), ids)| (name, ids));
        for (name, ids) in values.chain(stored) {
            let Some(&first) = ids.first() else { continue };
            let root = self.classes.root(first);
            if ids.iter().all(|&id| self.classes.root(id) == root) {
                self.classes.fix(&[first], &Fixed::Whole(name.clone()));
            }
        }
    }

    fn visit(&mut self, node: &Node) {
        let is_constant =
            |name: &String| self.graph.initializers.contains_key(name) || self.is_constant(name);
        let mut named = node.inputs.iter().filter(|name| !name.is_empty());
        if matches!(node.op, Op::Shape { .. }) {
            self.shape_is_read(node);
            self.constants.extend(node.outputs.iter().cloned());
            return;
        }
        if named.all(is_constant) {
            let reason = Fixed::WeightComputed {
                node: node.name.clone(),
            };
            self.freeze(node, &reason);
            self.constants.extend(node.outputs.iter().cloned());
            return;
        }
        match self.transfer(node) {
            Ok(channels) => {
                for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                    self.values.insert(output.clone(), channels.clone());
                }
            }
            Err(reason) => self.give_up(node, &reason),
        }
    }

    /// The channels that `node` makes of what it reads.
    fn transfer(&mut self, node: &Node) -> Result<Channels, Fixed> {
        match &node.op {
            Op::Conv(attrs) => self.conv(node, attrs.groups),
            Op::Gemm {
                trans_a, trans_b, ..
            } => self.gemm(node, *trans_a, *trans_b),
            Op::MatMul => self.mat_mul(node),
            Op::BatchNormalization { .. } => self.batch_norm(node),
            Op::Activation(_) | Op::Clip { .. } | Op::Dropout { .. } | Op::Identity => {
                self.input(node)
            }
            Op::Cast { to } => match to {
                ElementType::F32 => self.input(node),
                ElementType::F64 | ElementType::I32 | ElementType::I64 | ElementType::Bool => {
                    Err(unknown(node))
                }
            },
            Op::PRelu | Op::Arithmetic(_) | Op::Variadic(_) => self.elementwise(node),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool | Op::GlobalMaxPool => {
                // The indices of a maximum count positions of all channels.
                let has_indices = optional_output(node, 1);
                let channels = self.input(node)?;
                if channels.axis == 1 && !has_indices {
                    Ok(channels)
                } else {
                    Err(unknown(node))
                }
            }
            Op::Reduce { keep_dims, .. } | Op::ArgMax { keep_dims, .. } => {
                self.reduce(node, *keep_dims)
            }
            Op::Flatten { .. } => self.reshape(node),
            Op::Reshape { .. } => self.reshape(node),
            Op::Transpose { perm } => self.transpose(node, perm.as_deref()),
            Op::Squeeze { axes } => self.squeeze(node, axes.as_deref()),
            Op::Unsqueeze { axes } => self.unsqueeze(node, axes.as_deref()),
            Op::Slice { .. } => self.slice(node),
            Op::Pad { mode, .. } => self.pad(node, *mode),
            Op::Softmax(axis) | Op::LogSoftmax(axis) => {
                let channels = self.input(node)?;
                let rank = self.shape(node, 0)?.len();
                let passes = match *axis {
                    SoftmaxAxis::Single(axis) => self.axis(node, axis, rank)? != channels.axis,
                    SoftmaxAxis::FlattenFrom(axis) => {
                        channels.axis < self.axis(node, axis, rank)?
                    }
                };
                if passes {
                    Ok(channels)
                } else {
                    Err(unknown(node))
                }
            }
            // Kept whole: not followed channel by channel yet, or mixing channels.
            Op::ConvTranspose(_)
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
            | Op::Lrn { .. }
            | Op::Shape { .. }
            | Op::Gather { .. }
            | Op::ConstantOfShape { .. } => Err(unknown(node)),
        }
    }

    /// Keeps all that `node` reads and makes.
    fn give_up(&mut self, node: &Node, reason: &Fixed) {
        for input in &node.inputs {
            if let Some(channels) = self.values.get(input) {
                self.classes.fix(&channels.ids, reason);
            }
        }
        self.freeze(node, reason);
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            self.keep_value(output, reason);
        }
        // A layer may have been listed before its bias turned out to be computed.
        let is_listed = self
            .producers
            .last()
            .is_some_and(|(name, _)| *name == node.name);
        if matches!(node.op, Op::Conv(_) | Op::Gemm { .. } | Op::MatMul)
            && !is_listed
            && let Some(channels) = node.outputs.first().and_then(|name| self.values.get(name))
        {
            self.producers
                .push((node.name.clone(), channels.ids.clone()));
        }
    }

    fn freeze(&mut self, node: &Node, reason: &Fixed) {
        let stored = node
            .inputs
            .iter()
            .filter(|name| self.graph.initializers.contains_key(*name));
        self.frozen
            .extend(stored.map(|name| (name.clone(), reason.clone())));
    }

    /// Gives a value channels that stay, along axis 1.
    fn keep_value(&mut self, value: &str, reason: &Fixed) {
        if let Some(&[_, length, ..]) = self.inferred.shape(value)
            && length <= MAX_CHANNELS
        {
            let ids = self.classes.fresh(length);
            self.classes.fix(&ids, reason);
            self.values
                .insert(value.to_owned(), Channels { axis: 1, ids });
        }
    }

    /// The number of channels must stay where more than the other axes is read of a shape.
    fn shape_is_read(&mut self, node: &Node) {
        let reason = Fixed::ShapeRead {
            node: node.name.clone(),
        };
        self.freeze(node, &reason);
        let Some(channels) = optional(node, 0).and_then(|name| self.values.get(name)) else {
            return;
        };
        let Op::Shape { start, end } = node.op else {
            return;
        };
        let rank = optional(node, 0)
            .and_then(|name| self.inferred.shape(name))
            .map_or(0, |shape| shape.len() as i64);
        let bound = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank);
        let (first, last) = (bound(start), bound(end.unwrap_or(rank)));
        let entry = channels.axis as i64 - first;
        if entry < 0 || channels.axis as i64 >= last {
            return;
        }
        let output = node.outputs.first().map_or("", String::as_str);
        let others_only = self.uses.readers(output).iter().all(|&reader| {
            self.graph
                .nodes
                .get(reader)
                .is_some_and(|reader| self.leaves_out(reader, entry))
        });
        if !others_only || self.graph.is_output(output) {
            let ids = channels.ids.clone();
            self.classes.fix(&ids, &reason);
        }
    }

    /// Whether `reader` takes other entries of a list than the one at `entry`.
    fn leaves_out(&self, reader: &Node, entry: i64) -> bool {
        let operands = Operands::new(self.graph, self.inferred, reader);
        let length = operands
            .shape(0)
            .ok()
            .and_then(|shape| shape.first().copied());
        let length = length.unwrap_or(0) as i64;
        match &reader.op {
            Op::Gather { .. } => match operands.integers(1) {
                Ok(Some(indices)) => indices
                    .iter()
                    .all(|&index| (if index < 0 { index + length } else { index }) != entry),
                Ok(None) | Err(_) => false,
            },
            Op::Slice { .. } => match operands.slices().as_deref() {
                Ok([slice]) => slice.indices().all(|index| index as i64 != entry),
                Ok(_) | Err(_) => false,
            },
            _ => false,
        }
    }

    /// The channels of the node's first input.
    pub(super) fn input(&self, node: &Node) -> Result<Channels, Fixed> {
        let channels = optional(node, 0).and_then(|name| self.values.get(name));
        let shape = self.shape(node, 0)?;
        channels
            .filter(|channels| shape.get(channels.axis) == Some(&channels.ids.len()))
            .cloned()
            .ok_or_else(|| unknown(node))
    }

    pub(super) fn is_constant(&self, value: &str) -> bool {
        self.constants.contains(value)
    }

    pub(super) fn shape(&self, node: &Node, slot: usize) -> Result<&'g [usize], Fixed> {
        let shape = optional(node, slot).and_then(|name| self.inferred.shape(name));
        shape.ok_or_else(|| unknown(node))
    }

    pub(super) fn output_shape(&self, node: &Node) -> Result<&'g [usize], Fixed> {
        let name = node.outputs.first().ok_or_else(|| unknown(node))?;
        self.inferred.shape(name).ok_or_else(|| unknown(node))
    }

    pub(super) fn axis(&self, node: &Node, axis: i64, rank: usize) -> Result<usize, Fixed> {
        let operands = Operands::new(self.graph, self.inferred, node);
        operands.axis(axis, rank).map_err(|_| unknown(node))
    }

    /// The name and shape of the `f32` initializer in `slot`.
    pub(super) fn weight(&self, node: &Node, slot: usize) -> Option<(String, Vec<usize>)> {
        let name = optional(node, slot)?;
        match self.graph.initializers.get(name)? {
            Tensor::F32(array) => Some((name.to_owned(), array.shape().to_vec())),
            Tensor::F64(_) | Tensor::I32(_) | Tensor::I64(_) | Tensor::Bool(_) => None,
        }
    }

    /// The elements along an axis of an initializer, which `node` reads in this role.
    pub(super) fn stored_axis(
        &mut self,
        node: &Node,
        name: &str,
        (axis, length): (usize, usize),
        role: Role,
    ) -> Vec<Id> {
        self.members.push(Use {
            node: node.name.clone(),
            initializer: name.to_owned(),
            axis,
            role,
        });
        self.elements(name, axis, length)
    }

    fn elements(&mut self, name: &str, axis: usize, length: usize) -> Vec<Id> {
        let classes = &mut self.classes;
        self.stored
            .entry((name.to_owned(), axis))
            .or_insert_with(|| classes.fresh(length))
            .clone()
    }

    /// Keeps the axes of a shared initializer that `node` does not read as channels: another node
    /// might.
    pub(super) fn keep_other_axes(
        &mut self,
        node: &Node,
        name: &str,
        shape: &[usize],
        used: &[usize],
    ) {
        if self.uses.readers(name).len() < 2 {
            return;
        }
        for (axis, &length) in shape.iter().enumerate() {
            if !used.contains(&axis) && length > 1 {
                let ids = self.elements(name, axis, length);
                self.classes.fix(&ids, &unknown(node));
            }
        }
    }
}

/// The reason of a node that is not followed.
pub(super) fn unknown(node: &Node) -> Fixed {
    Fixed::Operator {
        node: node.name.clone(),
        op: node.op.name(),
    }
}

fn optional_output(node: &Node, slot: usize) -> bool {
    node.outputs.get(slot).is_some_and(|name| !name.is_empty())
}
