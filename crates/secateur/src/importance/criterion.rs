//! Criteria of channels that other tools rank by, beside the one in [`super::Reader`] (docs/method.md, section 6).

use super::Reader;
use super::direction::lamp;
use crate::graph::{FactoredLayer, Graph, Op, factored_layers};
use crate::groups::{ChannelGroup, ChannelGroups, ChannelId, Member, Role};
use serde::{Deserialize, Serialize};

/// What a channel is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelScore {
    /// What it costs alone, measured as for [`Self::Taylor`], as far as the channels that stay cannot stand in for it: see
    /// [`Reader`].
    #[default]
    Measured,
    /// What the channels that stay cannot predict of what layers read, times the second moment of the loss gradient there.
    Fisher,
    /// The squared first-order change of the loss without what layers read of it (Molchanov et al., arXiv 1906.10771).
    Taylor,
    /// The sum of the magnitudes of the weights that make it (Li et al., arXiv 1608.08710).
    L1,
    /// The root of the sum of their squares.
    L2,
    /// The magnitude of its batch-norm scale (Liu et al., arXiv 1708.06519).
    BatchNorm,
    /// The sum of the squares of the weights that make it, divided by that over the channels of its layer that are at least
    /// as large (Lee et al., arXiv 2010.07611).
    Lamp,
}

impl ChannelScore {
    /// The name by which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Fisher => "fisher",
            Self::Taylor => "taylor",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::BatchNorm => "batch-norm",
            Self::Lamp => "lamp",
        }
    }
}

/// The scores of the channels of each group by what is stored of them; none for a group of which nothing is that `score` reads,
/// and none at all for those that are measured. Where several layers make a channel, or normalise it, their scores are summed.
/// Norms and scales are divided by their mean over the group, so that those of different groups can be compared.
#[must_use]
pub fn by_weights(score: ChannelScore, graph: &Graph, groups: &ChannelGroups) -> Vec<Reader> {
    let layers = factored_layers(graph);
    let of_group = |(index, group): (usize, &ChannelGroup)| {
        let members = group.members.iter();
        let found: Vec<Vec<f64>> = members
            .filter_map(|member| of_member(score, graph, &layers, member))
            .collect();
        let mut sums = vec![0.0; group.channels];
        for (channel, sum) in sums.iter_mut().enumerate() {
            *sum = found.iter().map(|scores| scores[channel]).sum();
        }
        let mean = sums.iter().sum::<f64>() / sums.len().max(1) as f64;
        if score != ChannelScore::Lamp && mean > 0.0 {
            sums.iter_mut().for_each(|sum| *sum /= mean);
        }
        let channel = |channel| {
            Some(ChannelId {
                group: index,
                channel,
            })
        };
        let channels = (0..group.channels).map(channel).collect();
        (!found.is_empty()).then(|| Reader::of_costs(channels, sums))
    };
    groups
        .groups
        .iter()
        .enumerate()
        .filter_map(of_group)
        .collect()
}

/// By channel of the group, what a member says of it.
fn of_member(
    score: ChannelScore,
    graph: &Graph,
    layers: &[FactoredLayer],
    member: &Member,
) -> Option<Vec<f64>> {
    let norm: fn(&[f64]) -> f64 = match (score, member.role) {
        (ChannelScore::L1, Role::Produces) => |w| w.iter().map(|w| w.abs()).sum(),
        (ChannelScore::L2, Role::Produces) => |w| w.iter().map(|w| w * w).sum::<f64>().sqrt(),
        (ChannelScore::Lamp, Role::Produces) => |w| w.iter().map(|w| w * w).sum(),
        (ChannelScore::BatchNorm, Role::Passes) if is_scale(graph, member) => |w| w[0].abs(),
        _ => return None,
    };
    let weights = weights(graph, layers, member)?;
    let of_index = |&index: &usize| weights.get(index).map_or(0.0, |w| norm(w));
    let of_channel = |indices: &Vec<usize>| indices.iter().map(of_index).sum();
    let found: Vec<f64> = member.indices.iter().map(of_channel).collect();
    Some(match score {
        ChannelScore::Lamp => lamp(&found),
        _ => found,
    })
}

fn is_scale(graph: &Graph, member: &Member) -> bool {
    graph.node(&member.node).is_some_and(|node| {
        matches!(node.op, Op::BatchNormalization { .. })
            && node.inputs.get(1) == Some(&member.initializer)
    })
}

/// By index along the member's axis, its weights: of a factored layer those of the product of its factors.
fn weights(graph: &Graph, layers: &[FactoredLayer], member: &Member) -> Option<Vec<Vec<f64>>> {
    let layer = layers
        .iter()
        .find(|layer| layer.projection_weight == member.initializer);
    if let Some(layer) = layer {
        let product = layer.matrices(graph)?.product();
        let outputs = product.outer_iter().flat_map(|group| {
            let columns = group.columns().into_iter();
            columns.map(|column| column.to_vec()).collect::<Vec<_>>()
        });
        return Some(outputs.collect());
    }
    let array = graph.float(&member.initializer)?;
    if member.axis >= array.ndim() {
        return None;
    }
    let slices = array.axis_iter(ndarray::Axis(member.axis));
    let slice = |slice: ndarray::ArrayViewD<'_, f32>| slice.iter().map(|&w| f64::from(w)).collect();
    Some(slices.map(slice).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decompose::{DecomposeConfig, convolutions};
    use crate::graph::samples::Builder;
    use crate::graph::{Arithmetic, Inferred, infer};
    use crate::groups::discover;
    use crate::importance::RemovalOrder;
    use crate::progress::Silent;
    use crate::tensor::Tensor;
    use ndarray::{ArcArray, IxDyn};
    use std::collections::BTreeMap;

    fn inferred(graph: &Graph) -> Inferred {
        infer(graph, &BTreeMap::from([("x".to_owned(), vec![1, 1, 4, 4])])).unwrap()
    }

    fn set(graph: &mut Graph, name: &str, values: &[f32]) {
        let shape = graph.initializers[name].shape().to_vec();
        let array = ArcArray::from_shape_vec(IxDyn(&shape), values.to_vec()).unwrap();
        graph
            .initializers
            .insert(name.to_owned(), Tensor::F32(array));
    }

    /// Two convolutions that make the same three channels, one with batch norm, and one that reads them.
    fn network() -> Graph {
        let mut b = Builder::new(1);
        let left = b.conv("left", "x", [3, 1, 1, 2], 1);
        let left = b.batch_norm("norm", &left, 3);
        let right = b.conv("right", "x", [3, 1, 1, 2], 1);
        let sum = b.node("sum", Op::Arithmetic(Arithmetic::Add), &[&left, &right]);
        let made = b.conv("last", &sum, [1, 3, 1, 1], 1);
        let mut graph = b.output(&made);
        // Magnitudes 7, 1, 2 and 1, 3, 2; squares 25, 1, 2 and 1, 9, 4.
        set(&mut graph, "left.weight", &[3.0, -4.0, 1.0, 0.0, 1.0, 1.0]);
        set(&mut graph, "right.weight", &[0.0, 1.0, -3.0, 0.0, 2.0, 0.0]);
        set(&mut graph, "norm.scale", &[0.5, -2.0, 0.5]);
        set(&mut graph, "last.weight", &[1.0, 1.0, 1.0]);
        graph
    }

    /// The costs of the channels of the one group, and the order in which they go.
    fn costs(score: ChannelScore, graph: &Graph) -> Vec<f64> {
        let groups = discover(graph, &inferred(graph));
        let readers = by_weights(score, graph, &groups);
        let of_one: Vec<Vec<f64>> = readers.iter().map(Reader::costs).collect();
        let index = groups.groups.iter().position(|group| group.channels == 3);
        let order = RemovalOrder::new(readers, &[3], &[1.0]).map(|id| id.channel);
        let order: Vec<usize> = order.collect();
        assert_eq!((index, order.len()), (Some(0), 2));
        let [found] = &of_one[..] else {
            panic!("{of_one:?}");
        };
        assert!(found[order[0]] <= found[order[1]], "{found:?} {order:?}");
        found.clone()
    }

    fn assert_close(got: &[f64], want: [f64; 3]) {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
        assert!(
            got.len() == 3 && got.iter().zip(&want).all(near),
            "{got:?}, not {want:?}"
        );
    }

    #[test]
    fn criteria_are_those_of_the_closed_forms() {
        let graph = network();
        let mean = |values: [f64; 3]| values.map(|value| 3.0 * value / values.iter().sum::<f64>());
        assert_close(&costs(ChannelScore::L1, &graph), mean([8.0, 4.0, 4.0]));
        let root = 2.0_f64.sqrt();
        assert_close(
            &costs(ChannelScore::L2, &graph),
            mean([6.0, 4.0, 2.0 + root]),
        );
        assert_close(
            &costs(ChannelScore::BatchNorm, &graph),
            mean([0.5, 2.0, 0.5]),
        );
        let lamp = [1.0 + 1.0 / 14.0, 1.0 / 28.0 + 1.0, 2.0 / 27.0 + 4.0 / 13.0];
        assert_close(&costs(ChannelScore::Lamp, &graph), lamp);
        for measured in [
            ChannelScore::Measured,
            ChannelScore::Fisher,
            ChannelScore::Taylor,
        ] {
            let groups = discover(&graph, &inferred(&graph));
            assert!(by_weights(measured, &graph, &groups).is_empty());
        }
    }

    #[test]
    fn a_factored_layer_is_worth_what_it_was() {
        let graph = network();
        let (factored, _) = convolutions(&graph, &DecomposeConfig::default(), &Silent).unwrap();
        assert!(!factored_layers(&factored).is_empty());
        for score in [ChannelScore::L1, ChannelScore::L2, ChannelScore::Lamp] {
            let want = costs(score, &graph).try_into().unwrap();
            assert_close(&costs(score, &factored), want);
        }
    }

    #[test]
    fn what_has_no_batch_norm_has_no_score_by_it() {
        let mut b = Builder::new(1);
        let made = b.conv("first", "x", [3, 1, 1, 1], 1);
        let made = b.conv("last", &made, [1, 3, 1, 1], 1);
        let graph = b.output(&made);
        let groups = discover(&graph, &inferred(&graph));
        assert_eq!(groups.groups.len(), 1);
        assert!(by_weights(ChannelScore::BatchNorm, &graph, &groups).is_empty());
    }
}
