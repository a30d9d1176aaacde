//! What a run would do, said before the long work.

use super::checks::check;
use super::inspect::{inspect_graph, preprocess_text};
use super::opening::{Opened, open};
use super::stages::{decompose_config, shapes, transfer_epochs};
use super::{Original, PipelineError, Prepared, Removal, Settings, Target};
use crate::cost;
use crate::data::Split;
use crate::decompose::examine;
use crate::fold::{FoldConfig, fold};
use crate::graph::{Graph, LayerShape, optional};
use crate::importance::Score;
use crate::onnx;
use crate::progress::Progress;
use crate::prune::Per;
use crate::report::{Feasibility, PlanReport};
use crate::tensor::Floats;
use crate::train::Trainable;
use crate::transfer::{Ending, InsertBatchNorm, Weights};
use crate::verify;
use std::path::Path;

/// The plan of a `compress` run: what becomes of head and layers, which targets can be reached, the
/// stages and the files.
///
/// # Errors
/// [`PipelineError`] where the run itself would fail before its long work, an unreachable target
/// excepted.
pub fn foresee(
    path: &Path,
    output: Option<&Path>,
    run: Option<&Path>,
    settings: &Settings,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<PlanReport, PipelineError> {
    check(settings)?;
    let Opened {
        model,
        prepared,
        head,
        ..
    } = open(path, settings, options, progress)?;
    let graph = &model.graph;
    let (dataset, preprocess) = (&prepared.dataset, &prepared.preprocess);
    let size = [preprocess.height, preprocess.width];
    let bytes = onnx::to_bytes_for(path, &model)?.len() as u64;
    let mut network = inspect_graph(graph, Some(size), &path.display().to_string(), bytes)?;
    let classes = dataset.classes().len();
    let kept_head = head.as_ref().and_then(|head| head.kept.as_deref());
    let config = decompose_config(settings, kept_head)?;
    for record in examine(graph, &config)?.layers {
        let layer = network
            .layers
            .iter_mut()
            .find(|layer| layer.name == record.name);
        if let (Some(layer), Some(kept)) = (layer, record.kept) {
            layer.prunable = false;
            layer.why = kept.to_string();
        }
    }
    let ending = head.as_ref().map(|head| &head.ending);
    if let (Some(Ending::Classifier(head)), None) = (ending, kept_head)
        && let Some(layer) = network
            .layers
            .iter_mut()
            .find(|layer| layer.name == head.node)
    {
        layer.prunable = false;
        layer.why = "it is replaced by a head for the new classes".to_owned();
    }
    let epochs = transfer_epochs(settings, kept_head.is_some());
    let split = |split: Split| dataset.len(split);
    let mut writes: Vec<String> = output
        .map(|path| path.display().to_string())
        .into_iter()
        .collect();
    writes.extend(run.map(|path| format!("{}/", path.display())));
    Ok(PlanReport {
        network,
        data: format!(
            "`{}` ({}): {} training, {} validation, {} test images {}",
            dataset.name(),
            dataset.kind(),
            split(Split::Train),
            split(Split::Val),
            split(Split::Test),
            match dataset.has_labels() {
                true => format!("of {classes} classes"),
                false => "without labels".to_owned(),
            }
        ),
        classes,
        preprocess: preprocess_text(preprocess),
        transfer: head.as_ref().map_or_else(
            || {
                "the images have no labels: the network stays as it is, and nothing is trained"
                    .to_owned()
            },
            |head| transfer(settings, &head.text, epochs),
        ),
        targets: feasibility(graph, &prepared, settings)?,
        stages: stages(settings, epochs, dataset.has_labels()),
        writes,
    })
}

fn transfer(settings: &Settings, head: &str, epochs: u64) -> String {
    let trained = match settings.transfer.trainable {
        Trainable::Head => "the head",
        Trainable::Scaling => "scales, biases, batch norm and the head",
        Trainable::All => "all weights",
    };
    let weights = match settings.transfer.weights {
        Weights::Given => "",
        Weights::Random => "all weights are drawn anew; ",
    };
    let batch_norm = match settings.transfer.insert_batch_norm {
        InsertBatchNorm::No => "",
        InsertBatchNorm::Yes => "batch norm is inserted; ",
    };
    let start = format!("{weights}{batch_norm}{head}");
    match epochs {
        0 => format!("{start}; nothing is trained"),
        epochs => format!("{start}; {trained} are trained for up to {epochs} passes"),
    }
}

fn stages(settings: &Settings, epochs: u64, has_labels: bool) -> Vec<String> {
    let prune = &settings.prune;
    let stages = [
        has_labels.then(|| format!("transfer: up to {epochs} passes over the training images")),
        Some(
            "decompose: each prunable layer into basis, scaling factors and projection".to_owned(),
        ),
        Some(format!(
            "prune in rounds: {}{}, then a cut of {}, {:.1} % of what remains at first{}{}{}",
            match prune.score {
                Score::Taylor => format!("{} training steps for scores", prune.window_steps()),
                Score::Fisher | Score::Energy | Score::Magnitude | Score::Lamp => {
                    format!("statistics of {} training images", prune.statistics_images)
                }
            },
            if prune.wants_times() {
                ", time of each layer in the runtime"
            } else {
                ""
            },
            match (prune.removes, prune.cuts_inputs()) {
                (Removal::Basis, false) => "directions",
                (Removal::Basis, true) =>
                    "directions of what layers make or read, whichever loses less",
                (Removal::Channels, _) => "channels",
                (Removal::Double, false) => "directions or channels, whichever loses less",
                (Removal::Double, true) => {
                    "directions of what layers make or read, or channels, whichever loses least"
                }
            },
            100.0 * prune.step(),
            match prune.refit_images() {
                0 => String::new(),
                images => format!(
                    ", and a refit to the outputs of the uncut network for {images} training images"
                ),
            },
            match (has_labels, prune.recovery_epochs) {
                (true, passes) => format!("; up to {passes} passes to recover"),
                (false, _) => String::new(),
            },
            if prune.removes == Removal::Double && prune.has_quality_target() {
                "; then directions alone and channels alone, and the way that goes furthest is taken"
            } else {
                ""
            },
        )),
        has_labels.then(|| {
            format!(
                "fine-tune: {} passes for scaling factors, batch norm and head",
                prune.finetune_epochs
            )
        }),
        Some("fold and export: standard ONNX operators".to_owned()),
        Some(format!(
            "verify: the file against the network in memory, {} on the test images, latency of both",
            if has_labels {
                "accuracy of both"
            } else {
                "outputs of both"
            }
        )),
    ];
    stages.into_iter().flatten().collect()
}

/// The weights of a layer of one direction on both sides, where its input space can be cut.
fn smallest_both(graph: &Graph, node: &str, shape: LayerShape) -> u64 {
    let outputs_alone = shape.params_at(1);
    let weight = graph.node(node).and_then(|node| optional(node, 1));
    match weight
        .and_then(|weight| graph.float(weight))
        .map(Floats::shape)
    {
        Some(&[co, channels, kernel_h, kernel_w]) if shape.groups == 1 => {
            outputs_alone.min((channels + kernel_h * kernel_w + co) as u64)
        }
        _ => outputs_alone,
    }
}

/// Each target held against the size with every layer at rank 1, which is a lower bound: the head of
/// the data's classes may not be there yet.
pub(super) fn feasibility(
    graph: &Graph,
    prepared: &Prepared,
    settings: &Settings,
) -> Result<Vec<Feasibility>, PipelineError> {
    let config = decompose_config(settings, None)?;
    let original = cost::of(graph, &shapes(graph, prepared)?);
    // What is written has batch norm folded into its layers.
    let (folded, _) = fold(graph, &FoldConfig::default())?;
    let cost = cost::of(&folded, &shapes(&folded, prepared)?);
    let (mut params, mut macs) = (cost.params, cost.macs);
    for record in examine(graph, &config)?.layers {
        let (None, Some(shape)) = (&record.kept, record.shape) else {
            continue;
        };
        let smallest = match settings.prune.cuts_inputs() {
            true => smallest_both(graph, &record.name, shape),
            false => shape.params_at(1),
        };
        params = params.saturating_sub(shape.dense_params() - smallest);
        let layer = cost.layers.iter().find(|layer| layer.node == record.name);
        let dense = layer.map_or(0, |layer| layer.macs);
        let positions = dense / shape.dense_params().max(1);
        macs = macs.saturating_sub(dense.saturating_sub(smallest * positions));
    }
    let original = Original {
        params: original.params,
        macs: original.macs,
        bytes: original.params * BYTES_PER_PARAM,
        millis: 0.0,
    };
    let judged = |target: &Target| {
        let want = target.want(&original);
        let least = match target {
            Target::AccDrop(_) | Target::OutputError(_) | Target::Latency(_) => None,
            Target::Params(_) => Some(params),
            Target::Macs(_) => Some(macs),
            Target::Size(_) => Some(params * BYTES_PER_PARAM),
        };
        // Of channels nobody knows how many will be left.
        let least = least.filter(|_| settings.prune.removes == Removal::Basis);
        // Where time counts, cuts that save none are not made, whatever else they save.
        let is_certain = settings.prune.per() != Per::Time;
        let possible = least.map(|least| least as f64 <= want);
        Feasibility {
            target: target.to_string(),
            want,
            least,
            possible: possible.filter(|possible| is_certain || !possible),
        }
    };
    Ok(settings.prune.targets.iter().map(judged).collect())
}

const BYTES_PER_PARAM: u64 = 4;
