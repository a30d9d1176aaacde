//! The classes of the data and those of a network: which score belongs to which folder is never left to chance.

#![allow(clippy::unwrap_used)]

mod command;

use command::Place;
use serde_json::Value;

/// The arguments that fit `small.onnx` to the classes of `images`.
const TRANSFER: [&str; 6] = [
    "transfer",
    "small.onnx",
    "--data",
    "images",
    "--preprocess",
    "unit",
];

/// Three folders of classes, and a network that was fitted to them.
fn fitted() -> Place {
    let place = Place::new();
    place.fixture("small.onnx");
    for class in ["a", "b", "c"] {
        place.images(&format!("images/{class}"), 8);
    }
    let more = ["-o", "fitted.onnx", "--head", "new", "--epochs", "1"];
    let ran = place.succeed(&[TRANSFER, more].concat());
    assert!(ran.stdout.contains("replaced"), "{}", ran.stdout);
    place
}

fn evaluated(place: &Place, data: &str) -> Value {
    let ran = place.succeed(&[
        "evaluate",
        "fitted.onnx",
        "--data",
        data,
        "--split",
        "all",
        "--format",
        "json",
    ]);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn labels_are_those_of_the_classes_that_the_file_names() {
    let place = fitted();
    let all = evaluated(&place, "images");
    assert_eq!((&all["split"], &all["n"]), (&"all".into(), &24.into()));
    // Each image is in two of the pairs.
    let mut correct = 0;
    for pair in [["a", "b"], ["b", "c"], ["a", "c"]] {
        let folder = pair.concat();
        for image in 0..8 {
            for class in pair {
                let name = format!("{class}/{image}.pgm");
                let bytes = std::fs::read(place.path().join("images").join(&name)).unwrap();
                place.write(&format!("{folder}/{name}"), &bytes);
            }
        }
        correct += evaluated(&place, &folder)["correct"].as_u64().unwrap();
    }
    assert_eq!(correct, 2 * all["correct"].as_u64().unwrap());
}

#[test]
fn classes_that_the_network_does_not_know_are_refused() {
    let place = fitted();
    place.images("other/a", 4);
    place.images("other/d", 4);
    let evaluate = |model: &str| {
        let ran = place.run(&["evaluate", model, "--data", "other", "--preprocess", "unit"]);
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        ran.error().to_owned()
    };
    let error = evaluate("fitted.onnx");
    assert!(
        error.contains("class `d` is none of the network's 3: a, b, c"),
        "{error}"
    );
    // This one names no classes, and has ten scores.
    let error = evaluate("small.onnx");
    assert!(
        error.contains("10 scores") && error.contains("2 classes"),
        "{error}"
    );
}

#[test]
fn a_head_for_other_classes_is_replaced_and_said_to_be() {
    let place = fitted();
    let compress = |model: &str, data: &str| {
        place.succeed(&[
            "compress",
            model,
            "--data",
            data,
            "--preprocess",
            "unit",
            "--epochs",
            "1",
            "--finetune-epochs",
            "0",
            "--recovery-epochs",
            "0",
            "--target",
            "params=90%",
            "--anew",
            "-o",
            "out.onnx",
            "--format",
            "json",
        ])
    };
    let head = |stdout: &str| {
        let report: Value = serde_json::from_str(stdout).unwrap();
        report["head"].as_str().unwrap().to_owned()
    };
    let kept = compress("fitted.onnx", "images");
    assert!(head(&kept.stdout).contains("is kept"), "{}", kept.stdout);
    // As many classes, and other ones.
    for class in ["d", "e", "f"] {
        place.images(&format!("others/{class}"), 8);
    }
    let replaced = compress("fitted.onnx", "others");
    let text = "is replaced by one for 3";
    assert!(head(&replaced.stdout).contains(text), "{}", replaced.stdout);
    assert!(replaced.stderr.contains(text), "{}", replaced.stderr);
}

#[test]
fn a_transfer_has_something_to_choose_by() {
    let place = fitted();
    let more = ["--val-fraction", "0", "-o", "out.onnx"];
    let ran = place.run(&[&TRANSFER[..], &more].concat());
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.error().contains("`--val-fraction`"), "{}", ran.stderr);
    assert!(!place.path().join("out.onnx").exists());
}

#[test]
fn more_images_that_cannot_be_decoded_are_named_one_by_one_and_can_be_allowed() {
    let place = fitted();
    for image in 0..3 {
        place.write(&format!("images/a/bad{image}.png"), b"no image");
    }
    let mut arguments = vec![
        "evaluate",
        "fitted.onnx",
        "--data",
        "images",
        "--split",
        "all",
    ];
    let ran = place.run(&arguments);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.error().contains("`--max-corrupt`"), "{}", ran.stderr);
    for image in 0..3 {
        let name = format!("bad{image}.png");
        assert!(ran.stderr.contains(&name), "{}", ran.stderr);
    }
    arguments.extend(["--max-corrupt", "3"]);
    place.succeed(&arguments);
}
