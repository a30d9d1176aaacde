//! Files as exporters wrote them. They are not part of the project; without them these tests say
//! so and pass.

use super::assert_same;
use crate::onnx::{Model, read, to_bytes};
use crate::tensor::Tensor;
use std::path::{Path, PathBuf};

fn models() -> Option<PathBuf> {
    let folder = match std::env::var_os("SECATEUR_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let folder = folder.join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: `{}` is absent", folder.display());
    }
    None
}

fn assert_file_round_trip(path: &Path) -> Model {
    let model = read(path).unwrap_or_else(|error| panic!("{error}"));
    let written = to_bytes(&model).unwrap();
    let name = path.display().to_string();
    assert_same(
        &name,
        &super::message(&std::fs::read(path).unwrap()),
        &super::message(&written),
    );
    model
}

fn parameters(model: &Model) -> usize {
    model
        .graph
        .initializers
        .values()
        .filter_map(Tensor::as_floats)
        .map(|a| a.len())
        .sum()
}

#[test]
fn trained_networks_survive_a_round_trip() {
    let Some(folder) = models() else { return };
    for (name, nodes, convolutions) in [
        ("vgg16-imagenet-features.onnx", 32, 13),
        ("mobilenet-v1-imagenet-features.onnx", 57, 27),
        ("mobilenet-v2-features.onnx", 152, 52),
        ("resnet20-cifar10.onnx", 74, 19),
    ] {
        let model = assert_file_round_trip(&folder.join(name));
        assert_eq!(model.graph.nodes.len(), nodes, "{name}");
        let found = model
            .graph
            .nodes
            .iter()
            .filter(|n| n.op.name() == "Conv")
            .count();
        assert_eq!(found, convolutions, "{name}");
        assert_eq!(model.graph.inputs.len(), 1, "{name}");
        assert_eq!(model.graph.inputs[0].name, "input", "{name}");
    }
    let vgg = read(folder.join("vgg16-imagenet-features.onnx")).unwrap();
    assert_eq!(parameters(&vgg), 14_714_688);
}

#[test]
fn foreign_networks_with_constant_weights_survive_a_round_trip() {
    let Some(folder) = models() else { return };
    for (name, input) in [
        ("light_bvlc_alexnet", "data_0"),
        ("light_inception_v1", "data_0"),
        ("light_resnet50", "gpu_0/data_0"),
        ("light_squeezenet", "data_0"),
        ("light_zfnet512", "gpu_0/data_0"),
    ] {
        let model = assert_file_round_trip(&folder.join(format!("foreign/{name}.onnx")));
        let inputs: Vec<_> = model.graph.inputs.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(inputs, [input], "{name}");
        let left = model
            .graph
            .nodes
            .iter()
            .find(|n| n.op.name() == "ConstantOfShape");
        assert!(left.is_none(), "{name}: {left:?}");
    }
    // Published sizes: AlexNet (Caffe) and SqueezeNet 1.0 (its paper's 1,248,424).
    let alexnet = read(folder.join("foreign/light_bvlc_alexnet.onnx")).unwrap();
    assert_eq!(parameters(&alexnet), 60_965_224);
    let squeezenet = read(folder.join("foreign/light_squeezenet.onnx")).unwrap();
    assert!(
        squeezenet
            .graph
            .nodes
            .iter()
            .any(|n| n.op.name() == "Concat")
    );
}

#[test]
fn small_networks_of_new_exporters_survive_a_round_trip() {
    let Some(folder) = models() else { return };
    for name in [
        "burn_mnist",
        "rten_mnist",
        "ultralight_version-RFB-320_without_postprocessing",
    ] {
        assert_file_round_trip(&folder.join(format!("foreign/{name}.onnx")));
    }
}

#[test]
fn detectors_survive_a_round_trip() {
    let Some(folder) = models() else { return };
    for (name, operator, count) in [
        ("ch_PP-OCRv4_det_infer", "Resize", 6),
        ("ch_PP-OCRv4_det_infer", "ConvTranspose", 2),
        ("ultralight_version-RFB-320", "Exp", 1),
        ("ultralight_version-slim-320", "Exp", 1),
    ] {
        let model = assert_file_round_trip(&folder.join(format!("foreign/{name}.onnx")));
        let nodes = model.graph.nodes.iter();
        let found = nodes.filter(|node| node.op.name() == operator).count();
        assert_eq!(found, count, "{name}: {operator}");
    }
}
