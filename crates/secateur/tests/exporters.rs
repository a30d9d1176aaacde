//! One small network of each framework as its exporters write it (`fixtures/make_exporters.py`): read, run,
//! decomposed, folded, written, and run elsewhere, with the outputs that the framework itself computes.

#![allow(clippy::unwrap_used)]

use ndarray::IxDyn;
use secateur::decompose::{DecomposeConfig, OutputScale, convolutions};
use secateur::exec::{BurnEngine, Engine, NativeEngine, Request};
use secateur::fold::{FoldConfig, fold};
use secateur::graph::{Graph, factored_layers};
use secateur::onnx;
use secateur::progress::Silent;
use secateur::tensor::Floats;
use secateur::verify::{self, Options, RuntimeKind};
use std::path::{Path, PathBuf};

const SHAPE: [usize; 4] = [1, 3, 12, 12];

/// Networks that are taken, with the number of layers that can be decomposed: the stem, the 1x1 convolution
/// and the head, unless a layer's weights are read twice.
const TAKEN: [(&str, usize); 13] = [
    ("keras-nchw", 3),
    ("paddle", 3),
    ("paddle-opset9", 3),
    ("tf-opset13", 3),
    ("torch-bf16", 3),
    ("torch-dynamic", 3),
    ("torch-dynamo", 3),
    ("torch-external", 3),
    ("torch-f16", 3),
    ("torch-inputs", 3),
    ("torch-older", 3),
    ("torch-older-opset9", 3),
    ("torch-shared", 2),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exporters")
}

fn floats(name: &str) -> Vec<f32> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn image() -> Floats {
    Floats::from_shape_vec(IxDyn(&SHAPE), floats("image.json")).unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: &Floats, wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0_f32, |largest, v| largest.max(v.abs()));
    for (found, wanted) in found.iter().zip(wanted) {
        let difference = (found - wanted).abs() / largest;
        assert!(difference < 1e-5, "{what}: {found} in place of {wanted}");
    }
}

fn run(engine: &dyn Engine, graph: &Graph) -> Floats {
    let outputs = vec![graph.outputs[0].name.clone()];
    let mut session = engine
        .session(&Request::evaluation(graph, outputs))
        .unwrap();
    session.forward(&image()).unwrap().remove(0)
}

#[test]
fn what_exporters_write_runs_as_in_their_framework() {
    for (name, n_layers) in TAKEN {
        let model = onnx::read(folder().join(format!("{name}.onnx"))).unwrap();
        let wanted = floats(&format!("{name}.json"));
        assert_close(name, &run(&NativeEngine::new(), &model.graph), &wanted);
        let burn = BurnEngine::default();
        assert_close(&format!("{name}, burn"), &run(&burn, &model.graph), &wanted);

        let config = DecomposeConfig {
            exclude: None,
            head: None,
            output_scale: OutputScale::All,
        };
        let (factored, _) = convolutions(&model.graph, &config, &Silent).unwrap();
        assert_eq!(factored_layers(&factored).len(), n_layers, "{name}");
        let what = format!("{name}, decomposed");
        assert_close(&what, &run(&NativeEngine::new(), &factored), &wanted);

        let (folded, _) = fold(&factored, &FoldConfig::default()).unwrap();
        let bytes = onnx::to_bytes(&model.with_graph(folded)).unwrap();
        let tract = verify::open(RuntimeKind::Tract, &Options::default()).unwrap();
        let mut loaded = tract.load(&bytes, SHAPE).unwrap();
        let what = format!("{name}, written");
        assert_close(&what, &loaded.run(&image()).unwrap(), &wanted);
    }
}

#[test]
fn a_runtime_is_given_the_weights_that_are_in_another_file() {
    let path = folder().join("torch-external.onnx");
    let bytes = onnx::bytes_of(&path).unwrap();
    let tract = verify::open(RuntimeKind::Tract, &Options::default()).unwrap();
    let mut loaded = tract.load(&bytes, SHAPE).unwrap();
    let wanted = floats("torch-external.json");
    assert_close("external", &loaded.run(&image()).unwrap(), &wanted);
    // Any other file is what it is.
    let path = folder().join("torch-dynamic.onnx");
    assert_eq!(
        onnx::bytes_of(&path).unwrap(),
        std::fs::read(&path).unwrap()
    );
}

#[test]
fn what_is_not_taken_is_refused_by_name_with_the_remedy() {
    let said = |name: &str| {
        let read = onnx::read(folder().join(format!("{name}.onnx")));
        match read {
            Err(error) => error.to_string(),
            Ok(model) => model.graph.image_input().unwrap_err().to_string(),
        }
    };
    let training = said("torch-training");
    assert!(
        training.contains("BatchNormalization") && training.contains("in evaluation mode"),
        "{training}"
    );
    let last = said("keras-nhwc");
    assert!(
        last.contains("`image`") && last.contains("[n, c, h, w]"),
        "{last}"
    );
}
