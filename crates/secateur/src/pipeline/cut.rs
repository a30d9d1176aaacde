//! One cut of a factored network: scores from statistics or a window of training, a plan, a smaller
//! graph.

use super::checks::{check, check_scores};
use super::choose::{Choice, File};
use super::files::{folded, written};
use super::opening::in_order_of;
use super::score::Scoring;
use super::stages::{fit_config, shapes, source};
use super::task::Task;
use super::{Original, PipelineError, Removal, Settings, Sides, Target, prepare};
use crate::cost;
use crate::exec::Engine;
use crate::files::check_writable;
use crate::fold::{FoldConfig, fold};
use crate::graph::{FactoredLayer, Graph, factored_layers};
use crate::importance::Scores;
use crate::onnx;
use crate::progress::Progress;
use crate::prune::{PruningPlan, apply};
use crate::report::StageReport;
use crate::train::{KeptChannels, carry_batch_norm};
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

/// Gathers what the scores ask for (statistics, or a window of training), removes directions until
/// the targets on size hold, and carries batch norm over. Shares are of the network that `fold` makes
/// of the file that is read.
///
/// # Errors
/// [`PipelineError`] where the file holds no factored layer or no classifier, a target is one of
/// accuracy or out of reach, or training fails.
pub fn cut_file(job: &CutJob<'_>) -> Result<(StageReport, PruningPlan), PipelineError> {
    let (engine, progress) = (job.engine, job.progress);
    let mut settings = job.settings.clone();
    // One cut has one plan: input spaces are cut in rounds of their own.
    settings.prune.sides = Sides::Outputs;
    let settings = &settings;
    check_writable(job.output)?;
    check(settings)?;
    if settings.prune.removes != Removal::Basis {
        return Err(PipelineError::Setting {
            setting: "removes",
            value: "channels or double".to_owned(),
            want: "`basis` in a single cut; `compress` removes channels",
        });
    }
    if settings.prune.targets.is_empty()
        || settings.prune.targets.iter().any(|target| {
            matches!(
                target,
                Target::AccDrop(_) | Target::OutputError(_) | Target::Latency(_)
            )
        })
    {
        return Err(PipelineError::CutTarget);
    }
    if settings.prune.wants_times() {
        return Err(PipelineError::Setting {
            setting: "per",
            value: "time".to_owned(),
            want: "`parameter`, `mac` or `direction` in a single cut; `compress` measures time",
        });
    }
    let read = onnx::read(job.model)?;
    check_scores(&read.graph)?;
    let layers = chosen(&read.graph, settings)?;
    let prepared = prepare(&read.graph, &settings.data, settings.seed, progress)?;
    prepared.check_labelled()?;
    let [_, _, height, width] = prepared.input_shape(1);
    let Ending::Classifier(head) = ending(&read.graph, height, width)? else {
        return Err(PipelineError::NoClassifier);
    };
    let prepared = in_order_of(&read.graph, prepared)?;
    let preprocess = &prepared.preprocess;
    let scoring = Scoring {
        engine,
        prepared: &prepared,
        settings,
        task: &Task::Classes {
            head: head.node,
            logits: head.logits,
        },
        progress,
    };
    let prune = &settings.prune;
    let window = prune.window_steps();
    let (trained, scores) = if window > 0 {
        let config = fit_config(settings, prune.lr, window);
        let (trained, _, scores) = scoring.train_and_score(&read.graph, &layers, &config)?;
        (trained, scores)
    } else {
        (read.graph.clone(), Scores::new())
    };
    let ranked = scoring.rank(&trained, &layers, scores)?;
    let (whole, _) = fold(&trained, &FoldConfig::default())?;
    let original = cost::of(&whole, &shapes(&whole, &prepared)?);
    let original = Original {
        params: original.params,
        macs: original.macs,
        bytes: onnx::to_bytes(&read.with_graph(whole))?.len() as u64,
        millis: 0.0,
    };
    let want = |target: &Target| target.want(&original);
    let wants: Vec<(Target, f64)> = prune.targets.iter().map(|t| (*t, want(t))).collect();
    let choice = Choice::of(&trained, &layers, &prepared, prune, None)?;
    let file = File {
        bytes: original.bytes,
        params: original.params,
        layers: layers.len(),
    };
    let mut plans = Vec::new();
    for goal in choice.goals(&wants, file) {
        plans.push(choice.plan(&ranked.state.scores, goal)?);
    }
    let smallest = plans.into_iter().min_by_key(|plan| plan.predicted.params);
    let plan = smallest.ok_or(PipelineError::CutTarget)?;
    let cut = apply(&ranked.adopt(&trained, &plan)?, &plan)?;
    let source = source(&prepared, settings);
    let mut cut = carry_batch_norm(
        engine,
        &trained,
        &cut,
        &KeptChannels::new(),
        &source,
        settings.prune.batch_norm_images,
        settings.seed,
        progress,
    )?;
    prepared.describe(&mut cut);
    let size = Some([preprocess.height, preprocess.width]);
    let after = folded(&read, &cut, size)?;
    let mut report = written(job.model, &read, job.output, cut, size)?;
    report.goal_met = wants.iter().all(|(target, want)| {
        let got = match target {
            Target::AccDrop(_) | Target::OutputError(_) | Target::Latency(_) => return true,
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
