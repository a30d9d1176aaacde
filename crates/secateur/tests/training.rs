//! A training that is stopped goes on from its step, and refuses a state that is not its own.

#![allow(clippy::unwrap_used)]

use secateur::data::{Augment, DataOptions, Dataset, Preprocess};
use secateur::exec::{BatchNormMode, NativeEngine};
use secateur::graph::Graph;
use secateur::onnx;
use secateur::progress::{Progress, Silent};
use secateur::train::{
    CheckpointFile, CheckpointStore, FitConfig, FitSummary, Rule, Schedule, Source, TrainError,
    Trainable, fit, names,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: u64 = 12;

/// Stops the work after so many steps of training.
struct StopAfter(AtomicU64);

impl Progress for StopAfter {
    fn advance(&self, steps: u64) {
        self.0.fetch_sub(steps, Ordering::Relaxed);
    }
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

fn network() -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../secateur-cli/demo/demo.onnx");
    onnx::read(path).unwrap().graph
}

fn train(
    graph: &Graph,
    store: &mut CheckpointFile,
    progress: &dyn Progress,
) -> Result<(Graph, FitSummary), TrainError> {
    let options = DataOptions {
        limit: Some(120),
        ..DataOptions::default()
    };
    let dataset = Dataset::digits(&options).unwrap();
    let preprocess = Preprocess::parse("unit", 16, 16, 3).unwrap();
    let source = Source {
        dataset: &dataset,
        preprocess: &preprocess,
        batch_size: 16,
    };
    let config = FitConfig {
        rule: Rule::Adam,
        lr: 0.002,
        schedule: Schedule::Cosine,
        weight_decay: 0.01,
        smoothing: 0.0,
        steps: STEPS,
        check_every: 5,
        patience: 0,
        batch_norm_images: 32,
        batch_norm: BatchNormMode::Batch,
        augment: Augment::Crop,
        seed: 1,
        teacher: None,
        first_epoch: 0,
    };
    let logits = graph.outputs[0].name.clone();
    let trainable = names(graph, Trainable::All, None);
    fit(
        &NativeEngine::new(),
        graph,
        &logits,
        &trainable,
        &source,
        &config,
        &mut |_| (),
        store,
        progress,
    )
}

#[test]
fn a_stopped_training_goes_on_from_its_step_and_ends_with_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| CheckpointFile {
        path: folder.path().join(name),
    };
    let graph = network();
    let (wanted, summary) = train(&graph, &mut file("straight"), &Silent).unwrap();
    assert_eq!(summary.checks.len(), 4);

    // Between two steps, in the check after the fifth, and in the last one.
    for (step, unchecked) in [(7, 2), (5, 5), (STEPS, 2)] {
        let name = format!("stopped after {step}");
        let stop = StopAfter(AtomicU64::new(step));
        let stopped = train(&graph, &mut file(&name), &stop).unwrap_err();
        assert!(stopped.to_string().starts_with("stopped"), "{stopped}");
        let state = file(&name).load().unwrap().unwrap();
        assert_eq!((state.step, state.loss_count), (step, unchecked));
        let (found, resumed) = train(&graph, &mut file(&name), &Silent).unwrap();
        assert_eq!(resumed, summary);
        assert!(found.initializers == wanted.initializers);
    }
}

#[test]
fn a_state_of_another_training_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = CheckpointFile {
        path: folder.path().join("state"),
    };
    let graph = network();
    train(&graph, &mut file, &Silent).unwrap();
    let state = file.load().unwrap().unwrap();

    let mut no_check = state.clone();
    no_check.best_check = no_check.checks.len();
    let mut too_far = state.clone();
    too_far.step = STEPS + 1;
    let mut many_losses = state.clone();
    many_losses.loss_count = u64::MAX;
    let mut less = state.clone();
    less.values.pop_first();
    let mut short = state.clone();
    short.optimizer.values_mut().next().unwrap().pop();
    for (what, foreign) in [
        ("a best check that is none", no_check),
        ("more steps than there are", too_far),
        ("more losses than steps", many_losses),
        ("a value too few", less),
        ("a moment too short", short),
    ] {
        file.save(&foreign).unwrap();
        let found = train(&graph, &mut file, &Silent);
        assert!(
            matches!(found, Err(TrainError::ForeignCheckpoint)),
            "{what}"
        );
    }
    file.save(&state).unwrap();
    assert!(train(&graph, &mut file, &Silent).is_ok());
}
