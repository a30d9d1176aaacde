//! From classes of elements to groups of channels.

use super::classes::{Classes, Id};
use super::labels::{Labels, Use};
use super::{AxisChannels, ChannelGroup, ChannelGroups, ChannelId, FixedLayer, Member};
use std::collections::BTreeMap;

/// Layers that share a channel make one group.
pub(super) fn read_off(labels: Labels<'_>) -> ChannelGroups {
    let classes = &labels.classes;
    let (groups, channels) = number(classes, &labels.producers);
    let look_up = |ids: &[Id]| -> Vec<Option<ChannelId>> {
        ids.iter()
            .map(|&id| channels.get(&classes.root(id)).copied())
            .collect()
    };
    let mut result = ChannelGroups {
        groups,
        fixed: fixed_layers(classes, &labels.producers),
        depthwise: labels.depthwise.clone(),
        ..ChannelGroups::default()
    };
    for (name, value) in &labels.values {
        let (axis, channels) = (value.axis, look_up(&value.ids));
        let channels = AxisChannels { axis, channels };
        result.values.insert(name.clone(), channels);
    }
    for ((name, axis), ids) in &labels.stored {
        let (axis, channels) = (*axis, look_up(ids));
        let axes = result.stored.entry(name.clone()).or_default();
        axes.push(AxisChannels { axis, channels });
    }
    for member in &labels.members {
        let key = (member.initializer.clone(), member.axis);
        let ids = labels.stored.get(&key).map_or(&[][..], Vec::as_slice);
        add_member(&mut result.groups, member, &look_up(ids));
    }
    result
}

/// The groups, without members, and the channel of each class that may go.
fn number(
    classes: &Classes,
    producers: &[(String, Vec<Id>)],
) -> (Vec<ChannelGroup>, BTreeMap<Id, ChannelId>) {
    // Producers that share a class are joined; the first one stands for the group.
    let mut owners: BTreeMap<Id, usize> = BTreeMap::new();
    let mut parents: Vec<usize> = (0..producers.len()).collect();
    for (producer, (_, ids)) in producers.iter().enumerate() {
        for id in free(classes, ids) {
            let owner = *owners.entry(id).or_insert(producer);
            let (a, b) = (top(&parents, owner), top(&parents, producer));
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<ChannelGroup> = Vec::new();
    let mut positions: BTreeMap<usize, usize> = BTreeMap::new();
    let mut channels = BTreeMap::new();
    for (producer, (name, ids)) in producers.iter().enumerate() {
        for id in free(classes, ids) {
            let group = *positions.entry(top(&parents, producer)).or_insert_with(|| {
                groups.push(ChannelGroup {
                    name: name.clone(),
                    channels: 0,
                    members: Vec::new(),
                });
                groups.len() - 1
            });
            channels.entry(id).or_insert_with(|| {
                let channel = groups[group].channels;
                groups[group].channels += 1;
                ChannelId { group, channel }
            });
        }
    }
    (groups, channels)
}

/// The roots of the classes that may go.
fn free<'a>(classes: &'a Classes, ids: &'a [Id]) -> impl Iterator<Item = Id> + 'a {
    ids.iter()
        .map(|&id| classes.root(id))
        .filter(|&root| classes.reason(root).is_none())
}

fn top(parents: &[usize], mut at: usize) -> usize {
    while parents[at] != at {
        at = parents[at];
    }
    at
}

fn fixed_layers(classes: &Classes, producers: &[(String, Vec<Id>)]) -> Vec<FixedLayer> {
    let fixed_layer = |(node, ids): &(String, Vec<Id>)| {
        let mut reasons = ids.iter().filter_map(|&id| classes.reason(id));
        let reason = reasons.next()?.clone();
        Some(FixedLayer {
            node: node.clone(),
            fixed: 1 + reasons.count(),
            channels: ids.len(),
            reason,
        })
    };
    producers.iter().filter_map(fixed_layer).collect()
}

fn add_member(groups: &mut [ChannelGroup], member: &Use, channels: &[Option<ChannelId>]) {
    let mut found: BTreeMap<usize, Member> = BTreeMap::new();
    for (index, channel) in channels.iter().enumerate() {
        let Some(ChannelId { group, channel }) = *channel else {
            continue;
        };
        let part = found.entry(group).or_insert_with(|| Member {
            node: member.node.clone(),
            initializer: member.initializer.clone(),
            axis: member.axis,
            role: member.role,
            indices: vec![Vec::new(); groups[group].channels],
        });
        part.indices[channel].push(index);
    }
    for (group, part) in found {
        groups[group].members.push(part);
    }
}
