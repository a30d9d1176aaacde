//! A choice of channels that go, and what it leaves of every shape.

use super::{AxisChannels, ChannelGroups, ChannelId};
use crate::graph::Inferred;

/// The channels that go, of the groups of one graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// By group and channel, whether it goes.
    goes: Vec<Vec<bool>>,
}

impl Removed {
    /// Nothing of these groups.
    #[must_use]
    pub fn nothing(groups: &ChannelGroups) -> Self {
        let goes = groups.groups.iter();
        Self {
            goes: goes.map(|group| vec![false; group.channels]).collect(),
        }
    }

    /// Removes one more channel. A channel that does not exist changes nothing.
    pub fn insert(&mut self, id: ChannelId) {
        let group = self.goes.get_mut(id.group);
        if let Some(goes) = group.and_then(|group| group.get_mut(id.channel)) {
            *goes = true;
        }
    }

    /// Whether the channel goes.
    #[must_use]
    pub fn contains(&self, id: ChannelId) -> bool {
        let group = self.goes.get(id.group);
        group.and_then(|group| group.get(id.channel)) == Some(&true)
    }

    /// The channels of a group that go, increasing.
    pub fn of_group(&self, group: usize) -> impl Iterator<Item = usize> {
        let goes = self.goes.get(group).map_or(&[][..], Vec::as_slice);
        goes.iter()
            .enumerate()
            .filter_map(|(channel, &goes)| goes.then_some(channel))
    }
}

impl AxisChannels {
    /// The indices that stay, increasing.
    #[must_use]
    pub fn kept(&self, removed: &Removed) -> Vec<usize> {
        let stays = |id: &Option<ChannelId>| !id.is_some_and(|id| removed.contains(id));
        let indices = self.channels.iter().enumerate();
        indices
            .filter_map(|(index, id)| stays(id).then_some(index))
            .collect()
    }

    /// How many of the indices below `end` stay.
    #[must_use]
    pub fn kept_below(&self, end: usize, removed: &Removed) -> usize {
        let stays = |id: &&Option<ChannelId>| !id.is_some_and(|id| removed.contains(id));
        self.channels.iter().take(end).filter(stays).count()
    }
}

impl ChannelGroups {
    /// The first value or initializer of which nothing would be left.
    #[must_use]
    pub fn emptied(&self, removed: &Removed) -> Option<&str> {
        let values = self.values.iter();
        let stored = self
            .stored
            .iter()
            .flat_map(|(name, axes)| axes.iter().map(move |axis| (name, axis)));
        values
            .chain(stored)
            .find(|(_, axis)| {
                let length = axis.channels.len();
                length > 0 && axis.kept_below(length, removed) == 0
            })
            .map(|(name, _)| name.as_str())
    }

    /// The shapes that `inferred` has once the channels are gone. Constants are left out: they may
    /// hold lengths that change. With [`cost::of`](crate::cost::of) it gives the cost of the smaller
    /// graph before there is one.
    #[must_use]
    pub fn shapes_after(&self, inferred: &Inferred, removed: &Removed) -> Inferred {
        let mut shapes = inferred.shapes.clone();
        let mut shorten = |name: &String, axis: &AxisChannels| {
            let length = shapes
                .get_mut(name)
                .and_then(|shape| shape.get_mut(axis.axis));
            if let Some(length) = length {
                *length = axis.kept_below(axis.channels.len(), removed);
            }
        };
        for (name, axis) in &self.values {
            shorten(name, axis);
        }
        for (name, axes) in &self.stored {
            for axis in axes {
                shorten(name, axis);
            }
        }
        Inferred {
            shapes,
            ..Inferred::default()
        }
    }
}
