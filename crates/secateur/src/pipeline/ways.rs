//! The ways to a network that keeps its quality: double pruning takes in each round what loses least, which is no promise
//! for the end. So directions alone are tried as well, from where the rounds first took channels, and channels alone,
//! from the start, and the way that went furthest is taken.

use super::choose::in_unit;
use super::rounds::Context;
use super::walk::Walk;
use super::{PipelineError, Removal};
use crate::report::{CutKind, Way};

/// Prunes until the targets are reached, or another cut would break one: the way that was taken, and the ends of all
/// that were tried.
pub(super) fn prune_in_rounds(context: &Context<'_>) -> Result<(Walk, Vec<Way>), PipelineError> {
    let removes = context.settings.prune.removes;
    let start = Walk::start(context)?;
    let mut walk = start.clone();
    if removes != Removal::Double || !context.settings.prune.has_quality_target() {
        walk.go_on(context, &mut |_, _| ())?;
        return Ok((walk, Vec::new()));
    }
    // The rounds are those of directions alone until they take channels.
    let mut fork = None;
    let is_small = walk.go_on(context, &mut |kind, before| {
        if kind == CutKind::Channels && fork.is_none() {
            fork = Some(before.clone());
        }
    })?;
    if is_small {
        return Ok((walk, Vec::new()));
    }
    let mut ends = vec![(removes, walk, is_small)];
    // Rounds of channels have fits and steps of their own.
    let alone = [(Removal::Basis, fork), (Removal::Channels, Some(start))];
    for (alone, from) in alone {
        let Some(mut walk) = from else {
            continue; // It is the same way.
        };
        let (name, first) = (name(alone), walk.rounds.len());
        context.progress.note(&format!(
            "{name} alone, from round {first} on: which way leads furthest, only its end tells"
        ));
        let mut settings = context.settings.clone();
        settings.prune.removes = alone;
        let context = Context {
            settings: &settings,
            run: &context.run.branch(name),
            ..context.clone()
        };
        let is_small = walk.go_on(&context, &mut |_, _| ())?;
        ends.push((alone, walk, is_small));
    }
    let per = context.settings.prune.per();
    // Where targets on size are reached, and then the smallest; of equal ones the first.
    let order = |at: &usize| {
        let end = ends.get(*at);
        end.map(|(_, walk, is_small)| (!is_small, in_unit(per, walk.state.round.size)))
    };
    let taken = (0..ends.len()).min_by_key(order).unwrap_or_default();
    let ways = ends.iter().enumerate().map(|(at, (removes, walk, _))| Way {
        removes: name(*removes).to_owned(),
        end: walk.state.round.clone(),
        taken: at == taken,
    });
    let ways = ways.collect();
    let (removes, walk, _) = ends.swap_remove(taken);
    if removes != Removal::Double {
        let name = name(removes);
        context
            .progress
            .note(&format!("{name} alone leads furthest, and is taken"));
    }
    walk.write_history(context)?;
    Ok((walk, ways))
}

/// As the settings name it.
fn name(removes: Removal) -> &'static str {
    match removes {
        Removal::Basis => "basis",
        Removal::Channels => "channels",
        Removal::Double => "double",
    }
}
