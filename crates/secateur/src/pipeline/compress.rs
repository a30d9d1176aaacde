//! `compress`: the whole job, from a pre-trained network to a verified smaller file.

use super::checks::{check, reject_infeasible};
use super::clock::Clock;
use super::latency::{LIMIT, latency, latency_before, threads};
use super::opening::{Opened, open};
use super::outcome::{Outcome, drop, layer_results, target_results};
use super::rounds::Context;
use super::run::{NETWORK, REPORT};
use super::stages::{decompose_config, fit_config, shapes, source, teacher, transfer_network};
use super::task::Task;
use super::ways::prune_in_rounds;
use super::{Original, PipelineError, Prepared, Removal, Resume, Run, RunKey, Settings, Target};
use crate::cost::{self, Cost};
use crate::data::{CLASSES_METADATA_KEY, Split};
use crate::decompose::{convolutions, examine};
use crate::exec::Engine;
use crate::files::{check_writable, remove_leftovers, write_atomic};
use crate::fold::{FoldConfig, fold};
use crate::graph::{Graph, factored_layers};
use crate::onnx::{self, Model};
use crate::progress::Progress;
use crate::report::{CompressReport, Measure};
use crate::train::{
    EngineAccuracy, FitSummary, TrainError, Trainable, accuracy, fit, names, steps_per_epoch,
};
use crate::transfer::TransferSummary;
use crate::verify;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What `compress` works on.
pub struct Job<'j> {
    /// The network's file.
    pub model: &'j Path,
    /// Where the smaller network goes.
    pub output: &'j Path,
    /// The run's folder.
    pub run: &'j Path,
    /// Whether an unfinished run goes on.
    pub resume: Resume,
    /// All choices.
    pub settings: &'j Settings,
    /// Threads and library of the runtime that verifies.
    pub runtime_options: &'j verify::Options,
    /// What trains.
    pub engine: &'j dyn Engine,
    /// Who hears of the progress.
    pub progress: &'j dyn Progress,
}

#[derive(Serialize, Deserialize)]
struct TransferState {
    summary: TransferSummary,
    val: EngineAccuracy,
}

/// Does the whole job and writes the run's folder and the output.
///
/// # Errors
/// [`PipelineError`] names what stands in the way. A missed target is no error: see
/// [`CompressReport::goal_met`].
pub fn compress(job: &Job<'_>) -> Result<CompressReport, PipelineError> {
    let (settings, engine, progress) = (job.settings, job.engine, job.progress);
    let mut clock = Clock::default();
    check(settings)?;
    check_writable(job.output)?;
    let Opened {
        model,
        prepared,
        head,
        runtime,
    } = open(job.model, settings, job.runtime_options, progress)?;
    let mut for_file = settings.clone();
    if !prepared.dataset.has_labels() {
        // What is inside a file for a fixed number of images may count on it.
        let fixed = model.graph.image_input()?.batch;
        for_file.data.batch_size = fixed.unwrap_or(settings.data.batch_size);
    }
    let settings = &for_file;
    let n_val = prepared.dataset.len(Split::Val);
    for target in &settings.prune.targets {
        if let Target::AccDrop(points) = target
            && *points > 0.0
            && 100.0 / n_val as f64 > *points
        {
            progress.note(&format!(
                "`{target}`: each of the {n_val} validation images is {:.2} points, so they cannot tell such a drop; more of \
                 them can (`--val-fraction`)",
                100.0 / n_val as f64
            ));
        }
    }
    let key = RunKey::of(job.model, &model, &prepared, settings)?;
    if settings.prune.removes == Removal::Basis {
        reject_infeasible(&model.graph, &prepared, settings)?;
    }
    let run = Run::open(job.run, &key, job.resume, progress)?;
    remove_leftovers(job.output);
    if let Some(report) = run.finished()? {
        return again(job, &run, report);
    }
    run.write_json("splits.json", &prepared.members())?;

    if let Some(head) = head.as_ref().filter(|head| !head.is_kept()) {
        progress.note(&head.text);
    }
    let (transferred, task, val) =
        clock.time("transfer", || transferred(job, &model, &prepared, &run))?;
    let before_bytes = onnx::to_bytes_for(job.model, &model.with_graph(transferred.clone()))?;
    let cost_before = cost::of(&transferred, &shapes(&transferred, &prepared)?);
    let original = Original {
        params: cost_before.params,
        macs: cost_before.macs,
        bytes: before_bytes.len() as u64,
        millis: 0.0,
    };
    let quality = val.as_ref().map_or_else(String::new, |val| {
        let top1 = 100.0 * val.top1;
        format!(", validation top-1 {top1:.2} % (n = {})", val.n)
    });
    progress.note(&format!(
        "transferred network: {} parameters, {} MACs{quality}",
        original.params, original.macs,
    ));
    if let (Some(head), Some(val)) = (&head, &val)
        && head.is_kept()
        && is_guessing(val, prepared.dataset.classes().len())
    {
        let order = match model.graph.metadata.contains_key(CLASSES_METADATA_KEY) {
            true => "",
            false => {
                " are the data's classes, which are in the order of their names, those of the network in its order?"
            }
        };
        progress.note(&format!(
            "the network's own head is no better than guessing here:{order} `--head new` gives it another head"
        ));
    }

    let config = decompose_config(settings, task.head())?;
    let summary = examine(&transferred, &config)?;
    let (decomposed, ()) = clock.time("statistics", || {
        run.stage("decompose", &model, || {
            let (graph, _) = convolutions(&transferred, &config, progress)?;
            let removes = settings.prune.removes;
            if factored_layers(&graph).is_empty() && removes == Removal::Basis {
                return Err(PipelineError::NothingToPrune);
            }
            Ok((graph, ()))
        })
    })?;
    let mut context = Context {
        engine,
        prepared: &prepared,
        settings,
        run: &run,
        model: &model,
        task: &task,
        uncut: &decomposed,
        teacher: teacher(settings, &transferred)?,
        original,
        before_bytes: &before_bytes,
        runtime: &*runtime,
        threads: threads(job.runtime_options),
        val: val.as_ref(),
        progress,
    };
    if settings.prune.wants_times() {
        context.original.millis = latency_before(&context)?;
    }
    let (pruned, ways) = clock.time("prune", || prune_in_rounds(&context))?;
    run.write_json("plan.json", &pruned.state.plan)?;
    if settings.prune.removes != Removal::Basis {
        run.write_json("channels.json", &pruned.state.channels)?;
    }
    let tuned = clock.time("train", || fine_tune(&context, &pruned.graph))?;
    let (small, folded) = fold(&tuned, &FoldConfig::default())?;

    let exported = model.with_graph(small.clone());
    let after_bytes = onnx::to_bytes_for(job.output, &exported)?;
    let outcome = clock.time("verify", || {
        Outcome::of(&context, &tuned, &before_bytes, &after_bytes)
    })?;
    write_atomic(&run.path(NETWORK), &after_bytes)?;
    write_atomic(job.output, &after_bytes)?;
    let files = [("before", &before_bytes[..]), ("after", &after_bytes[..])];
    let latency = clock.time("latency", || latency(&context, &files, LIMIT))?;

    let small_cost = cost::of(&small, &shapes(&small, &prepared)?);
    let measure = |cost: &Cost, bytes: usize, top1: Option<f64>| Measure {
        params: cost.params,
        macs: cost.macs,
        bytes: bytes as u64,
        top1,
    };
    let top1 = outcome
        .accuracy
        .as_ref()
        .map(|(before, after)| (before.top1, after.top1));
    let before = measure(&cost_before, before_bytes.len(), top1.map(|top1| top1.0));
    let after = measure(&small_cost, after_bytes.len(), top1.map(|top1| top1.1));
    let wanted = &settings.prune.targets;
    let targets = target_results(wanted, &before, &after, outcome.output_error, &latency);
    let report = CompressReport {
        goal_met: targets.iter().all(|target| target.met),
        before,
        after,
        n_test: outcome.n_test,
        acc_drop_pp: drop(&before, &after),
        standard_error_pp: outcome
            .accuracy
            .map(|(_, after)| 100.0 * after.standard_error),
        output_error: outcome.output_error,
        targets,
        layers: layer_results(&summary, &folded, &small_cost),
        val_top1_before: val.as_ref().map(|val| val.top1),
        n_val: prepared.dataset.len(Split::Val),
        rounds: pruned.rounds,
        ways,
        verify: outcome.verified,
        latency,
        seconds: clock.into_seconds(),
        head: head.map(|head| head.text),
        engine: engine.name().to_owned(),
        model: job.output.display().to_string(),
    };
    run.write_json(REPORT, &report)?;
    write_atomic(&run.path("report.md"), report.to_markdown().as_bytes())?;
    write_atomic(&run.path("report.html"), report.to_html()?.as_bytes())?;
    run.finish()?;
    Ok(report)
}

/// The result of a run that is at its end: its file and its report.
fn again(
    job: &Job<'_>,
    run: &Run,
    mut report: CompressReport,
) -> Result<CompressReport, PipelineError> {
    job.progress
        .note("the run is finished: this is its result (`--anew` computes it again)");
    let made = run.path(NETWORK);
    let bytes = std::fs::read(&made).map_err(|problem| PipelineError::Run {
        folder: job.run.to_owned(),
        problem: format!("cannot read its `{NETWORK}`: {problem}"),
    })?;
    write_atomic(job.output, &bytes)?;
    report.model = job.output.display().to_string();
    Ok(report)
}

/// Whether the accuracy is within two standard errors of that of a guess.
fn is_guessing(val: &EngineAccuracy, classes: usize) -> bool {
    let chance = 1.0 / classes.max(1) as f64;
    let error = (chance * (1.0 - chance) / val.n.max(1) as f64).sqrt();
    let most = chance + 2.0 * error;
    most < 1.0 && val.top1 <= most
}

/// The network before any cut, what it is for, and its accuracy on validation where there are labels: the
/// transfer stage, or the network as it is.
fn transferred(
    job: &Job<'_>,
    model: &Model,
    prepared: &Prepared,
    run: &Run,
) -> Result<(Graph, Task, Option<EngineAccuracy>), PipelineError> {
    let (settings, engine, progress) = (job.settings, job.engine, job.progress);
    let graph = &model.graph;
    if !prepared.dataset.has_labels() {
        let mut graph = graph.clone();
        prepared.describe(&mut graph);
        let task = Task::of_outputs(&graph);
        return Ok((graph, task, None));
    }
    let (transferred, state) = run.stage("transfer", model, || {
        let mut store = run.training("transfer");
        let trained = transfer_network(engine, graph, prepared, settings, &mut store, progress)?;
        let source = source(prepared, settings);
        let (graph, logits) = (&trained.graph, &trained.summary.logits);
        let val = accuracy(engine, graph, logits, &source, Split::Val, progress)?;
        let summary = trained.summary;
        Ok((trained.graph, TransferState { summary, val }))
    })?;
    let TransferSummary { head, logits, .. } = state.summary;
    Ok((transferred, Task::Classes { head, logits }, Some(state.val)))
}

/// Trains the chosen network to the end, where there are labels; the best check is kept.
fn fine_tune(context: &Context<'_>, pruned: &Graph) -> Result<Graph, PipelineError> {
    let settings = context.settings;
    let Ok((head, logits)) = context.task.classes() else {
        return Ok(pruned.clone());
    };
    let tuned = context.run.stage("finetune", context.model, || {
        let source = source(context.prepared, settings);
        let per_epoch = steps_per_epoch(&source);
        let steps = settings.prune.finetune_epochs * per_epoch;
        let mut config = fit_config(settings, settings.prune.lr, steps);
        config.check_every = per_epoch;
        config.first_epoch = FINE_TUNE_EPOCH;
        config.teacher.clone_from(&context.teacher);
        let tuned = fit(
            context.engine,
            pruned,
            logits,
            &names(pruned, Trainable::Scaling, Some(head)),
            &source,
            &config,
            &mut |_| (),
            &mut context.run.training("finetune"),
            context.progress,
        );
        match tuned {
            Err(problem @ TrainError::Diverged { .. }) => {
                context
                    .progress
                    .note(&format!("{problem}: the network stays as it was cut"));
                Ok((pruned.clone(), None))
            }
            tuned => {
                let (graph, summary): (Graph, FitSummary) = tuned?;
                Ok((graph, Some(summary)))
            }
        }
    })?;
    Ok(tuned.0)
}

// Far from the passes that the rounds number.
const FINE_TUNE_EPOCH: u64 = 1_000_000;
