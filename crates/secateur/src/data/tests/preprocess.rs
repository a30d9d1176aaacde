//! Preprocessing against Pillow and NumPy, its text form and its metadata.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const PNG: &[u8] = include_bytes!("../../../tests/fixtures/preprocess.png");
const CASES: &str = include_str!("../../../tests/fixtures/preprocess.json");

#[derive(Deserialize)]
struct Case {
    text: String,
    height: usize,
    width: usize,
    channels: usize,
    /// What one level of a pixel is worth in the network's input.
    level: f32,
    values: Vec<f32>,
}

#[test]
fn inputs_are_those_of_pillow_and_numpy() {
    let image = Pixels::decode(std::io::Cursor::new(PNG)).unwrap();
    assert_eq!(
        (image.height(), image.width(), image.channels()),
        (12, 17, 3)
    );
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let input = Preprocess::parse(&case.text, case.height, case.width, case.channels).unwrap();
        let got = input.apply(&image).unwrap();
        assert_eq!(got.shape(), [case.channels, case.height, case.width]);
        // As stored: 6 digits behind the point in the fixture, 24 bits of up to 152 here. Resized: weights
        // of fewer bits than Pillow's can round a value to the next level.
        let resized = (case.height, case.width) != (12, 17);
        let tolerance = if resized { 1.001 * case.level } else { 1e-5 };
        for (got, want) in got.iter().zip(&case.values) {
            let at = format!(
                "{} {}x{}x{}",
                case.text, case.channels, case.height, case.width
            );
            assert!((got - want).abs() <= tolerance, "{at}: {got}, not {want}");
        }
    }
}

/// Within four units in the last place of f32: parameters and result are each rounded once.
fn close(got: &[f32], want: &[f32]) -> bool {
    got.len() == want.len()
        && got
            .iter()
            .zip(want)
            .all(|(got, want)| (got - want).abs() <= 4.0 * f32::EPSILON * want.abs().max(1.0))
}

#[test]
fn presets_have_their_published_numbers() {
    let parse = |text, channels| Preprocess::parse(text, 2, 2, channels).unwrap();
    let image = Pixels::new(2, 2, 3, [[255, 0, 0]; 4].concat()).unwrap();
    let of = |text, channels| {
        let input = parse(text, channels).apply(&image).unwrap();
        (0..channels).map(|c| input[[c, 0, 0]]).collect::<Vec<_>>()
    };
    assert!(close(&of("unit", 3), &[1.0, 0.0, 0.0]));
    assert!(close(&of("pm1", 3), &[1.0, -1.0, -1.0]));
    assert!(close(
        &of("caffe", 3),
        &[-103.939, -116.779, 255.0 - 123.68]
    ));
    assert!(close(
        &of("imagenet", 3),
        &[(1.0 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    ));
    // Pure red is 76 of 255 in grey: round(0.299 * 255).
    assert_eq!(of("scale=1", 1), [76.0]);
    assert!(close(&of("imagenet", 1), &[(76.0 / 255.0 - 0.449) / 0.226]));
    assert!(close(&of("caffe", 1), &[76.0 - 344.398 / 3.0]));
}

#[test]
fn a_grey_image_fills_all_channels_of_a_network_in_colour() {
    let image = Pixels::new(1, 2, 1, vec![51, 255]).unwrap();
    for order in ["rgb", "bgr"] {
        let input = Preprocess::parse(&format!("scale=1/255;order={order}"), 1, 2, 3).unwrap();
        let got = input.apply(&image).unwrap();
        for channel in got.outer_iter() {
            assert!(
                close(&[channel[[0, 0]], channel[[0, 1]]], &[0.2, 1.0]),
                "{channel}"
            );
        }
    }
}

#[test]
fn explicit_text_is_read_with_one_number_for_all_channels_or_one_each() {
    let got = Preprocess::parse(" mean = 1,2,3 ; std=2; scale=1/4 ; order=bgr", 3, 4, 3).unwrap();
    let want = Preprocess {
        height: 3,
        width: 4,
        channels: ChannelOrder::Bgr,
        scale: 0.25,
        mean: vec![1.0, 2.0, 3.0],
        std: vec![2.0; 3],
    };
    assert_eq!(got, want);
    let gray = Preprocess::parse("scale=1", 3, 4, 1).unwrap();
    assert_eq!(
        (gray.channels, gray.mean, gray.std),
        (ChannelOrder::Gray, vec![0.0], vec![1.0])
    );
}

#[test]
fn text_that_is_no_preprocessing_is_an_error_that_says_what_is_wanted() {
    let cases = [
        ("imagenette", 3, "want `imagenet`"),
        ("", 3, "want `imagenet`"),
        ("mean=0.5", 3, "`scale` is missing"),
        ("mean=0.5,0.5;scale=1", 3, "want 3 numbers"),
        ("mean=a;scale=1", 3, "want 3 numbers"),
        ("scale=x", 3, "want a number or a fraction"),
        ("scale=1/0", 3, "scale is inf"),
        ("scale=0", 3, "scale is 0, want a positive number"),
        ("scale=nan", 3, "scale is NaN"),
        ("std=0;scale=1", 3, "std is 0"),
        ("std=-1;scale=1", 3, "std is -1"),
        ("mean=inf;scale=1", 3, "mean is inf"),
        ("std=1e-38;scale=1e30", 3, "beyond the range"),
        ("scale=1;order=hsv", 3, "want `rgb`, `bgr` or `gray`"),
        (
            "scale=1;order=gray",
            3,
            "order has 1 channels, the network's input 3",
        ),
        (
            "scale=1;order=rgb",
            1,
            "order has 3 channels, the network's input 1",
        ),
        ("scale=1;scale=2", 3, "given twice"),
        (
            "scale=1;size=2",
            3,
            "want `mean`, `std`, `scale` or `order`",
        ),
        ("scale=1;bgr", 3, "want `key=value`"),
        ("unit", 4, "4 channels, want 1 or 3"),
    ];
    for (text, channels, want) in cases {
        let error = Preprocess::parse(text, 8, 8, channels)
            .unwrap_err()
            .to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
    for (height, width) in [(0, 8), (8, 0), (8193, 8)] {
        assert!(Preprocess::parse("unit", height, width, 3).is_err());
    }
}

proptest! {
    #[test]
    fn metadata_gives_back_what_was_written(
        height in 1..8192usize,
        width in 1..8192usize,
        colour in prop::option::of(any::<bool>()),
        scale in 1e-6f32..1e3,
        mean in prop::collection::vec(-1e3f32..1e3, 3),
        std in prop::collection::vec(1e-3f32..1e3, 3),
    ) {
        let channels = match colour {
            None => ChannelOrder::Gray,
            Some(true) => ChannelOrder::Rgb,
            Some(false) => ChannelOrder::Bgr,
        };
        let n = channels.channels();
        let input = Preprocess { height, width, channels, scale, mean: mean[..n].to_vec(), std: std[..n].to_vec() };
        prop_assert_eq!(Preprocess::from_metadata(&input.to_metadata()).unwrap(), input);
    }

    #[test]
    fn metadata_that_is_not_ours_never_panics(text in ".{0,80}") {
        let _ = Preprocess::from_metadata(&text);
        let _ = classes_from_metadata(&text);
    }
}

#[test]
fn metadata_is_checked() {
    let good = Preprocess::parse("imagenet", 32, 32, 3)
        .unwrap()
        .to_metadata();
    assert_eq!(
        good,
        r#"{"height":32,"width":32,"channels":"rgb","scale":0.003921569,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}"#
    );
    for (from, to) in [
        ("[0.485,0.456,0.406]", "[0.485,0.456]"),
        ("0.229", "0.0"),
        ("0.229", "1e999"),
        ("0.003921569", "-1.0"),
        ("\"height\":32", "\"height\":100000000"),
        ("\"height\":32", "\"height\":-1"),
        ("\"rgb\"", "\"cmyk\""),
        ("\"width\":32", "\"depth\":32"),
        ("}", ""),
        ("}", ",\"other\":1}"),
    ] {
        let error = Preprocess::from_metadata(&good.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`secateur.preprocess`"), "{to}: {error}");
    }
}

#[test]
fn class_names_survive_metadata_and_are_checked() {
    let classes = ["cat", "a \"dog\", perhaps", "übung"].map(str::to_owned);
    assert_eq!(
        classes_from_metadata(&classes_to_metadata(&classes)).unwrap(),
        classes
    );
    for text in ["[]", "[\"a\",\"a\"]", "[1]", "{}", ""] {
        assert!(classes_from_metadata(text).is_err(), "{text}");
    }
}

#[test]
fn numbers_stand_for_any_classes_but_for_the_same_ones_in_another_order() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let (numbers, animals) = (names(&["0", "1", "2"]), names(&["ant", "bee", "cat"]));
    assert!(same_classes(&numbers, &animals) && same_classes(&animals, &animals));
    assert!(!same_classes(&numbers, &animals[..2]));
    assert!(!same_classes(&animals, &names(&["bee", "ant", "cat"])));
    // Eleven folders in the order of their names, and the numbers themselves.
    let numbers: Vec<String> = (0..11).map(|i| i.to_string()).collect();
    let mut folders = numbers.clone();
    folders.sort();
    assert!(!same_classes(&numbers, &folders));
}
