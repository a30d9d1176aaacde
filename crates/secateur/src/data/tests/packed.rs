//! CIFAR, IDX and the digits, and files that contradict themselves.

use super::*;

fn open(folder: &Path) -> Result<Dataset, DataError> {
    Dataset::open(folder, &DataOptions::default())
}

/// An MNIST-like folder with 40 training and 20 test images of 3x2, 10 classes.
fn write_idx(folder: &Path, zip: bool) {
    let write = |name: &str, bytes: Vec<u8>| {
        let (name, bytes) = if zip {
            (format!("{name}.gz"), gz(&bytes))
        } else {
            (name.to_owned(), bytes)
        };
        fs::write(folder.join(name), bytes).unwrap();
    };
    let pixels = |n: usize, add: usize| {
        (0..n * 6)
            .map(|at| ((at + add) % 256) as u8)
            .collect::<Vec<_>>()
    };
    let labels = |n: usize| (0..n).map(|at| (at % 10) as u8).collect::<Vec<_>>();
    write("train-images-idx3-ubyte", idx(&[40, 3, 2], &pixels(40, 0)));
    write("train-labels-idx1-ubyte", idx(&[40], &labels(40)));
    write("t10k-images-idx3-ubyte", idx(&[20, 3, 2], &pixels(20, 5)));
    write("t10k-labels-idx1-ubyte", idx(&[20], &labels(20)));
}

#[test]
fn idx_files_are_read_plain_and_zipped() {
    for zip in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        write_idx(folder.path(), zip);
        let data = open(folder.path()).unwrap();
        assert_eq!(data.kind(), DataKind::Idx);
        assert_eq!(data.native_size(), (3, 2, 1));
        assert_eq!(
            (
                data.len(Split::Train),
                data.len(Split::Val),
                data.len(Split::Test)
            ),
            (30, 10, 20)
        );
        assert_eq!(data.classes().len(), 10);
        assert_eq!(
            data.labels(Split::Test),
            (0..20).map(|n| n % 10).collect::<Vec<_>>()
        );
        let test = raw(&data, Split::Test);
        assert_eq!(test[0], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        assert_eq!(test[19], [119.0, 120.0, 121.0, 122.0, 123.0, 124.0]);
    }
}

#[test]
fn labels_that_do_not_start_at_zero_are_classes_by_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    write(
        "emnist-letters-train-images-idx3-ubyte",
        idx(&[4, 1, 1], &[1, 2, 3, 4]),
    );
    write(
        "emnist-letters-train-labels-idx1-ubyte",
        idx(&[4], &[7, 3, 7, 3]),
    );
    write(
        "emnist-letters-test-images-idx3-ubyte",
        idx(&[1, 1, 1], &[9]),
    );
    write("emnist-letters-test-labels-idx1-ubyte", idx(&[1], &[7]));
    let data = open(folder.path()).unwrap();
    assert_eq!(data.classes(), ["3", "7"]);
    assert_eq!(data.labels(Split::Test), [1]);
    write("emnist-letters-test-labels-idx1-ubyte", idx(&[1], &[8]));
    assert!(matches!(
        open(folder.path()),
        Err(DataError::UnknownLabel {
            label: 8,
            index: 0,
            classes: 2,
            ..
        })
    ));
}

#[test]
fn idx_files_that_contradict_themselves_are_errors() {
    let cases: &[(&str, &str, Vec<u8>, &str)] = &[
        (
            "images cut short",
            "train-images-idx3-ubyte",
            idx(&[40, 3, 2], &[0; 100]),
            "more than its 116 bytes can hold",
        ),
        (
            "images too long",
            "train-images-idx3-ubyte",
            idx(&[40, 3, 2], &[0; 241]),
            "240 bytes, but more follow",
        ),
        (
            "header of labels",
            "train-images-idx3-ubyte",
            idx(&[40], &[0; 40]),
            "starts with",
        ),
        (
            "signed bytes",
            "train-labels-idx1-ubyte",
            [vec![0, 0, 9, 1], vec![0; 44]].concat(),
            "starts with",
        ),
        (
            "more images than memory",
            "train-images-idx3-ubyte",
            idx(&[u32::MAX, 1, 1], &[0; 40]),
            "more than 16777216 images",
        ),
        (
            "no images",
            "train-images-idx3-ubyte",
            idx(&[0, 3, 2], &[]),
            "holds nothing",
        ),
        (
            "fewer labels",
            "train-labels-idx1-ubyte",
            idx(&[39], &[0; 39]),
            "39 labels for 40 images",
        ),
        (
            "cut in the header",
            "train-labels-idx1-ubyte",
            vec![0, 0, 8, 1, 0, 0],
            "cannot read",
        ),
        (
            "empty file",
            "t10k-labels-idx1-ubyte",
            vec![],
            "cannot read",
        ),
        (
            "test images of another size",
            "t10k-images-idx3-ubyte",
            idx(&[20, 2, 2], &[0; 80]),
            "the training images 3x2",
        ),
        (
            "huge sizes",
            "train-images-idx3-ubyte",
            idx(&[u32::MAX; 3], &[0; 9]),
            "at most 4294967296 are read",
        ),
        (
            "large sizes",
            "train-images-idx3-ubyte",
            idx(&[1000, 1000, 1000], &[0; 9]),
            "more than its 25 bytes can hold",
        ),
    ];
    for (case, name, bytes, want) in cases {
        let folder = tempfile::tempdir().unwrap();
        write_idx(folder.path(), false);
        fs::write(folder.path().join(name), bytes).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(want) && error.contains(name),
            "{case}: {error}"
        );
    }
}

#[test]
fn zipped_idx_files_are_bounded_by_what_their_header_claims() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), true);
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    // 64 MiB of zeros behind a header that claims 240.
    fs::write(&path, gz(&idx(&[40, 3, 2], &vec![0; 64 << 20]))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("240 bytes, but more follow")
    );
    // A header that claims more than so few bytes can unpack to.
    fs::write(&path, gz(&idx(&[1_000_000, 30, 30], &[0; 10]))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("can hold")
    );
    // Cut in the middle of the stream.
    let whole = gz(&idx(&[40, 3, 2], &(0..240).collect::<Vec<u8>>()));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(open(folder.path()), Err(DataError::Read { .. })));
}

#[test]
fn images_without_labels_are_an_error() {
    for (name, want) in [
        ("train-labels-idx1-ubyte", "`train-labels"),
        ("t10k-labels-idx1-ubyte", "`t10k-labels"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_idx(folder.path(), false);
        fs::remove_file(folder.path().join(name)).unwrap();
        assert!(open(folder.path()).unwrap_err().to_string().contains(want));
    }
}

#[test]
fn cifar10_records_are_label_and_planes() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(folder.path(), 40, 20);
    let data = open(folder.path()).unwrap();
    assert_eq!(data.kind(), DataKind::Cifar10);
    assert_eq!(data.classes()[..2], ["airplane", "automobile"]);
    assert_eq!(data.native_size(), (32, 32, 3));
    assert_eq!(
        (
            data.len(Split::Train),
            data.len(Split::Val),
            data.len(Split::Test)
        ),
        (30, 10, 20)
    );
    // Planes in the file, planes in the network's input: the samples are in the file's order.
    let test = raw(&data, Split::Test);
    assert_eq!(
        test[3],
        (0..3072)
            .map(|at| ((43 + at) % 251) as f32)
            .collect::<Vec<_>>()
    );
    assert_eq!(data.labels(Split::Test)[3], 3);
}

#[test]
fn cifar10_batches_are_read_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for (number, first) in [(10, 40), (2, 20), (1, 0)] {
        let name = format!("data_batch_{number}.bin");
        fs::write(folder.path().join(name), cifar(20, 10, first, false)).unwrap();
    }
    let options = DataOptions {
        val_fraction: 0.0,
        test_fraction: 0.0,
        ..DataOptions::default()
    };
    let data = Dataset::open(folder.path(), &options).unwrap();
    let first: Vec<f32> = raw(&data, Split::Train)
        .iter()
        .map(|image| image[0])
        .collect();
    assert_eq!(first, (0..60).map(|n| n as f32).collect::<Vec<_>>());
    assert!(data.is_empty(Split::Val) && data.is_empty(Split::Test));
}

#[test]
fn cifar100_uses_fine_labels_and_the_names_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.bin"), cifar(200, 100, 0, true)).unwrap();
    fs::write(folder.path().join("test.bin"), cifar(100, 100, 0, true)).unwrap();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.kind(), DataKind::Cifar100);
    assert_eq!(
        (data.classes().len(), data.classes()[99].as_str()),
        (100, "worm")
    );
    assert_eq!(data.labels(Split::Test), (0..100).collect::<Vec<_>>());
    let names: Vec<String> = (0..100).map(|n| format!("class {n}")).collect();
    fs::write(folder.path().join("fine_label_names.txt"), names.join("\n")).unwrap();
    assert_eq!(open(folder.path()).unwrap().classes(), names);
}

#[test]
fn cifar_files_of_other_records_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(folder.path(), 40, 20);
    for bytes in [vec![], vec![0; 3072], vec![0; 3074], vec![0; 3073 * 2 - 1]] {
        fs::write(folder.path().join("test_batch.bin"), &bytes).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, DataError::RecordSize { bytes: n, record: 3073, .. } if *n == bytes.len() as u64),
            "{error}"
        );
    }
    fs::write(
        folder.path().join("test_batch.bin"),
        [vec![10], vec![0; 3072]].concat(),
    )
    .unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(DataError::UnknownLabel {
            label: 10,
            index: 0,
            ..
        })
    ));
}

#[test]
fn one_class_only_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("data_batch_1.bin"),
        cifar(20, 1, 0, false),
    )
    .unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, DataError::OneClass { class, .. } if class == "airplane"),
        "{error}"
    );
}

#[test]
fn folders_without_and_with_two_data_sets_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("class folders")
            && error.contains("idx3")
            && error.contains("found nothing"),
        "{error}"
    );
    fs::write(folder.path().join("readme.txt"), "hello").unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("found no folder and one file, `readme.txt`"),
        "{error}"
    );

    cifar10(folder.path(), 40, 20);
    write_idx(folder.path(), false);
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, DataError::Ambiguous { found, .. } if found == "cifar10, idx"),
        "{error}"
    );
    let named = DataOptions {
        kind: Some(DataKind::Idx),
        ..DataOptions::default()
    };
    assert_eq!(
        Dataset::open(folder.path(), &named).unwrap().kind(),
        DataKind::Idx
    );
    let named = DataOptions {
        kind: Some(DataKind::Cifar100),
        ..DataOptions::default()
    };
    assert!(matches!(
        Dataset::open(folder.path(), &named),
        Err(DataError::Unrecognised { .. })
    ));

    let missing = folder.path().join("absent");
    assert!(matches!(open(&missing), Err(DataError::Read { .. })));
    assert!(matches!(
        open(&folder.path().join("readme.txt")),
        Err(DataError::NotFolder { .. })
    ));
}

#[test]
fn of_a_file_and_its_zipped_form_the_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), false);
    fs::write(folder.path().join("train-images-idx3-ubyte.gz"), "not read").unwrap();
    assert_eq!(open(folder.path()).unwrap().kind(), DataKind::Idx);
    // Two data sets in one folder.
    fs::write(folder.path().join("fashion-train-images-idx3-ubyte"), "").unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(DataError::Ambiguous { .. })
    ));
}

#[test]
fn the_digits_are_the_1797_of_the_repository() {
    let data = Dataset::digits(&DataOptions::default()).unwrap();
    assert_eq!(
        (data.kind(), data.native_size(), data.classes().len()),
        (DataKind::Digits, (8, 8, 1), 10)
    );
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(|split| data.len(split));
    assert_eq!(train + val + test, 1797);
    let mut labels = Vec::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        labels.extend_from_slice(data.labels(split));
    }
    // numpy.bincount(sklearn.datasets.load_digits().target)
    let want = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
    assert_eq!(counts(&labels).into_values().collect::<Vec<_>>(), want);
    let options = DataOptions {
        val_fraction: 0.0,
        test_fraction: 0.0,
        ..DataOptions::default()
    };
    let all = raw(&Dataset::digits(&options).unwrap(), Split::Train);
    // sklearn.datasets.load_digits().data[0, :8] is 0 0 5 13 9 1 0 0, in 17 levels from 0 to 16.
    assert_eq!(all[0][..8], [0.0, 0.0, 80.0, 207.0, 143.0, 16.0, 0.0, 0.0]);
}
