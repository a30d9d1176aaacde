//! Buffers that a thread uses again from call to call.

use crate::aligned::Aligned;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Floats that are kept at most in one buffer between calls.
const KEPT: usize = 16 << 20;

/// A buffer that grows to what is asked of it. What it holds is left over from former uses.
#[derive(Default)]
pub(crate) struct Buffer(Aligned);

impl Buffer {
    /// The first `len` floats, which start at a cache line.
    pub(crate) fn floats(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0 = Aligned::zeros(len);
        }
        &mut self.0[..len]
    }
}

/// Buffers of one part of the work.
#[derive(Default)]
pub(crate) struct Scratch {
    pub planes: Buffer,
    pub a: Buffer,
    pub b: Buffer,
    pub sums: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Those that no thread uses at present: a pass may run on one thread, and the next one on another.
static SHARED: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// Runs `work`, which divides no work among threads, with the thread's buffers.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(work)
}

/// Runs `work` with `len` floats that other threads may read meanwhile.
pub(crate) fn with_shared<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let unused = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = unused().pop().unwrap_or_default();
    let result = work(buffer.floats(len));
    if buffer.0.len() <= KEPT {
        unused().push(buffer);
    }
    result
}
