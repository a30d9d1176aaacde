//! Memory that is used again from step to step, so that no step waits for fresh pages.

use crate::exec::ExecError;
use crate::tensor::Floats;
use ndarray::{ArcArray, ArcArray1, IxDyn, s};
use secateur_kernels::aligned::Aligned;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Buffers that nothing reads any more, by length. No more are held than a pass takes: operators that
/// make their own arrays give more back than they take.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    shelves: RefCell<BTreeMap<usize, Shelf>>,
}

/// The buffers of one length.
#[derive(Debug, Default)]
struct Shelf {
    free: Vec<Aligned>,
    /// How many this pass has taken, and the one before.
    taken: [usize; 2],
}

/// Shorter buffers come from the allocator's own lists fast enough.
const SHORTEST: usize = 1 << 12;

impl Buffers {
    /// A pass over the network begins.
    pub(super) fn begin(&self) {
        for shelf in self.shelves.borrow_mut().values_mut() {
            shelf.taken = [0, shelf.taken[0]];
        }
    }

    /// A buffer of `len` floats. What they hold is left over from earlier use.
    pub(super) fn take(&self, len: usize) -> Aligned {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(len).or_default();
        shelf.taken[0] += 1;
        let free = shelf.free.pop();
        free.unwrap_or_else(|| Aligned::zeros(len))
    }

    /// Takes the memory of an array back where nothing else holds it.
    pub(super) fn give(&self, array: Floats) {
        let len = array.len();
        if len < SHORTEST {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        let Some(shelf) = shelves.get_mut(&len) else {
            return; // Nobody asks for this length.
        };
        if shelf.free.len() < shelf.taken[0].max(shelf.taken[1])
            && let Ok(array) = array.try_into_owned_nocopy()
        {
            let (floats, start) = array.into_raw_vec_and_offset();
            shelf
                .free
                .extend(Aligned::from_parts(floats, start.unwrap_or(0), len));
        }
    }

    /// A buffer as an array, without a copy.
    pub(super) fn array(&self, shape: &[usize], buffer: Aligned) -> Result<Floats, ExecError> {
        let len = buffer.len();
        let (floats, start) = buffer.into_parts();
        let floats: ArcArray1<f32> = ArcArray::from_vec(floats);
        floats
            .slice_move(s![start..start + len])
            .into_shape_with_order(IxDyn(shape))
            .map_err(|e| ExecError::Device(e.to_string()))
    }

    /// Lets all buffers go: the next step has other sizes.
    pub(super) fn clear(&self) {
        self.shelves.borrow_mut().clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn is_fresh(buffer: &[f32]) -> bool {
        buffer.iter().all(|&value| value == 0.0)
    }

    /// An array of threes whose memory can be used again.
    fn array(len: usize) -> Floats {
        let mut buffer = Aligned::zeros(len);
        buffer.fill(3.0);
        Buffers::default().array(&[len], buffer).unwrap()
    }

    #[test]
    fn only_memory_that_nothing_else_holds_comes_back() {
        let buffers = Buffers::default();
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
        let held = array(2 * SHORTEST);
        buffers.give(held.clone());
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
        buffers.give(held);
        assert_eq!(buffers.take(2 * SHORTEST).to_vec(), vec![3.0; 2 * SHORTEST]);
        // Another length, a short one, memory that starts anywhere, and after all were let go.
        buffers.give(array(2 * SHORTEST));
        buffers.give(array(SHORTEST - 1));
        assert!(is_fresh(&buffers.take(SHORTEST)) && is_fresh(&buffers.take(SHORTEST - 1)));
        let (floats, start) = Aligned::zeros(SHORTEST).into_parts();
        let askew = ArcArray::from_vec(floats).slice_move(s![(start + 1) % 16..]);
        let len = askew.len();
        buffers.take(len);
        buffers.give(askew.into_dyn() + 1.0);
        assert!(is_fresh(&buffers.take(len)));
        buffers.clear();
        assert!(is_fresh(&buffers.take(2 * SHORTEST)));
    }

    #[test]
    fn no_more_is_held_than_a_pass_takes() {
        let buffers = Buffers::default();
        for _ in 0..10 {
            buffers.begin();
            let taken = [buffers.take(SHORTEST), buffers.take(SHORTEST)];
            drop(taken);
            (0..5).for_each(|_| buffers.give(array(SHORTEST)));
            (0..5).for_each(|_| buffers.give(array(3 * SHORTEST)));
        }
        let shelves = buffers.shelves.borrow();
        let held: usize = shelves.values().map(|shelf| shelf.free.len()).sum();
        assert_eq!(held, 2);
    }
}
