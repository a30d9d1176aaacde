//! What can be wrong with a user's data.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{DataKind, PreprocessError};

/// An image file that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The file.
    pub path: PathBuf,
    /// Why it could not be decoded.
    pub reason: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.path.display(), self.reason)
    }
}

/// A data set that cannot be used, with what was found and what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The user wanted the work to end.
    #[error(transparent)]
    Stopped(#[from] crate::progress::Stopped),
    /// A file or folder that cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `--data` is a file.
    #[error("`{}` is not a folder: data is given as the folder that holds it", path.display())]
    NotFolder {
        /// The path given.
        path: PathBuf,
    },
    /// A folder in which no data set was recognised.
    #[error(
        "no data set in `{}`: looked for {wanted}; found {found}",
        path.display()
    )]
    Unrecognised {
        /// The folder.
        path: PathBuf,
        /// The file names looked for.
        wanted: &'static str,
        /// What the folder holds.
        found: String,
    },
    /// A folder that holds more than one data set.
    #[error("`{}` holds more than one data set: {found}; name the kind, or give each its own folder", path.display())]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The data sets that were recognised.
        found: String,
    },
    /// An image folder whose layout does not say which image has which label.
    #[error("`{}`: {what}", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What was found and what was wanted.
        what: String,
    },
    /// A class without an image.
    #[error("class folder `{}` holds no image: images must lie directly in it", path.display())]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
    },
    /// Fewer than two classes: there is nothing to tell apart.
    #[error(
        "{name} has one class only, `{class}`: at least two are needed (or kind `images`, for images without labels)"
    )]
    OneClass {
        /// The data set.
        name: String,
        /// The only class.
        class: String,
    },
    /// A label that no training image has.
    #[error("`{}`: label {label} of image {index} is not one of the {classes} classes of the training data", path.display())]
    UnknownLabel {
        /// The file with the label.
        path: PathBuf,
        /// The label found.
        label: usize,
        /// The position of the image in the file, from 0.
        index: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A file of fixed-size records whose size is not a multiple of theirs.
    #[error("`{}` has {bytes} bytes, which is no positive multiple of {record}, the size of a {kind} record", path.display())]
    RecordSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The size of one record, bytes.
        record: u64,
        /// The format.
        kind: DataKind,
    },
    /// An IDX file that contradicts itself.
    #[error("`{}` is not a usable IDX file: {what}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What was found and what was wanted.
        what: String,
    },
    /// More data than is ever held in memory.
    #[error("`{}` holds {bytes} bytes; at most {limit} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, or the size that its header claims.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A class that the network does not know.
    #[error("class `{class}` is none of the network's {}: {}", known.len(), known.join(", "))]
    ForeignClass {
        /// The class of the data.
        class: String,
        /// The network's classes.
        known: Vec<String>,
    },
    /// More corrupt images than allowed.
    #[error(
        "{count} of {images} images cannot be decoded, {limit} are allowed (`--max-corrupt`): {}",
        listed(first, *count)
    )]
    TooManyCorrupt {
        /// How many images are corrupt.
        count: usize,
        /// How many images were decoded, the corrupt ones included.
        images: usize,
        /// How many may be corrupt.
        limit: usize,
        /// The first of them.
        first: Vec<Corrupt>,
    },
    /// A class all of whose training images are corrupt.
    #[error("no training image of class `{class}` can be decoded, such as {example}")]
    CorruptClass {
        /// The class.
        class: String,
        /// One of its images.
        example: Corrupt,
    },
    /// An image that could be decoded at first, and cannot now.
    #[error("cannot decode {0}")]
    Image(Corrupt),
    /// An option out of its range.
    #[error("{option} is {got}, but must be {want}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        got: String,
        /// The range.
        want: String,
    },
    /// A preprocessing that cannot be applied.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The thread that prepares batches could not start or did not finish.
    #[error("the thread that prepares batches stopped: {0}")]
    Loader(String),
}

fn listed(first: &[Corrupt], count: usize) -> String {
    let mut text = first
        .iter()
        .map(Corrupt::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if count > first.len() {
        text.push_str(", ...");
    }
    text
}
