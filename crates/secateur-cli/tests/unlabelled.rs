//! Images without labels, and networks that are no classifiers.

#![allow(clippy::unwrap_used)]

mod command;

use command::Place;
use secateur::graph::{Node, Op, ValueDecl};
use secateur::onnx;
use secateur::tensor::ElementType;
use serde_json::Value;

/// A folder of images without labels, and the fixture with one more output: what its first activation
/// puts out.
fn place() -> Place {
    let place = Place::new();
    place.images("photos", 60);
    let model = onnx::read(command::fixture("small.onnx")).unwrap();
    let mut graph = model.graph.clone();
    let inner = graph
        .nodes
        .iter()
        .find(|node| matches!(node.op, Op::Activation(_)))
        .unwrap();
    let first = graph.outputs[0].clone();
    graph.outputs.push(ValueDecl {
        name: inner.outputs[0].clone(),
        dims: None,
        ..first
    });
    onnx::write(&model.with_graph(graph), place.path().join("two.onnx")).unwrap();
    place
}

#[test]
fn an_output_without_an_axis_of_images_is_refused_before_any_work() {
    let place = place();
    let model = onnx::read(place.path().join("two.onnx")).unwrap();
    let mut graph = model.graph.clone();
    let weight = graph.initializers.keys().next().unwrap().clone();
    graph.outputs[1].name = weight.clone();
    onnx::write(&model.with_graph(graph), place.path().join("two.onnx")).unwrap();
    let ran = place.run(&compress(&["--target", "params=70%"]));
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("output `{weight}`")),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_output_of_indices_is_refused_with_the_way_to_its_scores() {
    let place = place();
    let model = onnx::read(place.path().join("two.onnx")).unwrap();
    let mut graph = model.graph.clone();
    let scores = graph.outputs[1].name.clone();
    graph.nodes.push(Node {
        name: "class".to_owned(),
        op: Op::ArgMax {
            axis: 1,
            keep_dims: false,
            select_last_index: false,
        },
        inputs: vec![scores.clone()],
        outputs: vec!["map".to_owned()],
    });
    graph.outputs[1] = ValueDecl {
        name: "map".to_owned(),
        element_type: ElementType::I64,
        dims: None,
    };
    onnx::write(&model.with_graph(graph), place.path().join("two.onnx")).unwrap();
    let inspected = place.succeed(&["inspect", "two.onnx", "--size", "8x8"]);
    assert!(inspected.stdout.contains("Conv"), "{}", inspected.stdout);
    place.succeed(&["decompose", "two.onnx", "-o", "full.onnx"]);
    place.succeed(&["verify", "two.onnx", "full.onnx", "--size", "8x8"]);
    for more in [
        &["--target", "params=70%"][..],
        &["--target", "params=70%", "--dry-run"],
    ] {
        let ran = place.run(&compress(more));
        assert_eq!(ran.status, 2, "{}", ran.stderr);
        for part in [
            "output `map` holds indices (ArgMax `class`)",
            "extract_model",
            &format!("[\"{scores}\"]"),
        ] {
            assert!(ran.error().contains(part), "{part}: {}", ran.stderr);
        }
    }
    assert!(!place.path().join("out.onnx").exists());
}

fn compress<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "compress",
        "two.onnx",
        "--data",
        "photos",
        "--preprocess",
        "unit",
        "-o",
        "out.onnx",
        "--run",
        "run",
        "--format",
        "json",
    ];
    arguments.extend_from_slice(more);
    arguments
}

#[test]
fn outputs_are_held_where_there_are_no_labels() {
    let place = place();
    let budget = ["--target", "output-error=20%", "--double"];
    let report: Value = serde_json::from_str(&place.succeed(&compress(&budget)).stdout).unwrap();
    assert_eq!(report["goal_met"], true, "{report}");
    assert_eq!(report["before"]["top1"], Value::Null);
    assert_eq!(report["acc_drop_pp"], Value::Null);
    let error = report["output_error"].as_f64().unwrap();
    assert!(error > 0.0 && error <= 0.2, "{error}");
    let params = |at: &str| report[at]["params"].as_u64().unwrap();
    assert!(params("after") < params("before"));
    for round in report["rounds"].as_array().unwrap() {
        let error = round["output_error"].as_f64().unwrap();
        assert_eq!(round["accepted"], error <= 0.95 * 0.2, "{round}");
    }
    let after = onnx::read(place.path().join("out.onnx")).unwrap();
    assert_eq!(after.graph.outputs.len(), 2);

    let output = std::fs::read(place.path().join("out.onnx")).unwrap();
    // The last round once more.
    let rounds = report["rounds"].as_array().unwrap().len();
    for end in ["json", "onnx"] {
        let name = format!("run/checkpoints/round-{:02}.{end}", rounds - 1);
        std::fs::remove_file(place.path().join(name)).unwrap();
    }
    let mut resumed = compress(&budget);
    resumed.push("--resume");
    place.succeed(&resumed);
    assert!(
        std::fs::read(place.path().join("out.onnx")).unwrap() == output,
        "the bytes differ"
    );
}

#[test]
fn sizes_can_be_wanted_and_class_folders_be_taken_without_labels() {
    let place = place();
    place.images("classes/a", 30);
    place.images("classes/b", 30);
    let mut arguments = compress(&["--target", "params=70%", "--data-kind", "images"]);
    arguments[3] = "classes";
    let report: Value = serde_json::from_str(&place.succeed(&arguments).stdout).unwrap();
    assert_eq!(report["targets"][0]["met"], true);
    assert!(report["output_error"].as_f64().unwrap() < 1.0);
    let plan = place
        .succeed(&compress(&["--target", "params=70%", "--dry-run"]))
        .stdout;
    assert!(
        plan.contains("without labels") && !plan.contains("fine-tune"),
        "{plan}"
    );
}

#[test]
fn what_wants_labels_is_refused_before_any_work() {
    let place = place();
    let refused = |arguments: &[&str], wanted: &str| {
        let ran = place.run(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
    };
    let no_labels = "the images have no labels";
    refused(&compress(&[]), "output-error=5%");
    let taylor = compress(&["--target", "params=70%", "--method", "basis-scaling"]);
    refused(&taylor, "`score` is taylor");
    let unchecked = compress(&["--target", "params=70%", "--val-fraction", "0"]);
    refused(&unchecked, "no validation images");
    let data = ["--data", "photos", "--preprocess", "unit"];
    for command in [
        &["evaluate", "two.onnx"][..],
        &["transfer", "two.onnx", "-o", "new.onnx"],
    ] {
        let mut arguments = command.to_vec();
        arguments.extend(data);
        refused(&arguments, no_labels);
    }
    place.images("classes/a", 8);
    place.images("classes/b", 8);
    let mut labelled = compress(&["--target", "output-error=5%"]);
    labelled[3] = "classes";
    refused(&labelled, "acc-drop");
    assert!(!place.path().join("out.onnx").exists());
}
