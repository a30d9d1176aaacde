//! Runs a graph forward and backward.
//!
//! [`Engine`] is narrow on purpose: it takes a graph, the wanted outputs, the trainable
//! initializers and the [`Tap`]s, and knows nothing of losses, optimizers or pruning. The caller
//! supplies the gradient of its loss with respect to the outputs.

mod burn;
mod gates;
mod native;
mod plan;
mod statistic;
mod taps;

#[cfg(test)]
mod tests;

pub use self::burn::{BurnDevice, BurnEngine};
pub use self::gates::Gates;
pub use self::native::NativeEngine;
pub use self::statistic::Statistic;

use crate::graph::Graph;
use crate::tensor::Floats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What normalises in `BatchNormalization` nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNormMode {
    /// The stored mean and variance (evaluation).
    #[default]
    Stored,
    /// Mean and (biased) variance of the batch at hand, through which gradients flow (training).
    Batch,
}

/// Which side of a value a tap looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    /// The value itself, in [`Session::forward`] and [`Session::step`].
    Activation,
    /// The gradient that [`Session::step`] propagates to it. Where the caller's output gradients
    /// are not divided by the batch size and batch norm uses stored statistics, row `n` is the
    /// gradient of image `n`'s own loss.
    Gradient,
}

/// What a tap keeps. Images are axis 0, and axis 1 is the channel where nothing else is said; the rest
/// are positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Per channel, the sum and the sum of squares.
    Moments,
    /// The sums over images and positions of `v` and of `v v^T` `[channels, channels]`.
    SecondMoment,
    /// The same where the channels are the last axis, as dense layers over positions have them.
    LastSecondMoment,
    /// Per channel, what scaling it does to an image's loss. With `a` the sum over the positions of an image of
    /// value times gradient, and `b` that of the gradient: the sums over images of `a^2`, `a b` and `b^2`. Of
    /// [`Of::Gradient`].
    Gates,
    /// The same where the channels are the last axis.
    LastGates,
}

impl Keep {
    fn is_gates(self) -> bool {
        matches!(self, Self::Gates | Self::LastGates)
    }

    fn has_channels_last(self) -> bool {
        matches!(self, Self::LastSecondMoment | Self::LastGates)
    }
}

/// A request for running statistics of a named value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tap {
    /// The value's name.
    pub value: String,
    /// Its activation or its gradient.
    pub of: Of,
    /// What to keep.
    pub keep: Keep,
}

/// Everything a session needs to know beforehand.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// Values to return, by name.
    pub outputs: Vec<String>,
    /// `f32` initializers to differentiate by, by name. Nothing else costs a weight gradient.
    pub trainable: Vec<String>,
    /// Running statistics to gather.
    pub taps: Vec<Tap>,
    /// What batch normalisation uses.
    pub batch_norm: BatchNormMode,
}

impl<'a> Request<'a> {
    /// The values `outputs` of a network in evaluation, and nothing else.
    #[must_use]
    pub fn evaluation(graph: &'a Graph, outputs: Vec<String>) -> Self {
        Self {
            graph,
            outputs,
            trainable: Vec::new(),
            taps: Vec::new(),
            batch_norm: BatchNormMode::Stored,
        }
    }
}

/// Makes sessions. Implementations are each other's oracle.
pub trait Engine: Send + Sync {
    /// The engine's name, as reports show it.
    fn name(&self) -> &'static str;

    /// Prepares `request` for running.
    ///
    /// # Errors
    /// [`ExecError`] names a value that does not exist or a node that cannot run.
    fn session<'a>(&'a self, request: &Request<'_>) -> Result<Box<dyn Session + 'a>, ExecError>;
}

/// Which engine runs networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// This project's kernels, on the processor.
    #[default]
    Native,
    /// Burn, on the processor.
    Burn,
}

impl EngineKind {
    /// The engine.
    #[must_use]
    pub fn open(self) -> Box<dyn Engine> {
        match self {
            Self::Native => Box::new(NativeEngine::new()),
            Self::Burn => Box::new(BurnEngine::new()),
        }
    }
}

/// The gradients of a loss with respect to the outputs, given the outputs.
pub type LossGradient<'l> = dyn FnMut(&[Floats]) -> Vec<Floats> + 'l;

/// A graph that is ready to run. It owns the current values of the trainable initializers.
pub trait Session {
    /// Computes the outputs for `input` `[images, channels, height, width]`; activation taps see it.
    ///
    /// # Errors
    /// [`ExecError`] where the input does not fit the graph.
    fn forward(&mut self, input: &Floats) -> Result<Vec<Floats>, ExecError>;

    /// Computes the outputs, asks `loss_gradient` for their gradients, and returns the gradient of
    /// every trainable initializer by name (zeros where the outputs do not depend on it). All taps
    /// see it.
    ///
    /// # Errors
    /// [`ExecError`] where the input does not fit the graph, or a returned gradient not its output.
    fn step(
        &mut self,
        input: &Floats,
        loss_gradient: &mut LossGradient<'_>,
    ) -> Result<BTreeMap<String, Floats>, ExecError>;

    /// Replaces the value of a trainable initializer.
    ///
    /// # Errors
    /// [`ExecError`] where `name` is not trainable or the shape differs.
    fn set(&mut self, name: &str, value: &Floats) -> Result<(), ExecError>;

    /// The statistics gathered so far; a tap that has seen nothing yet is not in the map.
    fn statistics(&self) -> &BTreeMap<Tap, Statistic>;

    /// Hands out the statistics gathered so far and begins anew: a training window ends.
    fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic>;
}

/// A graph that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A name in the request is not in the graph.
    #[error("the graph has no value `{0}`")]
    UnknownValue(String),
    /// Shapes do not fit.
    #[error(transparent)]
    Shape(#[from] crate::graph::InferError),
    /// A node cannot be run, or not be differentiated.
    #[error("node `{node}` ({op}): {problem}")]
    Node {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The graph has another number of inputs than one.
    #[error("the graph has {0} inputs; an engine runs graphs of one")]
    Inputs(usize),
    /// The caller's gradient does not fit the output.
    #[error("gradient of output `{output}`: {problem}")]
    OutputGradient {
        /// The output.
        output: String,
        /// What is wrong.
        problem: String,
    },
    /// A tapped value has no channel axis, or another number of channels than before.
    #[error("tap of `{value}`: {problem}")]
    Tap {
        /// The value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// The device failed.
    #[error("device: {0}")]
    Device(String),
    /// A trainable initializer is not `f32`, or a new value has another shape.
    #[error("initializer `{name}`: {problem}")]
    Parameter {
        /// The initializer.
        name: String,
        /// What is wrong.
        problem: String,
    },
}
