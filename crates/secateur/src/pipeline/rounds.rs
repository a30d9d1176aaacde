//! What a round does: rank the directions (by statistics, or by training the scaling factors and
//! gathering their Taylor scores), fit and train what a cut has left (docs/method.md, section 5).

use super::basis::{Ranked, RankedState};
use super::candidate::Candidate;
use super::choose::exported_size;
use super::refit::refit;
use super::score::Scoring;
use super::stages::{fit_config, source};
use super::task::{Task, judge, loss};
use super::{Original, PipelineError, Prepared, Removal, Run, Settings};
use crate::exec::Engine;
use crate::graph::{Graph, Size, factored_layers};
use crate::importance::Scores;
use crate::onnx::Model;
use crate::progress::Progress;
use crate::prune::PruningPlan;
use crate::prune::channels::ChannelPlan;
use crate::report::{CutKind, Round};
use crate::train::{EngineAccuracy, FitSummary, Teacher, TrainError, steps_per_epoch};
use crate::verify::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What pruning needs to know of the run.
#[derive(Clone)]
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

/// What a round's checkpoint holds besides the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RoundState {
    pub round: Round,
    /// All cuts of directions up to this one.
    pub plan: PruningPlan,
    /// The channels that this round took; after the round, those of all rounds, one cut after the other.
    #[serde(default)]
    pub channels: Vec<ChannelPlan>,
    pub scores: Scores,
}

impl RoundState {
    /// That of a round in which nothing could go.
    pub fn nothing_left(&self, number: usize) -> Self {
        let mut state = self.clone();
        state.round.round = number;
        state.round.kind = None;
        state
    }
}

// A fit goes by outputs, and validation images are few: so much more loss than before it is no harm.
const LOSS_OF_A_FIT: f64 = 1.1;

/// The network `cut`, made of `before`, with its layers fitted anew; left as it is where validation says
/// that the fit does harm, as one to few images can, and with projections fitted alone where kernels do.
pub(super) fn fitted(
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

/// The directions of a round's network and their scores, for the next cut.
pub(super) fn rank(
    context: &Context<'_>,
    graph: &Graph,
    state: &RoundState,
) -> Result<Ranked, PipelineError> {
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
pub(super) fn train_cut(
    context: &Context<'_>,
    cut: Candidate,
    number: usize,
) -> Result<(Graph, RoundState), PipelineError> {
    let settings = context.settings;
    let source = source(context.prepared, settings);
    let size = Size {
        nanos: cut.nanos,
        ..exported_size(&cut.graph, context.prepared, None)?
    };
    let round = Round::unjudged(number, Some(cut.kind), cut.share, size);
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
    let (graph, _, scores) = match train_and_score(context, &graph, training) {
        Err(PipelineError::Train(problem @ TrainError::Diverged { .. })) => {
            // The cut is taken back.
            context.progress.note(&problem.to_string());
            return Ok((graph, state));
        }
        trained => trained?,
    };
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
pub(super) fn window(
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

pub(super) fn note_round(context: &Context<'_>, round: &Round) {
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
