//! What can go wrong when a network is judged.

use super::compare::VerifySummary;
use std::error::Error;
use std::path::PathBuf;

/// A network that cannot be judged, or was judged and found to differ.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A word that names no runtime.
    #[error("`{0}` is no runtime: want `tract` or `ort`")]
    UnknownRuntime(String),
    /// The library of ONNX Runtime cannot be used.
    #[error(
        "ONNX Runtime cannot be used: {problem}; set ORT_DYLIB_PATH to libonnxruntime.so, version 1.{} or newer",
        ort::MINOR_VERSION
    )]
    Library {
        /// What was looked for, and what was found.
        problem: String,
    },
    /// A process can hold one library of ONNX Runtime.
    #[error("ONNX Runtime is already loaded from `{loaded}`, so `{wanted}` cannot be")]
    OtherLibrary {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        wanted: PathBuf,
    },
    /// A runtime refuses the file, or fails in running it.
    #[error("{runtime} cannot {action} the model: {problem}")]
    Runtime {
        /// The runtime's name.
        runtime: &'static str,
        /// `load` or `run`.
        action: &'static str,
        /// What the runtime says.
        problem: String,
    },
    /// The file does not take one batch of images of the wanted shape.
    #[error("the model's input does not fit: {problem}")]
    Input {
        /// What was found and what was wanted.
        problem: String,
    },
    /// The outputs are not what is judged here.
    #[error("the model's output does not fit: {problem}")]
    Output {
        /// What was found and what was wanted.
        problem: String,
    },
    /// The network in memory fails.
    #[error("the network cannot be run")]
    Network(#[source] Box<dyn Error + Send + Sync>),
    /// The images cannot be read.
    #[error("the images cannot be read")]
    Data(#[source] Box<dyn Error + Send + Sync>),
    /// A label beyond the classes of the output.
    #[error("an image has label {label}, but the model tells {classes} classes apart")]
    Label {
        /// The label, from 0.
        label: usize,
        /// The classes of the output.
        classes: usize,
    },
    /// Nothing to judge by.
    #[error("there is no image to judge the model by")]
    NoImages,
    /// Two networks differ beyond the tolerance.
    #[error(
        "the outputs differ beyond the tolerance: {problem} ({} images, {})",
        summary.n, summary.runtime
    )]
    Differs {
        /// Which limit is exceeded, and by what.
        problem: String,
        /// What was measured.
        summary: Box<VerifySummary>,
    },
}

impl VerifyError {
    /// The failure of a network in memory, for use in closures given as [`super::Outputs`].
    pub fn network(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Network(error.into())
    }
}
