//! IDX files as MNIST and its successors come: a magic number, big-endian sizes, bytes; gzip or not.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::DataError;
use super::packed::{MAX_PACKED_BYTES, Packed};
use super::pixels::MAX_SIDE;
use crate::files::open_regular;

/// The four files of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    train_images: Option<String>,
    train_labels: Option<String>,
    test_images: Option<String>,
    test_labels: Option<String>,
}

/// The IDX files among `names`, `None` without training images. A prefix such as `emnist-letters-` is
/// accepted, and so is `.idx3-ubyte` for `-idx3-ubyte`; of a file and its `.gz`, the file is taken.
///
/// # Errors
/// The names, where two files could each be the training or the test images or labels.
pub(super) fn files(names: &[String]) -> Result<Option<Files>, String> {
    let find = |wanted: &[&str]| -> Result<Option<String>, String> {
        let mut found: BTreeMap<String, &String> = BTreeMap::new();
        for name in names {
            let stem = name.strip_suffix(".gz").unwrap_or(name);
            let plain = stem.replace(".idx", "-idx");
            if wanted.iter().any(|end| plain.ends_with(end)) {
                let taken = found.entry(plain).or_insert(name);
                if !name.ends_with(".gz") {
                    *taken = name;
                }
            }
        }
        if found.len() > 1 {
            let names: Vec<String> = found.values().map(|name| format!("`{name}`")).collect();
            return Err(names.join(" and "));
        }
        Ok(found.into_values().next().cloned())
    };
    let files = Files {
        train_images: find(&["train-images-idx3-ubyte"])?,
        train_labels: find(&["train-labels-idx1-ubyte"])?,
        test_images: find(&["t10k-images-idx3-ubyte", "test-images-idx3-ubyte"])?,
        test_labels: find(&["t10k-labels-idx1-ubyte", "test-labels-idx1-ubyte"])?,
    };
    Ok(files.train_images.is_some().then_some(files))
}

/// Reads the files. Classes are the label values of the training data in order, named by their number.
pub(super) fn read(folder: &Path, files: &Files) -> Result<Packed, DataError> {
    let missing = |what: &str| DataError::Layout {
        path: folder.into(),
        what: format!(
            "IDX images without their labels: `{what}-labels-idx1-ubyte[.gz]` is missing"
        ),
    };
    let Some(train_images) = &files.train_images else {
        return Err(DataError::Layout {
            path: folder.into(),
            what: "no IDX training images".to_owned(),
        });
    };
    let train_labels = files
        .train_labels
        .as_ref()
        .ok_or_else(|| missing("train"))?;
    let mut images = images(&folder.join(train_images))?;
    let values = labels(&folder.join(train_labels), images.count)?;
    let mut named: BTreeMap<u8, usize> = values.iter().map(|&value| (value, 0)).collect();
    for (class, index) in named.values_mut().enumerate() {
        *index = class;
    }
    let classes = named.keys().map(u8::to_string).collect();
    let mut indices: Vec<usize> = values.iter().map(|value| named[value]).collect();
    let train = indices.len();
    if let Some(name) = &files.test_images {
        let path = folder.join(name);
        let test = self::images(&path)?;
        if (test.height, test.width) != (images.height, images.width) {
            return Err(idx(
                &path,
                format!(
                    "its images are {}x{}, the training images {}x{}",
                    test.height, test.width, images.height, images.width
                ),
            ));
        }
        let label_path = folder.join(files.test_labels.as_ref().ok_or_else(|| missing("t10k"))?);
        for (index, value) in labels(&label_path, test.count)?.into_iter().enumerate() {
            indices.push(*named.get(&value).ok_or_else(|| DataError::UnknownLabel {
                path: label_path.clone(),
                label: usize::from(value),
                index,
                classes: named.len(),
            })?);
        }
        images.samples.extend(test.samples);
    }
    Ok(Packed {
        height: images.height,
        width: images.width,
        channels: 1,
        samples: images.samples,
        train,
        has_test: files.test_images.is_some(),
        labels: indices,
        classes,
    })
}

struct Images {
    count: usize,
    height: usize,
    width: usize,
    samples: Vec<u8>,
}

fn images(path: &Path) -> Result<Images, DataError> {
    let (sizes, samples) = open::<3>(path)?;
    let [count, height, width] = sizes;
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(idx(path, format!("images of {height}x{width} pixels")));
    }
    Ok(Images {
        count,
        height,
        width,
        samples,
    })
}

fn labels(path: &Path, images: usize) -> Result<Vec<u8>, DataError> {
    let ([count], labels) = open::<1>(path)?;
    if count != images {
        return Err(idx(path, format!("{count} labels for {images} images")));
    }
    Ok(labels)
}

fn idx(path: &Path, what: String) -> DataError {
    DataError::Idx {
        path: path.into(),
        what,
    }
}

/// Images or labels that a file may hold: each takes more memory than a byte.
const MAX_ITEMS: usize = 1 << 24;

/// The sizes and the bytes of an IDX file of `AXES` axes. What the header claims is checked against
/// the file's size before anything is allocated, and no more than that is ever unpacked.
fn open<const AXES: usize>(path: &Path) -> Result<([usize; AXES], Vec<u8>), DataError> {
    // Deflate cannot shrink data by more than this (zlib's technical notes give 1032:1).
    const MAX_DEFLATE: u64 = 1032;
    let read_error = |source| DataError::Read {
        path: path.into(),
        source,
    };
    let file = open_regular(path).map_err(read_error)?;
    let on_disk = file.metadata().map_err(read_error)?.len();
    let file = BufReader::new(file);
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if zipped {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };

    let mut magic = [0; 4];
    let mut header = [[0; 4]; AXES];
    reader.read_exact(&mut magic).map_err(read_error)?;
    // Two zeros, 8 for unsigned bytes, the number of axes.
    if magic != [0, 0, 8, AXES as u8] {
        return Err(idx(
            path,
            format!(
                "it starts with {magic:?}, not with {:?}",
                [0, 0, 8, AXES as u8]
            ),
        ));
    }
    for size in &mut header {
        reader.read_exact(size).map_err(read_error)?;
    }
    let sizes = header.map(|size| u32::from_be_bytes(size) as usize);
    let claimed = sizes
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let claimed = claimed.unwrap_or(u64::MAX);
    if claimed == 0 {
        return Err(idx(
            path,
            format!("its sizes are {sizes:?}, it holds nothing"),
        ));
    }
    if claimed > MAX_PACKED_BYTES {
        return Err(DataError::TooLarge {
            path: path.into(),
            bytes: claimed,
            limit: MAX_PACKED_BYTES,
        });
    }
    if sizes[0] > MAX_ITEMS {
        return Err(idx(
            path,
            format!("its sizes are {sizes:?}, more than {MAX_ITEMS} images or labels"),
        ));
    }
    let possible = if zipped {
        on_disk.saturating_mul(MAX_DEFLATE)
    } else {
        on_disk
    };
    if claimed > possible {
        return Err(idx(
            path,
            format!("its sizes are {sizes:?}, more than its {on_disk} bytes can hold"),
        ));
    }
    let mut bytes = Vec::new();
    reader
        .take(claimed + 1)
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    if bytes.len() as u64 != claimed {
        let found = if bytes.len() as u64 > claimed {
            "more".to_owned()
        } else {
            bytes.len().to_string()
        };
        return Err(idx(
            path,
            format!("its sizes are {sizes:?}, which is {claimed} bytes, but {found} follow"),
        ));
    }
    Ok((sizes, bytes))
}
