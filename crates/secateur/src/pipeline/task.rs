//! What a network is for, and how well one that was cut still does it: class scores held against labels,
//! or, where the images have none, all outputs held against those of the uncut network.

use super::rounds::Context;
use super::stages::{light, source};
use super::{PipelineError, Target};
use crate::data::{Augment, Batch, DataError, Order, Split, counted_batch};
use crate::exec::Request;
use crate::graph::Graph;
use crate::report::Round;
use crate::train::{AccuracyDrop, TrainError, accuracy, accuracy_on_some};
use crate::verify::OutputError;

/// What a network is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// To tell classes.
    Classes {
        /// Node of the classification head.
        head: String,
        /// The value with the class scores.
        logits: String,
    },
    /// To put out these values, whatever they are.
    Outputs(Vec<String>),
}

// Validation images on which two cuts are compared: the same for both, so few tell.
const COMPARED: usize = 2_048;
// The error on other images is another: what part of a target on it is aimed at on validation.
const OUTPUT_ERROR_AIM: f64 = 0.95;

impl Task {
    /// The task of a network that learns nothing new.
    pub fn of_outputs(graph: &Graph) -> Self {
        let outputs = graph.outputs.iter();
        Self::Outputs(outputs.map(|output| output.name.clone()).collect())
    }

    /// The values that losses are of.
    pub fn outputs(&self) -> Vec<String> {
        match self {
            Self::Classes { logits, .. } => vec![logits.clone()],
            Self::Outputs(outputs) => outputs.clone(),
        }
    }

    /// Head and class scores.
    ///
    /// # Errors
    /// [`PipelineError::NoLabels`] where there are none.
    pub fn classes(&self) -> Result<(&str, &str), PipelineError> {
        match self {
            Self::Classes { head, logits } => Ok((head, logits)),
            Self::Outputs(_) => Err(PipelineError::NoLabels),
        }
    }

    /// The node that stays whole as it is the head, if there is one.
    pub fn head(&self) -> Option<&str> {
        self.classes().ok().map(|(head, _)| head)
    }
}

/// What `graph` loses on some validation images: cross-entropy, or the error of its outputs.
pub(super) fn loss(context: &Context<'_>, graph: &Graph) -> Result<f64, PipelineError> {
    let source = source(context.prepared, context.settings);
    let seed = context.settings.seed;
    match context.task {
        Task::Classes { logits, .. } => {
            let (engine, graph) = (context.engine, light(graph)?);
            let split = Split::Val;
            let progress = context.progress;
            let found = accuracy_on_some(
                engine, &graph, logits, &source, split, COMPARED, seed, progress,
            )?;
            Ok(found.loss)
        }
        Task::Outputs(_) => {
            let order = Order::Shuffled { seed, epoch: 0 };
            let batches = source.batches(Split::Val, order, Augment::None);
            let batches = batches.take(COMPARED.div_ceil(source.batch_size));
            let n = COMPARED.min(context.prepared.dataset.len(Split::Val));
            output_error(context, graph, n, batches)
        }
    }
}

/// Holds the network of a round against the targets on accuracy or outputs.
pub(super) fn judge(
    context: &Context<'_>,
    graph: &Graph,
    round: &mut Round,
) -> Result<(), PipelineError> {
    let source = source(context.prepared, context.settings);
    match (context.task, context.val) {
        (Task::Classes { logits, .. }, Some(before)) => {
            let (engine, graph) = (context.engine, light(graph)?);
            let found = accuracy(
                engine,
                &graph,
                logits,
                &source,
                Split::Val,
                context.progress,
            )?;
            round.val_top1 = found.top1;
            round.drop = AccuracyDrop::between(&before.hits, &found.hits);
        }
        _ => {
            let batches = source.batches(Split::Val, Order::Stored, Augment::None);
            let n = context.prepared.dataset.len(Split::Val);
            round.output_error = Some(output_error(context, graph, n, batches)?);
        }
    }
    round.accepted = spent(context, round).is_none_or(|spent| spent <= 1.0);
    Ok(())
}

/// The share that a round uses up of what accuracy or outputs may lose, reserve included, of the tightest
/// target; `None` where no target is one of those.
pub(super) fn spent(context: &Context<'_>, round: &Round) -> Option<f64> {
    let prune = &context.settings.prune;
    let worst = round.drop.points + prune.margin * round.drop.standard_error;
    let share = |worst: f64, budget: f64| {
        if worst <= 0.0 { 0.0 } else { worst / budget }
    };
    let spent = |target: &Target| match target {
        Target::AccDrop(points) => Some(share(worst, *points)),
        Target::OutputError(budget) => {
            let error = round.output_error.unwrap_or_default();
            Some(share(error, OUTPUT_ERROR_AIM * budget))
        }
        Target::Params(_) | Target::Macs(_) | Target::Size(_) | Target::Latency(_) => None,
    };
    prune.targets.iter().filter_map(spent).reduce(f64::max)
}

/// The error of all outputs of `graph` beside those of the uncut network, over `batches` of about `n` images.
fn output_error(
    context: &Context<'_>,
    graph: &Graph,
    n: usize,
    batches: impl Iterator<Item = Result<Batch, DataError>>,
) -> Result<f64, PipelineError> {
    let outputs = context.task.outputs();
    let (uncut, graph) = (light(context.uncut)?, light(graph)?);
    let session = |graph| {
        let request = Request::evaluation(graph, outputs.clone());
        context.engine.session(&request)
    };
    let (mut wanted, mut got) = (session(&uncut)?, session(&graph)?);
    let mut error = OutputError::default();
    context.progress.begin("compare the outputs", n as u64);
    for batch in batches {
        let batch = counted_batch(batch, context.progress);
        let images = batch.map_err(TrainError::from)?.images;
        error.add(&wanted.forward(&images)?, &got.forward(&images)?)?;
    }
    context.progress.end();
    Ok(error.relative())
}
