//! Channel pruning: a plan says which channels of which groups stay, and becomes a smaller graph.
//!
//! The other half of double pruning (method, section 6). The groups are those of
//! [`groups::discover`](crate::groups::discover). [`apply`] removes the slices of every
//! initializer that belong to a removed channel; [`zero`] sets to 0 the weights that read it, and
//! changes no shape: both compute the same. [`cost()`] says what is left before anything is cut.
//! [`repair`] lets the kept inputs of a layer stand in for the removed ones.

mod apply;
mod repair;
#[cfg(test)]
mod tests;

pub use apply::{apply, zero};
pub use repair::{
    LayerRepair, Reconstruction, RepairConfig, RepairError, reconstruct, repair, repairable,
};

use crate::cost::{self, Cost};
use crate::graph::{Graph, InferError, Inferred};
use crate::groups::{ChannelGroups, ChannelId, Removed, discover};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the plan's format.
pub const CHANNEL_PLAN_VERSION: u32 = 1;

/// Which channels of which groups stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelPlan {
    /// [`CHANNEL_PLAN_VERSION`].
    pub version: u32,
    /// By the name of the group; groups that are not named stay as they are.
    pub groups: BTreeMap<String, GroupPlan>,
}

/// Which channels of one group stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlan {
    /// The number of channels that the group has before the cut.
    pub channels: usize,
    /// The channels that stay, increasing.
    pub keep: Vec<usize>,
}

impl ChannelPlan {
    /// The plan that removes these channels; groups that lose nothing are not named.
    #[must_use]
    pub fn of(groups: &ChannelGroups, removed: &Removed) -> Self {
        let mut plans = BTreeMap::new();
        for (group, found) in groups.groups.iter().enumerate() {
            let keep: Vec<usize> = (0..found.channels)
                .filter(|&channel| !removed.contains(ChannelId { group, channel }))
                .collect();
            let channels = found.channels;
            if keep.len() < channels {
                plans.insert(found.name.clone(), GroupPlan { channels, keep });
            }
        }
        Self {
            version: CHANNEL_PLAN_VERSION,
            groups: plans,
        }
    }

    /// The channels that the plan removes, checked: at least one channel of every group, of every
    /// value and of every initializer stays.
    ///
    /// # Errors
    /// [`ChannelError`] names the group that does not fit, or the value that would be empty.
    pub fn removed(&self, groups: &ChannelGroups) -> Result<Removed, ChannelError> {
        if self.version != CHANNEL_PLAN_VERSION {
            return Err(ChannelError::Version(self.version));
        }
        let mut removed = Removed::nothing(groups);
        for (name, plan) in &self.groups {
            let group = groups.groups.iter().position(|group| group.name == *name);
            let group = group.ok_or_else(|| ChannelError::NoSuchGroup(name.clone()))?;
            let found = groups.groups[group].channels;
            if plan.channels != found {
                return Err(ChannelError::Channels {
                    group: name.clone(),
                    plan: plan.channels,
                    graph: found,
                });
            }
            plan.check(name)?;
            for channel in 0..found {
                if plan.keep.binary_search(&channel).is_err() {
                    removed.insert(ChannelId { group, channel });
                }
            }
        }
        match groups.emptied(&removed) {
            Some(value) => Err(ChannelError::Empty(value.to_owned())),
            None => Ok(removed),
        }
    }
}

impl GroupPlan {
    fn check(&self, group: &str) -> Result<(), ChannelError> {
        let following = self.keep.iter().zip(self.keep.iter().skip(1));
        let problem = if self.keep.is_empty() {
            "keeps no channel"
        } else if following.into_iter().any(|(a, b)| a >= b) {
            "does not list its channels in increasing order"
        } else if self.keep.iter().any(|&channel| channel >= self.channels) {
            "keeps a channel that the group does not have"
        } else {
            return Ok(());
        };
        Err(ChannelError::Indices {
            group: group.to_owned(),
            problem,
        })
    }
}

/// A plan that does not fit a graph.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The plan was written in another format.
    #[error("the plan has version {0}, but version {CHANNEL_PLAN_VERSION} is known")]
    Version(u32),
    /// The graph has no group of that name.
    #[error("the plan names group `{0}`, but the graph has no channel group of that name")]
    NoSuchGroup(String),
    /// The group has another number of channels.
    #[error("group `{group}`: the plan is made for {plan} channels, but the group has {graph}")]
    Channels {
        /// The group.
        group: String,
        /// The number that the plan states.
        plan: usize,
        /// The number found.
        graph: usize,
    },
    /// The kept channels are not a sorted set of channels.
    #[error("group `{group}`: the plan {problem}")]
    Indices {
        /// The group.
        group: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A value or an initializer would have no channel left.
    #[error("the plan leaves no channel of `{0}`")]
    Empty(String),
    /// A node's list of lengths, bounds or pads cannot be changed as the plan needs.
    #[error("node `{node}` ({op}): {problem}")]
    Node {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The smaller graph would not have the shapes that were foreseen.
    #[error("value `{value}` would have shape {got:?} after the cut, wanted {want:?}")]
    Shape {
        /// The value.
        value: String,
        /// The shape found.
        got: Vec<usize>,
        /// The shape foreseen.
        want: Vec<usize>,
    },
    /// The shapes of the smaller graph do not fit.
    #[error(transparent)]
    Infer(#[from] InferError),
}

/// What the graph costs after [`apply`], at the price of a look at its shapes. `inferred` is what
/// [`infer`](crate::graph::infer) says of `graph`.
///
/// # Errors
/// [`ChannelError`] where the plan does not fit the graph.
pub fn cost(graph: &Graph, inferred: &Inferred, plan: &ChannelPlan) -> Result<Cost, ChannelError> {
    let groups = discover(graph, inferred);
    let removed = plan.removed(&groups)?;
    Ok(cost::of(graph, &groups.shapes_after(inferred, &removed)))
}
