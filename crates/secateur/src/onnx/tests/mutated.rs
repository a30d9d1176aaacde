//! Models that are changed at random where a reader would believe them: lengths, attributes, names,
//! operators. Every stage gives a result or an error; none panics, and none takes memory that the file
//! does not account for.

use super::fixtures;
use crate::decompose::{DecomposeConfig, OutputScale, convolutions};
use crate::exec::{Engine, NativeEngine, Request};
use crate::fold::{FoldConfig, fold};
use crate::graph::{Graph, infer_images};
use crate::groups::{ChannelId, Removed, discover};
use crate::onnx::proto::tensor_shape_proto::dimension::Value as DimValue;
use crate::onnx::proto::type_proto::Value as TypeValue;
use crate::onnx::proto::{GraphProto, ModelProto};
use crate::onnx::{from_bytes, to_bytes};
use crate::progress::Silent;
use crate::prune::channels::{self, ChannelPlan};
use crate::tensor::Floats;
use ndarray::IxDyn;
use prost::Message;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};

const MODELS: usize = 10_000;

const LENGTHS: [i64; 16] = [
    0,
    1,
    2,
    3,
    5,
    8,
    -1,
    -2,
    -7,
    1_000,
    1 << 20,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
];
const NUMBERS: [f32; 7] = [
    0.0,
    -1.0,
    1e30,
    -1e-30,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
];

fn length(rng: &mut ChaCha8Rng) -> i64 {
    *LENGTHS.choose(rng).unwrap_or(&0)
}

/// Changes one thing; nothing where there is no such thing.
fn mutate(model: &mut ModelProto, operators: &[String], rng: &mut ChaCha8Rng) {
    let kind = rng.random_range(0..14);
    if kind == 0 {
        if let Some(opset) = model.opset_import.first_mut() {
            opset.version = Some(rng.random_range(1..27));
        }
        return;
    }
    let Some(graph) = model.graph.as_mut() else {
        return;
    };
    match kind {
        1..=4 => mutate_attribute(graph, rng),
        5..=7 => mutate_initializer(graph, rng),
        8 => {
            let input = graph.input.iter_mut().next();
            let kind = input.and_then(|input| input.r#type.as_mut()?.value.as_mut());
            if let Some(TypeValue::TensorType(tensor)) = kind
                && let Some(shape) = tensor.shape.as_mut()
                && !shape.dim.is_empty()
            {
                let at = rng.random_range(0..shape.dim.len());
                match rng.random_range(0..3) {
                    0 => drop(shape.dim.remove(at)),
                    1 => shape.dim[at].value = None,
                    _ => shape.dim[at].value = Some(DimValue::DimValue(length(rng))),
                }
            }
        }
        _ if graph.node.is_empty() => (),
        9 => {
            let at = rng.random_range(0..graph.node.len());
            graph.node.remove(at);
        }
        10 => {
            let node = graph.node[rng.random_range(0..graph.node.len())].clone();
            let at = rng.random_range(0..=graph.node.len());
            graph.node.insert(at, node);
        }
        11 => {
            let at = rng.random_range(0..graph.node.len());
            graph.node[at].op_type = operators.choose(rng).cloned();
        }
        _ => {
            let mut names: Vec<String> = graph
                .initializer
                .iter()
                .filter_map(|i| i.name.clone())
                .collect();
            names.extend(graph.node.iter().flat_map(|node| node.output.clone()));
            names.extend(["x".to_owned(), String::new()]);
            let at = rng.random_range(0..graph.node.len());
            let (node, name) = (&mut graph.node[at], names.choose(rng).cloned());
            let list = if kind == 12 {
                &mut node.input
            } else {
                &mut node.output
            };
            match (rng.random_range(0..4), name) {
                (0, _) => drop(list.pop()),
                (1, Some(name)) => list.push(name),
                (_, Some(name)) if !list.is_empty() => {
                    let at = rng.random_range(0..list.len());
                    list[at] = name;
                }
                _ => (),
            }
        }
    }
}

fn mutate_attribute(graph: &mut GraphProto, rng: &mut ChaCha8Rng) {
    let mut attributes: Vec<_> = graph
        .node
        .iter_mut()
        .flat_map(|node| &mut node.attribute)
        .collect();
    if attributes.is_empty() {
        return;
    }
    let at = rng.random_range(0..attributes.len());
    let attribute = &mut attributes[at];
    if attribute.i.is_some() {
        attribute.i = Some(length(rng));
    }
    if attribute.f.is_some() {
        attribute.f = NUMBERS.choose(rng).copied();
    }
    if !attribute.ints.is_empty() {
        let at = rng.random_range(0..attribute.ints.len());
        match rng.random_range(0..4) {
            0 => drop(attribute.ints.remove(at)),
            1 => attribute.ints.push(length(rng)),
            _ => attribute.ints[at] = length(rng),
        }
    }
    if let Some(tensor) = attribute.t.as_mut()
        && let Some(dim) = tensor.dims.first_mut()
    {
        *dim = length(rng);
    }
}

fn mutate_initializer(graph: &mut GraphProto, rng: &mut ChaCha8Rng) {
    if graph.initializer.is_empty() {
        return;
    }
    let at = rng.random_range(0..graph.initializer.len());
    let tensor = &mut graph.initializer[at];
    match rng.random_range(0..4) {
        0 if !tensor.dims.is_empty() => {
            let at = rng.random_range(0..tensor.dims.len());
            tensor.dims[at] = length(rng);
        }
        1 => tensor.data_type = Some(rng.random_range(0..17)),
        2 => {
            // Shapes, bounds and axes are numbers of eight bytes.
            if let Some(raw) = tensor.raw_data.as_mut().filter(|raw| raw.len() >= 8) {
                let mut bytes = raw.to_vec();
                let at = 8 * rng.random_range(0..bytes.len() / 8);
                bytes[at..at + 8].copy_from_slice(&length(rng).to_le_bytes());
                *raw = bytes.into();
            } else if let Some(number) = tensor.int64_data.first_mut() {
                *number = length(rng);
            }
        }
        _ => {
            if let Some(raw) = tensor.raw_data.as_mut() {
                let bytes = raw.to_vec();
                *raw = bytes[..rng.random_range(0..=bytes.len())].to_vec().into();
            }
        }
    }
}

/// All that is done with a network; how far it came.
fn stages(bytes: &[u8]) -> usize {
    let Ok(model) = from_bytes(bytes) else {
        return 0;
    };
    drop(to_bytes(&model));
    let graph = &model.graph;
    let (height, width, channels) = graph.image_input().map_or((8, 8, 3), |input| {
        (
            input.height.unwrap_or(8),
            input.width.unwrap_or(8),
            input.channels,
        )
    });
    if height.saturating_mul(width) > 4_096 || channels > 3 {
        return 1; // The caller's images decide, not the file.
    }
    let Ok(inferred) = infer_images(graph, 1, height, width) else {
        return 1;
    };
    drop(crate::cost::of(graph, &inferred));
    run(graph, [1, channels, height, width]);
    let groups = discover(graph, &inferred);
    let mut removed = Removed::nothing(&groups);
    for (group, found) in groups.groups.iter().enumerate() {
        (0..found.channels / 2).for_each(|channel| removed.insert(ChannelId { group, channel }));
    }
    let plan = ChannelPlan::of(&groups, &removed);
    if let Ok(cut) = channels::apply(graph, &inferred, &plan) {
        run(&cut, [1, channels, height, width]);
    }
    let config = DecomposeConfig {
        exclude: None,
        head: None,
        output_scale: OutputScale::All,
    };
    let Ok((decomposed, _)) = convolutions(graph, &config, &Silent) else {
        return 2;
    };
    run(&decomposed, [1, channels, height, width]);
    let Ok((folded, _)) = fold(&decomposed, &FoldConfig::default()) else {
        return 3;
    };
    drop(to_bytes(&model.with_graph(folded)));
    4
}

/// Values that a test has the time to compute.
const MAX_ELEMENTS: usize = 1 << 22;

fn run(graph: &Graph, shape: [usize; 4]) {
    let Ok(inferred) = infer_images(graph, 1, shape[2], shape[3]) else {
        return;
    };
    let is_large = |shape: &Vec<usize>| shape.iter().product::<usize>() > MAX_ELEMENTS;
    if inferred.shapes.values().any(is_large) {
        return;
    }
    let engine = NativeEngine::new();
    let session = engine.session(&Request::evaluation(
        graph,
        graph
            .outputs
            .iter()
            .map(|output| output.name.clone())
            .collect(),
    ));
    if let Ok(mut session) = session {
        drop(session.forward(&Floats::from_elem(IxDyn(&shape), 0.5)));
    }
}

#[test]
fn mutated_models_never_panic() {
    let cases = fixtures::operators();
    let mut operators: Vec<String> = Vec::new();
    for case in &cases {
        let graph = ModelProto::decode(&case.model[..]).unwrap().graph.unwrap();
        operators.extend(graph.node.into_iter().filter_map(|node| node.op_type));
    }
    operators.sort();
    operators.dedup();
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut reached = [0; 5];
    for number in 0..MODELS {
        let case = &cases[rng.random_range(0..cases.len())];
        let mut model = ModelProto::decode(&case.model[..]).unwrap();
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut model, &operators, &mut rng);
        }
        let bytes = model.encode_to_vec();
        match catch_unwind(AssertUnwindSafe(|| stages(&bytes))) {
            Ok(stage) => reached[stage] += 1,
            Err(_) => panic!("model {number}, made of {}: {model:?}", case.name),
        }
    }
    // Many are refused, and enough are well-formed to go through every stage.
    let [not_read, no_shapes, .., finished] = reached;
    assert!(
        not_read > 1_000 && no_shapes > 500 && finished > 1_000,
        "{reached:?}"
    );
}
