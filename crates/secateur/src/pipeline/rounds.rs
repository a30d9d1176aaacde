//! Iterative pruning: train the scaling factors and gather their Taylor scores, cut, and go on
//! until the targets stop it (docs/method.md, sections 5 and 7).

use super::stages::{fit_config, shapes, source};
use super::{PipelineError, Prepared, Run, Settings, Target};
use crate::cost;
use crate::data::Split;
use crate::exec::Engine;
use crate::fold::{FoldConfig, fold};
use crate::graph::{Graph, Size, factored_layers};
use crate::importance::{Scores, TaylorWindow};
use crate::onnx::Model;
use crate::progress::{Progress, Silent};
use crate::prune::{
    AboveBreakEven, Candidate, Goal, PLAN_VERSION, PruningPlan, SelectConfig, apply, select,
};
use crate::report::Round;
use crate::train::{
    FitSummary, NoCheckpoints, StepRecord, Trainable, accuracy, fit, names, reestimate_batch_norm,
    steps_per_epoch,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What pruning needs to know of the run.
pub(super) struct Context<'c> {
    pub engine: &'c dyn Engine,
    pub prepared: &'c Prepared,
    pub settings: &'c Settings,
    pub run: &'c Run,
    pub model: &'c Model,
    pub head: &'c str,
    pub logits: &'c str,
    /// Size of the transferred network, as exported.
    pub original: &'c cost::Cost,
    pub original_bytes: u64,
    /// Its validation accuracy.
    pub val_top1: f64,
    pub progress: &'c dyn Progress,
}

/// A network between two cuts.
#[derive(Clone, Debug)]
pub(super) struct Pruned {
    pub graph: Graph,
    pub plan: PruningPlan,
    pub rounds: Vec<Round>,
}

/// What a round's checkpoint holds besides the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RoundState {
    round: Round,
    plan: PruningPlan,
    scores: Scores,
}

/// Prunes until the targets are reached, or another cut would break one.
pub(super) fn prune_in_rounds(
    context: &Context<'_>,
    decomposed: &Graph,
) -> Result<Pruned, PipelineError> {
    let settings = &context.settings.prune;
    let (mut graph, mut state) = context.run.stage("round-00", context.model, || {
        let start = Round {
            round: 0,
            step: 0.0,
            size: exported_size(decomposed, context.prepared)?,
            val_top1_cut: context.val_top1,
            val_top1: 0.0,
            recovered: false,
            accepted: true,
        };
        let plan = PruningPlan {
            version: PLAN_VERSION,
            layers: BTreeMap::new(),
            predicted: start.size,
        };
        window(context, decomposed, start, plan)
    })?;
    let mut rounds = vec![state.round.clone()];
    let mut step = settings.step;
    let mut failures = 0;
    while !is_small_enough(context, state.round.size) {
        let Some(plan) = next_plan(context, &graph, &state.scores, step)? else {
            break;
        };
        let number = rounds.len();
        let cumulative = if state.plan.layers.is_empty() {
            plan.clone()
        } else {
            state.plan.then(&plan)?
        };
        let (cut, tried) =
            context
                .run
                .stage(&format!("round-{number:02}"), context.model, || {
                    cut_and_train(context, &graph, &plan, cumulative, number, step)
                })?;
        note_round(context, &tried.round);
        rounds.push(tried.round.clone());
        let history: String = rounds
            .iter()
            .filter_map(|round| serde_json::to_string(round).ok())
            .map(|line| line + "\n")
            .collect();
        crate::files::write_atomic(&context.run.path("history.jsonl"), history.as_bytes())?;
        if tried.round.accepted {
            (graph, state) = (cut, tried);
        } else {
            failures += 1;
            step /= 2.0;
            if failures > settings.halvings {
                break;
            }
        }
    }
    Ok(Pruned {
        graph,
        plan: state.plan,
        rounds,
    })
}

/// Whether the targets on size hold, so that nothing more has to go. Without such a target pruning
/// goes on for as long as the accuracy holds.
fn is_small_enough(context: &Context<'_>, size: Size) -> bool {
    let sizes: Vec<&Target> = context
        .settings
        .prune
        .targets
        .iter()
        .filter(|target| !matches!(target, Target::AccDrop(_)))
        .collect();
    !sizes.is_empty()
        && sizes.iter().all(|target| match target {
            Target::AccDrop(_) => true,
            Target::Params(_) => size.params as f64 <= wanted(context, target),
            Target::Macs(_) => size.macs as f64 <= wanted(context, target),
            Target::Size(_) => predicted_bytes(context, size) <= wanted(context, target),
        })
}

fn wanted(context: &Context<'_>, target: &Target) -> f64 {
    target.want(context.original, context.original_bytes)
}

/// Bytes of the exported file: four for each parameter less than the original's.
fn predicted_bytes(context: &Context<'_>, size: Size) -> f64 {
    let fewer = context.original.params as f64 - size.params as f64;
    context.original_bytes as f64 - 4.0 * fewer + NODE_BYTES * context.original.layers.len() as f64
}

/// Room for the nodes and names of a second factor, bytes a layer.
const NODE_BYTES: f64 = 300.0;

/// The next cut: a share of the directions, but no further than the targets on size ask for.
/// `None` where nothing more can go.
fn next_plan(
    context: &Context<'_>,
    graph: &Graph,
    scores: &Scores,
    step: f64,
) -> Result<Option<PruningPlan>, PipelineError> {
    let settings = &context.settings.prune;
    let inferred = shapes(graph, context.prepared)?;
    let layers = factored_layers(graph);
    let mut candidates = Vec::new();
    for layer in &layers {
        if let Some(positions) = layer.positions(&inferred) {
            candidates.push(Candidate::new(layer, positions));
        }
    }
    let total = exported_size(graph, context.prepared)?;
    let mut rest = total;
    for candidate in &candidates {
        let size = candidate.shape.size_at(candidate.rank, candidate.positions);
        rest.params = rest.params.saturating_sub(size.params);
        rest.macs = rest.macs.saturating_sub(size.macs);
    }
    let config = |goal: Goal, above: AboveBreakEven| SelectConfig {
        goal,
        per: settings.per,
        min_rank: 1,
        align: settings.align,
        above_break_even: above,
        rest,
    };
    let plan = select(
        &candidates,
        scores,
        &config(Goal::Remove(step), AboveBreakEven::Cut),
    )?;
    let removes_nothing = |plan: &PruningPlan| {
        plan.layers
            .values()
            .all(|layer| layer.keep.len() == layer.rank)
    };
    if removes_nothing(&plan) {
        return Ok(None);
    }
    // Where this cut would go below a target on size, cut just as far as the target.
    let mut goals = Vec::new();
    for target in &settings.targets {
        let want = wanted(context, target);
        match target {
            Target::AccDrop(_) => {}
            Target::Params(_) => goals.push(Goal::Params(want as u64)),
            Target::Macs(_) => goals.push(Goal::Macs(want as u64)),
            Target::Size(_) => {
                let over = predicted_bytes(context, total) - want;
                let params = total.params as f64 - (over / 4.0).max(0.0);
                goals.push(Goal::Params(params.max(0.0) as u64));
            }
        }
    }
    let overshoots = !goals.is_empty()
        && goals.iter().all(|goal| match goal {
            Goal::Params(want) => plan.predicted.params <= *want,
            Goal::Macs(want) => plan.predicted.macs <= *want,
            Goal::Remove(_) => true,
        });
    if !overshoots {
        return Ok(Some(plan));
    }
    let mut smallest: Option<PruningPlan> = None;
    for goal in goals {
        let exact = select(&candidates, scores, &config(goal, AboveBreakEven::Cut))?;
        let smaller = smallest
            .as_ref()
            .is_none_or(|found| exact.predicted.params < found.predicted.params);
        if smaller {
            smallest = Some(exact);
        }
    }
    Ok(smallest.filter(|plan| !removes_nothing(plan)))
}

/// Applies a plan, re-estimates batch norm, trains, and trains longer where the accuracy asks for
/// it.
fn cut_and_train(
    context: &Context<'_>,
    graph: &Graph,
    plan: &PruningPlan,
    cumulative: PruningPlan,
    number: usize,
    step: f64,
) -> Result<(Graph, RoundState), PipelineError> {
    let settings = context.settings;
    let source = source(context.prepared, settings);
    let graph = apply(graph, plan)?;
    let graph = reestimate_batch_norm(
        context.engine,
        &graph,
        &source,
        settings.prune.batch_norm_images,
        settings.seed,
    )?;
    let after_cut = validation(context, &graph)?;
    let round = Round {
        round: number,
        step,
        size: exported_size(&graph, context.prepared)?,
        val_top1_cut: after_cut,
        val_top1: 0.0,
        recovered: false,
        accepted: true,
    };
    let (graph, mut state) = window(context, &graph, round, cumulative)?;
    state.round.accepted = is_accurate_enough(context, state.round.val_top1);
    if state.round.accepted || settings.prune.recovery_epochs == 0 {
        return Ok((graph, state));
    }
    let per_epoch = steps_per_epoch(&source);
    let training = Training {
        steps: settings.prune.recovery_epochs * per_epoch,
        check_every: per_epoch,
        first_epoch: first_epoch(number) + ROUND_EPOCHS / 2,
    };
    let (graph, summary, scores) = train_and_score(context, &graph, training)?;
    state.scores = scores;
    state.round.val_top1 = summary.best.val_top1;
    state.round.recovered = true;
    state.round.accepted = is_accurate_enough(context, state.round.val_top1);
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
    let training = Training {
        steps: context.settings.prune.window_steps,
        check_every: 0,
        first_epoch: first_epoch(round.round),
    };
    let (graph, summary, scores) = train_and_score(context, graph, training)?;
    round.val_top1 = summary.best.val_top1;
    let state = RoundState {
        round,
        plan,
        scores,
    };
    Ok((graph, state))
}

/// Trains scaling factors, batch-norm affines and head, and gathers the Taylor scores of the
/// directions on the way.
fn train_and_score(
    context: &Context<'_>,
    graph: &Graph,
    training: Training,
) -> Result<(Graph, FitSummary, Scores), PipelineError> {
    let settings = context.settings;
    let source = source(context.prepared, settings);
    let trainable = names(graph, Trainable::Scaling, Some(context.head));
    let mut config = fit_config(settings, graph, settings.prune.lr, training.steps);
    config.check_every = training.check_every;
    config.first_epoch = training.first_epoch;
    let (mut window, mut broken) = (TaylorWindow::new(&factored_layers(graph)), None);
    let mut observe = |step: &StepRecord<'_>| {
        if let Err(error) = window.add(step.gradients, step.values) {
            broken.get_or_insert(error);
        }
    };
    let (graph, summary) = fit(
        context.engine,
        graph,
        context.logits,
        &trainable,
        &source,
        &config,
        &mut observe,
        &mut NoCheckpoints,
        context.progress,
    )?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok((graph, summary, window.scores()?)),
    }
}

fn validation(context: &Context<'_>, graph: &Graph) -> Result<f64, PipelineError> {
    let source = source(context.prepared, context.settings);
    let found = accuracy(
        context.engine,
        graph,
        context.logits,
        &source,
        Split::Val,
        &Silent,
    )?;
    Ok(found.top1)
}

fn is_accurate_enough(context: &Context<'_>, val_top1: f64) -> bool {
    context
        .settings
        .prune
        .targets
        .iter()
        .all(|target| match target {
            Target::AccDrop(points) => 100.0 * (context.val_top1 - val_top1) <= *points,
            Target::Params(_) | Target::Macs(_) | Target::Size(_) => true,
        })
}

/// Size of a graph as it would be exported.
pub(super) fn exported_size(graph: &Graph, prepared: &Prepared) -> Result<Size, PipelineError> {
    let (folded, _) = fold(graph, &FoldConfig::default())?;
    let cost = cost::of(&folded, &shapes(&folded, prepared)?);
    Ok(Size {
        params: cost.params,
        macs: cost.macs,
    })
}

fn note_round(context: &Context<'_>, round: &Round) {
    let share = |now: u64, before: u64| 100.0 * now as f64 / before.max(1) as f64;
    context.progress.note(&format!(
        "round {}: parameters {:.1} %, MACs {:.1} %, validation top-1 {:.2} % after the cut, \
         {:.2} % after training ({})",
        round.round,
        share(round.size.params, context.original.params),
        share(round.size.macs, context.original.macs),
        100.0 * round.val_top1_cut,
        100.0 * round.val_top1,
        if round.accepted { "kept" } else { "taken back" },
    ));
}
