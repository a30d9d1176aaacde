//! One cut of channels: which go, how the rest stands in for them, and the smaller network
//! (docs/method.md, section 6).

use super::PipelineError;
use super::channel_order::{ChannelOrder, aligned, shortest};
use super::choose::exported_size;
use super::score::Scoring;
use super::stages::{light_with, shapes};
use super::times::Times;
use crate::decompose::{OutputMoments, cap_ranks};
use crate::graph::{Graph, Inferred, Op, Size, factored_layers, layer_of};
use crate::groups::{ChannelGroups, ChannelId, Removed, Role, discover};
use crate::importance::{ChannelScore, Reader, RemovalOrder, by_weights};
use crate::prune::Per;
use crate::prune::channels::{self, ChannelPlan, RepairConfig};
use crate::train::{ChannelAxis, KeptChannels, Wanted};
use std::collections::{BTreeMap, BTreeSet};

/// A network that has lost channels.
#[derive(Clone, Debug)]
pub(super) struct ChannelCut {
    pub graph: Graph,
    pub plan: ChannelPlan,
    /// What is left of every batch norm.
    pub kept: KeptChannels,
}

/// Part of the mean diagonal that is added to second moments before they are inverted: channels that
/// hardly vary would make them singular.
const RIDGE: f64 = 1e-4;

/// Channels of a value beyond which its second moment is not gathered (half a gigabyte with its inverse):
/// what such a value is made of stays. A flattened map of many positions is one.
const MAX_READ: usize = 4608;

impl Scoring<'_> {
    /// The values that a cut of channels wants to know of.
    pub(super) fn channel_reads(&self, graph: &Graph) -> Result<BTreeSet<Wanted>, PipelineError> {
        let inferred = shapes(graph, self.prepared)?;
        let groups = discover(graph, &inferred);
        Ok(wanted_of(&reads(graph, &groups), &groups, &inferred))
    }

    /// Removes the channels that lose least for what they save in the unit of the ranking, until
    /// `is_enough` of the network as exported, or all that can go where that is too little. `None` where
    /// nothing can.
    ///
    /// `moments` are those of `graph`, `costs` its [`Self::alone`], and `times` its times, where time counts.
    pub(super) fn cut_channels(
        &self,
        graph: &Graph,
        moments: &BTreeMap<String, OutputMoments>,
        costs: &BTreeMap<String, Vec<f64>>,
        is_enough: &dyn Fn(Size) -> bool,
        times: Option<&Times>,
    ) -> Result<Option<ChannelCut>, PipelineError> {
        let inferred = shapes(graph, self.prepared)?;
        let groups = discover(graph, &inferred);
        let reads = reads(graph, &groups);
        let wanted = wanted_of(&reads, &groups, &inferred);
        let moments = wanted
            .iter()
            .filter_map(|wanted| moments.get_key_value(&wanted.value));
        let settings = &self.settings.prune;
        let (mut readers, mut seconds) = (Vec::new(), BTreeMap::new());
        for (value, known) in moments {
            let second = known.second();
            // By what a channel costs alone, where that was measured.
            let costs = costs
                .get(value)
                .filter(|costs| costs.len() == second.nrows());
            let curvature = match costs {
                Some(costs) => {
                    let pairs = costs.iter().zip(second.diag());
                    pairs
                        .map(|(cost, second)| cost / second.max(f64::MIN_POSITIVE))
                        .collect()
                }
                None => known.gradient.diag().to_owned(),
            };
            if let Some(axis) = groups.value(value)
                && let Some(reader) = Reader::new(&axis.channels, &second, curvature.view(), RIDGE)
            {
                readers.push(reader);
                seconds.insert(value.clone(), second);
            }
        }
        match settings.channel_score {
            ChannelScore::Fisher | ChannelScore::Measured => {}
            ChannelScore::Taylor => {
                let reader = |(value, costs): (String, Vec<f64>)| {
                    let channels = groups.value(&value)?.channels.clone();
                    Some(Reader::of_costs(channels, costs))
                };
                readers = costs.clone().into_iter().filter_map(reader).collect();
            }
            score => readers = by_weights(score, graph, &groups),
        }
        if readers.is_empty() && !seconds.is_empty() {
            return Err(PipelineError::Setting {
                setting: "channel-score",
                value: settings.channel_score.name().to_owned(),
                want: "another one: the network has nothing that it is read from",
            });
        }
        let exclude = match &settings.exclude {
            Some(pattern) => Some(regex::Regex::new(pattern)?),
            None => None,
        };
        let is_excluded = |node: &str| {
            let exclude = exclude.as_ref();
            exclude.is_some_and(|exclude| exclude.is_match(layer_of(node)))
        };
        let is_scored = |group: usize| readers.iter().any(|reader| reader.is_of(group));
        let saved: Vec<f64> = saved(graph, &groups, &inferred, times)
            .iter()
            .map(|size| match settings.per() {
                Per::Parameter => size.params as f64,
                Per::Mac => size.macs as f64,
                Per::Time => size.nanos as f64,
                Per::Direction => 1.0,
            })
            .zip(&groups.groups)
            .enumerate()
            .map(|(index, (saved, group))| {
                // A group that is excluded, has no score, or is read where nothing is known, saves nothing: it stays.
                let is_known =
                    |node: &str| reads.get(node).is_some_and(|v| seconds.contains_key(v));
                let stays = group.nodes(Role::Consumes).any(|node| !is_known(node))
                    || !is_scored(index)
                    || group.members.iter().any(|member| is_excluded(&member.node));
                if stays { 0.0 } else { saved }
            })
            .collect();
        let sizes: Vec<usize> = groups.groups.iter().map(|group| group.channels).collect();
        let order = RemovalOrder::new(readers, &sizes, &saved);
        let mut order = ChannelOrder::new(&groups, order);
        let removed = |run: &[ChannelId]| {
            let mut removed = Removed::nothing(&groups);
            let aligned = aligned(run, &sizes, settings.align());
            aligned.into_iter().for_each(|id| removed.insert(id));
            removed
        };
        let is_enough = |run: &[ChannelId]| -> Result<bool, PipelineError> {
            let plan = ChannelPlan::of(&groups, &removed(run));
            let cut = channels::apply(graph, &inferred, &plan)?;
            Ok(is_enough(exported_size(&cut, self.prepared, times)?))
        };
        let may_go = sizes.iter().zip(&saved).filter(|(_, saved)| **saved > 0.0);
        let most = may_go.map(|(size, _)| size.saturating_sub(1)).sum();
        let run = shortest(most, &mut |n| order.first(n).to_vec(), &is_enough)?;
        let removed = removed(&run);
        if removed == Removed::nothing(&groups) {
            return Ok(None);
        }
        let plan = ChannelPlan::of(&groups, &removed);
        let repairable = channels::repairable(graph, &inferred, &plan)?;
        let by_layer = repairable.into_iter().filter_map(|(layer, _)| {
            let second = seconds.get(reads.get(&layer)?)?.clone();
            Some((layer, second))
        });
        let config = RepairConfig { ridge: RIDGE };
        let (repaired, _) = channels::repair(graph, &inferred, &plan, &by_layer.collect(), config)?;
        let cut = channels::apply(&repaired, &inferred, &plan)?;
        Ok(Some(ChannelCut {
            graph: cap_ranks(&cut)?,
            kept: kept(graph, &groups, &removed),
            plan,
        }))
    }

    /// What each channel of what layers read costs where nothing stands in for it; nothing where the settings rank
    /// channels by something else.
    pub(super) fn alone(&self, graph: &Graph) -> Result<BTreeMap<String, Vec<f64>>, PipelineError> {
        let score = self.settings.prune.channel_score;
        if !matches!(score, ChannelScore::Measured | ChannelScore::Taylor) {
            return Ok(BTreeMap::new());
        }
        let inferred = shapes(graph, self.prepared)?;
        let groups = discover(graph, &inferred);
        let wanted = wanted_of(&reads(graph, &groups), &groups, &inferred);
        let zeros = |wanted: &Wanted| {
            // Not even its mean.
            let means = vec![0.0; groups.value(&wanted.value)?.channels.len()];
            Some((wanted.clone(), means))
        };
        let values: Vec<(Wanted, Vec<f64>)> = wanted.iter().filter_map(zeros).collect();
        let names: Vec<String> = values
            .iter()
            .map(|(wanted, _)| wanted.value.clone())
            .collect();
        self.channel_costs(&light_with(graph, &names)?, &values)
    }
}

/// By layer that reads channels of a group, the value that it reads.
fn reads(graph: &Graph, groups: &ChannelGroups) -> BTreeMap<String, String> {
    let consumers = groups
        .groups
        .iter()
        .flat_map(|group| group.nodes(Role::Consumes));
    consumers
        .filter_map(|name| {
            let value = graph.node(name)?.inputs.first()?;
            groups.value(value)?;
            Some((name.to_owned(), value.clone()))
        })
        .collect()
}

fn wanted_of(
    reads: &BTreeMap<String, String>,
    groups: &ChannelGroups,
    inferred: &Inferred,
) -> BTreeSet<Wanted> {
    reads
        .values()
        .filter_map(|value| wanted(value, groups, inferred))
        .collect()
}

/// The value and where its channels are; `None` where they are on neither axis that is measured.
fn wanted(value: &str, groups: &ChannelGroups, inferred: &Inferred) -> Option<Wanted> {
    let found = groups.value(value)?;
    if found.channels.len() > MAX_READ {
        return None;
    }
    let axis = found.axis;
    let rank = inferred.shapes.get(value)?.len();
    let channels = match axis {
        1 => ChannelAxis::Second,
        axis if axis + 1 == rank => ChannelAxis::Last,
        _ => return None,
    };
    Some(Wanted {
        value: value.to_owned(),
        channels,
    })
}

/// What removing one channel of each group saves now.
fn saved(
    graph: &Graph,
    groups: &ChannelGroups,
    inferred: &Inferred,
    times: Option<&Times>,
) -> Vec<Size> {
    let factored = factored_layers(graph);
    let positions = |node: &str| {
        let output = graph.node(node).and_then(|node| node.outputs.first());
        let shape = output.and_then(|output| inferred.shapes.get(output));
        let axes = shape.and_then(|shape| match graph.node(node).map(|node| &node.op) {
            Some(Op::Conv(_)) => shape.get(2..),
            Some(Op::MatMul) => shape.get(1..shape.len().checked_sub(1)?),
            _ => None,
        });
        axes.map_or(1, |axes| axes.iter().product::<usize>() as u64)
    };
    let mut result = Vec::new();
    for group in &groups.groups {
        let mut total = Size::default();
        let mut counted = BTreeSet::new();
        for member in &group.members {
            let Some(shape) = graph
                .initializers
                .get(&member.initializer)
                .map(|array| array.shape())
            else {
                continue;
            };
            let indices: usize = member.indices.iter().map(Vec::len).sum();
            let per_channel = indices as f64 / group.channels.max(1) as f64;
            let numel: usize = shape.iter().product();
            let axis = shape.get(member.axis).copied().unwrap_or(1).max(1);
            let mut params = numel as f64 / axis as f64 * per_channel;
            // Two factors of a rank that does not pay are exported as one matrix.
            let layer = factored.iter().find(|layer| {
                layer.rank > layer.shape.break_even_rank()
                    && [&layer.basis_weight, &layer.projection_weight]
                        .contains(&&member.initializer)
            });
            if let Some(layer) = layer {
                let (n, co) = (layer.shape.n as f64, layer.shape.co as f64);
                params = match member.role {
                    Role::Consumes => n * co / axis as f64 * per_channel,
                    _ => n * per_channel,
                };
            }
            let params = params.round() as u64;
            // A weight that several nodes read is stored once.
            if counted.insert((&member.initializer, member.axis)) {
                total.params += params;
            }
            if matches!(member.role, Role::Produces | Role::Consumes) || shape.len() == 4 {
                let macs = params * positions(&member.node);
                total.macs += macs;
                let rate = times.map_or(0.0, |times| times.rate(&member.node));
                total.nanos += (rate * macs as f64) as u64;
            }
        }
        result.push(total);
    }
    result
}

/// The channels that are left of every batch norm, by the name of its mean.
fn kept(graph: &Graph, groups: &ChannelGroups, removed: &Removed) -> KeptChannels {
    let stored: BTreeMap<&str, _> = groups.stored().collect();
    let means = graph.nodes.iter().filter_map(|node| match node.op {
        Op::BatchNormalization { .. } => node.inputs.get(3),
        _ => None,
    });
    means
        .filter_map(|mean| {
            let axis = stored.get(mean.as_str())?.first()?;
            Some((mean.clone(), axis.kept(removed)))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::infer_images;
    use crate::graph::samples::Builder;

    #[test]
    fn a_weight_that_two_nodes_read_is_saved_once_and_computed_twice() {
        let mut b = Builder::new(3);
        let first = b.conv("first", "x", [6, 3, 3, 3], 1);
        let large = b.relu("large", &first);
        let small = b.conv("small", &large, [6, 6, 3, 3], 2);
        let (large, small) = (b.conv("head", &large, [5, 6, 1, 1], 1), small);
        let other = Op::Conv(crate::graph::ConvAttrs::default());
        let other = b.node("other", other, &[&small, "head.weight"]);
        let pooled = [large, other].map(|value| {
            let name = format!("{value}.pool");
            b.node(&name, Op::GlobalAveragePool, &[&value])
        });
        let sum = Op::Arithmetic(crate::graph::Arithmetic::Add);
        let sum = b.node("sum", sum, &[&pooled[0], &pooled[1]]);
        let graph = b.output(&sum);
        let inferred = infer_images(&graph, 1, 8, 8).unwrap();
        let groups = discover(&graph, &inferred);
        // The channels of `first` and `small` are read by one weight, so they go together.
        assert_eq!(groups.groups.len(), 1);
        let saved = saved(&graph, &groups, &inferred, None)[0];
        // Of each channel: 27 weights make it in `first`, 54 in `small`, 54 read it there, 5 in the shared kernel.
        assert_eq!(saved.params, 27 + 54 + 54 + 5);
        let (large, small) = (64, 16);
        let macs = 27 * large + (54 + 54) * small + 5 * (large + small);
        assert_eq!(saved.macs, macs);
    }

    #[test]
    fn a_product_of_matrices_counts_every_position() {
        let mut b = Builder::new(3);
        let made = b.conv("first", "x", [6, 3, 3, 3], 1);
        let last = Op::Transpose {
            perm: Some(vec![0, 2, 3, 1]),
        };
        let made = b.node("last", last, &[&made]);
        let weight = b.zeros("weight", &[6, 5]);
        let made = b.node("product", Op::MatMul, &[&made, &weight]);
        let graph = b.output(&made);
        let inferred = infer_images(&graph, 1, 8, 8).unwrap();
        let groups = discover(&graph, &inferred);
        assert_eq!(groups.groups.len(), 1);
        let saved = saved(&graph, &groups, &inferred, None)[0];
        assert_eq!((saved.params, saved.macs), (27 + 5, 64 * (27 + 5)));
    }
}
