//! Memory that starts at a cache line: a register's load that crosses two lines takes twice the time.

use std::ops::{Deref, DerefMut};
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
use std::sync::Once;

/// Floats of a cache line.
const LINE: usize = 16;

/// Floats of a large page of memory.
const HUGE_PAGE: usize = (2 << 20) / size_of::<f32>();

/// Asks that the memory of fresh zeros, from a large page's start on, be made of large pages. With small ones a processor
/// takes as long to find the places that it reads in turns as to read them. Where the system has none, nothing changes.
#[allow(unsafe_code)]
fn ask_for_huge_pages(floats: &[f32]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let start = floats.as_ptr().cast_mut().cast();
        // SAFETY: the pages lie in memory that is borrowed for the call, and the advice changes how they are backed, not
        // what they hold.
        let _ = unsafe { libc::madvise(start, size_of_val(floats), libc::MADV_HUGEPAGE) };
    }
    #[cfg(any(not(target_os = "linux"), miri))]
    let _ = floats;
}

/// Asks once that memory of many bytes be the system's own, which it goes back to when it is freed. The allocator would keep
/// it for each thread that has asked for some, in pieces that seldom fit the next request.
#[allow(unsafe_code)]
fn ask_for_own_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        /// Bytes from which on memory is taken so.
        const MANY: libc::c_int = 4 << 20;
        static ASKED: Once = Once::new();
        ASKED.call_once(|| {
            // SAFETY: the call changes where memory comes from that is taken from now on. Threads that take some meanwhile
            // read a word that is either the former limit or this one, and each is valid.
            let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MANY) };
        });
    }
}

/// Floats that start at a cache line.
#[derive(Debug, Default)]
pub struct Aligned {
    floats: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros, in large pages where the system has them.
    ///
    /// From the first large one on, the process takes all memory of 4 MiB and more from the system, where its allocator is
    /// that of the GNU C library.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        // Large pages are whole, so that a last one is asked for where most of it is used. What else is not used is not made
        // of any memory.
        let rest = len % HUGE_PAGE;
        let is_most = 4 * rest >= 3 * HUGE_PAGE;
        let whole = len - rest + if is_most { HUGE_PAGE } else { 0 };
        if whole == 0 {
            return Self::starting_at(LINE, vec![0.0; len + LINE], len);
        }
        ask_for_own_memory();
        let aligned = Self::starting_at(HUGE_PAGE, vec![0.0; len.max(whole) + HUGE_PAGE], len);
        ask_for_huge_pages(&aligned.floats[aligned.start..][..whole]);
        aligned
    }

    /// The first `len` floats that start at a multiple of so many.
    fn starting_at(multiple: usize, floats: Vec<f32>, len: usize) -> Self {
        let start = floats.as_ptr().align_offset(multiple * size_of::<f32>());
        Self {
            start: start.min(multiple),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_start_at_a_line_and_many_at_a_large_page() {
        for len in [
            0,
            5,
            HUGE_PAGE / 2,
            HUGE_PAGE - 1,
            HUGE_PAGE,
            2 * HUGE_PAGE + 7,
            3 * HUGE_PAGE - 9,
        ] {
            let mut floats = Aligned::zeros(len);
            assert_eq!(floats.to_vec(), vec![0.0; len]);
            floats.fill(1.0);
            let is_large = 4 * len >= 3 * HUGE_PAGE;
            let start = if is_large { HUGE_PAGE } else { LINE };
            let offset = floats.as_ptr().align_offset(start * size_of::<f32>());
            assert_eq!(offset, 0, "{len}");
            let (memory, start) = floats.into_parts();
            let again = Aligned::from_parts(memory, start, len).map(|floats| floats.to_vec());
            assert_eq!(again, Some(vec![1.0; len]));
        }
    }
}
