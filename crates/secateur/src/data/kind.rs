//! Kinds of data sets, and how the folder of one is recognised.

use super::DataError;
use super::{cifar, folder, idx};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

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

const WANTED: &str = "class folders with images (also below `train`, `val` and `test`), images without labels, `data_batch_*.bin` \
                      (CIFAR-10), `train.bin` (CIFAR-100), `train-images-idx3-ubyte[.gz]` (IDX)";

/// The kind of the data in a folder: the one named, if it is there, else the only one that is.
pub(super) fn recognise(
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

pub(super) fn idx_files(path: &Path, names: &[String]) -> Result<Option<idx::Files>, DataError> {
    idx::files(names).map_err(|found| DataError::Ambiguous {
        path: path.into(),
        found,
    })
}

pub(super) fn unrecognised(path: &Path, entries: &folder::Entries) -> DataError {
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
