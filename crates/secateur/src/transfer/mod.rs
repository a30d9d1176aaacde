//! From a pre-trained network to a classifier of the user's classes: `Graph + Dataset -> Graph`.
//!
//! The head is kept where it fits, replaced where the number of classes differs, attached where
//! there is none. A new head starts from a ridge solution on features computed once; then the
//! chosen initializers are trained.

mod batch_norm;
mod head;
mod ridge;

pub use batch_norm::insert_batch_norm;
pub use head::{Ending, Head, NewHead, ending, with_new_head};
pub use ridge::RidgeSummary;

use crate::exec::Engine;
use crate::graph::{Graph, GraphError, InferError};
use crate::progress::Progress;
use crate::train::{
    CheckpointStore, FitConfig, FitSummary, Source, TrainError, Trainable, fit, names,
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
        )?,
    };
    let classes = source.dataset.classes().len();
    let found = ending(&graph, source.preprocess.height, source.preprocess.width)?;
    let (head, fate, ridge) = match found {
        Ending::Classifier(head) if head.classes == classes && config.head == HeadChoice::Auto => {
            (head, HeadFate::Kept, None)
        }
        found => {
            let fate = match found {
                Ending::Classifier(_) => HeadFate::Replaced,
                Ending::Features { .. } => HeadFate::Attached,
            };
            let new = with_new_head(&graph, &found, classes)?;
            let (solved, summary) = ridge::solve(engine, &new, source, progress)?;
            graph = solved;
            (new.head, fate, Some(summary))
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
