//! Data sets whose images all have one size and come in a few files: they are held decoded.

use super::split::{Listing, Sample};

/// The most bytes of one packed data set that are held, decoded.
pub(super) const MAX_PACKED_BYTES: u64 = 4 << 30;

/// A packed data set: first the training images, then the test images.
#[derive(Debug)]
pub(super) struct Packed {
    pub height: usize,
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// `[images, height, width, channels]`.
    pub samples: Vec<u8>,
    /// One class index an image.
    pub labels: Vec<usize>,
    /// How many images are for training.
    pub train: usize,
    /// Whether the data has a test split of its own.
    pub has_test: bool,
    /// The classes' names.
    pub classes: Vec<String>,
}

impl Packed {
    /// Which image is in which split.
    pub(super) fn listing(&self) -> Listing {
        let mut train: Vec<Sample> = self
            .labels
            .iter()
            .enumerate()
            .map(|(item, &label)| Sample { item, label })
            .collect();
        let test = train.split_off(self.train);
        Listing {
            train,
            val: None,
            test: self.has_test.then_some(test),
        }
    }
}
