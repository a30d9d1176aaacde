//! Data sets of labelled images, their splits, preprocessing and batches.

mod preprocess;

pub use preprocess::{ChannelOrder, Preprocess, PreprocessError};

use crate::tensor::Floats;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Trained on.
    Train,
    /// Chosen by: budgets, early stopping.
    Val,
    /// Used once, for the final number.
    Test,
}

/// The order in which a split is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As stored.
    Stored,
    /// Shuffled; the same seed and epoch give the same order.
    Shuffled {
        /// The run's seed.
        seed: u64,
        /// The pass over the data.
        epoch: u64,
    },
}

/// What is changed at random in training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Augment {
    /// Nothing.
    None,
    /// A shift of up to an eighth of the size (padded with the edge's mean colour) and no flip.
    Crop,
    /// As `Crop`, and a left-right flip with probability one half.
    CropFlip,
}

/// Preprocessed images and their labels.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[images, channels, height, width]`.
    pub images: Floats,
    /// Class indices.
    pub labels: Vec<usize>,
}
