//! Image folders: layouts, corrupt files, and every kind of image file.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Mutex;

use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage,
    RgbaImage,
};

use super::*;

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encoded(image, ImageFormat::Png)
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A 3x2 image all of one colour.
fn plain(red: u8) -> RgbImage {
    RgbImage::from_pixel(3, 2, Rgb([red, 0, 0]))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `count` images in a class folder, each of a colour of its own, from `first` on.
fn class(folder: &Path, name: &str, count: u8, first: u8) {
    for n in 0..count {
        write(
            folder,
            &format!("{name}/{n:03}.png"),
            &png(plain(first + n)),
        );
    }
}

fn open(folder: &Path) -> Result<Dataset, DataError> {
    Dataset::open(folder, &DataOptions::default())
}

/// The red of each image of a split.
fn reds(data: &Dataset, split: Split) -> Vec<u8> {
    raw(data, split)
        .iter()
        .map(|image| image[0] as u8)
        .collect()
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn class_folders_without_splits_are_divided() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "dog", 20, 100);
    class(folder.path(), "cat", 10, 0);
    let data = open(folder.path()).unwrap();
    assert_eq!(
        (data.kind(), data.native_size()),
        (DataKind::ImageFolder, (2, 3, 3))
    );
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!(
        data.name(),
        folder.path().file_name().unwrap().to_str().unwrap()
    );
    assert_eq!(counts(data.labels(Split::Test)), [(0, 2), (1, 4)].into());
    // A tenth of the 8 and 16 that are left.
    assert_eq!(counts(data.labels(Split::Val)), [(0, 1), (1, 2)].into());
    let mut all = Vec::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        let reds = reds(&data, split);
        let labels: Vec<usize> = reds.iter().map(|red| usize::from(*red >= 100)).collect();
        assert_eq!(data.labels(split), labels);
        all.extend(reds);
    }
    all.sort_unstable();
    assert_eq!(all, (0..10).chain(100..120).collect::<Vec<_>>());
}

#[test]
fn images_that_lie_in_the_folder_itself_have_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), ".", 20, 100);
    let data = open(folder.path()).unwrap();
    assert_eq!((data.kind(), data.has_labels()), (DataKind::Images, false));
    let lengths = [Split::Train, Split::Val, Split::Test].map(|split| data.len(split));
    assert_eq!(lengths, [14, 2, 4]);
    // Class folders beside them are what counts, unless labels are not wanted.
    class(folder.path(), "dog", 10, 0);
    class(folder.path(), "deep/er", 10, 0);
    class(folder.path(), "cat", 10, 0);
    let named = DataOptions {
        kind: Some(DataKind::Images),
        ..DataOptions::default()
    };
    let all = Dataset::open(folder.path(), &named).unwrap();
    let length: usize = [Split::Train, Split::Val, Split::Test]
        .iter()
        .map(|&s| all.len(s))
        .sum();
    assert_eq!(length, 50);
    fs::remove_dir_all(folder.path().join("deep")).unwrap();
    assert_eq!(open(folder.path()).unwrap().kind(), DataKind::ImageFolder);
}

#[test]
fn splits_of_the_data_are_used_and_missing_ones_carved() {
    for (val_name, test_name) in [
        ("val", "test"),
        ("Valid", "Test"),
        ("validation", "testing"),
        ("-", "test"),
        ("val", "-"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (split, first) in [("train", 0), (val_name, 50), (test_name, 100)] {
            if split != "-" {
                class(folder.path(), &format!("{split}/a"), 10, first);
                class(folder.path(), &format!("{split}/b"), 10, first + 10);
            }
        }
        let data = open(folder.path()).unwrap();
        assert_eq!(data.classes(), ["a", "b"]);
        let (mut train, val, test) = (
            reds(&data, Split::Train),
            reds(&data, Split::Val),
            reds(&data, Split::Test),
        );
        if val_name == "-" {
            assert_eq!(val.len(), 2);
            train.extend(val);
        } else {
            assert_eq!(val, (50..70).collect::<Vec<_>>());
        }
        if test_name == "-" {
            assert_eq!(test.len(), 4);
            train.extend(test);
        } else {
            assert_eq!(test, (100..120).collect::<Vec<_>>());
        }
        train.sort_unstable();
        assert_eq!(train, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn layouts_that_do_not_say_which_label_is_meant_are_errors() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str); 9] = [
        ("one class", |f| class(f, "a", 4, 0), "one class only, `a`"),
        (
            "flat splits",
            |f| {
                class(f, "train", 3, 0);
                class(f, "test", 3, 0)
            },
            "no class folders",
        ),
        (
            "flat test",
            |f| {
                class(f, "train/a", 3, 0);
                class(f, "train/b", 3, 0);
                class(f, "test", 3, 0)
            },
            "`test` has images but no class folders, unlike `train`",
        ),
        (
            "no train",
            |f| {
                class(f, "test/a", 3, 0);
                class(f, "test/b", 3, 0)
            },
            "no folder `train`",
        ),
        (
            "class beside splits",
            |f| {
                class(f, "train/a", 3, 0);
                class(f, "train/b", 3, 0);
                class(f, "c", 3, 0)
            },
            "`c` is a folder of images beside `train`",
        ),
        (
            "two validation splits",
            |f| {
                for split in ["train", "val", "valid"] {
                    class(f, &format!("{split}/a"), 3, 0);
                    class(f, &format!("{split}/b"), 3, 0)
                }
            },
            "`val` and `valid` both name the val split",
        ),
        (
            "unknown class in test",
            |f| {
                class(f, "train/a", 3, 0);
                class(f, "train/b", 3, 0);
                class(f, "test/c", 3, 0)
            },
            "class folder `c` is not among the training classes",
        ),
        (
            "empty class",
            |f| {
                class(f, "a", 3, 0);
                class(f, "b", 3, 0);
                fs::create_dir(f.join("c")).unwrap()
            },
            "c` holds no image",
        ),
        (
            "nested classes",
            |f| {
                class(f, "a", 3, 0);
                class(f, "b/deep", 3, 0)
            },
            "b` holds no image",
        ),
    ];
    for (case, make, want) in cases {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(want), "{case}: {error}");
    }
}

#[test]
fn a_class_may_be_called_train() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["train", "bus", "tram"] {
        class(folder.path(), name, 5, 0);
    }
    assert_eq!(
        open(folder.path()).unwrap().classes(),
        ["bus", "train", "tram"]
    );
}

#[test]
fn files_that_are_no_images_are_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 5, 0);
    class(folder.path(), "b", 5, 0);
    for name in [
        "readme.md",
        ".DS_Store",
        "a/Thumbs.db",
        "a/._000.png",
        "b/notes.txt",
        "b/deeper/x.png",
        ".git/x.png",
    ] {
        write(folder.path(), name, b"no image");
    }
    let notes = Notes::default();
    let data = Dataset::open_with(folder.path(), &DataOptions::default(), &notes).unwrap();
    assert_eq!(data.classes(), ["a", "b"]);
    assert_eq!(data.ignored(), 7);
    assert!(data.corrupt().is_empty());
    assert_eq!(
        notes.0.into_inner().unwrap(),
        ["passed over 7 files or folders that are not images of a class"]
    );
}

#[test]
fn corrupt_images_are_named_and_left_out_up_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 20, 0);
    class(folder.path(), "b", 20, 20);
    let clean = open(folder.path()).unwrap();
    let whole = png(plain(7));
    write(folder.path(), "a/007.png", &whole[..whole.len() - 20]);
    let data = open(folder.path()).unwrap();
    assert_eq!(data.corrupt().len(), 1);
    assert_eq!(data.corrupt()[0].path, folder.path().join("a/007.png"));
    // The others are where they were.
    for split in [Split::Train, Split::Val, Split::Test] {
        let mut want = reds(&clean, split);
        want.retain(|red| *red != 7);
        assert_eq!(reds(&data, split), want);
        assert_eq!(data.labels(split).len(), want.len());
    }

    write(folder.path(), "b/003.png", b"");
    let error = open(folder.path()).unwrap_err();
    assert!(
        matches!(
            &error,
            DataError::TooManyCorrupt {
                count: 2,
                images: 40,
                limit: 1,
                ..
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("007.png") && text.contains("003.png") && text.starts_with("2 of 40 images"),
        "{text}"
    );
    let options = DataOptions {
        max_corrupt: Some(2),
        ..DataOptions::default()
    };
    let notes = Notes::default();
    let data = Dataset::open_with(folder.path(), &options, &notes).unwrap();
    assert_eq!(data.corrupt().len(), 2);
    assert!(notes.0.into_inner().unwrap()[0].contains("skipped `"));
    assert_eq!(
        [Split::Train, Split::Val, Split::Test]
            .map(|split| data.len(split))
            .iter()
            .sum::<usize>(),
        38
    );
    let options = DataOptions {
        max_corrupt: Some(0),
        ..DataOptions::default()
    };
    assert!(Dataset::open(folder.path(), &options).is_err());
}

#[test]
fn a_class_all_of_whose_images_are_corrupt_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 20, 0);
    for n in 0..3 {
        write(folder.path(), &format!("b/{n}.heic"), b"not decoded here");
    }
    let options = DataOptions {
        max_corrupt: Some(5),
        ..DataOptions::default()
    };
    let error = Dataset::open(folder.path(), &options).unwrap_err();
    assert!(
        matches!(&error, DataError::CorruptClass { class, .. } if class == "b"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_gone_after_opening_is_an_error_at_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 5, 0);
    class(folder.path(), "b", 5, 5);
    let options = DataOptions {
        cache_bytes: 0,
        ..DataOptions::default()
    };
    let data = Dataset::open(folder.path(), &options).unwrap();
    let kept = open(folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("b")).unwrap();
    let input = Preprocess::parse("unit", 4, 4, 3).unwrap();
    let read = |data: &Dataset| {
        data.batches(Split::Train, &input, Order::Stored, Augment::None, 1)
            .collect::<Result<Vec<_>, _>>()
    };
    assert!(matches!(read(&data), Err(DataError::Image(_))));
    // What is kept in memory needs no file.
    assert_eq!(read(&kept).unwrap().len(), kept.len(Split::Train));
}

fn decode(bytes: Vec<u8>) -> Result<Pixels, String> {
    Pixels::decode(Cursor::new(bytes))
}

#[test]
fn every_kind_of_pixel_becomes_8_bit_grey_or_colour() {
    let decoded = |image: DynamicImage| {
        let pixels = decode(png(image)).unwrap();
        (pixels.channels(), pixels.samples().to_vec())
    };
    assert_eq!(
        decoded(GrayImage::from_pixel(2, 1, Luma([9])).into()),
        (1, vec![9, 9])
    );
    assert_eq!(decoded(plain(7).into()), (3, [7, 0, 0].repeat(6)));
    // Transparency is dropped, the colour behind it stays.
    assert_eq!(
        decoded(RgbaImage::from_pixel(1, 1, image::Rgba([1, 2, 3, 0])).into()),
        (3, vec![1, 2, 3])
    );
    assert_eq!(
        decoded(GrayAlphaImage::from_pixel(1, 1, image::LumaA([5, 0])).into()),
        (1, vec![5])
    );
    // 16 bits: 65535 is 255, and 257 is one level.
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_vec(3, 1, vec![65535, 257, 0]).unwrap();
    assert_eq!(decoded(deep.into()), (1, vec![255, 1, 0]));
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_vec(1, 1, vec![65535, 2570, 0]).unwrap();
    assert_eq!(decoded(deep.into()), (3, vec![255, 10, 0]));
}

#[test]
fn the_content_decides_the_format() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 3, 0);
    for (name, format) in [
        ("b/0.png", ImageFormat::Jpeg),
        ("b/1.jpg", ImageFormat::Bmp),
        ("b/2.JPEG", ImageFormat::Gif),
        ("b/3.gif", ImageFormat::WebP),
    ] {
        write(folder.path(), name, &encoded(plain(200), format));
    }
    let data = open(folder.path()).unwrap();
    assert!(data.corrupt().is_empty());
    assert_eq!(
        [Split::Train, Split::Val, Split::Test]
            .map(|split| data.len(split))
            .iter()
            .sum::<usize>(),
        7
    );
}

/// A JPEG with an Exif header that gives an orientation.
fn oriented(image: RgbImage, orientation: u8) -> Vec<u8> {
    let jpeg = encoded(image, ImageFormat::Jpeg);
    // One entry: tag 0x0112, a short, one of them.
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1];
    bytes.extend((exif.len() as u16 + 2).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

#[test]
fn exif_orientation_is_applied() {
    // Left half black, right half white; 16x8, so that no JPEG block has both.
    let image = RgbImage::from_fn(
        16,
        8,
        |x, _| if x < 8 { Rgb([0; 3]) } else { Rgb([255; 3]) },
    );
    let upright = decode(oriented(image.clone(), 1)).unwrap();
    assert_eq!(
        (upright.height(), upright.width(), upright.samples()[0]),
        (8, 16, 0)
    );
    // 6: the camera was turned; rotate by 90 degrees clockwise, so that left comes to the top.
    let turned = decode(oriented(image.clone(), 6)).unwrap();
    assert_eq!(
        (turned.height(), turned.width(), turned.samples()[0]),
        (16, 8, 0)
    );
    assert!(turned.samples().ends_with(&[255, 255, 255]));
    // 3: upside down.
    let turned = decode(oriented(image, 3)).unwrap();
    assert_eq!(
        (turned.height(), turned.width(), turned.samples()[0]),
        (8, 16, 255)
    );
}

#[test]
fn images_that_claim_to_be_huge_are_refused_before_they_are_decoded() {
    let pbm = |width: u32, height: u32| format!("P4 {width} {height}\n").into_bytes();
    for bytes in [pbm(20_001, 1), pbm(1, 20_001)] {
        let reason = decode(bytes).unwrap_err();
        assert!(reason.contains("limit"), "{reason}");
    }
    // 20,000 x 20,000 in colour is above 1 GiB.
    assert!(
        decode(b"P6 20000 20000 255\n".to_vec())
            .unwrap_err()
            .contains("limit")
    );
    assert!(decode(b"not an image at all".to_vec()).is_err());
    assert!(decode(Vec::new()).is_err());
}

#[test]
fn pixels_whose_sizes_do_not_fit_are_none() {
    assert!(Pixels::new(2, 3, 1, vec![0; 6]).is_some());
    for (height, width, channels, len) in [
        (2, 3, 1, 5),
        (2, 3, 2, 12),
        (0, 3, 1, 0),
        (1, 20_001, 1, 20_001),
        (usize::MAX, 2, 3, 6),
    ] {
        assert!(Pixels::new(height, width, channels, vec![0; len]).is_none());
    }
}

#[test]
fn the_native_size_is_the_median_and_grey_only_where_all_are() {
    let folder = tempfile::tempdir().unwrap();
    // As many of each that any split has about the same share of them.
    let sizes = [(10, 30), (20, 20), (90, 10)].into_iter().cycle().take(60);
    for (n, (width, height)) in sizes.enumerate() {
        for class in ["a", "b"] {
            write(
                folder.path(),
                &format!("{class}/{n}.png"),
                &png(GrayImage::new(width, height)),
            );
        }
    }
    assert_eq!(open(folder.path()).unwrap().native_size(), (20, 20, 1));
    write(folder.path(), "a/60.png", &png(RgbImage::new(20, 20)));
    assert_eq!(open(folder.path()).unwrap().native_size(), (20, 20, 3));
}

#[test]
fn test_images_have_no_say_in_the_native_size() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for n in 0..5 {
            let name = format!("train/{class}/{n}.png");
            write(folder.path(), &name, &png(GrayImage::new(20, 30)));
        }
        for n in 0..20 {
            let name = format!("test/{class}/{n}.png");
            write(folder.path(), &name, &png(GrayImage::new(90, 80)));
        }
    }
    assert_eq!(open(folder.path()).unwrap().native_size(), (30, 20, 1));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_image_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        for n in 0..5 {
            write(
                folder.path(),
                &format!("{class}/{n}.png"),
                &png(GrayImage::new(8, 8)),
            );
        }
    }
    let pipe = folder.path().join("a/pipe.png");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let data = open(folder.path()).unwrap();
    let lost = data.corrupt();
    assert!(
        lost.len() == 1 && lost[0].to_string().contains("not a regular file"),
        "{lost:?}"
    );
}

#[test]
fn a_folder_is_named_by_its_own_name_however_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "set/a", 3, 0);
    class(folder.path(), "set/b", 3, 0);
    let around: PathBuf = folder.path().join("set/../set/.");
    assert_eq!(open(&around).unwrap().name(), "set");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_are_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "set/a", 4, 0);
    class(folder.path(), "elsewhere", 4, 4);
    let set = folder.path().join("set");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), set.join("b")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("nowhere.png"), set.join("a/004.png")).unwrap();
    let data = open(&set).unwrap();
    assert_eq!(data.classes(), ["a", "b"]);
    assert_eq!(data.corrupt().len(), 1);
    assert!(data.corrupt()[0].path.ends_with("a/004.png"));
}

#[cfg(target_os = "linux")]
#[test]
fn class_folders_that_are_not_named_in_unicode_are_errors() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    class(folder.path(), "a", 4, 0);
    class(folder.path(), "b", 4, 0);
    fs::create_dir(folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("is not Unicode")
    );
}
