//! Iterative pruning: rank the directions (by statistics, or by training the scaling factors and
//! gathering their Taylor scores), cut, and go on until the targets stop it (docs/method.md, sections 5 and 7).

use super::basis::{Ranked, RankedState};
use super::candidate::{Candidate, best_cut};
use super::choose::exported_size;
use super::next::Sizes;
use super::pace::Pace;
use super::refit::refit;
use super::score::Scoring;
use super::stages::{fit_config, source};
use super::task::{Task, judge, loss, spent};
use super::times::{Times, whole};
use super::{Original, PipelineError, Prepared, Removal, Run, Settings};
use crate::exec::Engine;
use crate::graph::{Graph, Size, factored_layers};
use crate::importance::Scores;
use crate::onnx::Model;
use crate::progress::Progress;
use crate::prune::channels::ChannelPlan;
use crate::prune::{PLAN_VERSION, Per, PruningPlan};
use crate::report::{CutKind, Round};
use crate::train::{AccuracyDrop, EngineAccuracy, FitSummary, Teacher, steps_per_epoch};
use crate::verify::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What pruning needs to know of the run.
pub(super) struct Context<'c> {
    pub engine: &'c dyn Engine,
    pub prepared: &'c Prepared,
    pub settings: &'c Settings,
    pub run: &'c Run,
    pub model: &'c Model,
    /// What the network is for.
    pub task: &'c Task,
    /// The decomposed network before any cut, to whose outputs a cut one is fitted.
    pub uncut: &'c Graph,
    /// The network before any cut, which teaches.
    pub teacher: Option<Teacher>,
    /// What targets are shares of: the transferred network, as exported.
    pub original: Original,
    /// Its file.
    pub before_bytes: &'c [u8],
    /// What runs exported files, on so many threads.
    pub runtime: &'c dyn Runtime,
    pub threads: usize,
    /// Its accuracy on validation, where there are labels.
    pub val: Option<&'c EngineAccuracy>,
    pub progress: &'c dyn Progress,
}

/// A network between two cuts.
#[derive(Clone, Debug)]
pub(super) struct Pruned {
    pub graph: Graph,
    pub plan: PruningPlan,
    /// The cuts of channels, one after the other.
    pub channels: Vec<ChannelPlan>,
    pub rounds: Vec<Round>,
}

/// What a round's checkpoint holds besides the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RoundState {
    round: Round,
    plan: PruningPlan,
    /// The channels that this round took; after the round, those of all rounds.
    #[serde(default)]
    channels: Vec<ChannelPlan>,
    scores: Scores,
}

/// Prunes until the targets are reached, or another cut would break one.
pub(super) fn prune_in_rounds(context: &Context<'_>) -> Result<Pruned, PipelineError> {
    let decomposed = context.uncut;
    let settings = &context.settings.prune;
    let (mut graph, mut state) = context.run.stage("round-00", context.model, || {
        let start = Round {
            round: 0,
            kind: None,
            step: 0.0,
            size: Size {
                nanos: match settings.wants_times() {
                    true => whole(context, decomposed)?,
                    false => 0,
                },
                ..exported_size(decomposed, context.prepared, None)?
            },
            val_top1_cut: 0.0,
            val_top1: 0.0,
            drop: AccuracyDrop::default(),
            output_error: None,
            recovered: false,
            accepted: true,
        };
        let plan = PruningPlan {
            version: PLAN_VERSION,
            basis: settings.basis,
            layers: BTreeMap::new(),
            predicted: start.size,
        };
        window(context, decomposed, start, plan)
    })?;
    let mut rounds = vec![state.round.clone()];
    let mut pace = Pace::new(settings.step(), settings.halvings);
    let mut ranked = None;
    let mut times = None;
    loop {
        if settings.wants_times() && ranked.is_none() {
            let Round { round, size, .. } = state.round;
            times = Some(Times::of(
                context,
                &graph,
                round,
                times.as_ref(),
                size.nanos,
            )?);
        }
        let times = times.as_ref();
        let sizes = Sizes::of(context, &graph, times)?;
        if sizes.hold() {
            break;
        }
        let ranked_now = match ranked.take() {
            Some(ranked) => ranked,
            None => rank(context, &graph, &state)?,
        };
        let ranked_now = &*ranked.insert(ranked_now);
        let Some(next) = sizes.next(&ranked_now.state.scores, pace.step)? else {
            break;
        };
        let number = rounds.len();
        let name = format!("round-{number:02}");
        let done = &state.plan;
        let (cut, tried) = context.run.stage(&name, context.model, || {
            match best_cut(context, &graph, ranked_now, &next, done, times)? {
                Some(mut candidate) => {
                    let plans = state.channels.iter().chain(&candidate.channels);
                    let plans: Vec<ChannelPlan> = plans.cloned().collect();
                    candidate.graph =
                        fitted(context, &graph, ranked_now, &candidate.graph, &plans)?;
                    let (cut, mut tried) = train_cut(context, candidate, number)?;
                    // What was foretold to be faster and is not is of no use where time is the unit.
                    let is_faster = |times: &Times| tried.round.size.nanos < times.whole;
                    tried.round.accepted &=
                        settings.per() != Per::Time || times.is_none_or(is_faster);
                    Ok((cut, tried))
                }
                None => Ok((graph.clone(), nothing_left(&state, number))),
            }
        })?;
        if tried.round.kind.is_none() {
            break;
        }
        // Where less can go than was wanted, that is what failed or not.
        pace.step = tried.round.step;
        note_round(context, &tried.round);
        rounds.push(tried.round.clone());
        let history: String = rounds
            .iter()
            .filter_map(|round| serde_json::to_string(round).ok())
            .map(|line| line + "\n")
            .collect();
        crate::files::write_atomic(&context.run.path("history.jsonl"), history.as_bytes())?;
        let goes_on = if tried.round.accepted {
            let goes_on = pace.succeeded(spent(context, &tried.round));
            let mut channels = std::mem::take(&mut state.channels);
            (graph, state) = (cut, tried);
            channels.append(&mut state.channels);
            state.channels = channels;
            ranked = None;
            goes_on
        } else {
            pace.failed()
        };
        if !goes_on {
            break;
        }
    }
    Ok(Pruned {
        graph,
        plan: state.plan,
        channels: state.channels,
        rounds,
    })
}

// A fit goes by outputs, and validation images are few: so much more loss than before it is no harm.
const LOSS_OF_A_FIT: f64 = 1.1;

/// The network `cut`, made of `before`, with its layers fitted anew; left as it is where validation says
/// that the fit does harm, as one to few images can, and with projections fitted alone where kernels do.
fn fitted(
    context: &Context<'_>,
    before: &Graph,
    ranked: &Ranked,
    cut: &Graph,
    plans: &[ChannelPlan],
) -> Result<Graph, PipelineError> {
    let settings = &context.settings.prune;
    if settings.refit_images() == 0 {
        return Ok(cut.clone());
    }
    let none = BTreeMap::new();
    let mut fits = vec![("projections", &none)];
    if settings.refits_kernels() {
        fits.push(("kernels", ranked.moments(&scoring(context), before)?));
    }
    let allowed = LOSS_OF_A_FIT * loss(context, cut)?;
    while let Some((what, moments)) = fits.pop() {
        let fitted = refit(context, cut, plans, moments)?;
        let lost = loss(context, &fitted)?;
        // A cut that broke the network may be mended.
        if lost <= allowed || !allowed.is_finite() && lost.is_finite() {
            return Ok(fitted);
        }
        context.progress.note(&format!(
            "validation: loss {:.4} after the cut, {lost:.4} after a fit of {what}, which is left out",
            allowed / LOSS_OF_A_FIT,
        ));
    }
    Ok(cut.clone())
}

/// The state of a round in which nothing could go.
fn nothing_left(state: &RoundState, number: usize) -> RoundState {
    let mut state = state.clone();
    state.round.round = number;
    state.round.kind = None;
    state
}

/// The directions of a round's network and their scores, for the next cut.
fn rank(context: &Context<'_>, graph: &Graph, state: &RoundState) -> Result<Ranked, PipelineError> {
    if context.settings.prune.removes == Removal::Channels {
        return Ok(Ranked::new(graph.clone(), RankedState::default()));
    }
    let name = format!("ranked-{:02}", state.round.round);
    let mut moments = None;
    let (graph, state) = context.run.stage(&name, context.model, || {
        let layers = factored_layers(graph);
        let scoring = scoring(context);
        let ranked = scoring.rank(graph, &layers, state.scores.clone())?;
        moments = ranked.moments.into_inner();
        Ok((ranked.graph, ranked.state))
    })?;
    let ranked = Ranked::new(graph, state);
    Ok(match moments {
        Some(moments) => ranked.with_moments(moments),
        None => ranked,
    })
}

/// Trains a cut network, longer where the accuracy asks for it.
fn train_cut(
    context: &Context<'_>,
    cut: Candidate,
    number: usize,
) -> Result<(Graph, RoundState), PipelineError> {
    let settings = context.settings;
    let source = source(context.prepared, settings);
    let round = Round {
        round: number,
        kind: Some(cut.kind),
        step: cut.share,
        size: Size {
            nanos: cut.nanos,
            ..exported_size(&cut.graph, context.prepared, None)?
        },
        val_top1_cut: 0.0,
        val_top1: 0.0,
        drop: AccuracyDrop::default(),
        output_error: None,
        recovered: false,
        accepted: true,
    };
    let (graph, mut state) = window(context, &cut.graph, round, cut.plan)?;
    state.channels.extend(cut.channels);
    let can_train = settings.prune.recovery_epochs > 0 && context.task.classes().is_ok();
    if state.round.accepted || !can_train {
        return Ok((graph, state));
    }
    let per_epoch = steps_per_epoch(&source);
    let training = Training {
        steps: settings.prune.recovery_epochs * per_epoch,
        check_every: per_epoch,
        first_epoch: first_epoch(number) + ROUND_EPOCHS / 2,
    };
    let (graph, _, scores) = train_and_score(context, &graph, training)?;
    state.scores = scores;
    state.round.recovered = true;
    judge(context, &graph, &mut state.round)?;
    Ok((graph, state))
}

// Numbers of the passes over the data, so that no two trainings of a run see one order twice.
const FIRST_ROUND_EPOCH: u64 = 10_000;
const ROUND_EPOCHS: u64 = 1_000;

/// The number of the first pass of a round.
fn first_epoch(round: usize) -> u64 {
    FIRST_ROUND_EPOCH + ROUND_EPOCHS * round as u64
}

/// The training inside a round.
struct Training {
    steps: u64,
    check_every: u64,
    first_epoch: u64,
}

/// The short training before a cut.
fn window(
    context: &Context<'_>,
    graph: &Graph,
    mut round: Round,
    plan: PruningPlan,
) -> Result<(Graph, RoundState), PipelineError> {
    let steps = context.settings.prune.window_steps();
    if steps == 0 {
        judge(context, graph, &mut round)?;
        round.val_top1_cut = round.val_top1;
        let state = RoundState {
            round,
            plan,
            channels: Vec::new(),
            scores: Scores::new(),
        };
        return Ok((graph.clone(), state));
    }
    let training = Training {
        steps,
        check_every: 0,
        first_epoch: first_epoch(round.round),
    };
    let (graph, summary, scores) = train_and_score(context, graph, training)?;
    // The first check is before training.
    round.val_top1_cut = summary.checks.first().map_or(0.0, |check| check.val_top1);
    judge(context, &graph, &mut round)?;
    let state = RoundState {
        round,
        plan,
        channels: Vec::new(),
        scores,
    };
    Ok((graph, state))
}

fn train_and_score(
    context: &Context<'_>,
    graph: &Graph,
    training: Training,
) -> Result<(Graph, FitSummary, Scores), PipelineError> {
    let settings = context.settings;
    let mut config = fit_config(settings, settings.prune.lr, training.steps);
    config.check_every = training.check_every;
    config.first_epoch = training.first_epoch;
    config.teacher.clone_from(&context.teacher);
    scoring(context).train_and_score(graph, &factored_layers(graph), &config)
}

pub(super) fn scoring<'c>(context: &Context<'c>) -> Scoring<'c> {
    Scoring {
        engine: context.engine,
        prepared: context.prepared,
        settings: context.settings,
        task: context.task,
        progress: context.progress,
    }
}

fn note_round(context: &Context<'_>, round: &Round) {
    let share = |now: u64, before: u64| 100.0 * now as f64 / before.max(1) as f64;
    let is_trained = round.recovered || context.settings.prune.window_steps() > 0;
    let trained = match is_trained {
        true => format!(", {:.2} % after training", 100.0 * round.val_top1),
        false => String::new(),
    };
    let time = match round.size.nanos {
        0 => String::new(),
        nanos => {
            let before = (1e6 * context.original.millis) as u64;
            format!("time {:.1} %, ", share(nanos, before))
        }
    };
    let quality = match round.output_error {
        Some(error) => format!("error of the outputs {:.2} %", 100.0 * error),
        None => format!(
            "validation top-1 {:.2} % after the cut{trained}",
            100.0 * round.val_top1_cut
        ),
    };
    context.progress.note(&format!(
        "round {}, {}: parameters {:.1} %, MACs {:.1} %, {time}{quality} ({})",
        round.round,
        round.kind.map_or("", CutKind::name),
        share(round.size.params, context.original.params),
        share(round.size.macs, context.original.macs),
        if round.accepted { "kept" } else { "taken back" },
    ));
}
