//! The networks that the next cut can make: one that loses directions of what layers make, one that loses
//! directions of what they read, one that loses channels, and the best of them.

use super::PipelineError;
use super::basis::{Ranked, new_biases};
use super::next::Next;
use super::rounds::{Context, scoring};
use super::settings::Removal;
use super::stages::{light, source};
use super::task::loss;
use super::times::{Times, whole};
use crate::graph::{Graph, Op, Size, factored_layers};
use crate::prune::channels::ChannelPlan;
use crate::prune::{LayerPlan, PruningPlan, apply, input_spaces};
use crate::report::CutKind;
use crate::train::{KeptChannels, carry_batch_norm};
use std::collections::BTreeMap;

/// A network after a cut, batch norm carried over, nothing trained.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub kind: CutKind,
    pub graph: Graph,
    /// All cuts of directions up to this one.
    pub plan: PruningPlan,
    /// The channels that this cut takes.
    pub channels: Option<ChannelPlan>,
    /// The share of what can be cut that goes.
    pub share: f64,
    /// Nanoseconds of one run, measured where time counts, else 0.
    pub nanos: u64,
}

/// The cut of `graph` that loses least: where the settings allow several kinds, the one with the lowest loss
/// on validation. `done` holds all cuts of directions so far, `times` those of `graph`, where time
/// counts. `None` where nothing can go that far.
pub(super) fn best_cut(
    context: &Context<'_>,
    graph: &Graph,
    ranked: &Ranked,
    next: &Next,
    done: &PruningPlan,
    times: Option<&Times>,
) -> Result<Option<Candidate>, PipelineError> {
    let removes = context.settings.prune.removes;
    let measured = |cut: &Graph| match times {
        Some(_) => whole(context, cut),
        None => Ok(0),
    };
    let mut candidates = Vec::new();
    if let (Some(plan), Removal::Basis | Removal::Double) = (&next.plan, removes) {
        let cut = apply(&ranked.adopt(graph, plan)?, plan)?;
        candidates.push(Candidate {
            kind: CutKind::Directions,
            share: next.share,
            nanos: measured(&cut)?,
            graph: carried(context, graph, &cut, &KeptChannels::new())?,
            plan: if done.layers.is_empty() {
                plan.clone()
            } else {
                done.then(plan)?
            },
            channels: None,
        });
    }
    let scoring = scoring(context);
    if context.settings.prune.cuts_inputs()
        && let moments = ranked.moments(&scoring, graph)?
        && let Some(cut) = scoring.cut_inputs(graph, moments, &ranked.state.inputs, next)?
    {
        candidates.push(Candidate {
            kind: CutKind::Inputs,
            share: cut.share,
            nanos: 0,
            graph: carried(context, graph, &cut.graph, &KeptChannels::new())?,
            plan: capped(done, graph, &cut.graph).then(&cut.plan)?,
            channels: None,
        });
    }
    if let Removal::Channels | Removal::Double = removes {
        // The refit may give every layer a bias.
        let biases = match context.settings.prune.refit_images() {
            0 => 0,
            _ => new_biases(graph, &factored_layers(graph)),
        };
        let is_enough = |size: Size| {
            let size = Size {
                params: size.params + biases,
                ..size
            };
            let of_all =
                !next.targets.is_empty() && next.targets.iter().all(|target| target.is_met(size));
            of_all || next.goal.is_met(size)
        };
        let moments = ranked.moments(&scoring, graph)?;
        let costs = ranked.costs(&scoring, graph)?;
        if let Some(cut) = scoring.cut_channels(graph, moments, costs, &is_enough, times)? {
            candidates.push(Candidate {
                kind: CutKind::Channels,
                share: next.step,
                nanos: measured(&cut.graph)?,
                graph: carried(context, graph, &cut.graph, &cut.kept)?,
                plan: without_channels(done, graph, &cut.graph),
                channels: Some(cut.plan),
            });
        }
    }
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let before = match times {
        Some(times) => Some((loss(context, graph)?, times.whole)),
        None => None,
    };
    let (mut judged, mut notes) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let loss = loss(context, &candidate.graph)?;
        let kind = candidate.kind.name();
        notes.push(match candidate.nanos {
            0 => format!("loss {loss:.4} without {kind}"),
            nanos => format!(
                "loss {loss:.4} at {:.3} ms without {kind}",
                1e-6 * nanos as f64
            ),
        });
        judged.push((price(before, loss, candidate.nanos), candidate));
    }
    context
        .progress
        .note(&format!("validation: {}", notes.join(", ")));
    let best = judged.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.map(|(_, candidate)| candidate))
}

/// What a cut costs: its loss, where all cuts come to one size. Cuts for time come to different ones:
/// the loss that they add for each nanosecond saved, `before` being loss and nanoseconds of the network
/// that is cut.
fn price(before: Option<(f64, u64)>, loss: f64, nanos: u64) -> f64 {
    if !loss.is_finite() {
        return f64::INFINITY;
    }
    let Some((loss_before, nanos_before)) = before else {
        return loss;
    };
    match nanos_before.saturating_sub(nanos) {
        0 => f64::INFINITY,
        saved => (loss - loss_before).max(1e-6) / saved as f64,
    }
}

fn carried(
    context: &Context<'_>,
    before: &Graph,
    after: &Graph,
    kept: &KeptChannels,
) -> Result<Graph, PipelineError> {
    let settings = context.settings;
    let carried = carry_batch_norm(
        context.engine,
        &light(before)?,
        &light(after)?,
        kept,
        &source(context.prepared, settings),
        settings.prune.batch_norm_images,
        settings.seed,
        context.progress,
    )?;
    let mut result = after.clone();
    for node in &after.nodes {
        let Op::BatchNormalization { .. } = node.op else {
            continue;
        };
        for name in node.inputs.iter().skip(3) {
            if let Some(array) = carried.initializers.get(name) {
                result.initializers.insert(name.clone(), array.clone());
            }
        }
    }
    Ok(result)
}

/// `done` and the ranks that fell because a layer has fewer channels than directions now.
fn capped(done: &PruningPlan, before: &Graph, after: &Graph) -> PruningPlan {
    let mut plan = done.clone();
    let now = layer_ranks(after);
    for (name, rank) in layer_ranks(before) {
        let Some(&now) = now.get(&name).filter(|now| **now < rank) else {
            continue;
        };
        let entry = plan.layers.entry(name).or_insert_with(|| LayerPlan {
            rank,
            keep: (0..rank).collect(),
        });
        entry.keep.truncate(now);
    }
    plan
}

/// The same after a cut of channels, which takes those of input spaces, too. Of a space that no cut of directions has
/// met, no plan speaks.
fn without_channels(done: &PruningPlan, before: &Graph, after: &Graph) -> PruningPlan {
    let mut plan = capped(done, before, after);
    for space in input_spaces(after) {
        if let Some(entry) = plan.layers.get_mut(&space.name) {
            entry.keep.truncate(space.rank);
        }
    }
    plan
}

fn layer_ranks(graph: &Graph) -> BTreeMap<String, usize> {
    let layers = factored_layers(graph).into_iter();
    layers.map(|layer| (layer.name, layer.rank)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decompose::{Basis, DecomposeConfig, convolutions};
    use crate::graph::samples::Builder;
    use crate::progress::Silent;
    use crate::prune::PLAN_VERSION;

    #[test]
    fn a_cut_of_channels_shortens_the_input_space_that_a_plan_kept_whole() {
        // Two convolutions, of which the first makes what the second reads.
        let network = |channels: usize| {
            let mut builder = Builder::new(3);
            let a = builder.conv("a", "x", [channels, 3, 3, 3], 1);
            let a = builder.relu("relu", &a);
            let b = builder.conv("b", &a, [7, channels, 3, 3], 1);
            let graph = builder.output(&b);
            convolutions(&graph, &DecomposeConfig::default(), &Silent)
                .unwrap()
                .0
        };
        let (before, after) = (network(5), network(4));
        let whole = |rank: usize| LayerPlan {
            rank,
            keep: (0..rank).collect(),
        };
        let plan = |rank: usize| PruningPlan {
            version: PLAN_VERSION,
            basis: Basis::Fisher,
            layers: BTreeMap::from([("b.input".to_owned(), whole(rank))]),
            predicted: Size::default(),
        };
        let done = without_channels(&plan(5), &before, &after);
        assert_eq!(done.layers["b.input"].keep, [0, 1, 2, 3]);
        assert_eq!(done.layers["a"].keep.len(), 4);
        // What is made for the network after the cut goes on from there.
        assert!(done.then(&plan(4)).is_ok());
        // A cut of the space itself is that of its own plan.
        assert_eq!(
            capped(&plan(5), &before, &after).layers["b.input"],
            whole(5)
        );
    }

    #[test]
    fn cuts_for_time_are_compared_by_what_a_nanosecond_costs() {
        let before = Some((1.0, 100));
        // Twice the loss for four times the time saved is the better one.
        assert!(price(before, 1.2, 20) < price(before, 1.1, 80));
        // What is no faster is not taken, whatever it loses.
        assert_eq!(price(before, 0.5, 100), f64::INFINITY);
        // Of two cuts that lose nothing, the faster one.
        assert!(price(before, 1.0, 50) < price(before, 0.9, 60));
        // A network that is broken.
        assert_eq!(price(before, f64::NAN, 10), f64::INFINITY);
        assert_eq!(price(None, -f64::NAN, 0), f64::INFINITY);
        assert_eq!(price(None, 1.2, 0), 1.2);
    }
}
