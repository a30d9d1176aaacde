//! The single stages, file to file.

use super::checks::{check_scores, check_transfer};
use super::inspect::inspect_graph;
use super::opening::{check_batch, in_known_order};
use super::stages::{source, transfer_network};
use super::{PipelineError, Resume, Run, RunKey, Settings, prepare};
use crate::data::Split;
use crate::decompose::{Basis, DecomposeConfig, OutputScale, convolutions};
use crate::exec::Engine;
use crate::files::check_writable;
use crate::fold::{FoldConfig, fold};
use crate::graph::{Graph, factored_layers};
use crate::onnx::{self, Model};
use crate::progress::Progress;
use crate::prune::{PruneError, PruningPlan, apply};
use crate::report::{FileSize, StageReport, TransferFacts};
use crate::train::accuracy;
use crate::transfer::HeadFate;
use std::path::Path;

/// What [`transfer_file`] works on.
pub struct TransferJob<'j> {
    /// The pre-trained network's file.
    pub model: &'j Path,
    /// Where the transferred network goes.
    pub output: &'j Path,
    /// The run's folder.
    pub run: &'j Path,
    /// Whether an unfinished run goes on.
    pub resume: Resume,
    /// All choices.
    pub settings: &'j Settings,
    /// What trains.
    pub engine: &'j dyn Engine,
    /// Who hears of the progress.
    pub progress: &'j dyn Progress,
}

/// The transfer stage by itself.
///
/// # Errors
/// [`PipelineError`] names what stands in the way.
pub fn transfer_file(job: &TransferJob<'_>) -> Result<StageReport, PipelineError> {
    let (settings, engine, progress) = (job.settings, job.engine, job.progress);
    check_transfer(settings)?;
    check_writable(job.output)?;
    let model = onnx::read(job.model)?;
    check_scores(&model.graph)?;
    let prepared = prepare(&model.graph, &settings.data, settings.seed, progress)?;
    prepared.check_labelled()?;
    let prepared = in_known_order(&model.graph, prepared)?;
    check_batch(&model.graph, &prepared)?;
    if prepared.dataset.is_empty(Split::Val) {
        return Err(PipelineError::NoValidationImages);
    }
    let key = RunKey::of(job.model, &model, &prepared, settings)?;
    let run = Run::open(job.run, &key, job.resume, progress)?;
    let (graph, facts) = run.stage("transfer", &model, || {
        let mut store = run.training("transfer");
        let trained = transfer_network(
            engine,
            &model.graph,
            &prepared,
            settings,
            &mut store,
            progress,
        )?;
        let summary = trained.summary;
        let source = source(&prepared, settings);
        let found = accuracy(
            engine,
            &trained.graph,
            &summary.logits,
            &source,
            Split::Val,
            progress,
        )?;
        let facts = TransferFacts {
            head: summary.head,
            fate: match summary.fate {
                HeadFate::Kept => "kept",
                HeadFate::Replaced => "replaced",
                HeadFate::Attached => "attached",
            }
            .to_owned(),
            inserted_batch_norms: summary.inserted_batch_norms,
            best_step: summary.fit.map_or(0, |fit| fit.best.step),
            val_top1: found.top1,
            n_val: found.n,
        };
        Ok((trained.graph, facts))
    })?;
    let size = Some([prepared.preprocess.height, prepared.preprocess.width]);
    let mut report = written(job.model, &model, job.output, graph, size)?;
    report.transfer = Some(facts);
    run.finish()?;
    Ok(report)
}

/// Splits every layer that `exclude` does not match into basis, scaling factors and projection, at
/// full rank.
///
/// # Errors
/// [`PipelineError`] where the file cannot be read or written, or nothing can be decomposed.
pub fn decompose_file(
    model: &Path,
    output: &Path,
    exclude: Option<&str>,
    progress: &dyn Progress,
) -> Result<StageReport, PipelineError> {
    check_writable(output)?;
    let read = onnx::read(model)?;
    let config = DecomposeConfig {
        exclude: exclude.map(regex::Regex::new).transpose()?,
        head: None,
        output_scale: OutputScale::Nowhere,
    };
    let (graph, _) = convolutions(&read.graph, &config, progress)?;
    if factored_layers(&graph).is_empty() {
        return Err(PipelineError::NothingToPrune);
    }
    written(model, &read, output, graph, None)
}

/// Folds scaling factors and output scales, and recomposes the layers that do not pay.
///
/// # Errors
/// [`PipelineError`] where the file cannot be read, folded or written.
pub fn fold_file(
    model: &Path,
    output: &Path,
    config: &FoldConfig,
) -> Result<StageReport, PipelineError> {
    check_writable(output)?;
    let read = onnx::read(model)?;
    let (graph, _) = fold(&read.graph, config)?;
    written(model, &read, output, graph, None)
}

/// Repeats a stored cut.
///
/// # Errors
/// [`PipelineError`] where the plan does not fit the file's network.
pub fn replay_file(
    model: &Path,
    output: &Path,
    plan: &PruningPlan,
) -> Result<StageReport, PipelineError> {
    check_writable(output)?;
    let read = onnx::read(model)?;
    if plan.basis != Basis::Svd {
        return Err(PruneError::Basis(plan.basis.name()).into());
    }
    for layer in factored_layers(&read.graph) {
        let is_cut = plan.layers.contains_key(&layer.name);
        let matrices = layer.matrices(&read.graph).filter(|_| is_cut);
        if matrices.is_some_and(|matrices| !matrices.are_singular()) {
            return Err(PruneError::Directions(layer.name).into());
        }
    }
    let graph = apply(&read.graph, plan)?;
    let mut report = written(model, &read, output, graph.clone(), None)?;
    report.folded = Some(folded(&read, &graph, None)?);
    Ok(report)
}

/// Writes `graph` and reports on it and on the network that was read.
pub(super) fn written(
    model: &Path,
    read: &Model,
    output: &Path,
    graph: Graph,
    size: Option<[usize; 2]>,
) -> Result<StageReport, PipelineError> {
    let bytes = onnx::to_bytes_for(model, read)?.len() as u64;
    let name = |path: &Path| path.display().to_string();
    let before = inspect_graph(&read.graph, size, &name(model), bytes)?;
    let exported = read.with_graph(graph);
    let encoded = onnx::to_bytes_for(output, &exported)?;
    let after = inspect_graph(&exported.graph, size, &name(output), encoded.len() as u64)?;
    crate::files::write_atomic(output, &encoded)?;
    Ok(StageReport {
        model: name(model),
        output: name(output),
        before: FileSize::of(&before),
        after: FileSize::of(&after),
        layers: after.layers,
        transfer: None,
        goal_met: true,
        folded: None,
    })
}

/// Size of the network that `fold` makes of `graph`.
pub(super) fn folded(
    read: &Model,
    graph: &Graph,
    size: Option<[usize; 2]>,
) -> Result<FileSize, PipelineError> {
    let (graph, _) = fold(graph, &FoldConfig::default())?;
    let exported = read.with_graph(graph);
    let bytes = onnx::to_bytes(&exported)?.len() as u64;
    Ok(FileSize::of(&inspect_graph(
        &exported.graph,
        size,
        "",
        bytes,
    )?))
}
