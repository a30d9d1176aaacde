//! Shape inference and costs of imported files against ONNX Runtime.
#![allow(clippy::unwrap_used)]

mod fixtures;

use secateur::graph::infer;
use secateur::{cost, onnx};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The shared data folder, `None` where it is absent.
fn data() -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder =
        std::env::var_os("SECATEUR_DATA").map_or(workspace.join("../shared/data"), PathBuf::from);
    folder.join("models").is_dir().then_some(folder)
}

fn numbers(list: &Value) -> Vec<usize> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|n| usize::try_from(n.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn every_operator_has_the_output_shape_of_onnx_runtime() {
    let cases = fixtures::operators();
    assert!(cases.len() > 300);
    for case in cases {
        let graph = onnx::from_bytes(&case.model).unwrap().graph;
        assert_eq!(graph.validate(), Ok(()), "{}", case.name);
        let shapes = case
            .inputs
            .iter()
            .map(|(name, array)| (name.clone(), array.shape().to_vec()))
            .collect();
        let inferred = infer(&graph, &shapes)
            .unwrap_or_else(|problem| unreachable!("{}: {problem}", case.name));
        for (name, expected) in &case.outputs {
            assert_eq!(
                inferred.shape(name),
                Some(expected.shape()),
                "{}",
                case.name
            );
            if let Some(computed) = inferred.constants.get(name) {
                assert_eq!(computed.as_floats(), Some(expected), "{}", case.name);
            }
        }
    }
}

#[test]
fn every_value_of_whole_networks_has_the_shape_of_onnx_runtime() {
    let Some(data) = data() else {
        println!("skipped: neither SECATEUR_DATA nor ../shared/data holds models/");
        return;
    };
    let file: Value = serde_json::from_str(include_str!("fixtures/shapes.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 14);
    for case in cases {
        let name = case["model"].as_str().unwrap();
        let path = data.join("models").join(name);
        if !path.is_file() {
            println!("skipped: {} is absent", path.display());
            continue;
        }
        let graph = onnx::read(&path)
            .unwrap_or_else(|problem| unreachable!("{name}: {problem}"))
            .graph;
        assert_eq!(graph.validate(), Ok(()), "{name}");
        let input = case["input"].as_str().unwrap().to_owned();
        let inferred = infer(&graph, &BTreeMap::from([(input, numbers(&case["shape"]))])).unwrap();
        for (value, shape) in case["values"].as_object().unwrap() {
            assert_eq!(
                inferred.shape(value),
                Some(&numbers(shape)[..]),
                "{name}: {value}"
            );
        }
        let cost = cost::of(&graph, &inferred);
        assert_eq!(Some(cost.params), case["params"].as_u64(), "{name}");
        assert_eq!(Some(cost.macs), case["macs"].as_u64(), "{name}");
    }
}
