//! `compress`: the whole job, from a pre-trained network to a verified smaller file.

use super::clock::Clock;
use super::foresee::feasibility;
use super::latency::{latency, latency_before, threads};
use super::rounds::{Context, Pruned, prune_in_rounds};
use super::stages::{decompose_config, fit_config, shapes, source, teacher, transfer_network};
use super::{
    Amount, Original, PipelineError, Prepared, Removal, Resume, Run, RunKey, Settings, Target,
    prepare,
};
use crate::cost::{self, Cost};
use crate::data::{Augment, Order, Split};
use crate::decompose::{Basis, DecomposeSummary, convolutions, examine};
use crate::exec::{Engine, Request};
use crate::files::{check_writable, remove_leftovers, write_atomic};
use crate::fold::{FoldConfig, FoldSummary, Form, fold};
use crate::graph::{Graph, factored_layers};
use crate::importance::Score;
use crate::onnx;
use crate::progress::Progress;
use crate::report::{
    BenchReport, CompressReport, LayerKind, LayerResult, Measure, TargetResult, VerifyResult,
};
use crate::train::{
    EngineAccuracy, FitSummary, Source, Trainable, accuracy, fit, names, steps_per_epoch,
};
use crate::transfer::TransferSummary;
use crate::verify::{self, VerifyError};
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
    remove_leftovers(job.output);
    let runtime = verify::open(settings.verify.runtime, job.runtime_options)?;
    let model = onnx::read(job.model)?;
    let prepared = prepare(&model.graph, &settings.data, settings.seed, progress)?;
    if prepared.dataset.len(Split::Test) == 0 {
        return Err(PipelineError::NoTestImages);
    }
    let key = RunKey::of(job.model, &model, &prepared, settings)?;
    if settings.prune.removes == Removal::Basis {
        reject_infeasible(&model.graph, &prepared, settings)?;
    }
    let run = Run::open(job.run, &key, job.resume)?;
    run.write_json("splits.json", &prepared.members())?;

    let (transferred, state) = clock.time("transfer", || {
        run.stage("transfer", &model, || {
            let mut store = run.training("transfer");
            let graph = &model.graph;
            let trained =
                transfer_network(engine, graph, &prepared, settings, &mut store, progress)?;
            let source = source(&prepared, settings);
            let logits = &trained.summary.logits;
            let val = accuracy(
                engine,
                &trained.graph,
                logits,
                &source,
                Split::Val,
                progress,
            )?;
            let summary = trained.summary;
            let state = TransferState { summary, val };
            Ok((trained.graph, state))
        })
    })?;
    let before_bytes = onnx::to_bytes(&model.with_graph(transferred.clone()))?;
    let cost_before = cost::of(&transferred, &shapes(&transferred, &prepared)?);
    let original = Original {
        params: cost_before.params,
        macs: cost_before.macs,
        bytes: before_bytes.len() as u64,
        millis: 0.0,
    };
    progress.note(&format!(
        "transferred network: {} parameters, {} MACs, validation top-1 {:.2} % (n = {})",
        original.params,
        original.macs,
        100.0 * state.val.top1,
        state.val.n
    ));

    let (head, logits) = (state.summary.head.as_str(), state.summary.logits.as_str());
    let config = decompose_config(settings, head)?;
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
        head,
        logits,
        uncut: &decomposed,
        teacher: teacher(settings, &transferred),
        original,
        before_bytes: &before_bytes,
        runtime: &*runtime,
        threads: threads(job.runtime_options),
        val: &state.val,
        progress,
    };
    if settings.prune.wants_times() {
        context.original.millis = latency_before(&context)?;
    }
    let pruned = clock.time("prune", || prune_in_rounds(&context))?;
    run.write_json("plan.json", &pruned.plan)?;
    if settings.prune.removes != Removal::Basis {
        run.write_json("channels.json", &pruned.channels)?;
    }
    let tuned = clock.time("train", || fine_tune(&context, &pruned))?;
    let (small, folded) = fold(&tuned, &FoldConfig::default())?;

    let exported = model.with_graph(small.clone());
    let after_bytes = onnx::to_bytes(&exported)?;
    let (verified, before_top1, after_top1) = clock.time("verify", || {
        let equal = compare(&context, &tuned, &after_bytes)?;
        let test = |bytes: &[u8], what: &str| test_accuracy(&context, bytes, what);
        let before = test(&before_bytes, "test the transferred network")?;
        let after = test(&after_bytes, "test the exported network")?;
        Ok::<_, PipelineError>((equal, before, after))
    })?;
    let files = [("before", &before_bytes[..]), ("after", &after_bytes[..])];
    let latency = clock.time("latency", || latency(&context, &files))?;

    let small_cost = cost::of(&small, &shapes(&small, &prepared)?);
    let measure = |cost: &Cost, bytes: usize, top1: f64| Measure {
        params: cost.params,
        macs: cost.macs,
        bytes: bytes as u64,
        top1,
    };
    let before = measure(&cost_before, before_bytes.len(), before_top1.top1);
    let after = measure(&small_cost, after_bytes.len(), after_top1.top1);
    let targets = judge(&settings.prune.targets, &before, &after, &latency);
    let report = CompressReport {
        goal_met: targets.iter().all(|target| target.met),
        before,
        after,
        n_test: after_top1.n,
        acc_drop_pp: 100.0 * (before.top1 - after.top1),
        standard_error_pp: 100.0 * after_top1.standard_error,
        targets,
        layers: layer_results(&summary, &folded, &small_cost),
        val_top1_before: state.val.top1,
        n_val: state.val.n,
        rounds: pruned.rounds,
        verify: verified,
        latency,
        seconds: clock.into_seconds(),
        engine: engine.name().to_owned(),
        model: job.output.display().to_string(),
    };
    write_atomic(&run.path("model.onnx"), &after_bytes)?;
    write_atomic(job.output, &after_bytes)?;
    run.write_json("report.json", &report)?;
    write_atomic(&run.path("report.md"), report.to_markdown().as_bytes())?;
    write_atomic(&run.path("report.html"), report.to_html()?.as_bytes())?;
    Ok(report)
}

/// Trains the chosen network to the end; the best check is kept.
fn fine_tune(context: &Context<'_>, pruned: &Pruned) -> Result<Graph, PipelineError> {
    let settings = context.settings;
    let tuned = context.run.stage("finetune", context.model, || {
        let source = source(context.prepared, settings);
        let per_epoch = steps_per_epoch(&source);
        let graph = &pruned.graph;
        let steps = settings.prune.finetune_epochs * per_epoch;
        let mut config = fit_config(settings, settings.prune.lr, steps);
        config.check_every = per_epoch;
        config.first_epoch = FINE_TUNE_EPOCH;
        config.teacher.clone_from(&context.teacher);
        let (graph, summary): (Graph, FitSummary) = fit(
            context.engine,
            graph,
            context.logits,
            &names(graph, Trainable::Scaling, Some(context.head)),
            &source,
            &config,
            &mut |_| (),
            &mut context.run.training("finetune"),
            context.progress,
        )?;
        Ok((graph, summary))
    })?;
    Ok(tuned.0)
}

// Far from the passes that the rounds number.
const FINE_TUNE_EPOCH: u64 = 1_000_000;

/// Compares the network in memory (before folding) with the exported bytes in the runtime.
fn compare(
    context: &Context<'_>,
    graph: &Graph,
    exported: &[u8],
) -> Result<VerifyResult, PipelineError> {
    let output = graph.outputs[0].name.clone();
    let mut session = context
        .engine
        .session(&Request::evaluation(graph, vec![output]))?;
    let source = source(context.prepared, context.settings);
    let n_batches = context.settings.verify.images.div_ceil(source.batch_size);
    let batches = source
        .batches(Split::Test, Order::Stored, Augment::None)
        .take(n_batches.max(1));
    let mut loaded = context.runtime.load(exported, input_shape(context))?;
    let summary = verify::compare(
        &mut |images| {
            let outputs = session.forward(images).map_err(VerifyError::network)?;
            Ok(outputs[0].clone())
        },
        &mut |images| loaded.run(images),
        batches,
        context.runtime.name(),
    )?;
    summary.check(verify::Tolerance::default())?;
    Ok(VerifyResult {
        max_abs_diff: summary.max_abs_diff,
        top1_agreement: summary.top1_agreement,
        runtime: summary.runtime.clone(),
        n: summary.n,
    })
}

/// One batch of input, `[images, channels, height, width]`.
fn input_shape(context: &Context<'_>) -> [usize; 4] {
    let preprocess = &context.prepared.preprocess;
    [
        context.settings.data.batch_size,
        preprocess.channels.channels(),
        preprocess.height,
        preprocess.width,
    ]
}

fn test_accuracy(
    context: &Context<'_>,
    bytes: &[u8],
    what: &str,
) -> Result<verify::Accuracy, PipelineError> {
    let source: Source<'_> = source(context.prepared, context.settings);
    let n = context.prepared.dataset.len(Split::Test);
    context.progress.begin(what, n as u64);
    let batches = source
        .batches(Split::Test, Order::Stored, Augment::None)
        .inspect(|batch| {
            if let Ok(batch) = batch {
                context.progress.advance(batch.labels.len() as u64);
            }
        });
    let mut loaded = context.runtime.load(bytes, input_shape(context))?;
    let found = verify::evaluate(&mut |images| loaded.run(images), batches)?;
    context.progress.end();
    Ok(found)
}

fn judge(
    targets: &[Target],
    before: &Measure,
    after: &Measure,
    latency: &BenchReport,
) -> Vec<TargetResult> {
    let millis = |at: usize| latency.models.get(at).map_or(0.0, |model| model.p50_ms);
    let original = Original {
        params: before.params,
        macs: before.macs,
        bytes: before.bytes,
        millis: millis(0),
    };
    let result = |target: &Target| {
        let want = target.want(&original);
        let got = match target {
            Target::AccDrop(_) => 100.0 * (before.top1 - after.top1),
            Target::Params(_) => after.params as f64,
            Target::Macs(_) => after.macs as f64,
            Target::Size(_) => after.bytes as f64,
            // Turn by turn, so that a machine that was slow in a few turns was so for both.
            Target::Latency(Amount::Share(_)) => {
                let speedup = latency.models.get(1).map_or(1.0, |model| model.speedup);
                millis(0) / speedup.max(f64::MIN_POSITIVE)
            }
            Target::Latency(Amount::Absolute(_)) => millis(1),
        };
        TargetResult {
            name: target.name().to_owned(),
            want,
            got,
            // A drop is a difference of two quotients: allow for its rounding.
            met: got <= want + 1e-9,
        }
    };
    targets.iter().map(result).collect()
}

fn layer_results(
    summary: &DecomposeSummary,
    folded: &FoldSummary,
    small: &Cost,
) -> Vec<LayerResult> {
    let result = |record: &crate::decompose::LayerRecord| {
        let params_before = record.shape.map_or(0, |shape| shape.dense_params());
        let found = folded.layers.iter().find(|layer| layer.name == record.name);
        let (kind, params_after, why) = match (&record.kept, found) {
            (Some(why), _) => {
                let now = small.layers.iter().find(|layer| layer.node == record.name);
                let params = now.map_or(params_before, |layer| layer.params);
                (LayerKind::Excluded, params, why.to_string())
            }
            (None, Some(layer)) if layer.form == Form::Factored => {
                (LayerKind::Factored, layer.params, String::new())
            }
            (None, found) => (
                LayerKind::Dense,
                found.map_or(params_before, |layer| layer.params),
                "two factors of this rank are not smaller".to_owned(),
            ),
        };
        LayerResult {
            name: record.name.clone(),
            kind,
            rank: found.map_or(record.full_rank, |layer| layer.rank),
            full_rank: record.full_rank,
            params_before,
            params_after,
            why,
        }
    };
    summary.layers.iter().map(result).collect()
}

/// Settings that no run can have.
pub(super) fn check(settings: &Settings) -> Result<(), PipelineError> {
    let wrong = |setting: &'static str, value: String, want: &'static str| {
        Err(PipelineError::Setting {
            setting,
            value,
            want,
        })
    };
    let prune = &settings.prune;
    let step = prune.step();
    if !(step > 0.0 && step < 1.0) {
        return wrong("step", step.to_string(), "more than 0 and less than 1");
    }
    if prune.score == Score::Taylor {
        if prune.basis != Basis::Svd {
            let want = "`svd` with `score = taylor`, which is measured in training";
            return wrong("basis", prune.basis.name().to_owned(), want);
        }
        if prune.window_steps() == 0 {
            let want = "at least 1 with `score = taylor`";
            return wrong("window-steps", "0".to_owned(), want);
        }
    } else if prune.statistics_images == 0 {
        return wrong("statistics-images", "0".to_owned(), "at least 1");
    }
    if settings.data.batch_size == 0 {
        return wrong("batch-size", "0".to_owned(), "at least 1");
    }
    if !(0.0..=1.0).contains(&prune.distillation) {
        let value = prune.distillation.to_string();
        return wrong("distillation", value, "from 0 to 1");
    }
    if settings.verify.latency_batch == 0 {
        return wrong("latency-batch", "0".to_owned(), "at least 1");
    }
    if prune.targets.is_empty() {
        return wrong("target", "missing".to_owned(), "at least one `--target`");
    }
    Ok(())
}

/// Says before the long work that a target on size cannot be reached.
fn reject_infeasible(
    graph: &Graph,
    prepared: &Prepared,
    settings: &Settings,
) -> Result<(), PipelineError> {
    let found = feasibility(graph, prepared, settings)?;
    for (target, feasibility) in settings.prune.targets.iter().zip(found) {
        if let (Some(false), Some(least)) = (feasibility.possible, feasibility.least) {
            return Err(PipelineError::Infeasible {
                target: *target,
                least,
                unit: match target {
                    Target::AccDrop(_) | Target::Latency(_) => continue,
                    Target::Params(_) => "parameters",
                    Target::Macs(_) => "multiply-accumulates",
                    Target::Size(_) => "bytes",
                },
            });
        }
    }
    Ok(())
}
