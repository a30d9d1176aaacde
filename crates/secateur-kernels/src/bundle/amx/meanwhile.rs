//! Work that is done while the registers multiply.

use crate::amx::PRODUCTS;

/// Pieces of work, which so many calls divide evenly.
pub(super) struct Pieces {
    len: usize,
    calls: usize,
    left: usize,
    /// Pieces times calls so far, less those that are done.
    due: usize,
}

impl Pieces {
    /// Pieces that are done while the registers run so many steps.
    pub fn new(len: usize, steps: usize) -> Self {
        Self {
            len,
            calls: steps * PRODUCTS,
            left: len,
            due: 0,
        }
    }

    /// How many pieces are due in this call.
    #[inline(always)]
    pub fn next(&mut self) -> usize {
        let mut due = 0;
        self.due += self.len;
        while self.due >= self.calls && self.left > 0 {
            self.due -= self.calls;
            self.left -= 1;
            due += 1;
        }
        due
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.left
    }
}
