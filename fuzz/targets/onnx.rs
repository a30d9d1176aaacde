//! An ONNX file: read, written, shapes inferred, run, cut, decomposed, folded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur::decompose::{DecomposeConfig, OutputScale, convolutions};
use secateur::exec::{Engine, NativeEngine, Request};
use secateur::fold::{FoldConfig, fold};
use secateur::graph::{Graph, infer_images};
use secateur::groups::{ChannelId, Removed, discover};
use secateur::onnx::{from_bytes, to_bytes};
use secateur::progress::Silent;
use secateur::prune::channels::{self, ChannelPlan};
use secateur::tensor::Floats;

/// The most values of one tensor that are computed: more would only take time.
const MAX_ELEMENTS: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Ok(model) = from_bytes(data) else {
        return;
    };
    // What was read can be written, and what was written can be read.
    if let Ok(bytes) = to_bytes(&model) {
        let again = from_bytes(&bytes).unwrap_or_else(|error| panic!("own file refused: {error}"));
        assert_eq!(model.graph.nodes.len(), again.graph.nodes.len());
    }
    let graph = &model.graph;
    let shape = graph.image_input().map_or([1, 3, 8, 8], |input| {
        let side = |fixed: Option<usize>| fixed.unwrap_or(8);
        [1, input.channels, side(input.height), side(input.width)]
    });
    if !run(graph, shape) {
        return;
    }
    let Ok(inferred) = infer_images(graph, 1, shape[2], shape[3]) else {
        return;
    };
    drop(secateur::cost::of(graph, &inferred));
    let groups = discover(graph, &inferred);
    let mut removed = Removed::nothing(&groups);
    for (group, found) in groups.groups.iter().enumerate() {
        (0..found.channels / 2).for_each(|channel| removed.insert(ChannelId { group, channel }));
    }
    if let Ok(cut) = channels::apply(graph, &inferred, &ChannelPlan::of(&groups, &removed)) {
        run(&cut, shape);
    }
    let config = DecomposeConfig {
        exclude: None,
        head: None,
        output_scale: OutputScale::All,
    };
    let Ok((decomposed, _)) = convolutions(graph, &config, &Silent) else {
        return;
    };
    run(&decomposed, shape);
    if let Ok((folded, _)) = fold(&decomposed, &FoldConfig::default()) {
        drop(to_bytes(&model.with_graph(folded)));
    }
});

/// Runs a network of small values; `false` where its values are not small, or have no shapes.
fn run(graph: &Graph, shape: [usize; 4]) -> bool {
    let count = |shape: &[usize]| shape.iter().try_fold(1_usize, |all, &len| all.checked_mul(len));
    let is_small = |shape: &[usize]| count(shape).is_some_and(|count| count <= MAX_ELEMENTS);
    if !is_small(&shape) {
        return false;
    }
    let Ok(inferred) = infer_images(graph, 1, shape[2], shape[3]) else {
        return false;
    };
    if !inferred.shapes.values().all(|shape| is_small(shape)) {
        return false;
    }
    let outputs = graph.outputs.iter().map(|output| output.name.clone());
    let engine = NativeEngine::new();
    if let Ok(mut session) = engine.session(&Request::evaluation(graph, outputs.collect())) {
        drop(session.forward(&Floats::from_elem(&shape[..], 0.5)));
    }
    true
}
