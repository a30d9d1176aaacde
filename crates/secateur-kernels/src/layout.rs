//! How the values of a batch are ordered in memory.

use crate::scratch::with_scratch;
use crate::transpose::transpose;
use rayon::prelude::*;

/// Images of a bundle: as many as fill the registers of a row of sums with the widest instruction set.
pub const BUNDLE: usize = 32;

/// The order of a batch's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `[images, channels, height, width]`, the last axis fastest: the order of ONNX.
    #[default]
    Planes,
    /// `[bundles, height, width, channels, BUNDLE]`: the values of [`BUNDLE`] images stand side by side, so
    /// that every kernel reads whole registers, whatever the size of a plane, its borders and steps.
    Bundles,
}

impl Layout {
    /// Whether a batch of `images` can be in this order.
    #[must_use]
    pub fn fits(self, images: usize) -> bool {
        self == Self::Planes || images.is_multiple_of(BUNDLE)
    }
}

/// How a batch's values are ordered, and how many channels they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The order.
    pub layout: Layout,
    /// Channels of an image.
    pub channels: usize,
}

impl Batch {
    pub(crate) fn check(self, positions: usize, len: usize) {
        let image = self.channels * positions;
        let is_whole = len == 0 || image > 0 && len.is_multiple_of(image);
        assert!(
            self.layout == Layout::Planes || is_whole && self.layout.fits(len / image.max(1)),
            "{len} values are no whole number of bundles of {} x {positions}",
            self.channels
        );
    }
}

/// Positions that are turned at a time.
const POSITIONS: usize = 64;

/// Brings planes `[images, channels, positions]` into bundles.
///
/// # Panics
/// Where the lengths differ or are no whole number of bundles.
pub fn to_bundles(channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    let image = check(channels, positions, x, y);
    if image == 0 {
        return;
    }
    let block = channels * BUNDLE;
    for (x, y) in x
        .chunks_exact(image * BUNDLE)
        .zip(y.chunks_exact_mut(image * BUNDLE))
    {
        y.par_chunks_mut(POSITIONS * block)
            .enumerate()
            .for_each(|(part, y)| {
                let first = part * POSITIONS;
                for channel in 0..channels {
                    let x = &x[channel * positions + first..];
                    let len = y.len() / block;
                    transpose(x, image, BUNDLE, len, &mut y[channel * BUNDLE..], block);
                }
            });
    }
}

/// Some channels of a bundle.
struct Part<'a> {
    /// The bundle.
    x: &'a [f32],
    /// The first channel.
    first: usize,
    /// For each image the planes of those channels.
    planes: Vec<&'a mut [f32]>,
}

/// Brings bundles back into planes `[images, channels, positions]`.
///
/// # Panics
/// Where the lengths differ or are no whole number of bundles.
pub fn to_planes(channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    let image = check(channels, positions, x, y);
    if image == 0 {
        return;
    }
    let block = channels * BUNDLE;
    // Channels of a part.
    let count = (1024 / positions).clamp(1, channels);
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (x, y) in x
        .chunks_exact(image * BUNDLE)
        .zip(y.chunks_exact_mut(image * BUNDLE))
    {
        let first = parts.len();
        for image in y.chunks_exact_mut(image) {
            for (part, planes) in image.chunks_mut(count * positions).enumerate() {
                if parts.len() <= first + part {
                    parts.push(Part {
                        x,
                        first: part * count,
                        planes: Vec::with_capacity(BUNDLE),
                    });
                }
                parts[first + part].planes.push(planes);
            }
        }
    }
    parts.into_par_iter().for_each(|part| {
        let Part {
            x,
            first,
            mut planes,
        } = part;
        let len = planes.first().map_or(0, |planes| planes.len());
        with_scratch(|scratch| {
            let turned = scratch.planes.floats(BUNDLE * len);
            for (channel, turned) in (first..).zip(turned.chunks_exact_mut(BUNDLE * positions)) {
                let x = &x[channel * BUNDLE..];
                transpose(x, block, positions, BUNDLE, turned, positions);
            }
            for (channel, turned) in turned.chunks_exact(BUNDLE * positions).enumerate() {
                for (plane, turned) in planes.iter_mut().zip(turned.chunks_exact(positions)) {
                    plane[channel * positions..][..positions].copy_from_slice(turned);
                }
            }
        });
    });
}

/// Floats of an image.
fn check(channels: usize, positions: usize, x: &[f32], y: &[f32]) -> usize {
    assert_eq!(x.len(), y.len(), "lengths");
    let layout = Layout::Bundles;
    Batch { layout, channels }.check(positions, x.len());
    channels * positions
}
