//! Accuracy and equality of networks, judged by a runtime that this project did not write.
//!
//! It stands at the end of the pipeline: the exported file is [`compare`]d with the network in memory,
//! and [`evaluate`]d on the test split. A [`Runtime`] loads the bytes of an ONNX file: [`TractRuntime`]
//! is embedded, [`OrtRuntime`] is ONNX Runtime, whose library is found at run time.
//! See section 7 of `docs/method.md`.
//!
//! Whatever maps images to outputs can be judged; see [`Outputs`].
//!
//! ```no_run
//! use secateur::data::Batch;
//! use secateur::verify::{self, Options, RuntimeKind, VerifyError};
//!
//! fn top1(model: &[u8], test: Vec<Batch>) -> Result<f64, VerifyError> {
//!     let runtime = verify::open(RuntimeKind::Tract, &Options::default())?;
//!     let mut network = runtime.load(model, [64, 3, 32, 32])?;
//!     let batches = test.into_iter().map(Ok::<_, VerifyError>);
//!     let accuracy = verify::evaluate(&mut |images| network.run(images), batches)?;
//!     Ok(accuracy.top1)
//! }
//! ```

mod accuracy;
mod compare;
mod error;
mod onnxruntime;
mod output_error;
mod runtime;
mod tract;

pub use accuracy::{Accuracy, evaluate};
pub use compare::{Tolerance, VerifySummary, compare, compare_outputs};
pub use error::VerifyError;
pub use onnxruntime::OrtRuntime;
pub use output_error::OutputError;
pub use runtime::{Loaded, Options, Runtime, RuntimeKind, open};
pub use tract::TractRuntime;

use crate::tensor::Floats;

/// What maps images `[n, c, h, w]` to outputs whose axis 0 is the image: a loaded file
/// (`&mut |images| network.run(images)`), a network in memory, or outputs computed before.
/// A failure of anything else than a runtime becomes an error by [`VerifyError::network`].
pub type Outputs<'o> = dyn FnMut(&Floats) -> Result<Floats, VerifyError> + 'o;

/// [`Outputs`] for networks with several: all of them, in the network's order.
pub type AllOutputs<'o> = dyn FnMut(&Floats) -> Result<Vec<Floats>, VerifyError> + 'o;

#[cfg(test)]
mod tests;
