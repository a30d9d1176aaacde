//! What goes wrong is said once, with exit status 2, and leaves no file behind.

#![allow(clippy::unwrap_used)]

mod command;

use command::{Place, Ran};

/// The arguments of a short `compress` on two classes of images.
fn compress<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "compress",
        model,
        "--data",
        "images",
        "-o",
        "out.onnx",
        "--preprocess",
        "unit",
    ];
    arguments.extend_from_slice(more);
    arguments
}

fn with_images() -> Place {
    let place = Place::new();
    place.images("images/a", 6);
    place.images("images/b", 6);
    place
}

/// Runs a command that must fail, and checks that it says so once and leaves nothing behind.
fn fails(place: &Place, arguments: &[&str], wanted: &[&str]) -> Ran {
    let before = place.files();
    let ran = place.run(arguments);
    assert_eq!(
        ran.status, 2,
        "{arguments:?}\n{}\n{}",
        ran.stdout, ran.stderr
    );
    assert_eq!(ran.stdout, "", "{arguments:?}");
    assert!(!ran.error().ends_with('.'), "{}", ran.error());
    for text in wanted {
        assert!(
            ran.stderr.contains(text),
            "`{text}` is not in:\n{}",
            ran.stderr
        );
    }
    assert_eq!(place.files(), before, "{arguments:?}");
    ran
}

#[test]
fn a_truncated_model_is_an_error_that_names_the_file() {
    let place = with_images();
    let bytes = std::fs::read(command::fixture("small.onnx")).unwrap();
    place.write("cut.onnx", &bytes[..bytes.len() / 2]);
    for arguments in [vec!["inspect", "cut.onnx"], compress("cut.onnx", &[])] {
        fails(&place, &arguments, &["`cut.onnx`", "truncated"]);
    }
}

#[test]
fn text_under_the_name_of_a_model_is_an_error() {
    let place = with_images();
    place.write("text.onnx", b"hello, this is no model\n");
    for arguments in [vec!["inspect", "text.onnx"], compress("text.onnx", &[])] {
        fails(&place, &arguments, &["`text.onnx`", "text"]);
    }
}

#[test]
fn a_model_that_is_not_there_is_an_error() {
    let place = with_images();
    fails(&place, &compress("absent.onnx", &[]), &["`absent.onnx`"]);
}

#[test]
fn an_unsupported_operator_is_named_with_its_node() {
    let place = with_images();
    let model = place.fixture("unsupported.onnx");
    for arguments in [vec!["inspect", &model], compress(&model, &[])] {
        fails(
            &place,
            &arguments,
            &["`unsupported.onnx`", "`determinant`", "`Det`"],
        );
    }
}

#[test]
fn a_model_without_an_image_input_is_an_error() {
    let place = with_images();
    let model = place.fixture("not_an_image.onnx");
    fails(
        &place,
        &compress(&model, &[]),
        &["`not_an_image.onnx`", "image"],
    );
}

#[test]
fn an_empty_data_folder_is_an_error() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    std::fs::create_dir(place.path().join("images")).unwrap();
    fails(&place, &compress(&model, &[]), &["`images`"]);
}

#[test]
fn a_data_folder_that_is_not_there_is_an_error_that_says_its_cause_once() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    let ran = fails(&place, &compress(&model, &[]), &["`images`", "os error 2"]);
    assert_eq!(
        ran.error().matches("os error 2").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn one_class_alone_is_an_error() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    place.images("images/only", 5);
    fails(&place, &compress(&model, &[]), &["`images`", "one class"]);
}

#[test]
fn no_data_is_an_error() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    fails(
        &place,
        &["compress", &model, "-o", "small.onnx", "--run", "r"],
        &["--data"],
    );
}

#[test]
fn missing_preprocessing_is_an_error() {
    let place = with_images();
    let model = place.fixture("small.onnx");
    for command in ["compress", "transfer"] {
        fails(
            &place,
            &[command, &model, "--data", "images", "-o", "out.onnx"],
            &["--preprocess"],
        );
    }
    fails(
        &place,
        &["evaluate", &model, "--data", "images"],
        &["--preprocess"],
    );
}

#[test]
fn a_target_that_cannot_be_reached_is_said_before_the_work() {
    let place = with_images();
    let model = place.fixture("small.onnx");
    fails(
        &place,
        &compress(&model, &["--target", "params=0.0001%"]),
        &["params=0.0001%", "cannot be reached"],
    );
}

#[test]
fn an_output_that_cannot_be_written_is_said_before_the_work() {
    let place = with_images();
    let model = place.fixture("small.onnx");
    let ran = fails(
        &place,
        &[
            "compress",
            &model,
            "--data",
            "images",
            "--preprocess",
            "unit",
            "-o",
            "absent/small.onnx",
        ],
        &["`absent/small.onnx`", "hint: "],
    );
    assert_eq!(ran.stderr.matches("not found").count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains(".tmp"), "{}", ran.stderr);
    fails(
        &place,
        &[
            "compress",
            &model,
            "--data",
            "images",
            "--preprocess",
            "unit",
            "-o",
            "images",
        ],
        &["`images`"],
    );
}

#[test]
fn the_input_is_never_overwritten() {
    let place = with_images();
    let model = place.fixture("small.onnx");
    let bytes = std::fs::read(place.path().join(&model)).unwrap();
    for command in ["decompose", "fold"] {
        fails(
            &place,
            &[command, &model, "-o", "./small.onnx"],
            &["overwritten"],
        );
    }
    std::fs::rename(place.path().join(&model), place.path().join("out.onnx")).unwrap();
    fails(&place, &compress("out.onnx", &[]), &["overwritten"]);
    assert_eq!(std::fs::read(place.path().join("out.onnx")).unwrap(), bytes);
}

#[test]
fn an_option_that_matches_nothing_is_an_error() {
    let place = with_images();
    let model = place.fixture("small.onnx");
    std::fs::rename(place.path().join(&model), place.path().join("model.onnx")).unwrap();
    fails(
        &place,
        &compress("model.onnx", &["--exclude", "no such layer"]),
        &["`no such layer`", "hint: "],
    );
    fails(
        &place,
        &[
            "decompose",
            "model.onnx",
            "-o",
            "f.onnx",
            "--exclude",
            "no such layer",
        ],
        &["matches no"],
    );
}

#[test]
fn wrong_values_name_the_option() {
    let place = with_images();
    for (option, value) in [
        ("--target", "ratio=0.5"),
        ("--size", "32"),
        ("--augment", "rotate"),
        ("--val-fraction", "1.5"),
        ("--runtime", "torch"),
        ("--transfer", "none"),
        ("--lr", "0"),
        ("--threads", "0"),
    ] {
        fails(
            &place,
            &compress("model.onnx", &[option, value]),
            &[option, value],
        );
    }
}

#[test]
fn settings_with_an_unknown_name_are_an_error() {
    let place = with_images();
    let model = place.fixture("not_an_image.onnx");
    place.write("run.toml", b"sed = 1\n");
    fails(
        &place,
        &compress(&model, &["--config", "run.toml"]),
        &["`run.toml`", "sed"],
    );
}
