//! The networks that the next cut can make: one that loses directions, one that loses channels, and
//! the better of both.

use super::PipelineError;
use super::basis::{Ranked, new_biases};
use super::choose::is_within;
use super::next::Next;
use super::rounds::{Context, scoring};
use super::settings::Removal;
use super::stages::{light, source};
use crate::data::Split;
use crate::graph::{Graph, Op, Size, factored_layers};
use crate::prune::channels::ChannelPlan;
use crate::prune::{LayerPlan, PruningPlan, apply};
use crate::report::CutKind;
use crate::train::{KeptChannels, accuracy_on_some, carry_batch_norm};

/// A network after a cut, batch norm carried over, nothing trained.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub kind: CutKind,
    pub graph: Graph,
    /// All cuts of directions up to this one.
    pub plan: PruningPlan,
    /// The channels that this cut takes.
    pub channels: Option<ChannelPlan>,
}

// Validation images on which two cuts are compared: the same for both, so few tell.
const COMPARED: usize = 2_048;

/// The cut of `graph` that loses least: of directions, of channels, or of both the one with the lower
/// loss on validation. `done` holds all cuts of directions so far. `None` where nothing can go that
/// far.
pub(super) fn best_cut(
    context: &Context<'_>,
    graph: &Graph,
    ranked: &Ranked,
    next: &Next,
    done: &PruningPlan,
) -> Result<Option<Candidate>, PipelineError> {
    let removes = context.settings.prune.removes;
    let mut candidates = Vec::new();
    if let (Some(plan), Removal::Basis | Removal::Double) = (&next.plan, removes) {
        let cut = apply(&ranked.adopt(graph, plan)?, plan)?;
        let kept = KeptChannels::new();
        candidates.push(Candidate {
            kind: CutKind::Directions,
            graph: carried(context, graph, &cut, &kept)?,
            plan: if done.layers.is_empty() {
                plan.clone()
            } else {
                done.then(plan)?
            },
            channels: None,
        });
    }
    if let Removal::Channels | Removal::Double = removes {
        let per = context.settings.prune.per;
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
            let of_all = !next.targets.is_empty()
                && next.targets.iter().all(|target| is_within(size, target));
            of_all || is_within(size, &next.goal)
        };
        if let Some(cut) = scoring(context).cut_channels(graph, &ranked.moments, &is_enough, per)? {
            candidates.push(Candidate {
                kind: CutKind::Channels,
                graph: carried(context, graph, &cut.graph, &cut.kept)?,
                plan: capped(done, graph, &cut.graph),
                channels: Some(cut.plan),
            });
        }
    }
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let mut judged = Vec::new();
    for candidate in candidates {
        let source = source(context.prepared, context.settings);
        let (engine, logits) = (context.engine, context.logits);
        let graph = light(&candidate.graph)?;
        let seed = context.settings.seed;
        let found = accuracy_on_some(engine, &graph, logits, &source, Split::Val, COMPARED, seed)?;
        judged.push((found.loss, candidate));
    }
    let text = |(loss, candidate): &(f64, Candidate)| {
        let kind = candidate.kind.name();
        format!("loss {loss:.4} without {kind}")
    };
    let found: Vec<String> = judged.iter().map(text).collect();
    context
        .progress
        .note(&format!("validation: {}", found.join(", ")));
    let best = judged.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.map(|(_, candidate)| candidate))
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
    let after = factored_layers(after);
    for layer in factored_layers(before) {
        let now = after.iter().find(|other| other.name == layer.name);
        let Some(now) = now.filter(|now| now.rank < layer.rank) else {
            continue;
        };
        let rank = layer.rank;
        let entry = plan.layers.entry(layer.name).or_insert_with(|| LayerPlan {
            rank,
            keep: (0..rank).collect(),
        });
        entry.keep.truncate(now.rank);
    }
    plan
}
