//! What `inspect` prints of a small network.

#![allow(clippy::unwrap_used)]

mod command;

use command::{Place, assert_committed, fixture};

#[test]
fn every_layer_has_its_rank_or_the_reason_why_not() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    let ran = place.succeed(&["inspect", &model]);
    assert_committed(&fixture("inspect.txt"), &ran.stdout);
    assert_eq!(ran.stderr, "");
}

#[test]
fn the_object_holds_what_the_table_shows() {
    let place = Place::new();
    let model = place.fixture("small.onnx");
    let ran = place.succeed(&["inspect", &model, "--format", "json"]);
    let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    // conv2 [16, 12, 3, 3]: n = 108, co = 16, so full rank 16; r * (108 + 16) < 108 * 16 up to 13.
    let layer = &object["layers"][1];
    assert_eq!(layer["name"], "conv2");
    assert_eq!(layer["params"], 16 * 12 * 9 + 16);
    assert_eq!(layer["macs"], 16 * 12 * 9 * 64);
    assert_eq!(layer["rank"], 16);
    assert_eq!(layer["break_even_rank"], 13);
    assert_eq!(layer["prunable"], true);
    let depthwise = &object["layers"][2];
    assert_eq!(depthwise["prunable"], false);
    assert!(depthwise["why"].as_str().unwrap().contains("rank is 1"));
    // Two groups of [8, 8, 3, 3]: n = 72, 8 outputs a group; r * (72 + 8) < 72 * 8 up to 7.
    let grouped = &object["layers"][3];
    assert_eq!(
        (&grouped["full_rank"], &grouped["break_even_rank"]),
        (&8.into(), &7.into())
    );
    let params = 12 * 9 + 4 * 12 + 16 * 12 * 9 + 16 + 16 * 9 + 16 * 8 * 9 + 16 * 10 + 10;
    assert_eq!(object["params"], params);
}

#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_secateur"))
        .args(["inspect", fixture("small.onnx").to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}
