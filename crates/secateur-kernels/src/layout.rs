//! How the values of a batch are ordered in memory.

use crate::scratch::with_scratch;
use crate::transpose::transpose;
use rayon::prelude::*;

/// How many images a bundle may have, the best first: as many as fill the registers of a row of sums with the
/// widest instruction set, half or a quarter of them.
pub const BUNDLES: [usize; 3] = [32, 16, 8];

/// The order of a batch's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `[images, channels, height, width]`, the last axis fastest: the order of ONNX.
    #[default]
    Planes,
    /// `[bundles, height, width, channels, images]`: the values of so many images, one of [`BUNDLES`], stand side
    /// by side, so that every kernel reads whole registers, whatever the size of a plane, its borders and steps.
    Bundles(usize),
}

impl Layout {
    /// All orders.
    pub const ALL: [Self; 4] = [
        Self::Planes,
        Self::Bundles(BUNDLES[0]),
        Self::Bundles(BUNDLES[1]),
        Self::Bundles(BUNDLES[2]),
    ];

    /// The best order for a batch of `images`: bundles where they fill them.
    #[must_use]
    pub fn best(images: usize) -> Self {
        let fitting = |bundle: &usize| images > 0 && images.is_multiple_of(*bundle);
        let bundle = BUNDLES.into_iter().find(fitting);
        bundle.map_or(Self::Planes, Self::Bundles)
    }

    /// Whether a batch of `images` can be in this order.
    #[must_use]
    pub fn fits(self, images: usize) -> bool {
        match self {
            Self::Planes => true,
            Self::Bundles(bundle) => BUNDLES.contains(&bundle) && images.is_multiple_of(bundle),
        }
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

/// Brings planes `[images, channels, positions]` into bundles of `bundle` images.
///
/// # Panics
/// Where the lengths differ or are no whole number of bundles.
pub fn to_bundles(bundle: usize, channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    let image = check(bundle, channels, positions, x, y);
    if image == 0 {
        return;
    }
    let block = channels * bundle;
    for (x, y) in x
        .chunks_exact(image * bundle)
        .zip(y.chunks_exact_mut(image * bundle))
    {
        y.par_chunks_mut(POSITIONS * block)
            .enumerate()
            .for_each(|(part, y)| {
                let first = part * POSITIONS;
                for channel in 0..channels {
                    let x = &x[channel * positions + first..];
                    let len = y.len() / block;
                    transpose(x, image, bundle, len, &mut y[channel * bundle..], block);
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

/// Brings bundles of `bundle` images back into planes `[images, channels, positions]`.
///
/// # Panics
/// Where the lengths differ or are no whole number of bundles.
pub fn to_planes(bundle: usize, channels: usize, positions: usize, x: &[f32], y: &mut [f32]) {
    let image = check(bundle, channels, positions, x, y);
    if image == 0 {
        return;
    }
    let block = channels * bundle;
    // Channels of a part.
    let count = (1024 / positions).clamp(1, channels);
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (x, y) in x
        .chunks_exact(image * bundle)
        .zip(y.chunks_exact_mut(image * bundle))
    {
        let first = parts.len();
        for image in y.chunks_exact_mut(image) {
            for (part, planes) in image.chunks_mut(count * positions).enumerate() {
                if parts.len() <= first + part {
                    parts.push(Part {
                        x,
                        first: part * count,
                        planes: Vec::with_capacity(bundle),
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
            let turned = scratch.planes.floats(bundle * len);
            for (channel, turned) in (first..).zip(turned.chunks_exact_mut(bundle * positions)) {
                let x = &x[channel * bundle..];
                transpose(x, block, positions, bundle, turned, positions);
            }
            for (channel, turned) in turned.chunks_exact(bundle * positions).enumerate() {
                for (plane, turned) in planes.iter_mut().zip(turned.chunks_exact(positions)) {
                    plane[channel * positions..][..positions].copy_from_slice(turned);
                }
            }
        });
    });
}

/// Floats of an image.
fn check(bundle: usize, channels: usize, positions: usize, x: &[f32], y: &[f32]) -> usize {
    assert_eq!(x.len(), y.len(), "lengths");
    let layout = Layout::Bundles(bundle);
    Batch { layout, channels }.check(positions, x.len());
    channels * positions
}
