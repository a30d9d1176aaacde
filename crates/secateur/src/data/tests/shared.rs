//! The shared data: MNIST, CIFAR-10 and sign digits, where they are at hand.

use std::path::PathBuf;

use super::*;

/// The folder of the shared data, or `None` with a printed reason.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SECATEUR_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: `{}` is absent; set SECATEUR_DATA to the folder of the shared data",
        folder.display()
    );
    None
}

fn all_train(data: &Dataset) -> Vec<usize> {
    counts(&[data.labels(Split::Train), data.labels(Split::Val)].concat())
        .into_values()
        .collect()
}

#[test]
fn mnist_has_60000_and_10000_images_with_numpys_label_counts() {
    let Some(folder) = shared("mnist") else {
        return;
    };
    let data = Dataset::open(&folder, &DataOptions::default()).unwrap();
    assert_eq!(
        (data.kind(), data.native_size()),
        (DataKind::Idx, (28, 28, 1))
    );
    assert_eq!(
        (
            data.len(Split::Train),
            data.len(Split::Val),
            data.len(Split::Test)
        ),
        (54_000, 6_000, 10_000)
    );
    // numpy.bincount of the bytes after the header.
    assert_eq!(
        all_train(&data),
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    );
    let test = counts(data.labels(Split::Test))
        .into_values()
        .collect::<Vec<_>>();
    assert_eq!(
        test,
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    );
}

#[test]
fn cifar10_has_10000_and_10000_images_with_numpys_label_counts_and_sums() {
    let Some(folder) = shared("cifar10") else {
        return;
    };
    let data = Dataset::open(&folder, &DataOptions::default()).unwrap();
    assert_eq!(
        (data.kind(), data.native_size()),
        (DataKind::Cifar10, (32, 32, 3))
    );
    assert_eq!(
        (
            data.len(Split::Train) + data.len(Split::Val),
            data.len(Split::Test)
        ),
        (10_000, 10_000)
    );
    assert_eq!(
        all_train(&data),
        [1019, 975, 999, 1016, 1011, 1030, 947, 986, 1005, 1012]
    );
    assert_eq!(
        counts(data.labels(Split::Test))
            .into_values()
            .collect::<Vec<_>>(),
        [1000; 10]
    );
    let sums: Vec<f32> = raw(&data, Split::Test)[..3]
        .iter()
        .map(|image| image.iter().sum())
        .collect();
    assert_eq!(sums, [635_144.0, 385_400.0, 290_914.0]);
    assert_eq!(
        data.labels(Split::Test)[..10],
        [6, 6, 5, 6, 9, 3, 6, 0, 5, 5]
    );
}

#[test]
fn sign_digits_are_2062_images_in_ten_folders() {
    let Some(folder) = shared("sign-digits") else {
        return;
    };
    let data = Dataset::open(&folder, &DataOptions::default()).unwrap();
    assert_eq!(
        (data.kind(), data.native_size()),
        (DataKind::ImageFolder, (100, 100, 3))
    );
    let labels = [Split::Train, Split::Val, Split::Test]
        .map(|split| data.labels(split))
        .concat();
    // ls | wc -l of each folder.
    let want = [205, 206, 206, 206, 207, 207, 207, 206, 208, 204];
    assert_eq!(counts(&labels).into_values().collect::<Vec<_>>(), want);
    assert!(data.corrupt().is_empty());
    let input = Preprocess::parse("imagenet", 64, 64, 3).unwrap();
    let read: usize = data
        .batches(Split::Test, &input, Order::Stored, Augment::None, 64)
        .map(|batch| batch.unwrap().labels.len())
        .sum();
    assert_eq!(read, data.len(Split::Test));
}
