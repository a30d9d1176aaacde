//! What is said before the long work: settings that no run can have, targets that none can reach.

use super::foresee::feasibility;
use super::{PipelineError, Prepared, Removal, Settings, Target};
use crate::decompose::Basis;
use crate::graph::{Graph, Op, infer_images};
use crate::importance::{ChannelScore, Score};
use crate::tensor::ElementType;
use crate::train::{Curvature, Trainable};
use crate::transfer::{InsertBatchNorm, Weights};

fn wrong(setting: &'static str, value: &str, want: &'static str) -> Result<(), PipelineError> {
    Err(PipelineError::Setting {
        setting,
        value: value.to_owned(),
        want,
    })
}

/// Settings that no transfer can have.
pub(super) fn check_transfer(settings: &Settings) -> Result<(), PipelineError> {
    let transfer = &settings.transfer;
    let is_random = transfer.weights == Weights::Random;
    if is_random && transfer.trainable != Trainable::All {
        let want = "`all` (`--transfer all`) with random weights, which do nothing as they are";
        let value = format!("{:?}", transfer.trainable).to_lowercase();
        return wrong("trainable", &value, want);
    }
    if is_random && transfer.epochs == Some(0) {
        return wrong("epochs", "0", "at least 1 with random weights");
    }
    if settings.data.batch_size == 0 {
        return wrong("batch-size", "0", "at least 1");
    }
    Ok(())
}

/// Settings that no run can have.
pub(super) fn check(settings: &Settings) -> Result<(), PipelineError> {
    check_transfer(settings)?;
    let prune = &settings.prune;
    let step = prune.step();
    if !(step > 0.0 && step < 1.0) {
        return wrong("step", &step.to_string(), "more than 0 and less than 1");
    }
    if prune.score == Score::Taylor {
        if prune.basis != Basis::Svd {
            let want = "`svd` with `score = taylor`, which is measured in training";
            return wrong("basis", prune.basis.name(), want);
        }
        if prune.window_steps() == 0 {
            let want = "at least 1 with `score = taylor`";
            return wrong("window-steps", "0", want);
        }
    } else if prune.statistics_images == 0 {
        return wrong("statistics-images", "0", "at least 1");
    }
    if prune.channel_score != ChannelScore::default() && prune.removes == Removal::Basis {
        let want = "`measured`, or channels that may go: `--remove channels` or `--double`";
        return wrong("channel-score", prune.channel_score.name(), want);
    }
    if !(0.0..=1.0).contains(&prune.distillation) {
        let value = prune.distillation.to_string();
        return wrong("distillation", &value, "from 0 to 1");
    }
    if prune.align() == 0 {
        return wrong("align", "0", "at least 1");
    }
    let batch = settings.verify.latency_batch;
    if !(1..=4096).contains(&batch) {
        return wrong("latency-batch", &batch.to_string(), "from 1 to 4096");
    }
    if prune.targets.is_empty() {
        return wrong("target", "missing", "at least one `--target`");
    }
    Ok(())
}

/// Settings that go with the data: without labels nothing is trained and no accuracy is held, with them the
/// accuracy is what counts.
pub(super) fn check_labels(settings: &Settings, has_labels: bool) -> Result<(), PipelineError> {
    let prune = &settings.prune;
    let wants = |wanted: fn(&Target) -> bool| prune.targets.iter().any(wanted);
    if has_labels {
        return match wants(|target| matches!(target, Target::OutputError(_))) {
            true => wrong(
                "target",
                "output-error",
                "`acc-drop`, as the images have labels (`--data-kind images` passes them over)",
            ),
            false => Ok(()),
        };
    }
    if wants(|target| matches!(target, Target::AccDrop(_))) {
        return Err(PipelineError::NoLabelsForTarget);
    }
    if prune.score == Score::Taylor {
        let want = "another one, as the images have no labels to train by (`--method basis-scaling` is this, too)";
        return wrong("score", "taylor", want);
    }
    if prune.curvature != Curvature::Output {
        return wrong(
            "curvature",
            "of class scores",
            "`output`, as the images have no labels",
        );
    }
    if settings.transfer.insert_batch_norm == InsertBatchNorm::Yes {
        let want = "`no`, as the images have no labels to train by";
        return wrong("insert-batch-norm", "yes", want);
    }
    if settings.transfer.weights == Weights::Random {
        let want = "`given`, as the images have no labels to train by";
        return wrong("weights", "random", want);
    }
    Ok(())
}

/// Outputs that say nothing of how near a network is to another: indices have no gradient, and a small
/// difference of scores is a large one of theirs, or none.
pub(super) fn check_scores(graph: &Graph) -> Result<(), PipelineError> {
    let producers = graph.producers();
    for output in &graph.outputs {
        let mut value = &output.name;
        while let Some(node) = producers.get(value.as_str()).map(|&at| &graph.nodes[at]) {
            let is_moved = matches!(
                node.op,
                Op::Cast { .. }
                    | Op::Identity
                    | Op::Flatten { .. }
                    | Op::Reshape { .. }
                    | Op::Transpose { .. }
                    | Op::Squeeze { .. }
                    | Op::Unsqueeze { .. }
            );
            let Some(read) = node.inputs.first() else {
                break;
            };
            if matches!(node.op, Op::ArgMax { .. }) {
                return Err(PipelineError::Indices {
                    output: output.name.clone(),
                    node: node.name.clone(),
                    scores: read.clone(),
                    input: graph.image_input()?.name,
                });
            }
            if !is_moved {
                break;
            }
            value = read;
        }
    }
    Ok(())
}

/// Outputs that cannot be held image by image: each must be of floats, and its axis 0 the image.
pub(super) fn check_outputs(graph: &Graph, prepared: &Prepared) -> Result<(), PipelineError> {
    let preprocess = &prepared.preprocess;
    // Two images tell an axis of images from one that is always 1.
    let batch = graph.image_input()?.batch.unwrap_or(2);
    let shapes = infer_images(graph, batch, preprocess.height, preprocess.width)?;
    for output in &graph.outputs {
        let shape = shapes.shape(&output.name).unwrap_or_default();
        let is_made = !graph.initializers.contains_key(&output.name);
        if !is_made || shape.first() != Some(&batch) || output.element_type != ElementType::F32 {
            return Err(PipelineError::Output {
                output: output.name.clone(),
                shape: shape.to_vec(),
                batch,
            });
        }
    }
    Ok(())
}

/// Says before the long work that a target on size cannot be reached.
pub(super) fn reject_infeasible(
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
                    Target::AccDrop(_) | Target::OutputError(_) | Target::Latency(_) => {
                        continue;
                    }
                    Target::Params(_) => "parameters",
                    Target::Macs(_) => "multiply-accumulates",
                    Target::Size(_) => "bytes",
                },
            });
        }
    }
    Ok(())
}
