//! The training loop: seeded, checked on validation, best state kept.

use super::distillation::mixed;
use super::evaluate::number_or_nan;
use super::{
    CheckpointStore, FitState, Optimizer, Rule, Source, Teacher, TrainError, accuracy,
    cross_entropy, has_batch_norm, reestimate_batch_norm,
};
use crate::data::{Augment, Batch, Order, Split};
use crate::exec::{BatchNormMode, Engine, Request};
use crate::graph::{Graph, Op};
use crate::progress::{Progress, Within};
use crate::tensor::{Floats, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the learning rate goes over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same throughout.
    Constant,
    /// Half a cosine down to zero after a rise over the first twentieth.
    Cosine,
}

/// Settings of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// Update rule.
    pub rule: Rule,
    /// Peak learning rate.
    pub lr: f32,
    /// Its course.
    pub schedule: Schedule,
    /// Decay of weights (not of biases, affines and scaling factors).
    pub weight_decay: f32,
    /// Label smoothing, 0 for none.
    pub smoothing: f64,
    /// Number of steps.
    pub steps: u64,
    /// Steps between two checks on validation; 0 for a check at the end only.
    pub check_every: u64,
    /// Checks without a better one before training stops; 0 for never.
    pub patience: usize,
    /// Images for re-estimating batch norm before a check.
    pub batch_norm_images: usize,
    /// What batch norm uses while training.
    pub batch_norm: BatchNormMode,
    /// Random changes of images.
    pub augment: Augment,
    /// Seed of the order of images.
    pub seed: u64,
    /// The network whose scores are learned beside the labels.
    pub teacher: Option<Teacher>,
    /// Number of the first pass over the data, so that consecutive trainings see other orders.
    pub first_epoch: u64,
}

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Steps taken.
    pub step: u64,
    /// Mean training loss since the check before, nats.
    #[serde(deserialize_with = "number_or_nan")]
    pub train_loss: f64,
    /// Accuracy on validation.
    pub val_top1: f64,
    /// Mean cross-entropy on validation, nats.
    #[serde(deserialize_with = "number_or_nan")]
    pub val_loss: f64,
    /// Learning rate at the check.
    pub lr: f32,
}

/// What a training did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitSummary {
    /// All checks; the first is before training.
    pub checks: Vec<CheckRecord>,
    /// The check whose state was kept.
    pub best: CheckRecord,
    /// Names of what was trained.
    pub trained: Vec<String>,
}

/// One step, as an observer sees it.
#[derive(Debug)]
pub struct StepRecord<'s> {
    /// Values of the trainable initializers before the update.
    pub values: &'s BTreeMap<String, Floats>,
    /// Gradients of the batch's mean loss.
    pub gradients: &'s BTreeMap<String, Floats>,
    /// Mean loss of the batch, nats.
    pub loss: f64,
}

/// Trains the initializers `trainable` of `graph` for cross-entropy of value `logits`, and returns
/// the graph of the best check (highest validation accuracy, then lowest loss; the untrained graph
/// is the first candidate).
///
/// # Errors
/// [`TrainError`] where the graph does not run, an image cannot be read, or the loss is no longer
/// finite.
#[allow(clippy::too_many_arguments)]
pub fn fit(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    trainable: &[String],
    source: &Source<'_>,
    config: &FitConfig,
    observer: &mut dyn FnMut(&StepRecord<'_>),
    store: &mut dyn CheckpointStore,
    progress: &dyn Progress,
) -> Result<(Graph, FitSummary), TrainError> {
    let mut optimizer = Optimizer::new(config.rule, config.weight_decay);
    let mut state = match store.load()? {
        Some(state) if !state.is_of(graph, trainable, config.steps) => {
            return Err(TrainError::ForeignCheckpoint);
        }
        Some(mut state) => {
            optimizer.restore(state.step, std::mem::take(&mut state.optimizer));
            state
        }
        None => FitState {
            values: initial_values(graph, trainable),
            ..FitState::default()
        },
    };
    let check = |graph: Graph, train_loss: f64, step: u64, lr: f32| {
        let graph = if config.batch_norm == BatchNormMode::Batch && step > 0 {
            reestimate_batch_norm(
                engine,
                &graph,
                source,
                config.batch_norm_images,
                config.seed,
                &Within(progress),
            )?
        } else {
            graph
        };
        let found = accuracy(
            engine,
            &graph,
            logits,
            source,
            Split::Val,
            &Within(progress),
        )?;
        let record = CheckRecord {
            step,
            train_loss,
            val_top1: found.top1,
            val_loss: found.loss,
            lr,
        };
        Ok::<_, TrainError>((graph, record))
    };
    if state.checks.is_empty() {
        let (_, record) = check(graph.clone(), 0.0, 0, 0.0)?;
        state.best = changed_values(graph, trainable, config.batch_norm);
        state.checks.push(record);
    }

    let mut session = engine.session(&Request {
        graph: &with_values(graph, &state.values),
        outputs: vec![logits.to_owned()],
        trainable: trainable.to_vec(),
        taps: Vec::new(),
        batch_norm: config.batch_norm,
    })?;
    let taught = config.teacher.as_ref().map(|teacher| {
        let session = teacher.session(engine, logits)?;
        Ok::<_, TrainError>((session, teacher.weight))
    });
    let mut taught = taught.transpose()?;
    progress.begin("train", config.steps);
    progress.advance(state.step);
    let mut stream = Stream::new(source, config, state.step)?;
    loop {
        if is_due(&state, config) {
            // Where the check is stopped, it is still due when the training goes on.
            let train_loss = state.loss_sum / state.loss_count as f64;
            let lr = learning_rate(config, state.step - 1);
            let candidate = with_values(graph, &state.values);
            let found = check(candidate, train_loss, state.step, lr);
            state.optimizer = optimizer.state().1;
            if found.is_err() && progress.is_stopped() {
                store.save(&state)?;
            }
            let (checked, record) = found?;
            (state.loss_sum, state.loss_count) = (0.0, 0);
            state.checks.push(record);
            if is_better(&record, &state.checks[state.best_check]) {
                state.best_check = state.checks.len() - 1;
                state.best = changed_values(&checked, trainable, config.batch_norm);
            }
            progress.note(&format!(
                "step {}/{}: training loss {:.4}, validation top-1 {:.2} %",
                state.step,
                config.steps,
                train_loss,
                100.0 * record.val_top1
            ));
            store.save(&state)?;
        }
        if state.step >= config.steps || is_out_of_patience(&state, config.patience) {
            break;
        }
        if let Err(stopped) = progress.go_on() {
            state.optimizer = optimizer.state().1;
            store.save(&state)?;
            return Err(stopped.into());
        }
        let batch = stream.next_batch()?;
        let lr = learning_rate(config, state.step);
        let mut mean_loss = f64::NAN;
        let lesson = match &mut taught {
            Some((session, weight)) => Some((session.forward(&batch.images)?, *weight)),
            None => None,
        };
        let mut loss_gradient = |outputs: &[Floats]| {
            let mut loss = cross_entropy(&outputs[0], &batch.labels, config.smoothing);
            if let Some((wanted, weight)) = &lesson {
                loss = mixed(loss, &outputs[0], &wanted[0], *weight);
            }
            mean_loss = loss.mean;
            vec![loss.gradient]
        };
        let gradients = session.step(&batch.images, &mut loss_gradient)?;
        if !mean_loss.is_finite() {
            return Err(TrainError::Diverged {
                step: state.step,
                lr,
            });
        }
        observer(&StepRecord {
            values: &state.values,
            gradients: &gradients,
            loss: mean_loss,
        });
        optimizer.update(&mut state.values, &gradients, lr);
        for (name, value) in &state.values {
            session.set(name, value)?;
        }
        state.loss_sum += mean_loss;
        state.loss_count += 1;
        state.step += 1;
        progress.advance(1);
    }
    progress.end();
    let best = state.checks[state.best_check];
    let summary = FitSummary {
        checks: state.checks,
        best,
        trained: trainable.to_vec(),
    };
    Ok((with_values(graph, &state.best), summary))
}

/// Whether steps were made that no check has seen, and it is time for one.
fn is_due(state: &FitState, config: &FitConfig) -> bool {
    let is_time = config.check_every > 0 && state.step.is_multiple_of(config.check_every);
    state.loss_count > 0 && (is_time || state.step >= config.steps)
}

fn is_better(a: &CheckRecord, b: &CheckRecord) -> bool {
    a.val_top1 > b.val_top1 || (a.val_top1 == b.val_top1 && a.val_loss < b.val_loss)
}

fn is_out_of_patience(state: &FitState, patience: usize) -> bool {
    patience > 0 && state.checks.len() - 1 - state.best_check >= patience
}

fn learning_rate(config: &FitConfig, step: u64) -> f32 {
    match config.schedule {
        Schedule::Constant => config.lr,
        Schedule::Cosine => {
            let done = step as f64 / config.steps.max(1) as f64;
            let warm_up = 0.05;
            let factor = if done < warm_up {
                (step as f64 + 1.0) / (warm_up * config.steps as f64 + 1.0)
            } else {
                let along = (done - warm_up) / (1.0 - warm_up);
                0.5 * (1.0 + (std::f64::consts::PI * along).cos())
            };
            (f64::from(config.lr) * factor) as f32
        }
    }
}

fn initial_values(graph: &Graph, trainable: &[String]) -> BTreeMap<String, Floats> {
    trainable
        .iter()
        .filter_map(|name| {
            let floats = graph.initializers.get(name)?.as_floats()?;
            Some((name.clone(), floats.clone()))
        })
        .collect()
}

/// The trained values, and the statistics of batch norms where those were re-estimated.
fn changed_values(
    graph: &Graph,
    trainable: &[String],
    batch_norm: BatchNormMode,
) -> BTreeMap<String, Floats> {
    let mut names = trainable.to_vec();
    if batch_norm == BatchNormMode::Batch && has_batch_norm(graph) {
        for node in &graph.nodes {
            if matches!(node.op, Op::BatchNormalization { .. }) {
                names.extend(node.inputs.iter().skip(3).cloned());
            }
        }
    }
    initial_values(graph, &names)
}

fn with_values(graph: &Graph, values: &BTreeMap<String, Floats>) -> Graph {
    let mut graph = graph.clone();
    for (name, value) in values {
        graph
            .initializers
            .insert(name.clone(), Tensor::F32(value.clone()));
    }
    graph
}

/// An endless run of training batches, one shuffled pass after another. Passes drop their last,
/// smaller batch unless it is the only one: its batch-norm statistics would be the noisiest.
struct Stream<'s> {
    source: &'s Source<'s>,
    config: &'s FitConfig,
    epoch: u64,
    left_in_epoch: u64,
    batches: Box<dyn Iterator<Item = Result<Batch, crate::data::DataError>> + 's>,
}

/// Steps in one pass over the training split.
#[must_use]
pub fn steps_per_epoch(source: &Source<'_>) -> u64 {
    let n = source.dataset.len(Split::Train);
    (n / source.batch_size.max(1)).max(usize::from(n > 0)) as u64
}

impl<'s> Stream<'s> {
    fn new(source: &'s Source<'s>, config: &'s FitConfig, step: u64) -> Result<Self, TrainError> {
        let per_epoch = steps_per_epoch(source);
        if per_epoch == 0 {
            return Err(TrainError::NoImages);
        }
        let mut stream = Self {
            source,
            config,
            epoch: config.first_epoch + step / per_epoch,
            left_in_epoch: 0,
            batches: Box::new(std::iter::empty()),
        };
        stream.open_epoch();
        for _ in 0..step % per_epoch {
            stream.next_batch()?;
        }
        Ok(stream)
    }

    fn open_epoch(&mut self) {
        let order = Order::Shuffled {
            seed: self.config.seed,
            epoch: self.epoch,
        };
        self.left_in_epoch = steps_per_epoch(self.source);
        self.batches = Box::new(
            self.source
                .batches(Split::Train, order, self.config.augment),
        );
    }

    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        if self.left_in_epoch == 0 {
            self.epoch += 1;
            self.open_epoch();
        }
        self.left_in_epoch -= 1;
        match self.batches.next() {
            Some(batch) => Ok(batch?),
            None => Err(TrainError::NoImages),
        }
    }
}
