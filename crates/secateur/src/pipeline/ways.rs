//! The ways to a network that keeps its quality: double pruning takes in each round what loses least, which is no promise
//! for the end. So directions alone, and channels alone, are tried as well, each from where the rounds first took the
//! other, and the way that went furthest is taken.

use super::choose::in_unit;
use super::rounds::Context;
use super::walk::Walk;
use super::{PipelineError, Removal, Settings, Target};
use crate::report::{CutKind, Way};

/// Prunes until the targets are reached, or another cut would break one: the way that was taken, and the ends of all
/// that were tried.
pub(super) fn prune_in_rounds(context: &Context<'_>) -> Result<(Walk, Vec<Way>), PipelineError> {
    let removes = context.settings.prune.removes;
    let mut walk = Walk::start(context)?;
    if removes != Removal::Double || !holds_quality(context.settings) {
        walk.go_on(context, &mut |_, _| ())?;
        return Ok((walk, Vec::new()));
    }
    // Where a cut was not one of those.
    let mut forks = [(Removal::Basis, None), (Removal::Channels, None)];
    let is_small_enough = walk.go_on(context, &mut |kind, before| {
        for (alone, fork) in &mut forks {
            if !takes(*alone, kind) && fork.is_none() {
                *fork = Some(before.clone());
            }
        }
    })?;
    if is_small_enough {
        return Ok((walk, Vec::new()));
    }
    let mut ends = vec![(removes, walk)];
    for (alone, fork) in forks {
        let Some(mut walk) = fork else {
            continue; // The rounds took nothing else: it is the same way.
        };
        let first = walk.rounds.len();
        let name = name(alone);
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
        walk.go_on(&context, &mut |_, _| ())?;
        ends.push((alone, walk));
    }
    let per = context.settings.prune.per();
    let size = |way: &usize| {
        ends.get(*way)
            .map(|end| in_unit(per, end.1.state.round.size))
    };
    // Of equal ones the first.
    let taken = (0..ends.len()).min_by_key(size).unwrap_or_default();
    let ways = ends.iter().enumerate().map(|(at, (removes, walk))| Way {
        removes: name(*removes).to_owned(),
        end: walk.state.round.clone(),
        taken: at == taken,
    });
    let ways = ways.collect();
    let (removes, walk) = ends.swap_remove(taken);
    if removes != Removal::Double {
        let name = name(removes);
        context
            .progress
            .note(&format!("{name} alone lead furthest, and are taken"));
    }
    walk.write_history(context)?;
    Ok((walk, ways))
}

/// Whether a target says what the network must still do, so that sizes are what is found.
fn holds_quality(settings: &Settings) -> bool {
    let of_quality = |target: &Target| match target {
        Target::AccDrop(_) | Target::OutputError(_) => true,
        Target::Params(_) | Target::Macs(_) | Target::Size(_) | Target::Latency(_) => false,
    };
    settings.prune.targets.iter().any(of_quality)
}

fn takes(removes: Removal, kind: CutKind) -> bool {
    match removes {
        Removal::Basis => kind != CutKind::Channels,
        Removal::Channels => kind == CutKind::Channels,
        Removal::Double => true,
    }
}

fn name(removes: Removal) -> &'static str {
    match removes {
        Removal::Basis => "directions",
        Removal::Channels => "channels",
        Removal::Double => "both",
    }
}
