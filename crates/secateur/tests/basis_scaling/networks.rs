//! Real networks from the shared data, through the engine: a full-rank decomposition, and what is
//! folded from it, computes what the file computes.
//!
//! Every layer of up to 4,608 products is off by about 1e-6 in `f32`, and fifty of them follow each
//! other: outputs are compared to 1e-3 of the largest.

use secateur::decompose::{DecomposeConfig, Kept, OutputScale, convolutions, factored_layers};
use secateur::exec::{Engine, NativeEngine, Request};
use secateur::fold::{FoldConfig, SizeRule, fold};
use secateur::graph::Graph;
use secateur::onnx;
use secateur::progress::Silent;
use secateur::tensor::Floats;
use std::path::PathBuf;

const IMAGES: usize = 4;

fn data() -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder =
        std::env::var_os("SECATEUR_DATA").map_or(workspace.join("../shared/data"), PathBuf::from);
    let found = folder.join("models").is_dir() && folder.join("cifar10").is_dir();
    if !found {
        println!("skipped: neither SECATEUR_DATA nor ../shared/data holds models/ and cifar10/");
    }
    found.then_some(folder)
}

/// Test images of CIFAR-10, `[images, 3, 32, 32]`: a label byte, then the planes of each image.
fn images(folder: &std::path::Path, pixel: impl Fn(usize, f32) -> f32) -> Floats {
    let bytes = std::fs::read(folder.join("cifar10/test_batch.bin")).unwrap();
    let values = bytes.chunks_exact(3073).take(IMAGES).flat_map(|record| {
        record[1..]
            .iter()
            .enumerate()
            .map(|(index, &byte)| pixel(index / 1024, f32::from(byte)))
            .collect::<Vec<_>>()
    });
    Floats::from_shape_vec(ndarray::IxDyn(&[IMAGES, 3, 32, 32]), values.collect()).unwrap()
}

fn forward(graph: &Graph, input: &Floats) -> Floats {
    let request = Request::evaluation(graph, vec![graph.outputs[0].name.clone()]);
    let engine = NativeEngine::new();
    let mut session = engine.session(&request).unwrap();
    session.forward(input).unwrap().remove(0)
}

/// The largest difference as a share of the largest output.
fn difference(a: &Floats, b: &Floats) -> f32 {
    let largest = a
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let difference = a
        .iter()
        .zip(b)
        .fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs()));
    assert!(largest > 0.01 && difference.is_finite());
    difference / largest
}

fn check(name: &str, n_factored: usize, n_depthwise: usize, pixel: impl Fn(usize, f32) -> f32) {
    let Some(folder) = data() else { return };
    let graph = onnx::read(folder.join("models").join(name)).unwrap().graph;
    let input = images(&folder, pixel);
    let expected = forward(&graph, &input);
    let config = DecomposeConfig {
        output_scale: OutputScale::All,
        ..DecomposeConfig::default()
    };
    let (factored, summary) = convolutions(&graph, &config, &Silent).unwrap();
    factored.validate().unwrap();
    let count = |kept: Option<Kept>| {
        summary
            .layers
            .iter()
            .filter(|layer| layer.kept == kept)
            .count()
    };
    assert_eq!(
        (count(None), count(Some(Kept::Depthwise))),
        (n_factored, n_depthwise)
    );
    assert_eq!(factored_layers(&factored).len(), n_factored);
    let found = difference(&expected, &forward(&factored, &input));
    println!("{name}: factored {found:e}");
    assert!(found < 1e-3, "factored: {found}");
    for size_rule in [SizeRule::Smaller, SizeRule::Factored] {
        let (folded, _) = fold(
            &factored,
            &FoldConfig {
                size_rule,
                ..FoldConfig::default()
            },
        )
        .unwrap();
        folded.validate().unwrap();
        let found = difference(&expected, &forward(&folded, &input));
        println!("{name}: folded {size_rule:?} {found:e}");
        assert!(found < 1e-3, "folded, {size_rule:?}: {found}");
    }
}

#[test]
fn resnet20_is_unchanged_by_full_rank_factors() {
    let mean = [0.485, 0.456, 0.406];
    let deviation = [0.229, 0.224, 0.225];
    // 19 convolutions and the dense head.
    check("resnet20-cifar10.onnx", 20, 0, |channel, value| {
        (value / 255.0 - mean[channel]) / deviation[channel]
    });
}

#[test]
fn vgg16_is_unchanged_by_full_rank_factors() {
    let mean = [123.68, 116.779, 103.939];
    check("vgg16-imagenet-features.onnx", 13, 0, |channel, value| {
        value - mean[channel]
    });
}

#[test]
fn mobilenet_v1_is_unchanged_by_full_rank_factors() {
    check("mobilenet-v1-imagenet-features.onnx", 14, 13, |_, value| {
        value / 127.5 - 1.0
    });
}

#[test]
fn mobilenet_v2_is_unchanged_by_full_rank_factors() {
    check("mobilenet-v2-features.onnx", 35, 17, |_, value| {
        value / 127.5 - 1.0
    });
}
