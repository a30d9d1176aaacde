//! What the fuzz targets share: one input taken apart into files, and those put into a folder.

use secateur::data::{Augment, DataKind, DataOptions, Dataset, Order, Preprocess, Split};
use std::path::Path;

pub mod run;

/// An input as `N` files: two bytes of length for each but the last, then their bytes one after the
/// other; the last file is what is left. Lengths that are too long take what there is.
#[must_use]
pub fn files<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let header = 2 * (N - 1);
    let (lengths, mut rest) = data.split_at(header.min(data.len()));
    let mut files = [&[][..]; N];
    for (index, file) in files.iter_mut().enumerate() {
        let length = match lengths.get(2 * index..2 * index + 2) {
            Some(pair) if index + 1 < N => usize::from(u16::from_le_bytes([pair[0], pair[1]])),
            _ => rest.len(),
        };
        (*file, rest) = rest.split_at(length.min(rest.len()));
    }
    files
}

/// The inverse of [`files`].
///
/// # Panics
/// Where a file but the last is longer than 65,535 bytes.
#[must_use]
pub fn joined(files: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for file in files.iter().rev().skip(1).rev() {
        let length = u16::try_from(file.len()).expect("a seed is short");
        data.extend(length.to_le_bytes());
    }
    files.iter().for_each(|file| data.extend(*file));
    data
}

/// Opens the data set in a folder and reads all of it as a network would.
///
/// # Panics
/// Where an image does not come in the shape that was asked for, or a label is that of no class.
pub fn read_all(folder: &Path, kind: Option<DataKind>) {
    let options = DataOptions {
        kind,
        cache_bytes: 1 << 20,
        ..DataOptions::default()
    };
    let Ok(dataset) = Dataset::open(folder, &options) else {
        return;
    };
    let preprocess = Preprocess::parse("unit", 8, 8, 3).expect("the preset is known");
    for split in [Split::Train, Split::Val, Split::Test] {
        for batch in dataset.batches(split, &preprocess, Order::Stored, Augment::None, 4) {
            let Ok(batch) = batch else {
                break;
            };
            assert_eq!(batch.images.shape()[1..], [3, 8, 8]);
            let classes = dataset.classes().len();
            assert!(batch.labels.iter().all(|&label| label < classes));
        }
    }
}
