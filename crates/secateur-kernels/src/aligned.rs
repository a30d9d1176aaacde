//! Memory that starts at a cache line: a register's load that crosses two lines takes twice the time.

use std::ops::{Deref, DerefMut};

/// Floats of a cache line.
const LINE: usize = 16;

/// Floats that start at a cache line.
#[derive(Debug, Default)]
pub struct Aligned {
    floats: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        let floats = vec![0.0; len + LINE];
        let start = floats.as_ptr().align_offset(LINE * size_of::<f32>());
        Self {
            start: start.min(LINE),
            floats,
            len,
        }
    }

    /// Memory that [`Aligned::into_parts`] gave, of which `len` floats from `start` on are used; `None` where
    /// they do not start at a cache line.
    #[must_use]
    pub fn from_parts(floats: Vec<f32>, start: usize, len: usize) -> Option<Self> {
        let used = floats.get(start..start.checked_add(len)?)?;
        let is_aligned = used.as_ptr().align_offset(LINE * size_of::<f32>()) == 0;
        is_aligned.then_some(Self { floats, start, len })
    }

    /// The memory, and where the floats start in it.
    #[must_use]
    pub fn into_parts(self) -> (Vec<f32>, usize) {
        (self.floats, self.start)
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..][..self.len]
    }
}
