//! Data sets of labelled images: recognised, split, preprocessed and given in batches.
//!
//! This is where a run begins: [`Dataset::open`] recognises what a folder holds, divides it into
//! training, validation and test images, and decodes every image file once, so that a corrupt one is
//! known before long work starts. [`Dataset::batches`] then gives a split as network input, as
//! [`Preprocess`] says, in parallel and ahead of its use. Everything random depends on a seed, an epoch
//! and the number of an image, never on threads or on how images are grouped to batches.

mod batches;
mod cifar;
mod digits;
mod error;
mod folder;
mod idx;
mod kind;
mod open;
mod options;
mod packed;
mod pixels;
mod preprocess;
mod random;
mod split;
mod store;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

pub use batches::Batches;
pub use error::{Corrupt, DataError};
pub use kind::DataKind;
pub use options::DataOptions;
pub use pixels::Pixels;
pub use preprocess::{
    CLASSES_METADATA_KEY, ChannelOrder, METADATA_KEY, Preprocess, PreprocessError,
    classes_from_metadata, classes_to_metadata, same_classes,
};

pub(crate) use preprocess::MAX_INPUT_SIDE;

use crate::progress::Progress;
use crate::tensor::Floats;
use split::{Sample, Splits};
use store::Store;

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

impl Split {
    /// The name by which the split is given and written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// The order in which a split is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As stored. Random changes are those of the data set's own seed and epoch 0.
    Stored,
    /// Shuffled; the same seed and epoch give the same order.
    Shuffled {
        /// The run's seed.
        seed: u64,
        /// The pass over the data.
        epoch: u64,
    },
}

/// What is changed at random in training images, after resizing. An image's change depends on the
/// seed, the epoch and the image alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Nothing.
    None,
    /// A shift of up to an eighth of the height and width, in whole pixels, each as likely. What comes
    /// in from outside is the mean colour, 0 after normalisation. No flip.
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

/// A data set of images, labelled but for those of [`DataKind::Images`], divided into splits. Clones share the images.
#[derive(Clone, Debug)]
pub struct Dataset {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: DataKind,
    name: String,
    classes: Vec<String>,
    store: Arc<Store>,
    splits: Splits,
    labels: [Vec<usize>; 3],
    native_size: (usize, usize, usize),
    corrupt: Vec<Corrupt>,
    ignored: usize,
    seed: u64,
    /// Threads of its own, so that a caller who waits for a batch inside a pool cannot wait for itself.
    pool: Arc<OnceLock<Option<rayon::ThreadPool>>>,
}

impl Inner {
    fn pool(&self) -> Option<&rayon::ThreadPool> {
        self.pool.get().and_then(Option::as_ref)
    }
}

impl Dataset {
    /// What kind of data this is.
    #[must_use]
    pub fn kind(&self) -> DataKind {
        self.inner.kind
    }

    /// The name of the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether the images' classes are known.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        self.inner.kind != DataKind::Images
    }

    /// The classes' names, by class index.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.inner.classes
    }

    /// The same images, their labels being the places of their classes in `names`.
    ///
    /// # Errors
    /// [`DataError::ForeignClass`] where `names` lack a class of the data.
    pub fn numbered_as(&self, names: &[String]) -> Result<Self, DataError> {
        let place = |class: &String| {
            let found = names.iter().position(|name| name == class);
            found.ok_or_else(|| DataError::ForeignClass {
                class: class.clone(),
                known: names.to_vec(),
            })
        };
        let places: Vec<usize> = self.classes().iter().map(place).collect::<Result<_, _>>()?;
        let mut inner = (*self.inner).clone();
        let splits = &mut inner.splits;
        for split in [&mut splits.train, &mut splits.val, &mut splits.test] {
            for sample in split {
                sample.label = places[sample.label];
            }
        }
        inner.labels = open::labels_of(&inner.splits);
        inner.classes = names.to_vec();
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What the images of a split are, in stored order: paths of files, or numbers that count the
    /// training images of packed data from 0 and go on with its test images.
    #[must_use]
    pub fn members(&self, split: Split) -> Vec<String> {
        let samples = match split {
            Split::Train => &self.inner.splits.train,
            Split::Val => &self.inner.splits.val,
            Split::Test => &self.inner.splits.test,
        };
        let name = |sample: &Sample| self.inner.store.name(sample.item);
        samples.iter().map(name).collect()
    }

    /// The class index of each image of a split, in stored order.
    #[must_use]
    pub fn labels(&self, split: Split) -> &[usize] {
        &self.inner.labels[split as usize]
    }

    /// The number of images of a split.
    #[must_use]
    pub fn len(&self, split: Split) -> usize {
        self.samples(split).len()
    }

    /// Whether a split has no image: validation and test can be empty.
    #[must_use]
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }

    /// `(height, width, channels)` of the stored images. For image folders height and width are the
    /// medians, and there are 3 channels where any image has colour, else 1.
    #[must_use]
    pub fn native_size(&self) -> (usize, usize, usize) {
        self.inner.native_size
    }

    /// The image files that could not be decoded and were left out.
    #[must_use]
    pub fn corrupt(&self) -> &[Corrupt] {
        &self.inner.corrupt
    }

    /// How many files and folders were passed over: hidden, no image by their name, or nested deeper.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.inner.ignored
    }

    /// The images of a split as network input, `batch_size` at a time (0 counts as 1), the last batch
    /// with what is left. They are prepared by a thread of their own, ahead of their use, on as many
    /// threads as the caller's pool has.
    ///
    /// What the iterator gives is a function of the arguments alone. An error (a file that can no
    /// longer be decoded, a preprocessing that cannot be applied) is its last item.
    #[must_use]
    pub fn batches(
        &self,
        split: Split,
        preprocess: &Preprocess,
        order: Order,
        augment: Augment,
        batch_size: usize,
    ) -> Batches {
        self.inner.pool.get_or_init(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(rayon::current_num_threads())
                .thread_name(|n| format!("secateur-data-{n}"))
                .build()
                .ok()
        });
        let (samples, seed, epoch) =
            batches::ordered(self.samples(split).to_vec(), order, self.inner.seed);
        batches::start(batches::Pass {
            data: Arc::clone(&self.inner),
            preprocess: preprocess.clone(),
            augment,
            seed,
            epoch,
            samples,
            batch_size: batch_size.max(1),
        })
    }

    fn samples(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.inner.splits.train,
            Split::Val => &self.inner.splits.val,
            Split::Test => &self.inner.splits.test,
        }
    }
}

/// A batch of which the progress tells, unless the work is to end before it.
///
/// # Errors
/// That of the batch, or [`DataError::Stopped`].
pub fn counted_batch(
    batch: Result<Batch, DataError>,
    progress: &dyn Progress,
) -> Result<Batch, DataError> {
    let batch = batch?;
    progress.go_on()?;
    progress.advance(batch.labels.len() as u64);
    Ok(batch)
}
