//! From a pre-trained network to a classifier of the user's classes: `Graph + Dataset -> Graph`.
//!
//! The head is kept where it fits, replaced where the number of classes differs, attached where
//! there is none. A new head starts from a ridge solution on features computed once; then the
//! chosen initializers are trained.

mod batch_norm;
mod head;
mod random;
mod ridge;

pub use batch_norm::insert_batch_norm;
pub use head::{Ending, Head, NewHead, ending, with_new_head};
pub use random::{Untrained, Weights, with_random_weights};
pub use ridge::RidgeSummary;

use crate::exec::{BatchNormMode, Engine};
use crate::graph::{Graph, GraphError, InferError};
use crate::progress::{Progress, Within};
use crate::train::{
    CheckpointStore, FitConfig, FitSummary, Source, TrainError, Trainable, fit, names,
    reestimate_batch_norm,
};
use serde::{Deserialize, Serialize};

/// Whether the network's own head stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadChoice {
    /// Kept where its number of classes is the data's, else replaced or attached.
    #[default]
    Auto,
    /// Replaced, or attached, even where it fits.
    New,
}

/// Whether batch norm is put after convolutions that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InsertBatchNorm {
    /// The network stays as it is.
    #[default]
    No,
    /// Batch norm is inserted, with statistics from the data and an affine that undoes them.
    Yes,
}

/// Settings of a transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferConfig {
    /// Which weights the network starts from.
    pub weights: Weights,
    /// What is trained.
    pub trainable: Trainable,
    /// What becomes of the head.
    pub head: HeadChoice,
    /// Whether batch norm is inserted first.
    pub insert_batch_norm: InsertBatchNorm,
    /// Images for the statistics of inserted batch norms.
    pub statistics_images: usize,
    /// The training; no step leaves it out.
    pub fit: FitConfig,
}

/// What became of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadFate {
    /// The network's own.
    Kept,
    /// In the place of one for other classes.
    Replaced,
    /// Added to a network without one.
    Attached,
}

/// What a transfer did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferSummary {
    /// The head's node.
    pub head: String,
    /// The value that holds the class scores before any softmax.
    pub logits: String,
    /// What became of the head.
    pub fate: HeadFate,
    /// The closed-form start of a new head.
    pub ridge: Option<RidgeSummary>,
    /// The number of batch norms inserted.
    pub inserted_batch_norms: usize,
    /// The training.
    pub fit: Option<FitSummary>,
}

/// A network that cannot be transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Shapes do not fit.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The graph is not of the kind that can be trained.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The network has several outputs or none.
    #[error("the network has {0} outputs, but a classifier with one is wanted")]
    Outputs(usize),
    /// One number for two classes.
    #[error(
        "output `{0}` is one number for each image, as of a single sigmoid, and the data have two classes: end the network in a \
         score for each class, or give it a new head by `--head new`, or compress it as it is by `--data-kind images`"
    )]
    OneScore(String),
    /// The output is neither features nor class scores.
    #[error(
        "output `{output}` has shape {shape:?}: want [images, features] or [images, channels, height, width]"
    )]
    OutputShape {
        /// The output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The ridge system has no solution.
    #[error("the head's closed-form start failed: {0}")]
    Ridge(String),
}

impl From<crate::exec::ExecError> for TransferError {
    fn from(error: crate::exec::ExecError) -> Self {
        Self::Train(error.into())
    }
}

/// Fits `graph` to the classes of the data.
///
/// # Errors
/// [`TransferError`] where the network is no image network with one output, or training fails.
pub fn transfer(
    engine: &dyn Engine,
    graph: &Graph,
    source: &Source<'_>,
    config: &TransferConfig,
    store: &mut dyn CheckpointStore,
    progress: &dyn Progress,
) -> Result<(Graph, TransferSummary), TransferError> {
    let (mut graph, inserted_batch_norms) = match config.insert_batch_norm {
        InsertBatchNorm::No => (graph.clone(), 0),
        InsertBatchNorm::Yes => insert_batch_norm(
            engine,
            graph,
            source,
            config.statistics_images,
            config.fit.seed,
            progress,
        )?,
    };
    if config.weights == Weights::Random {
        let untrained = with_random_weights(&graph, config.fit.seed);
        if !untrained.left.is_empty() {
            progress.note(&format!(
                "not drawn anew, as they are no weights of layers: `{}`",
                untrained.left.join("`, `")
            ));
        }
        graph = untrained.graph;
    }
    let classes = source.dataset.classes();
    let size = [source.preprocess.height, source.preprocess.width];
    let found = ending(&graph, size[0], size[1])?;
    let (head, fate, ridge) = match found {
        Ending::Classifier(head)
            if config.head == HeadChoice::Auto && head.fits(&graph, classes) =>
        {
            (head, HeadFate::Kept, None)
        }
        found => {
            let fate = match found {
                Ending::Classifier(_) => HeadFate::Replaced,
                Ending::Features { .. } => HeadFate::Attached,
            };
            let mut new = with_new_head(&graph, &found, classes.len(), size)?;
            if config.fit.batch_norm == BatchNormMode::Batch {
                // Training normalises by the data at hand: the head starts from the same features.
                let n_images = config.fit.batch_norm_images;
                let seed = config.fit.seed;
                let within = Within(progress);
                new.graph =
                    reestimate_batch_norm(engine, &new.graph, source, n_images, seed, &within)?;
            }
            let (solved, summary) = ridge::solve(engine, &new, source, progress)?;
            graph = solved;
            (new.head, fate, summary)
        }
    };
    let mut summary = TransferSummary {
        head: head.node.clone(),
        logits: head.logits.clone(),
        fate,
        ridge,
        inserted_batch_norms,
        fit: None,
    };
    if config.fit.steps > 0 {
        let trainable = names(&graph, config.trainable, Some(&head.node));
        let (trained, fitted) = fit(
            engine,
            &graph,
            &head.logits,
            &trainable,
            source,
            &config.fit,
            &mut |_| (),
            store,
            progress,
        )?;
        graph = trained;
        summary.fit = Some(fitted);
    }
    Ok((graph, summary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Augment, DataOptions, Dataset, Preprocess};
    use crate::exec::NativeEngine;
    use crate::graph::samples::conv_and_batch_norm;
    use crate::progress::Silent;
    use crate::train::{NoCheckpoints, Rule, Schedule, channel_moments, training_batches};
    use ndarray::{ArcArray, IxDyn};

    /// A convolution and a batch norm whose stored statistics are not those of any images.
    fn features() -> Graph {
        let weight = (0..4 * 9).map(|i| ((i * 7 % 11) as f32 - 5.0) / 5.0);
        let weight = ArcArray::from_shape_vec(IxDyn(&[4, 1, 3, 3]), weight.collect());
        conv_and_batch_norm(weight.unwrap(), 50.0, 900.0)
    }

    #[test]
    fn a_new_head_starts_from_the_statistics_of_the_data() {
        let options = DataOptions {
            limit: Some(256),
            ..DataOptions::default()
        };
        let dataset = Dataset::digits(&options).unwrap();
        let preprocess = Preprocess::parse("unit", 8, 8, 1).unwrap();
        let source = Source {
            dataset: &dataset,
            preprocess: &preprocess,
            batch_size: 32,
        };
        let n_images = 128;
        let fit = FitConfig {
            rule: Rule::Adam,
            // One step of this size ruins the network, so that the start is kept.
            lr: 1e3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            smoothing: 0.0,
            steps: 1,
            check_every: 1,
            patience: 0,
            batch_norm_images: n_images,
            batch_norm: BatchNormMode::Batch,
            augment: Augment::None,
            seed: 3,
            teacher: None,
            first_epoch: 0,
        };
        let config = TransferConfig {
            weights: Weights::Given,
            trainable: Trainable::Scaling,
            head: HeadChoice::Auto,
            insert_batch_norm: InsertBatchNorm::No,
            statistics_images: n_images,
            fit,
        };
        let engine = NativeEngine::new();
        let graph = features();
        let (new, summary) = transfer(
            &engine,
            &graph,
            &source,
            &config,
            &mut NoCheckpoints,
            &Silent,
        )
        .unwrap();
        assert_eq!(summary.fate, HeadFate::Attached);
        assert_eq!(summary.fit.unwrap().best.step, 0, "the start is kept");

        let batches = training_batches(&source, n_images, 3).unwrap();
        let values = ["conv".to_owned()];
        let measured = channel_moments(
            &engine,
            &graph,
            &values,
            BatchNormMode::Stored,
            batches,
            &Silent,
        )
        .unwrap();
        for (name, wanted) in [
            ("norm.mean", &measured["conv"].mean),
            ("norm.variance", &measured["conv"].variance),
        ] {
            for (&got, &want) in new.float(name).unwrap().iter().zip(wanted) {
                // One rounding to f32.
                assert!((f64::from(got) - want).abs() < 1e-5, "{name}: {got} {want}");
            }
        }
    }
}
