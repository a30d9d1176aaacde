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
mod packed;
mod pixels;
mod preprocess;
mod random;
mod split;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use batches::Batches;
pub use error::{Corrupt, DataError};
pub use pixels::Pixels;
pub use preprocess::{
    CLASSES_METADATA_KEY, ChannelOrder, METADATA_KEY, Preprocess, PreprocessError,
    classes_from_metadata, classes_to_metadata,
};

use crate::progress::{Progress, Silent, Stopped};
use crate::tensor::Floats;
use packed::Packed;
use split::{Sample, Splits};
use store::{Source, Store};

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

/// The kind of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataKind {
    /// One folder of images a class, with or without `train`, `val` and `test` above them.
    ImageFolder,
    /// Images without labels, in the folder and in folders below it: all of one class that says nothing.
    Images,
    /// CIFAR-10, binary.
    Cifar10,
    /// CIFAR-100, binary; fine labels.
    Cifar100,
    /// IDX files, as MNIST comes; gzip or not.
    Idx,
    /// The 1,797 handwritten digits that come with secateur.
    Digits,
}

impl DataKind {
    const ALL: [Self; 6] = [
        Self::ImageFolder,
        Self::Images,
        Self::Cifar10,
        Self::Cifar100,
        Self::Idx,
        Self::Digits,
    ];

    /// The name by which the kind can be given.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageFolder => "image-folder",
            Self::Images => "images",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Idx => "idx",
            Self::Digits => "digits",
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataKind {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| DataError::Option {
                option: "the kind of data",
                got: format!("`{text}`"),
                want: Self::ALL.map(|kind| format!("`{kind}`")).join(", "),
            })
    }
}

/// How a data set is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct DataOptions {
    /// What the folder holds; recognised where it is not given.
    pub kind: Option<DataKind>,
    /// The share of each class's training images that is validated on, from 0 to under 1. Not used
    /// where the data has a validation split.
    pub val_fraction: f64,
    /// The share of each class's images that is tested on, from 0 to under 1. Not used where the data
    /// has a test split.
    pub test_fraction: f64,
    /// Chooses the images of the splits.
    pub seed: u64,
    /// The most training images, validation images included; classes keep their shares.
    pub limit: Option<usize>,
    /// How many images may be corrupt; 1 % of the images, and at least 1, where it is not given.
    pub max_corrupt: Option<usize>,
    /// The memory that decoded and resized images may take beside the data's own files, bytes.
    pub cache_bytes: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            kind: None,
            val_fraction: 0.1,
            test_fraction: 0.2,
            seed: 0,
            limit: None,
            max_corrupt: None,
            cache_bytes: 2 << 30,
        }
    }
}

impl DataOptions {
    fn check(&self) -> Result<(), DataError> {
        for (option, fraction) in [
            ("the share of validation images", self.val_fraction),
            ("the share of test images", self.test_fraction),
        ] {
            if !(0.0..1.0).contains(&fraction) {
                return Err(DataError::Option {
                    option,
                    got: fraction.to_string(),
                    want: "from 0 to under 1".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// A data set of images, labelled but for those of [`DataKind::Images`], divided into splits. Clones share the images.
#[derive(Clone, Debug)]
pub struct Dataset {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: DataKind,
    name: String,
    classes: Vec<String>,
    store: Store,
    splits: Splits,
    labels: [Vec<usize>; 3],
    native_size: (usize, usize, usize),
    corrupt: Vec<Corrupt>,
    ignored: usize,
    seed: u64,
    /// Threads of its own, so that a caller who waits for a batch inside a pool cannot wait for itself.
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

impl Inner {
    fn pool(&self) -> Option<&rayon::ThreadPool> {
        self.pool.get().and_then(Option::as_ref)
    }
}

const WANTED: &str = "class folders with images (also below `train`, `val` and `test`), images without labels, `data_batch_*.bin` \
                      (CIFAR-10), `train.bin` (CIFAR-100), `train-images-idx3-ubyte[.gz]` (IDX)";

impl Dataset {
    /// Opens the data set in a folder; [`Dataset::open_with`] without progress.
    ///
    /// # Errors
    /// Those of [`Dataset::open_with`].
    pub fn open(path: &Path, options: &DataOptions) -> Result<Self, DataError> {
        Self::open_with(path, options, &Silent)
    }

    /// Opens the data set in a folder and divides it.
    ///
    /// Where the data has no test split, one is carved from the training images; then they are cut to
    /// the limit; then, where the data has no validation split, one is carved from what is left. Each
    /// step keeps the shares of the classes and leaves at least one image of a class on either side
    /// where it can. The validation split is never taken from the test split.
    ///
    /// Every image file of the splits is decoded here once. Corrupt ones are left out of their split,
    /// without any effect on where the others are, and are listed by [`Dataset::corrupt`]. Where the
    /// path is not read because `options.kind` is [`DataKind::Digits`], it may be anything.
    ///
    /// # Errors
    /// [`DataError`]: nothing or more than one thing recognised, a file that contradicts itself, one
    /// class only, more corrupt images than allowed, an option out of its range.
    pub fn open_with(
        path: &Path,
        options: &DataOptions,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        options.check()?;
        if options.kind == Some(DataKind::Digits) {
            return Self::digits(options);
        }
        let read_error = |source| DataError::Read {
            path: path.into(),
            source,
        };
        if !fs::metadata(path).map_err(read_error)?.is_dir() {
            return Err(DataError::NotFolder { path: path.into() });
        }
        let entries = folder::entries(path)?;
        let name = fs::canonicalize(path)
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| path.display().to_string());
        match recognise(path, &entries, options.kind)? {
            kind @ DataKind::ImageFolder => {
                Self::images(kind, name, folder::list(path, &entries)?, options, progress)
            }
            kind @ DataKind::Images => {
                let files = folder::without_labels(path)?;
                Self::images(kind, name, files, options, progress)
            }
            kind @ (DataKind::Cifar10 | DataKind::Cifar100) => Self::packed(
                kind,
                name,
                cifar::read(kind, path, &entries.files)?,
                options,
            ),
            DataKind::Idx => match idx_files(path, &entries.files)? {
                Some(files) => Self::packed(DataKind::Idx, name, idx::read(path, &files)?, options),
                None => Err(unrecognised(path, &entries)),
            },
            DataKind::Digits => Self::digits(options),
        }
    }

    /// The 1,797 handwritten digits of the UCI repository, 8x8 grey, that come with secateur.
    ///
    /// # Errors
    /// [`DataError::Option`] if an option is out of its range.
    pub fn digits(options: &DataOptions) -> Result<Self, DataError> {
        options.check()?;
        Self::packed(
            DataKind::Digits,
            "digits".to_owned(),
            digits::read(),
            options,
        )
    }

    fn packed(
        kind: DataKind,
        name: String,
        packed: Packed,
        options: &DataOptions,
    ) -> Result<Self, DataError> {
        let listing = packed.listing();
        several_classes(&name, &packed.classes, &listing.train)?;
        let splits = split::divide(listing, packed.classes.len(), options)?;
        let Packed {
            height,
            width,
            channels,
            samples,
            labels,
            classes,
            ..
        } = packed;
        let source = Source::Packed {
            height,
            width,
            channels,
            samples,
        };
        Ok(Self::new(Inner {
            kind,
            name,
            classes,
            store: Store::new(source, labels.len(), options.cache_bytes),
            labels: labels_of(&splits),
            splits,
            native_size: (height, width, channels),
            corrupt: Vec::new(),
            ignored: 0,
            seed: options.seed,
            pool: OnceLock::new(),
        }))
    }

    fn images(
        kind: DataKind,
        name: String,
        files: folder::Files,
        options: &DataOptions,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        let folder::Files {
            classes,
            paths,
            listing,
            ignored,
        } = files;
        if kind != DataKind::Images {
            several_classes(&name, &classes, &listing.train)?;
        }
        let mut splits = split::divide(listing, classes.len(), options)?;
        let images = paths.len();
        let store = Store::new(Source::Files(paths), images, options.cache_bytes);
        let used: Vec<Sample> = [&splits.train, &splits.val, &splits.test]
            .into_iter()
            .flatten()
            .copied()
            .collect();

        progress.begin("decoding images", used.len() as u64);
        let decoded: Vec<_> = used
            .par_iter()
            .map(|sample| {
                progress.go_on()?;
                let size = store.check(sample.item);
                progress.advance(1);
                Ok(size)
            })
            .collect::<Result<_, Stopped>>()?;
        progress.end();

        let mut sizes = Vec::with_capacity(decoded.len());
        let mut bad = Vec::new();
        for (sample, result) in used.iter().zip(decoded) {
            match result {
                Ok(size) => sizes.push(size),
                Err(corrupt) => bad.push((*sample, corrupt)),
            }
        }
        let limit = options
            .max_corrupt
            .unwrap_or_else(|| (used.len() / 100).max(1));
        if bad.len() > limit {
            // Enough to see what they have in common.
            let first = bad
                .iter()
                .take(5)
                .map(|(_, corrupt)| corrupt.clone())
                .collect();
            return Err(DataError::TooManyCorrupt {
                count: bad.len(),
                images: used.len(),
                limit,
                first,
            });
        }
        let items: BTreeSet<usize> = bad.iter().map(|(sample, _)| sample.item).collect();
        for split in [&mut splits.train, &mut splits.val, &mut splits.test] {
            split.retain(|sample| !items.contains(&sample.item));
        }
        let trained: BTreeSet<usize> = splits.train.iter().map(|sample| sample.label).collect();
        for (sample, corrupt) in &bad {
            progress.note(&format!("skipped {corrupt}"));
            if !trained.contains(&sample.label) {
                return Err(DataError::CorruptClass {
                    class: classes[sample.label].clone(),
                    example: corrupt.clone(),
                });
            }
        }
        if ignored > 0 {
            progress.note(&format!(
                "passed over {ignored} files or folders that are not images{}",
                if kind == DataKind::Images {
                    ""
                } else {
                    " of a class"
                }
            ));
        }
        Ok(Self::new(Inner {
            kind,
            name,
            classes,
            store,
            labels: labels_of(&splits),
            splits,
            native_size: median_size(&sizes),
            corrupt: bad.into_iter().map(|(_, corrupt)| corrupt).collect(),
            ignored,
            seed: options.seed,
            pool: OnceLock::new(),
        }))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

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

/// The kind of the data in a folder: the one named, if it is there, else the only one that is.
fn recognise(
    path: &Path,
    entries: &folder::Entries,
    named: Option<DataKind>,
) -> Result<DataKind, DataError> {
    let cifar = |kind| !cifar::files(kind, &entries.files).0.is_empty();
    let mut found = Vec::new();
    for kind in named.map_or(DataKind::ALL.to_vec(), |kind| vec![kind]) {
        let there = match kind {
            DataKind::ImageFolder => folder::recognise(path, entries)?,
            DataKind::Images => named.is_some(),
            DataKind::Cifar10 | DataKind::Cifar100 => cifar(kind),
            DataKind::Idx => idx_files(path, &entries.files)?.is_some(),
            DataKind::Digits => false,
        };
        if there {
            found.push(kind);
        }
    }
    match found.as_slice() {
        // Images beside anything else are passed over, so they come last.
        [] if folder::is_flat(entries) => Ok(DataKind::Images),
        [] => Err(unrecognised(path, entries)),
        [kind] => Ok(*kind),
        several => Err(DataError::Ambiguous {
            path: path.into(),
            found: several
                .iter()
                .map(DataKind::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn idx_files(path: &Path, names: &[String]) -> Result<Option<idx::Files>, DataError> {
    idx::files(names).map_err(|found| DataError::Ambiguous {
        path: path.into(),
        found,
    })
}

fn unrecognised(path: &Path, entries: &folder::Entries) -> DataError {
    let named = |names: &[String], one: &str, several: &str| match names {
        [] => format!("no {one}"),
        [name] => format!("one {one}, `{name}`"),
        [first, ..] => format!("{} {several} such as `{first}`", names.len()),
    };
    let found = if entries.folders.is_empty() && entries.files.is_empty() {
        "nothing".to_owned()
    } else {
        format!(
            "{} and {}",
            named(&entries.folders, "folder", "folders"),
            named(&entries.files, "file", "files")
        )
    };
    DataError::Unrecognised {
        path: path.into(),
        wanted: WANTED,
        found,
    }
}

fn several_classes(name: &str, classes: &[String], train: &[Sample]) -> Result<(), DataError> {
    match train.first() {
        Some(first) if train.iter().all(|sample| sample.label == first.label) => {
            Err(DataError::OneClass {
                name: format!("`{name}`"),
                class: classes[first.label].clone(),
            })
        }
        _ => Ok(()),
    }
}

fn labels_of(splits: &Splits) -> [Vec<usize>; 3] {
    [&splits.train, &splits.val, &splits.test]
        .map(|split| split.iter().map(|sample| sample.label).collect())
}

/// The medians of heights and widths (the lower of two), and the most channels.
fn median_size(sizes: &[(usize, usize, usize)]) -> (usize, usize, usize) {
    let median = |of: fn(&(usize, usize, usize)) -> usize| {
        let mut sides: Vec<usize> = sizes.iter().map(of).collect();
        sides.sort_unstable();
        sides
            .get(sides.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or(1)
    };
    let channels = sizes.iter().map(|size| size.2).max().unwrap_or(1);
    (median(|size| size.0), median(|size| size.1), channels)
}
