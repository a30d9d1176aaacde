//! One cut of a factored network: scores from one window of training, a plan, a smaller graph.

use super::files::{folded, written};
use super::rounds::exported_size;
use super::stages::{fit_config, shapes, source};
use super::{PipelineError, Prepared, Settings, Target, prepare};
use crate::cost;
use crate::exec::Engine;
use crate::files::check_writable;
use crate::fold::{FoldConfig, fold};
use crate::graph::{FactoredLayer, Graph, Size, factored_layers};
use crate::importance::{Scores, TaylorWindow};
use crate::onnx;
use crate::progress::Progress;
use crate::prune::{AboveBreakEven, Candidate, Goal, PruningPlan, SelectConfig, apply, select};
use crate::report::StageReport;
use crate::train::{NoCheckpoints, StepRecord, Trainable, fit, names, reestimate_batch_norm};
use crate::transfer::{Ending, ending};
use std::path::Path;

/// What [`cut_file`] works on.
pub struct CutJob<'j> {
    /// The factored network's file.
    pub model: &'j Path,
    /// Where the pruned network goes.
    pub output: &'j Path,
    /// All choices.
    pub settings: &'j Settings,
    /// What trains.
    pub engine: &'j dyn Engine,
    /// Who hears of the progress.
    pub progress: &'j dyn Progress,
}

/// Trains the scaling factors for one window while gathering Taylor scores, removes directions until
/// the targets on size hold, and re-estimates batch norm. Shares are of the network that `fold` makes
/// of the file that is read.
///
/// # Errors
/// [`PipelineError`] where the file holds no factored layer or no classifier, a target is one of
/// accuracy or out of reach, or training fails.
pub fn cut_file(job: &CutJob<'_>) -> Result<(StageReport, PruningPlan), PipelineError> {
    let (settings, engine, progress) = (job.settings, job.engine, job.progress);
    check_writable(job.output)?;
    if settings.prune.targets.is_empty()
        || settings
            .prune
            .targets
            .iter()
            .any(|target| matches!(target, Target::AccDrop(_)))
    {
        return Err(PipelineError::CutTarget);
    }
    let read = onnx::read(job.model)?;
    let layers = chosen(&read.graph, settings)?;
    let prepared = prepare(&read.graph, &settings.data, settings.seed, progress)?;
    let preprocess = &prepared.preprocess;
    let Ending::Classifier(head) = ending(&read.graph, preprocess.height, preprocess.width)? else {
        return Err(PipelineError::NoClassifier);
    };
    let (trained, scores) = score(
        job,
        &read.graph,
        &prepared,
        &layers,
        &head.node,
        &head.logits,
    )?;
    let (whole, _) = fold(&trained, &FoldConfig::default())?;
    let original = cost::of(&whole, &shapes(&whole, &prepared)?);
    let original_bytes = onnx::to_bytes(&read.with_graph(whole))?.len() as u64;
    let wants = settings
        .prune
        .targets
        .iter()
        .map(|target| (*target, target.want(&original, original_bytes)));
    let wants: Vec<(Target, f64)> = wants.collect();
    let plan = plan(
        &trained,
        &prepared,
        settings,
        &layers,
        &scores,
        &wants,
        (original.params, original_bytes),
    )?;
    let cut = apply(&trained, &plan)?;
    let source = source(&prepared, settings);
    let cut = reestimate_batch_norm(
        engine,
        &cut,
        &source,
        settings.prune.batch_norm_images,
        settings.seed,
    )?;
    let size = Some([preprocess.height, preprocess.width]);
    let after = folded(&read, &cut, size)?;
    let mut report = written(job.model, &read, job.output, cut, size)?;
    report.goal_met = wants.iter().all(|(target, want)| {
        let got = match target {
            Target::AccDrop(_) => return true,
            Target::Params(_) => after.params,
            Target::Macs(_) => after.macs.unwrap_or(u64::MAX),
            Target::Size(_) => after.bytes,
        };
        got as f64 <= *want
    });
    report.folded = Some(after);
    Ok((report, plan))
}

/// The factored layers that the settings do not exclude.
fn chosen(graph: &Graph, settings: &Settings) -> Result<Vec<FactoredLayer>, PipelineError> {
    let mut layers = factored_layers(graph);
    if layers.is_empty() {
        return Err(PipelineError::NotFactored);
    }
    if let Some(pattern) = &settings.prune.exclude {
        let exclude = regex::Regex::new(pattern)?;
        let before = layers.len();
        layers.retain(|layer| !exclude.is_match(&layer.name));
        if layers.len() == before {
            return Err(crate::decompose::DecomposeError::ExcludesNothing(pattern.clone()).into());
        }
    }
    if layers.is_empty() {
        Err(PipelineError::NothingToPrune)
    } else {
        Ok(layers)
    }
}

fn score(
    job: &CutJob<'_>,
    graph: &Graph,
    prepared: &Prepared,
    layers: &[FactoredLayer],
    head: &str,
    logits: &str,
) -> Result<(Graph, Scores), PipelineError> {
    let settings = job.settings;
    let config = fit_config(
        settings,
        graph,
        settings.prune.lr,
        settings.prune.window_steps,
    );
    let (mut window, mut broken) = (TaylorWindow::new(layers), None);
    let mut observe = |step: &StepRecord<'_>| {
        if let Err(error) = window.add(step.gradients, step.values) {
            broken.get_or_insert(error);
        }
    };
    let (graph, _) = fit(
        job.engine,
        graph,
        logits,
        &names(graph, Trainable::Scaling, Some(head)),
        &source(prepared, settings),
        &config,
        &mut observe,
        &mut NoCheckpoints,
        job.progress,
    )?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok((graph, window.scores()?)),
    }
}

/// The smallest of the plans that the targets ask for.
fn plan(
    graph: &Graph,
    prepared: &Prepared,
    settings: &Settings,
    layers: &[FactoredLayer],
    scores: &Scores,
    wants: &[(Target, f64)],
    (params, bytes): (u64, u64),
) -> Result<PruningPlan, PipelineError> {
    let inferred = shapes(graph, prepared)?;
    let candidate =
        |layer: &FactoredLayer| Some(Candidate::new(layer, layer.positions(&inferred)?));
    let candidates: Vec<Candidate> = layers.iter().filter_map(candidate).collect();
    let mut rest: Size = exported_size(graph, prepared)?;
    for candidate in &candidates {
        let size = candidate.shape.size_at(candidate.rank, candidate.positions);
        rest.params = rest.params.saturating_sub(size.params);
        rest.macs = rest.macs.saturating_sub(size.macs);
    }
    let mut smallest: Option<PruningPlan> = None;
    for (target, want) in wants {
        let goal = match target {
            Target::AccDrop(_) => continue,
            Target::Params(_) => Goal::Params(*want as u64),
            Target::Macs(_) => Goal::Macs(*want as u64),
            // What the file has besides its weights stays.
            Target::Size(_) => {
                let others = bytes as f64 - BYTES_PER_PARAM * params as f64;
                Goal::Params(((want - others) / BYTES_PER_PARAM).max(0.0) as u64)
            }
        };
        let config = SelectConfig {
            per: settings.prune.per,
            align: settings.prune.align,
            above_break_even: AboveBreakEven::KeepWhole,
            rest,
            ..SelectConfig::new(goal)
        };
        let plan = select(&candidates, scores, &config)?;
        if smallest
            .as_ref()
            .is_none_or(|found| plan.predicted.params < found.predicted.params)
        {
            smallest = Some(plan);
        }
    }
    smallest.ok_or(PipelineError::CutTarget)
}

const BYTES_PER_PARAM: f64 = 4.0;
