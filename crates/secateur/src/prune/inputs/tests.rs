//! Tests of cuts of input spaces: cutting equals projecting what is read.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::decompose::{Basis, DecomposeConfig, OutputMoments, convolutions, subspace};
use crate::exec::{Engine, NativeEngine, Request};
use crate::fold::{FoldConfig, SizeRule, fold};
use crate::graph::samples::{Builder, resnet20};
use crate::progress::Silent;
use ndarray::{Array1, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `x` (12 channels, made by a node) -> 3x3 convolution of 8 filters, decomposed.
fn network() -> Graph {
    let mut b = Builder::new(12);
    let read = b.relu("read", "x");
    let made = b.conv("conv", &read, [8, 12, 3, 3], 1);
    let mut graph = b.output(&made);
    let weight = noise(&[8, 12, 3, 3], 3);
    graph
        .initializers
        .insert("conv.weight".into(), Tensor::F32(weight));
    decomposed(&graph)
}

fn decomposed(graph: &Graph) -> Graph {
    convolutions(graph, &DecomposeConfig::default(), &Silent)
        .unwrap()
        .0
}

fn noise(shape: &[usize], seed: u64) -> Floats {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Floats::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

fn subspace_of(channels: usize, seed: u64) -> Subspace {
    let half = noise(&[channels, channels], seed).mapv(f64::from);
    let half = half.into_dimensionality::<ndarray::Ix2>().unwrap();
    let other = noise(&[channels, channels], seed + 1).mapv(f64::from);
    let other = other.into_dimensionality::<ndarray::Ix2>().unwrap();
    let moments = OutputMoments {
        mean: Array1::zeros(channels),
        positions: 1.0,
        covariance: half.dot(&half.t()),
        gradient: other.dot(&other.t()),
    };
    subspace(Basis::Fisher, &moments).unwrap()
}

fn run(graph: &Graph, input: &Floats) -> Floats {
    let outputs = vec![graph.outputs[0].name.clone()];
    let engine = NativeEngine::new();
    let mut session = engine
        .session(&Request::evaluation(graph, outputs))
        .unwrap();
    session.forward(input).unwrap().remove(0)
}

#[track_caller]
fn assert_near(a: &Floats, b: &Floats) {
    assert_eq!(a.shape(), b.shape());
    let largest = b.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let apart = (a - b)
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    // Rounding of weights that are products of two matrices of condition number about 1,000.
    assert!(apart < 1e-4 * largest, "{apart} of {largest}");
}

fn plan(rank: usize, keep: &[usize]) -> LayerPlan {
    let keep = keep.to_vec();
    LayerPlan { rank, keep }
}

/// `x` at every pixel as its directions `keep` make it.
fn projected(x: &Floats, subspace: &Subspace, keep: &[usize]) -> Floats {
    let analysis = subspace.analysis.select(Axis(1), keep);
    let onto = analysis.dot(&subspace.synthesis.select(Axis(0), keep)); // [c, c]
    let mut result = x.clone();
    let channels = x.shape()[1];
    for image in 0..x.shape()[0] {
        for row in 0..x.shape()[2] {
            for column in 0..x.shape()[3] {
                for to in 0..channels {
                    let read =
                        |from: usize| onto[[from, to]] * f64::from(x[[image, from, row, column]]);
                    result[[image, to, row, column]] = (0..channels).map(read).sum::<f64>() as f32;
                }
            }
        }
    }
    result
}

#[test]
fn cutting_an_input_space_equals_projecting_what_is_read() {
    let graph = network();
    let spaces = input_spaces(&graph);
    assert_eq!(spaces.len(), 1);
    assert_eq!(
        (spaces[0].name.as_str(), spaces[0].rank),
        ("conv.input", 12)
    );
    assert_eq!(spaces[0].value, "read");
    let found = subspace_of(12, 7);
    // What is read is not negative, so the rectifier lets it through.
    let x = noise(&[2, 12, 5, 6], 9).mapv(f32::abs).into_shared();
    let keep = [0, 2, 3, 7, 11];
    let cut = cut_inputs(&graph, [(&spaces[0], &found, &plan(12, &keep))]).unwrap();
    let mut without = graph.clone();
    without.nodes.retain(|node| node.name != "read");
    for node in &mut without.nodes {
        let reads = node.inputs.iter_mut().filter(|input| *input == "read");
        reads.for_each(|input| *input = "x".to_owned());
    }
    assert_near(
        &run(&cut, &x),
        &run(&without, &projected(&x, &found, &keep)),
    );
    // Once more: of the five that are left, in directions of their own.
    let again = input_spaces(&cut);
    assert_eq!((again[0].rank, again[0].shape.n), (5, 12));
    let second = subspace_of(5, 1);
    let twice = cut_inputs(&cut, [(&again[0], &second, &plan(5, &[1, 4]))]).unwrap();
    let kernel = twice
        .float(&again[0].layer().basis_weight)
        .unwrap()
        .shape()
        .to_vec();
    assert_eq!(kernel, [8, 2, 3, 3]);
    let nodes = twice
        .nodes
        .iter()
        .filter(|node| node.name.contains(".input"))
        .count();
    assert_eq!(nodes, 1);
    let kept = [(&again[0], &second, &plan(5, &[0, 1, 2, 3, 4]))];
    assert_near(&run(&cut_inputs(&cut, kept).unwrap(), &x), &run(&cut, &x));
}

#[test]
fn a_layer_has_no_more_directions_than_it_can_tell_apart() {
    let graph = network();
    let spaces = input_spaces(&graph);
    let found = subspace_of(12, 5);
    let cut = |keep: &[usize]| cut_inputs(&graph, [(&spaces[0], &found, &plan(12, keep))]).unwrap();
    // One channel in a window of nine positions: 8 filters stay; a kernel of two positions would allow two.
    assert_eq!(factored_layers(&cut(&[0]))[0].rank, 8);
    let mut b = Builder::new(12);
    let read = b.relu("read", "x");
    b.conv("conv", &read, [8, 12, 1, 1], 1);
    let weight = b.zeros("wide", &[8, 12, 1, 2]);
    let made = b.node("conv2", Op::Conv(ConvAttrs::default()), &[&read, &weight]);
    let mut graph = b.output(&made);
    for (name, shape) in [("conv.weight", [8, 12, 1, 1]), ("wide", [8, 12, 1, 2])] {
        let weight = Tensor::F32(noise(&shape, 2));
        graph.initializers.insert(name.into(), weight);
    }
    let graph = decomposed(&graph);
    let spaces = input_spaces(&graph);
    // A 1x1 convolution has no input space of its own, and the value is read twice.
    assert_eq!(spaces.len(), 1);
    assert_eq!(spaces[0].value, "conv2.read");
    let cut = cut_inputs(&graph, [(&spaces[0], &found, &plan(12, &[3]))]).unwrap();
    let layers = factored_layers(&cut);
    let layer = layers.iter().find(|layer| layer.name == "conv2").unwrap();
    assert_eq!(layer.rank, 2);
}

#[test]
fn values_that_others_read_are_observed_apart() {
    let graph = decomposed(&resnet20());
    let spaces = input_spaces(&graph);
    // 19 convolutions of 3x3, without the first, which reads the images, and two of stride 2.
    assert_eq!(spaces.len(), 16);
    let watched = observed(&graph, &spaces);
    let shared = spaces
        .iter()
        .filter(|space| graph.node(&space.value).is_none());
    let shared: Vec<_> = shared.collect();
    // The first convolution of each block but of the two with stride 2.
    assert_eq!(shared.len(), 7);
    for space in shared {
        let readers = watched.consumers();
        assert_eq!(readers[space.value.as_str()].len(), 1);
        let basis = watched.node(&space.layer().basis).unwrap();
        assert_eq!(basis.inputs[0], space.value);
    }
    assert_eq!(watched.nodes.len(), graph.nodes.len() + 7);
}

#[test]
fn an_input_factor_is_kept_where_it_pays_and_joined_where_not() {
    let graph = network();
    let spaces = input_spaces(&graph);
    let found = subspace_of(12, 11);
    let x = noise(&[1, 12, 4, 4], 1);
    // As one kernel 8 * 12 * 9 = 864 weights; of rank r `12 r + 72 r`, so 10 pay and 11 do not.
    for (rank, is_kept) in [(10, true), (11, false)] {
        let keep: Vec<usize> = (0..rank).collect();
        let cut = cut_inputs(&graph, [(&spaces[0], &found, &plan(12, &keep))]).unwrap();
        let (folded, _) = fold(&cut, &FoldConfig::default()).unwrap();
        assert_eq!(folded.node("conv.input").is_some(), is_kept, "{rank}");
        assert_near(&run(&folded, &x), &run(&cut, &x));
        let dense = FoldConfig {
            size_rule: SizeRule::Dense,
            ..FoldConfig::default()
        };
        let (dense, _) = fold(&cut, &dense).unwrap();
        assert!(dense.node("conv.input").is_none());
        assert_near(&run(&dense, &x), &run(&cut, &x));
    }
}

#[test]
fn a_space_that_is_spelled_out_changes_nothing() {
    let graph = network();
    let input = noise(&[2, 12, 5, 5], 8);
    let subspace = subspace_of(12, 21);
    // Without an input factor, and before one.
    let spaces = input_spaces(&graph);
    let cut = cut_inputs(
        &graph,
        [(&spaces[0], &subspace, &plan(12, &[0, 2, 3, 7, 9]))],
    )
    .unwrap();
    for (graph, size) in [(graph, 12), (cut, 5)] {
        let spaces = input_spaces(&graph);
        let subspace = subspace_of(size, 30);
        let (spelled, values) = spelled_out(&graph, [(&spaces[0], &subspace)]).unwrap();
        assert_near(&run(&spelled, &input), &run(&graph, &input));
        // The value named is the coordinates.
        let made = |graph: &Graph, value: &str| {
            let engine = NativeEngine::new();
            let request = Request::evaluation(graph, vec![value.to_owned()]);
            engine
                .session(&request)
                .unwrap()
                .forward(&input)
                .unwrap()
                .remove(0)
        };
        let read = made(&graph, spaces[0].read());
        let coordinates = made(&spelled, &values[0]);
        let at = |j: usize| {
            let along = |c: usize| subspace.analysis[[c, j]] * f64::from(read[[1, c, 2, 3]]);
            (0..size).map(along).sum::<f64>()
        };
        for j in 0..size {
            assert!(
                (f64::from(coordinates[[1, j, 2, 3]]) - at(j)).abs() < 1e-4 * at(j).abs().max(1.0)
            );
        }
    }
}

#[test]
fn a_subspace_of_another_value_is_refused() {
    let graph = network();
    let spaces = input_spaces(&graph);
    let small = subspace_of(4, 1);
    assert!(cut_inputs(&graph, [(&spaces[0], &small, &plan(12, &[0]))]).is_err());
    let found = subspace_of(12, 1);
    assert!(cut_inputs(&graph, [(&spaces[0], &found, &plan(12, &[12]))]).is_err());
}
