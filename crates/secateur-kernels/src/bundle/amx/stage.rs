//! Values of the source as operands of columns.

use super::meanwhile::Pieces;
use crate::amx::split::{put, split};
use crate::amx::{DEPTH, SIDE};
use crate::bundle::SMALL;
use pulp::x86::V4;
use std::ops::Range;

/// Pairs of channels of a group of 32 that are made ready at a time.
const PAIRS: usize = 4;

/// Sixteen columns of operands: images of a place, or those of two where those fill a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a, const IMAGES: usize> {
    /// All channels of each place.
    pub places: [&'a [[f32; IMAGES]]; 2],
    /// Which 16 images.
    pub half: usize,
    /// Where its operands of the first channels start, in rows of 16 numbers.
    pub at: usize,
}

/// How operands are stored, in rows of 16 numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distances {
    /// From a pair of channels to the next one.
    pub pair: usize,
    /// From a group of 32 channels to the next one.
    pub depth: usize,
}

/// Slots that are being made ready: the parts of some groups of 32 channels.
pub(super) struct Making<'a, const IMAGES: usize, S> {
    simd: V4,
    slots: S,
    depths: Range<usize>,
    distances: Distances,
    values: &'a mut [[u32; SIDE]],
    pieces: Pieces,
    /// What comes next.
    slot: usize,
    current: Option<Slot<'a, IMAGES>>,
    depth: usize,
    pair: usize,
}

impl<'a, const IMAGES: usize, S: Fn(usize) -> Slot<'a, IMAGES>> Making<'a, IMAGES, S> {
    /// So many slots, while the registers run so many steps.
    pub fn new(
        simd: V4,
        slots: (usize, S),
        depths: Range<usize>,
        distances: Distances,
        values: &'a mut [u32],
        steps: usize,
    ) -> Self {
        let (count, slots) = slots;
        Self {
            simd,
            slots,
            distances,
            values: values.as_chunks_mut().0,
            pieces: Pieces::new(count * depths.len() * (SIDE / PAIRS), steps),
            slot: 0,
            current: None,
            depth: depths.start,
            pair: 0,
            depths,
        }
    }

    /// Makes the pieces of a call ready.
    #[inline(always)]
    pub fn next(&mut self) {
        for _ in 0..self.pieces.next() {
            self.make();
        }
    }

    /// Makes all ready that is left.
    pub fn rest(self) {
        self.simd.vectorize(
            #[inline(always)]
            move || {
                // Taken, so that the closure is called as what it is: once.
                let mut own = self;
                for _ in 0..own.pieces.left() {
                    own.make();
                }
            },
        );
    }

    #[inline(always)]
    fn make(&mut self) {
        let slot = match self.current {
            Some(slot) => slot,
            None => {
                let slot = (self.slots)(self.slot);
                self.current = Some(slot);
                slot
            }
        };
        let at = slot.at + (self.depth - self.depths.start) * self.distances.depth;
        let places = [
            &slot.places[0][self.depth * DEPTH..],
            &slot.places[1][self.depth * DEPTH..],
        ];
        let pairs = self.pair..self.pair + PAIRS;
        let target = &mut self.values[at..];
        of_channels(
            self.simd,
            places,
            slot.half,
            pairs,
            self.distances.pair,
            target,
        );
        self.pair += PAIRS;
        if self.pair == SIDE {
            self.pair = 0;
            self.depth += 1;
            if self.depth == self.depths.end {
                self.depth = self.depths.start;
                self.slot += 1;
                self.current = None;
            }
        }
    }
}

/// Writes the parts of some pairs of 32 channels, or of those that there are: rows so many apart.
#[inline(always)]
fn of_channels<const IMAGES: usize>(
    simd: V4,
    places: [&[[f32; IMAGES]]; 2],
    half: usize,
    pairs: Range<usize>,
    row: usize,
    target: &mut [[u32; SIDE]],
) {
    let whole = (
        places[0].first_chunk::<DEPTH>(),
        places[1].first_chunk::<DEPTH>(),
    );
    for pair in pairs {
        let (even, odd) = match whole {
            (Some(a), Some(b)) => (
                lanes([&a[pair], &b[pair]], half),
                lanes([&a[pair + SIDE], &b[pair + SIDE]], half),
            ),
            _ => (
                lanes_of(places, pair, half),
                lanes_of(places, pair + SIDE, half),
            ),
        };
        put(target, pair, row, split(simd, even, odd));
    }
}

/// Those of a channel, or zeros where there is none.
#[inline(always)]
fn lanes_of<const IMAGES: usize>(
    places: [&[[f32; IMAGES]]; 2],
    channel: usize,
    half: usize,
) -> [f32; SIDE] {
    match (places[0].get(channel), places[1].get(channel)) {
        (Some(a), Some(b)) => lanes([a, b], half),
        _ => [0.0; SIDE],
    }
}

/// Sixteen images of a place, or those of two.
#[inline(always)]
fn lanes<const IMAGES: usize>(places: [&[f32; IMAGES]; 2], half: usize) -> [f32; SIDE] {
    if IMAGES == SMALL
        && let Some(a) = places[0].first_chunk::<SMALL>()
        && let Some(b) = places[1].first_chunk::<SMALL>()
    {
        return pulp::cast([*a, *b]);
    }
    let values = places[0][half * SIDE..].first_chunk();
    values.copied().unwrap_or([0.0; SIDE])
}
