//! Training of chosen initializers with everything else frozen (Wong et al., arXiv 2108.02893;
//! docs/method.md, section 5), batch-norm re-estimation, and accuracy in the engine.

mod batch_norm;
mod checkpoint;
mod distillation;
mod evaluate;
mod fit;
mod loss;
mod moments;
mod optimizer;
mod trainable;

pub use batch_norm::{
    ChannelMoments, KeptChannels, carry_batch_norm, channel_moments, has_batch_norm,
    reestimate_batch_norm, store_statistics, stored_statistics, training_batches,
};
pub use checkpoint::{CheckpointError, CheckpointFile, CheckpointStore, FitState, NoCheckpoints};
pub use distillation::Teacher;
pub use evaluate::{AccuracyDrop, EngineAccuracy, accuracy, accuracy_on_some};
pub use fit::{CheckRecord, FitConfig, FitSummary, Schedule, StepRecord, fit, steps_per_epoch};
pub use loss::{Loss, cross_entropy, predicted_class};
pub use moments::{ChannelAxis, Curvature, MomentsConfig, Wanted, channel_costs, output_moments};
pub use optimizer::{Optimizer, Rule};
pub use trainable::{Role, Trainable, names, parameters};

use crate::data::{Augment, Batch, DataError, Dataset, Order, Preprocess, Split};

/// Where batches come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'d> {
    /// The images.
    pub dataset: &'d Dataset,
    /// How they become input.
    pub preprocess: &'d Preprocess,
    /// Images in a batch.
    pub batch_size: usize,
}

impl<'d> Source<'d> {
    /// The batches of a split.
    pub fn batches(
        &self,
        split: Split,
        order: Order,
        augment: Augment,
    ) -> impl Iterator<Item = Result<Batch, DataError>> + use<'d> {
        self.dataset
            .batches(split, self.preprocess, order, augment, self.batch_size)
    }
}

/// Training that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The graph does not run.
    #[error(transparent)]
    Exec(#[from] crate::exec::ExecError),
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The state to go on from does not fit the network.
    #[error(
        "the saved training is not one of this network, or is damaged: remove the `.safetensors` files \
         from the run's `checkpoints` to start the stage again"
    )]
    ForeignCheckpoint,
    /// The loss is not a number.
    #[error(
        "the loss is not a finite number at step {step}: a lower learning rate than {lr} is needed"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// The learning rate.
        lr: f32,
    },
    /// The output is no list of class scores.
    #[error(
        "output `{output}` has shape {shape:?}, but {classes} class scores for each image are wanted"
    )]
    NotAClassifier {
        /// The output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of classes of the data.
        classes: usize,
    },
    /// The user wanted it to end.
    #[error(transparent)]
    Stopped(#[from] crate::progress::Stopped),
    /// There is nothing to train on.
    #[error("the training split is empty")]
    NoImages,
}
