//! Channel groups: the channels of a network that can only be removed together.
//!
//! Stands before the selection of channels (method, section 6). Every channel of every value, and
//! every index of an axis of an initializer that belongs to a channel, is an element. One rule per
//! operator joins the elements that cannot go one without the other: the two sides of a residual
//! sum, the scale of batch norm and the map it scales, the columns of a dense layer that one channel
//! of a flattened map fills. What is joined in the end is one channel of a group. An operator
//! without a rule keeps everything that it reads, so an unknown network is kept whole rather than
//! broken; [`ChannelGroups::fixed`] says why.
//!
//! - Channels that reach an output of the graph, or come from an input, stay.
//! - The channels of a grouped convolution leave all of its groups at the same place: channel `j`
//!   of group 0 goes with channel `j` of every other group.
//! - A `Reshape` that splits the channel axis, as a channel shuffle does, keeps one of the new axes
//!   as the channel axis and joins the channels that differ along the others only.
//! - The directions of a factored layer are no channels: they are cut by [`crate::graph::FactoredLayer`]
//!   and its plan. The layer's inputs and outputs are channels like those of one convolution.

mod classes;
mod elementwise;
mod labels;
mod layers;
mod layout;
mod read_off;
mod removed;
mod reshape;
#[cfg(test)]
mod tests;

pub use removed::Removed;

use crate::graph::{Graph, Inferred};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What an initializer does to the channels of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The weight of a layer that makes the channels, along its output axis.
    Produces,
    /// The bias of a layer that makes the channels.
    Bias,
    /// The weight of a layer that reads the channels, along its input axis.
    Consumes,
    /// Passes each channel on by itself: batch norm, a depthwise convolution, a stored scale.
    Passes,
}

/// The part of a group that lies in one axis of one initializer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The node that reads the initializer.
    pub node: String,
    /// The initializer.
    pub initializer: String,
    /// Its axis.
    pub axis: usize,
    /// What it does to the channels.
    pub role: Role,
    /// By channel of the group, the indices along the axis that go with it, increasing; none where
    /// the channel has no part here.
    pub indices: Vec<Vec<usize>>,
}

/// Channels that are made by the same layers, and all that goes with each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelGroup {
    /// The name of the first node that makes the channels.
    pub name: String,
    /// The number of channels that can be removed or kept one by one. Channel `i` is the `i`-th one
    /// that the first producer makes and that is not fixed; those that only later producers make
    /// follow.
    pub channels: usize,
    /// Every axis of an initializer that loses something when a channel goes, in node order.
    pub members: Vec<Member>,
}

impl ChannelGroup {
    /// The nodes with a part of this role, in node order, each once.
    pub fn nodes(&self, role: Role) -> impl Iterator<Item = &str> {
        let mut seen = BTreeSet::new();
        self.members
            .iter()
            .filter(move |member| member.role == role)
            .map(|member| member.node.as_str())
            .filter(move |node| seen.insert(*node))
    }
}

/// Why channels stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fixed {
    /// They come from the caller.
    #[error("its channels are those of the graph's input `{0}`")]
    GraphInput(String),
    /// The caller reads them.
    #[error("its channels reach the graph's output `{0}`")]
    GraphOutput(String),
    /// A node mixes channels in a way that is not followed.
    #[error("its channels reach node `{node}` ({op}), which does not treat them one by one")]
    Operator {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
    },
    /// A weight or constant that would lose a slice is computed by the graph or is not `f32`.
    #[error("node `{node}` reads a weight that is not a stored f32 constant")]
    WeightComputed {
        /// The node's name.
        node: String,
    },
    /// A shape, bound or pad that would change is computed by the graph.
    #[error("node `{node}` ({op}) takes its shape or bounds from other nodes")]
    ShapeComputed {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
    },
    /// The number of channels is read and used in a computation.
    #[error("node `{node}` reads the number of channels")]
    ShapeRead {
        /// The node's name.
        node: String,
    },
    /// They are the directions of a factored layer.
    #[error("its channels are the directions of factored layer `{0}`")]
    Directions(String),
    /// Nothing would be left of a value or an initializer.
    #[error("nothing would be left of `{0}`")]
    Whole(String),
}

/// A layer that makes channels of which some or all stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FixedLayer {
    /// The node's name.
    pub node: String,
    /// The number of output channels that stay whatever is selected.
    pub fixed: usize,
    /// The number of output channels.
    pub channels: usize,
    /// Why the first of them stays.
    pub reason: Fixed,
}

/// One channel: the position of its group in [`ChannelGroups::groups`], and its number in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// Index of the group.
    pub group: usize,
    /// Index of the channel in the group.
    pub channel: usize,
}

/// What lies along the channel axis of a value, or along one axis of an initializer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisChannels {
    /// The axis.
    pub axis: usize,
    /// By index, the channel that it belongs to; `None` where it stays.
    pub channels: Vec<Option<ChannelId>>,
}

/// The channel groups of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelGroups {
    /// The groups of which something can be removed, in the order of their first producers.
    pub groups: Vec<ChannelGroup>,
    /// The layers that make channels which stay, in node order.
    pub fixed: Vec<FixedLayer>,
    values: BTreeMap<String, AxisChannels>,
    stored: BTreeMap<String, Vec<AxisChannels>>,
    depthwise: BTreeSet<String>,
}

impl ChannelGroups {
    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&ChannelGroup> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// What lies along the channel axis of `value`, an input or a node's output; `None` where it has
    /// no such axis.
    #[must_use]
    pub fn value(&self, value: &str) -> Option<&AxisChannels> {
        self.values.get(value)
    }

    /// The axes of initializers that hold channels, by name.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &[AxisChannels])> {
        self.stored
            .iter()
            .map(|(name, axes)| (name.as_str(), axes.as_slice()))
    }

    /// Whether the convolution of this name passes each channel on by itself, so that its number of
    /// groups follows that of its input channels.
    #[must_use]
    pub fn is_depthwise(&self, node: &str) -> bool {
        self.depthwise.contains(node)
    }
}

/// Finds the channel groups of `graph`; `inferred` is what [`infer`](crate::graph::infer) says of it,
/// for a size of images that the network will see: a dense layer after `Flatten` has as many
/// columns per channel as the map has positions.
///
/// Never fails: what is not understood is fixed, and listed as such.
#[must_use]
pub fn discover(graph: &Graph, inferred: &Inferred) -> ChannelGroups {
    let mut labels = labels::Labels::new(graph, inferred);
    labels.run();
    read_off::read_off(labels)
}
