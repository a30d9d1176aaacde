//! The engine on this project's own kernels, for CPUs.
//!
//! It keeps its own record of what a backward pass needs: only nodes between the first trainable
//! initializer (or tapped gradient) and the outputs are differentiated, and only by what is wanted.
//! The operators in which networks spend their time run on `secateur-kernels`; any other runs on
//! Burn, one node at a time.

mod arithmetic;
mod buffers;
mod convolution;
mod fuse;
mod join;
mod keep;
mod layout;
mod node;
mod norm;
mod pool;
mod reduce;
mod session;
mod weights;

use self::session::NativeSession;
use super::{Engine, ExecError, Request, Session};

/// Runs graphs on the processor, with `secateur-kernels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeEngine {
    most: usize,
}

impl NativeEngine {
    /// An engine on the processor.
    #[must_use]
    pub fn new() -> Self {
        Self { most: keep::MOST }
    }

    /// The same, with another number of floats up to which all values that the backward pass reads are kept. Where
    /// they are more, normalised ones are computed again. Results are the same.
    #[must_use]
    pub fn keeping(self, floats: usize) -> Self {
        Self { most: floats }
    }
}

impl Default for NativeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for NativeEngine {
    fn name(&self) -> &'static str {
        "native"
    }

    fn session<'a>(&'a self, request: &Request<'_>) -> Result<Box<dyn Session + 'a>, ExecError> {
        Ok(Box::new(NativeSession::new(request, self.most)?))
    }
}
