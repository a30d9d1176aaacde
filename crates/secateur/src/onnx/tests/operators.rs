//! Every operator case survives import and export; damaged ones give errors.

use super::fixtures;
use super::{assert_round_trip, assert_same, message};
use crate::graph::{Node, infer};
use crate::onnx::{Model, from_bytes, supported_operators, to_bytes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

#[test]
fn every_operator_case_is_written_as_it_was_read() {
    for case in fixtures::operators() {
        let model = assert_round_trip(&case.name, &case.model);
        assert_eq!(model.graph.opset, case.opset, "{}", case.name);
        let inputs: Vec<_> = model.graph.inputs.iter().map(|i| i.name.clone()).collect();
        let given: Vec<_> = case.inputs.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(inputs, given, "{}", case.name);
    }
}

#[test]
fn imported_graphs_have_the_output_shapes_of_onnx_runtime() {
    for case in fixtures::operators() {
        let graph = from_bytes(&case.model).unwrap().graph;
        let inputs = case.inputs.iter();
        let inputs = inputs
            .map(|(name, x)| (name.clone(), x.shape().to_vec()))
            .collect();
        let inferred = infer(&graph, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for (name, y) in &case.outputs {
            assert_eq!(
                inferred.shape(name),
                Some(y.shape()),
                "{}: `{name}`",
                case.name
            );
        }
    }
}

#[test]
fn every_supported_operator_has_a_case() {
    let mut seen = BTreeSet::new();
    for case in fixtures::operators() {
        let graph = message(&case.model).graph.unwrap();
        seen.extend(graph.node.iter().map(|node| node.op_type().to_owned()));
    }
    let missing: Vec<_> = supported_operators()
        .into_iter()
        .filter(|row| !seen.contains(row.name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Without origin every node is written anew; read again it must be the same graph. ONNX Runtime's
/// opinion of these files is asked by `tests/fixtures/check_round_trip.py`.
#[test]
fn a_graph_written_without_its_origin_reads_back_the_same() {
    for case in fixtures::operators() {
        let graph = from_bytes(&case.model).unwrap().graph;
        let written =
            to_bytes(&Model::new(graph.clone())).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let again = from_bytes(&written).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(again.graph, graph, "{}", case.name);
    }
}

#[test]
fn a_case_written_twice_has_the_same_bytes() {
    for case in fixtures::operators().iter().step_by(10) {
        let once = to_bytes(&from_bytes(&case.model).unwrap()).unwrap();
        let twice = to_bytes(&from_bytes(&once).unwrap()).unwrap();
        assert!(once == twice, "{}", case.name);
    }
}

#[test]
fn a_changed_node_is_written_anew_and_its_neighbours_as_they_stood() {
    let case = fixtures::operators()
        .into_iter()
        .find(|c| c.name == "residual-17")
        .unwrap();
    let model = from_bytes(&case.model).unwrap();
    let mut graph = model.graph.clone();
    let changed: Vec<Node> = graph
        .nodes
        .iter()
        .map(|node| match node.name.as_str() {
            "r1" => Node {
                op: crate::graph::Op::Identity,
                ..node.clone()
            },
            _ => node.clone(),
        })
        .collect();
    graph.nodes = changed;
    let mut wanted = message(&case.model);
    let node = wanted
        .graph
        .as_mut()
        .unwrap()
        .node
        .iter_mut()
        .find(|n| n.name() == "r1")
        .unwrap();
    node.op_type = Some("Identity".into());
    let written = message(&to_bytes(&model.with_graph(graph)).unwrap());
    assert_same("residual", &wanted, &written);
}

/// Runs over damaged files: each gives a model or an error, and never a panic.
#[test]
fn damaged_files_never_panic() {
    let cases = fixtures::operators();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut errors = 0;
    for _ in 0..6000 {
        let case = &cases[rng.random_range(0..cases.len())];
        let mut bytes = case.model.clone();
        match rng.random_range(0..4) {
            0 => bytes.truncate(rng.random_range(0..bytes.len())),
            1 => {
                let at = rng.random_range(0..bytes.len());
                bytes.remove(at);
            }
            _ => {
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }
            }
        }
        match from_bytes(&bytes) {
            // What reads must write, or say why not.
            Ok(model) => drop(to_bytes(&model)),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
        }
    }
    assert!(
        errors > 1000,
        "only {errors} of the files were found damaged"
    );
}
