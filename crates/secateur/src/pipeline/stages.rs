//! The stages as the recipe and the single commands use them.

use super::opening::HeadPlan;
use super::{PipelineError, Prepared, Settings};
use crate::data::Augment;
use crate::decompose::{DecomposeConfig, OutputScale};
use crate::exec::{BatchNormMode, Engine};
use crate::fold::{BatchNorm, FoldConfig, InputFactors, fold};
use crate::graph::{Graph, infer_images};
use crate::importance::Score;
use crate::progress::Progress;
use crate::train::{
    CheckpointStore, FitConfig, Rule, Schedule, Source, Teacher, Trainable, has_batch_norm,
    steps_per_epoch,
};
use crate::transfer::{InsertBatchNorm, TransferConfig, TransferSummary, Weights, transfer};
use std::collections::BTreeSet;
use std::sync::Arc;

// Peak learning rates of Adam, chosen on validation: all weights of a pre-trained network want
// small steps; scaling factors, affines and heads bear larger ones.
const LR_ALL: f32 = 3e-4;
const LR_FEW: f32 = 2e-3;
// Kingma and Ba's own (arXiv 1412.6980), for weights that know nothing yet.
const LR_RANDOM: f32 = 1e-3;

// Passes over the training images for a new head.
const NEW_HEAD_EPOCHS: u64 = 10;

/// A network after the transfer stage.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network, with preprocessing and classes in its metadata.
    pub graph: Graph,
    /// What was done.
    pub summary: TransferSummary,
}

/// The training settings for `steps` steps of scaling factors, affines and head. Batch norm uses the
/// stored statistics, so that the network that is trained is the one that is judged.
#[must_use]
pub fn fit_config(settings: &Settings, lr: f32, steps: u64) -> FitConfig {
    FitConfig {
        rule: Rule::Adam,
        lr,
        schedule: Schedule::Cosine,
        weight_decay: 0.0,
        smoothing: 0.0,
        steps,
        check_every: 0,
        patience: 0,
        batch_norm_images: settings.prune.batch_norm_images,
        batch_norm: BatchNormMode::Stored,
        augment: settings.data.augment,
        seed: settings.seed,
        teacher: None,
        first_epoch: 0,
    }
}

/// `uncut` as the teacher of what is cut from it, where the settings want one; folded, as it is run more
/// often than anything else.
pub(super) fn teacher(
    settings: &Settings,
    uncut: &Graph,
) -> Result<Option<Teacher>, PipelineError> {
    let prune = &settings.prune;
    if prune.distillation == 0.0 || prune.score == Score::Taylor {
        return Ok(None);
    }
    let (folded, _) = fold(uncut, &FoldConfig::default())?;
    Ok(Some(Teacher {
        graph: Arc::new(folded),
        weight: prune.distillation,
    }))
}

/// The transfer stage with the settings' defaults resolved.
///
/// # Errors
/// [`PipelineError`] where the network is no image network or training fails.
pub fn transfer_network(
    engine: &dyn Engine,
    graph: &Graph,
    prepared: &Prepared,
    settings: &Settings,
    store: &mut dyn CheckpointStore,
    progress: &dyn Progress,
) -> Result<Trained, PipelineError> {
    let source = source(prepared, settings);
    let choice = &settings.transfer;
    let epochs = transfer_epochs(settings, HeadPlan::of(graph, prepared, settings)?.is_kept());
    let lr = choice
        .lr
        .unwrap_or(match (choice.trainable, choice.weights) {
            (Trainable::All, Weights::Given) => LR_ALL,
            (Trainable::All, Weights::Random) => LR_RANDOM,
            (Trainable::Head | Trainable::Scaling, _) => LR_FEW,
        });
    let per_epoch = steps_per_epoch(&source);
    let mut fit = fit_config(settings, lr, epochs * per_epoch);
    fit.check_every = per_epoch;
    fit.patience = match choice.weights {
        Weights::Given => choice.patience,
        // The new head's start on random features can be better than what follows it for a while.
        Weights::Random => 0,
    };
    fit.weight_decay = choice.weight_decay;
    let normalised = choice.insert_batch_norm == InsertBatchNorm::Yes || has_batch_norm(graph);
    fit.batch_norm = match choice.trainable {
        Trainable::Scaling | Trainable::All if normalised => BatchNormMode::Batch,
        _ => BatchNormMode::Stored,
    };
    if choice.trainable == Trainable::Head {
        fit.augment = Augment::None;
    }
    let config = TransferConfig {
        weights: choice.weights,
        trainable: choice.trainable,
        head: choice.head,
        insert_batch_norm: choice.insert_batch_norm,
        statistics_images: settings.prune.batch_norm_images,
        fit,
    };
    let (mut graph, summary) = transfer(engine, graph, &source, &config, store, progress)?;
    prepared.describe(&mut graph);
    Ok(Trained { graph, summary })
}

/// Passes over the training images in the transfer stage; `fits` tells whether the network's own
/// head stays.
pub(super) fn transfer_epochs(settings: &Settings, fits: bool) -> u64 {
    let choice = &settings.transfer;
    let is_ready = fits && choice.weights == Weights::Given;
    choice
        .epochs
        .unwrap_or(if is_ready { 0 } else { NEW_HEAD_EPOCHS })
}

/// `graph` with its layers as they would be exported, batch norm kept: what trains no scaling factors is
/// faster in it, as layers that are not smaller as two factors are one again.
pub(super) fn light(graph: &Graph) -> Result<Graph, PipelineError> {
    let config = FoldConfig {
        batch_norm: BatchNorm::Keep,
        ..FoldConfig::default()
    };
    Ok(fold(graph, &config)?.0)
}

/// [`light`], where all of `values` are still made in it: output scales fold away, and the values before
/// them. Else `graph`.
pub(super) fn light_with(graph: &Graph, values: &[String]) -> Result<Graph, PipelineError> {
    let config = FoldConfig {
        batch_norm: BatchNorm::Keep,
        input_factors: InputFactors::Keep,
        ..FoldConfig::default()
    };
    let (light, _) = fold(graph, &config)?;
    let mut made = light
        .inputs
        .iter()
        .map(|input| &input.name)
        .collect::<BTreeSet<_>>();
    made.extend(light.nodes.iter().flat_map(|node| &node.outputs));
    if values.iter().all(|value| made.contains(value)) {
        Ok(light)
    } else {
        Ok(graph.clone())
    }
}

/// The batches of a prepared data set.
pub(super) fn source<'p>(prepared: &'p Prepared, settings: &Settings) -> Source<'p> {
    Source {
        dataset: &prepared.dataset,
        preprocess: &prepared.preprocess,
        batch_size: settings.data.batch_size,
    }
}

/// The decomposition's settings: the head, if there is one, stays whole, and where there is no batch norm each
/// factored layer but `MatMul` gets an output scale to train.
pub(super) fn decompose_config(
    settings: &Settings,
    head: Option<&str>,
) -> Result<DecomposeConfig, PipelineError> {
    Ok(DecomposeConfig {
        exclude: match &settings.prune.exclude {
            Some(pattern) => Some(regex::Regex::new(pattern)?),
            None => None,
        },
        head: head.map(str::to_owned),
        output_scale: OutputScale::Factored,
    })
}

/// Shapes of a graph for one image of the prepared size.
pub(super) fn shapes(
    graph: &Graph,
    prepared: &Prepared,
) -> Result<crate::graph::Inferred, PipelineError> {
    let preprocess = &prepared.preprocess;
    Ok(infer_images(graph, 1, preprocess.height, preprocess.width)?)
}
