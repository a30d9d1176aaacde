//! Memory that is used again from step to step, so that no step waits for fresh pages.

use crate::tensor::Floats;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Buffers that nothing reads any more, by length.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: RefCell<BTreeMap<usize, Vec<Vec<f32>>>>,
}

/// Shorter buffers come from the allocator's own lists fast enough.
const SHORTEST: usize = 1 << 12;

impl Buffers {
    /// A buffer of `len` floats. What they hold is left over from earlier use.
    pub(super) fn take(&self, len: usize) -> Vec<f32> {
        let free = self.free.borrow_mut().get_mut(&len).and_then(Vec::pop);
        free.unwrap_or_else(|| vec![0.0; len])
    }

    /// Takes the memory of an array back where nothing else holds it.
    pub(super) fn give(&self, array: Floats) {
        if array.len() < SHORTEST {
            return;
        }
        if let Ok(array) = array.try_into_owned_nocopy() {
            let (buffer, _) = array.into_raw_vec_and_offset();
            let mut free = self.free.borrow_mut();
            free.entry(buffer.len()).or_default().push(buffer);
        }
    }

    /// Lets all buffers go: the next step has other sizes.
    pub(super) fn clear(&self) {
        self.free.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArcArray, IxDyn};

    #[test]
    fn only_memory_that_nothing_else_holds_comes_back() {
        let buffers = Buffers::default();
        let array: Floats = ArcArray::from_elem(IxDyn(&[2, SHORTEST]), 3.0);
        let held = array.clone();
        buffers.give(array);
        let is_fresh = |buffer: &[f32]| buffer.iter().all(|&value| value == 0.0);
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
        buffers.give(held.clone());
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
        buffers.give(held);
        assert_eq!(buffers.take(2 * SHORTEST), vec![3.0; 2 * SHORTEST]);
        // Another length, a short one, and after all were let go.
        let array = |len: usize| ArcArray::from_elem(IxDyn(&[len]), 3.0);
        buffers.give(array(2 * SHORTEST));
        buffers.give(array(SHORTEST - 1));
        assert!(is_fresh(&buffers.take(SHORTEST)) && is_fresh(&buffers.take(SHORTEST - 1)));
        buffers.clear();
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
    }
}
