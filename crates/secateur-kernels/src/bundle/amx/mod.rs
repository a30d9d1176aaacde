//! Convolutions of bundles in matrix registers: a step of a block of sums is 32 channels of a tap.

mod correlate;
mod finished;
mod gradient;
mod meanwhile;
mod operands;
mod plan;
mod pointwise;
mod stage;
mod weights;

use super::SMALL;
use super::block::Turned;
use super::geometry::Correlation;
use super::winograd;
use crate::amx::{Amx, DEPTH, SIDE, Tiles};
use crate::level;
use crate::scratch::{Scratch, with_scratch};
pub(super) use correlate::correlate;
pub(super) use gradient::gradient;
use rayon::prelude::*;

// What shapes are weighed by, measured on an Intel Xeon: each in products that are computed one by one.

/// The time of a product in matrix registers, in tenths.
const PRODUCT: usize = 5;
/// The time of a value that is made ready or written, where each position reads one place alone.
const VALUE: usize = 12;
/// The same where positions share places: those of neighbours are made ready more than once, and nothing is multiplied meanwhile.
const SHARED: usize = 60;
/// The time of a value that is made ready for the gradient of a weight, and of one that is turned before.
const STILL: usize = 4;
const TURNED: usize = 16;
/// The time of a weight that is packed.
const WEIGHT: usize = 64;
/// How many times as fast minimal filtering is as products one by one, in tenths, and with few images.
const SAVED: usize = 15;
const SAVED_OF_FEW: usize = 13;
/// Taps of the largest kernel: what is kept for each stays small.
const TAPS: usize = 49;
/// Numbers of the largest gradient of a weight: sums are kept of all of them.
const LARGEST: usize = 1 << 24;

/// The matrix registers, where products in them take less time than otherwise. Weights that are kept packed take none.
pub(super) fn for_correlation(c: &Correlation, is_kept: bool) -> Option<Amx> {
    let (amx, is_forced) = level::amx().filter(|_| fits(c))?;
    (is_forced || is_faster(c, is_kept)).then_some(amx)
}

/// The same for the gradient of the weight.
pub(super) fn for_gradient(c: &Correlation) -> Option<Amx> {
    let (amx, is_forced) = level::amx().filter(|_| fits(c))?;
    let wide = |channels: usize| channels.next_multiple_of(2 * SIDE);
    let is_small = wide(c.channels) * wide(c.outputs) * c.taps() <= LARGEST;
    (is_small && (is_forced || gradient_is_faster(c))).then_some(amx)
}

/// Runs `work` with each part of it, on all threads, with a thread's buffers and its registers.
fn each_part<P: Send>(
    amx: Amx,
    parts: Vec<P>,
    work: impl Fn(P, &mut Tiles, &mut Scratch) + Send + Sync,
) {
    parts.into_par_iter().for_each(|part| {
        with_scratch(|scratch| amx.with_tiles(|tiles| work(part, tiles, scratch)));
    });
}

/// What is compiled for each number of images of a bundle.
trait OfImages {
    fn run<const IMAGES: usize>(self, tiles: &mut Tiles, scratch: &mut Scratch);
}

fn run(images: usize, work: impl OfImages, tiles: &mut Tiles, scratch: &mut Scratch) {
    match images {
        SMALL => work.run::<SMALL>(tiles, scratch),
        16 => work.run::<16>(tiles, scratch),
        _ => work.run::<32>(tiles, scratch),
    }
}

fn fits(c: &Correlation) -> bool {
    c.groups == 1 && c.taps() <= TAPS
}

/// The time that is otherwise taken for an image.
fn products(c: &Correlation, is_by_patches: bool) -> usize {
    let products = c.reads() * c.channels * c.outputs;
    match is_by_patches {
        true if c.images == SMALL => 10 * products / SAVED_OF_FEW,
        true => 10 * products / SAVED,
        false => products,
    }
}

/// Whether products in matrix registers take less time than those one by one.
fn is_faster(c: &Correlation, is_kept: bool) -> bool {
    let (channels, outputs) = (
        c.channels.next_multiple_of(DEPTH),
        c.outputs.next_multiple_of(SIDE),
    );
    let value = if c.taps() == 1 { VALUE } else { SHARED };
    let own = PRODUCT * c.reads() * channels * outputs / 10
        + value * (c.places() * c.channels + c.positions() * c.outputs);
    let weights = c.taps_in_use().iter().filter(|used| **used).count() * channels * outputs;
    let packing = if is_kept { 0 } else { WEIGHT * weights };
    let lanes = c.bundles * c.images;
    lanes * own + packing < lanes * products(c, winograd::is_faster(c))
}

/// Whether they do for the gradient of the weight.
fn gradient_is_faster(c: &Correlation) -> bool {
    let wide = |channels: usize| channels.next_multiple_of(SIDE);
    let (still, turned) = match gradient::turned(c) {
        Turned::Input => (c.outputs, c.channels),
        Turned::Output => (c.channels, c.outputs),
    };
    let reads = c.positions() * c.taps();
    let own = PRODUCT * reads * wide(c.channels) * wide(c.outputs) / 10
        + STILL * reads * still
        + TURNED * c.positions() * turned;
    own < products(c, winograd::gradient_is_faster(c))
}
