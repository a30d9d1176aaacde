//! Opening: what a folder holds becomes samples, split, and decoded once where they are files.

use super::kind::{idx_files, recognise, unrecognised};
use super::packed::Packed;
use super::split::{self, Sample, Splits};
use super::store::{Source, Store};
use super::{DataError, DataKind, DataOptions, Dataset, Inner};
use super::{cifar, digits, folder, idx};
use crate::progress::{Progress, Silent, Stopped};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

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
            store: Arc::new(Store::new(source, labels.len(), options.cache_bytes)),
            labels: labels_of(&splits),
            splits,
            native_size: (height, width, channels),
            corrupt: Vec::new(),
            ignored: 0,
            seed: options.seed,
            pool: Arc::default(),
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

        // Of what the network is trained on, where there is such: others have no say in its size.
        let n_trained = splits.train.len();
        let (mut n_sized, mut sizes) = (0, Vec::with_capacity(decoded.len()));
        let mut bad = Vec::new();
        for (index, (sample, result)) in used.iter().zip(decoded).enumerate() {
            n_sized += usize::from(index < n_trained && result.is_ok());
            match result {
                Ok(size) => sizes.push(size),
                Err(corrupt) => bad.push((*sample, corrupt)),
            }
        }
        let limit = options
            .max_corrupt
            .unwrap_or_else(|| (used.len() / 100).max(1));
        if bad.len() > limit {
            for (_, corrupt) in &bad {
                progress.note(&format!("cannot decode {corrupt}"));
            }
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
            store: Arc::new(store),
            labels: labels_of(&splits),
            splits,
            native_size: median_size(&sizes, n_sized),
            corrupt: bad.into_iter().map(|(_, corrupt)| corrupt).collect(),
            ignored,
            seed: options.seed,
            pool: Arc::default(),
        }))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
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

pub(super) fn labels_of(splits: &Splits) -> [Vec<usize>; 3] {
    [&splits.train, &splits.val, &splits.test]
        .map(|split| split.iter().map(|sample| sample.label).collect())
}

/// The medians of the first `n` heights and widths (the lower of two), of all where `n` is 0, and the most channels of all.
fn median_size(sizes: &[(usize, usize, usize)], n: usize) -> (usize, usize, usize) {
    let n = if n == 0 { sizes.len() } else { n };
    let median = |of: fn(&(usize, usize, usize)) -> usize| {
        let mut sides: Vec<usize> = sizes.iter().take(n).map(of).collect();
        sides.sort_unstable();
        sides
            .get(sides.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or(1)
    };
    let channels = sizes.iter().map(|size| size.2).max().unwrap_or(1);
    (median(|size| size.0), median(|size| size.1), channels)
}
