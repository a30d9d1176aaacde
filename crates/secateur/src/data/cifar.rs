//! CIFAR-10 and CIFAR-100 in their binary layout: one or two label bytes, then the red, green and
//! blue planes of a 32x32 image (Krizhevsky 2009).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::packed::{MAX_PACKED_BYTES, Packed};
use super::{DataError, DataKind};
use crate::files::open_regular;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// The training files of `kind` among `names`, in order, and the test file.
pub(super) fn files(kind: DataKind, names: &[String]) -> (Vec<&str>, Option<&str>) {
    let find = |wanted: &str| {
        names
            .iter()
            .map(String::as_str)
            .find(|name| *name == wanted)
    };
    if kind == DataKind::Cifar100 {
        return (find("train.bin").into_iter().collect(), find("test.bin"));
    }
    let mut train: Vec<(u32, &str)> = names
        .iter()
        .filter_map(|name| {
            let number = name
                .strip_prefix("data_batch_")?
                .strip_suffix(".bin")?
                .parse()
                .ok()?;
            Some((number, name.as_str()))
        })
        .collect();
    train.sort_unstable();
    (
        train.into_iter().map(|(_, name)| name).collect(),
        find("test_batch.bin"),
    )
}

/// Reads a folder of binary files. Missing training batches are no error; a missing test file leaves
/// the test split to be carved.
pub(super) fn read(kind: DataKind, folder: &Path, names: &[String]) -> Result<Packed, DataError> {
    let (train, test) = files(kind, names);
    let fine = kind == DataKind::Cifar100;
    let classes = if fine {
        class_names(&folder.join("fine_label_names.txt"), &CIFAR100)
    } else {
        class_names(&folder.join("batches.meta.txt"), &CIFAR10)
    };
    let mut samples = Vec::new();
    let mut labels = Vec::new();
    for name in train {
        records(
            kind,
            &folder.join(name),
            classes.len(),
            &mut samples,
            &mut labels,
        )?;
    }
    let train = labels.len();
    if let Some(name) = test {
        records(
            kind,
            &folder.join(name),
            classes.len(),
            &mut samples,
            &mut labels,
        )?;
    }
    Ok(Packed {
        height: SIDE,
        width: SIDE,
        channels: 3,
        samples,
        train,
        has_test: test.is_some(),
        labels,
        classes,
    })
}

fn records(
    kind: DataKind,
    path: &Path,
    classes: usize,
    samples: &mut Vec<u8>,
    labels: &mut Vec<usize>,
) -> Result<(), DataError> {
    // CIFAR-100 has a coarse label first; the fine one is used.
    let label_bytes = if kind == DataKind::Cifar100 { 2 } else { 1 };
    let record = label_bytes + 3 * PLANE;
    let read_error = |source| DataError::Read {
        path: PathBuf::from(path),
        source,
    };
    let bytes = fs::metadata(path).map_err(read_error)?.len();
    if bytes == 0 || bytes % record as u64 != 0 {
        return Err(DataError::RecordSize {
            path: path.into(),
            bytes,
            record: record as u64,
            kind,
        });
    }
    if bytes.saturating_add(samples.len() as u64) > MAX_PACKED_BYTES {
        return Err(DataError::TooLarge {
            path: path.into(),
            bytes,
            limit: MAX_PACKED_BYTES,
        });
    }
    let file = fs::read(path).map_err(read_error)?;
    samples.reserve(file.len());
    for (index, record) in file.chunks_exact(record).enumerate() {
        let label = usize::from(record[label_bytes - 1]);
        if label >= classes {
            return Err(DataError::UnknownLabel {
                path: path.into(),
                label,
                index,
                classes,
            });
        }
        labels.push(label);
        let planes = &record[label_bytes..];
        for at in 0..PLANE {
            samples.extend([planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
        }
    }
    Ok(())
}

/// The names in `path`, one a line, or the published ones where the file is absent or does not fit.
fn class_names(path: &Path, published: &[&str]) -> Vec<String> {
    // A hundred names take less than a tenth of this.
    const MAX_NAMES_BYTES: u64 = 1 << 14;
    let mut text = String::new();
    let read =
        open_regular(path).and_then(|file| file.take(MAX_NAMES_BYTES).read_to_string(&mut text));
    let listed: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if read.is_ok() && listed.len() == published.len() {
        listed
    } else {
        published.iter().map(|&name| name.to_owned()).collect()
    }
}

const CIFAR10: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

#[rustfmt::skip]
const CIFAR100: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];
