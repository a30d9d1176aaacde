//! The recipe: the only place that knows the order of the stages.

mod basis;
mod candidate;
mod channel_order;
mod channels;
mod checks;
mod choose;
mod clock;
mod compress;
mod cut;
mod files;
mod foresee;
mod inputs;
mod inspect;
mod judge;
mod latency;
mod measured;
mod next;
mod opening;
mod outcome;
mod pace;
mod prepare;
mod refit;
mod rounds;
mod run;
mod score;
mod settings;
mod stages;
mod target;
mod task;
mod times;
mod walk;
mod ways;

pub use compress::{Job, compress};
pub use cut::{CutJob, cut_file};
pub use files::{TransferJob, decompose_file, fold_file, replay_file, transfer_file};
pub use foresee::foresee;
pub use inspect::inspect;
pub use judge::{Images, evaluate_file, verify_files};
pub use latency::bench_files;
pub use prepare::{Prepared, prepare};
pub use refit::{KeptOutputs, Reference, refit_layers};
pub use run::{Resume, Run, RunKey, is_finished, lock};
pub use settings::{
    DataSettings, PruneSettings, Refit, Removal, Settings, Sides, TransferSettings, VerifySettings,
};
pub use stages::{Trained, fit_config, transfer_network};
pub use target::{Amount, Original, Target, TargetError};

use crate::data::MAX_INPUT_SIDE as MAX_SIDE;
use std::path::{Path, PathBuf};

/// A job that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The file is no usable ONNX model, or cannot be written.
    #[error(transparent)]
    Onnx(#[from] crate::onnx::OnnxError),
    /// The graph is not of the kind wanted.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
    /// Shapes do not fit.
    #[error(transparent)]
    Infer(#[from] crate::graph::InferError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The preprocessing cannot be used.
    #[error(transparent)]
    Preprocess(#[from] crate::data::PreprocessError),
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] crate::transfer::TransferError),
    /// The user wanted the work to end.
    #[error(transparent)]
    Stopped(#[from] crate::progress::Stopped),
    /// A training failed.
    #[error(transparent)]
    Train(#[from] crate::train::TrainError),
    /// The network does not run.
    #[error(transparent)]
    Exec(#[from] crate::exec::ExecError),
    /// The decomposition failed.
    #[error(transparent)]
    Decompose(#[from] crate::decompose::DecomposeError),
    /// The scores are unusable.
    #[error(transparent)]
    Importance(#[from] crate::importance::ImportanceError),
    /// No plan can be made.
    #[error(transparent)]
    Select(#[from] crate::prune::SelectError),
    /// The plan does not fit.
    #[error(transparent)]
    Prune(#[from] crate::prune::PruneError),
    /// Channels cannot be removed.
    #[error(transparent)]
    Channels(#[from] crate::prune::channels::ChannelError),
    /// What is left cannot stand in for removed channels.
    #[error(transparent)]
    Repair(#[from] crate::prune::channels::RepairError),
    /// Folding failed.
    #[error(transparent)]
    Fold(#[from] crate::fold::FoldError),
    /// The exported file is not what it should be, or does not run.
    #[error(transparent)]
    Verify(#[from] crate::verify::VerifyError),
    /// A file does not run.
    #[error("`{model}`: {source}")]
    Load {
        /// The file.
        model: String,
        /// What is wrong.
        source: crate::verify::VerifyError,
    },
    /// The inside of a file counts on the number of images for which it was exported.
    #[error(
        "the file was exported for {batch} image(s) at a time and counts on it, so it cannot be trained: {source}; export it with \
         a free first axis (PyTorch: `dynamic_shapes` or `dynamic_axes`, and `flatten(1)` in the place of `view(1, -1)`)"
    )]
    FixedBatch {
        /// Images at a time.
        batch: usize,
        /// What does not fit for another number.
        source: crate::graph::InferError,
    },
    /// Scores and classes differ in number.
    #[error(
        "the network gives {scores} scores for each image, but the data have {classes} classes: which score belongs to which \
         class is not known"
    )]
    Classes {
        /// Scores.
        scores: usize,
        /// Classes of the data.
        classes: usize,
    },
    /// The size that a file fixes for its images cannot be.
    #[error(
        "the file takes images of {height}x{width}; a side has at most {} pixels",
        MAX_SIDE
    )]
    ImageSize {
        /// The height.
        height: usize,
        /// The width.
        width: usize,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] crate::files::WriteError),
    /// The run folder cannot be used.
    #[error("run folder `{}`: {problem}", folder.display())]
    Run {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing says how pixels become input.
    #[error(
        "no preprocessing is given, and the model's metadata has none: \
         name it with `--preprocess` (`imagenet`, `caffe`, `unit`, `pm1`, or `mean=..;std=..;scale=..`)"
    )]
    NoPreprocess,
    /// The exclusion is no regular expression.
    #[error("`--exclude`: {0}")]
    Exclude(#[from] regex::Error),
    /// A setting is out of range.
    #[error("`{setting}` is {value}, but {want} is wanted")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What can be.
        want: &'static str,
    },
    /// A target is out of reach whatever is done.
    #[error(
        "target `{target}` cannot be reached: with every layer at rank 1, {least} {unit} remain"
    )]
    Infeasible {
        /// The target.
        target: Target,
        /// The least that can be reached.
        least: u64,
        /// `parameters` or `multiply-accumulates`.
        unit: &'static str,
    },
    /// There is nothing to prune.
    #[error("no layer can be decomposed: `secateur inspect` names the reason for each")]
    NothingToPrune,
    /// The network holds no factored layer.
    #[error("no layer is factored: `secateur decompose` comes before `prune`")]
    NotFactored,
    /// The network does not end in class scores.
    #[error("the network does not end in class scores: `secateur transfer` gives it a head")]
    NoClassifier,
    /// A single cut was asked for an accuracy, a latency, or for nothing.
    #[error(
        "one cut reaches targets on size only: name `params=..`, `macs=..` or `size=..` (`secateur compress` holds an accuracy and a latency)"
    )]
    CutTarget,
    /// Nothing says how large the images are.
    #[error("the file does not fix the image size: name it with `--size HxW`")]
    NoSize,
    /// The report cannot be rendered.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// An accuracy was asked for, and nothing tells what is right.
    #[error(
        "the images have no labels: name targets that need none (`output-error=5%`, `params=25%`, `macs=50%`, \
         `size=2MB`, `latency=50%`), or give one folder of images a class"
    )]
    NoLabelsForTarget,
    /// The command wants labels.
    #[error("the images have no labels: want one folder of images a class, CIFAR or IDX files")]
    NoLabels,
    /// An output of indices.
    #[error(
        "output `{output}` holds indices (ArgMax `{node}`), which do not tell how far a cut network is from the uncut one: \
         let the network end in the scores `{scores}`, in Python by \
         `onnx.utils.extract_model(\"IN.onnx\", \"SCORES.onnx\", [\"{input}\"], [\"{scores}\"])`"
    )]
    Indices {
        /// The output.
        output: String,
        /// The node that makes them.
        node: String,
        /// What that node reads.
        scores: String,
        /// The graph's input.
        input: String,
    },
    /// An output that cannot be compared image by image.
    #[error(
        "output `{output}` has the shape {shape:?} for {batch} images: without labels every output must be floats, \
         the image on axis 0"
    )]
    Output {
        /// The output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Images given.
        batch: usize,
    },
    /// The data has no validation split.
    #[error("the data has no validation images: `--val-fraction` says how many there are to be")]
    NoValidationImages,
    /// The data has no test split.
    #[error("the data has no test images")]
    NoTestImages,
}

impl PipelineError {
    /// That a runtime has with the file `model`.
    fn of_file(model: impl AsRef<Path>, source: crate::verify::VerifyError) -> Self {
        Self::Load {
            model: model.as_ref().display().to_string(),
            source,
        }
    }
}
