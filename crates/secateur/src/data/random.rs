//! Random numbers that depend on what they are for, never on when they are drawn.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What random numbers are for. Each purpose reads a ChaCha stream of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Which images of a class are tested on.
    Test { class: usize },
    /// Which images of a class are validated on.
    Val { class: usize },
    /// Which images of a class are used at all.
    Limit { class: usize },
    /// The order of one pass.
    Order { epoch: u64 },
    /// The changes to one image in one pass.
    Augment { epoch: u64, item: usize },
}

/// The generator for `purpose`: `seed` is the key, the purpose chooses stream and position.
pub(super) fn generator(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    // A block of ChaCha has 16 words, more than one image uses.
    const WORDS: u128 = 16;
    let (tag, number, position) = match purpose {
        Purpose::Test { class } => (1, class as u64, 0),
        Purpose::Val { class } => (2, class as u64, 0),
        Purpose::Limit { class } => (3, class as u64, 0),
        Purpose::Order { epoch } => (4, epoch, 0),
        Purpose::Augment { epoch, item } => (5, epoch, item as u128 * WORDS),
    };
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream((tag << 56) | (number & ((1 << 56) - 1)));
    generator.set_word_pos(position);
    generator
}
