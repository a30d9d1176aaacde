//! A refit gives a cut network outputs that are nearer to those of the uncut one.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::decompose::{DecomposeConfig, OutputScale, convolutions};
use crate::exec::{NativeEngine, Request};
use crate::graph::Arithmetic;
use crate::graph::samples::Builder;
use crate::groups::{ChannelId, Removed, Role, discover};
use crate::progress::Silent;
use crate::prune::{LayerPlan, PLAN_VERSION, PruningPlan, apply};
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: usize = 8;

/// A convolution, a residual block of two with a depthwise one between them, all followed by batch
/// norm, and a rectifier at the end; decomposed at full rank.
fn network(rng: &mut ChaCha8Rng) -> Graph {
    let mut b = Builder::new(3);
    let normed = |b: &mut Builder, name: &str, input: &str, weight| {
        b.conv(name, input, weight, 1);
        b.batch_norm(&format!("{name}.norm"), name, weight[0])
    };
    let start = normed(&mut b, "first", "x", [12, 3, 3, 3]);
    let start = b.relu("first.relu", &start);
    let value = normed(&mut b, "inner", &start, [10, 12, 3, 3]);
    let value = b.relu("inner.relu", &value);
    b.conv("depthwise", &value, [10, 1, 3, 3], 1);
    if let Some(Op::Conv(attrs)) = b.graph.nodes.last_mut().map(|node| &mut node.op) {
        attrs.groups = 10;
    }
    let value = b.batch_norm("depthwise.norm", "depthwise", 10);
    let value = b.relu("depthwise.relu", &value);
    let value = normed(&mut b, "outer", &value, [12, 10, 3, 3]);
    let sum = b.node("sum", Op::Arithmetic(Arithmetic::Add), &[&value, &start]);
    let end = b.relu("end", &sum);
    let mut graph = b.output(&end);
    for (name, tensor) in &mut graph.initializers {
        let Tensor::F32(array) = tensor else { continue };
        let scale = (2.0 / array.len() as f32 * array.shape()[0] as f32).sqrt();
        let positive = name.ends_with("variance") || name.ends_with("scale");
        array.mapv_inplace(|_| match positive {
            true => rng.random_range(0.5..1.5),
            false => scale * rng.random_range(-1.0..1.0_f32),
        });
    }
    let config = DecomposeConfig {
        exclude: None,
        head: None,
        output_scale: OutputScale::Nowhere,
    };
    convolutions(&graph, &config, &Silent).unwrap().0
}

fn batches(rng: &mut ChaCha8Rng) -> Vec<Batch> {
    let batch = |_| Batch {
        images: Floats::from_shape_simple_fn(IxDyn(&[32, 3, SIZE, SIZE]), || {
            rng.random_range(-1.0..1.0_f32)
        }),
        labels: vec![0; 32],
    };
    (0..9).map(batch).collect()
}

fn outputs(graph: &Graph, batches: &[Batch]) -> Vec<Floats> {
    let engine = NativeEngine::new();
    let mut session = engine
        .session(&Request::evaluation(
            graph,
            vec![graph.outputs[0].name.clone()],
        ))
        .unwrap();
    let run = |batch: &Batch| session.forward(&batch.images).unwrap().remove(0);
    batches.iter().map(run).collect()
}

/// Squared difference of the outputs, of the squared `want`.
fn error(want: &[Floats], got: &[Floats]) -> f64 {
    let (mut lost, mut all) = (0.0, 0.0);
    for (want, got) in want.iter().zip(got) {
        for (want, got) in want.iter().zip(got.iter()) {
            lost += f64::from(want - got).powi(2);
            all += f64::from(*want).powi(2);
        }
    }
    lost / all
}

fn refitted(uncut: &Graph, cut: &Graph, kept: &KeptOutputs, batches: &[Batch]) -> Graph {
    let moments = &BTreeMap::new();
    let reference = Reference {
        uncut,
        kept,
        moments,
        batches,
    };
    refit_layers(&NativeEngine::new(), cut, &reference, &Silent).unwrap()
}

/// `graph` with the first `rank` directions of each layer that has more.
fn cut_to(graph: &Graph, rank: usize) -> Graph {
    let layers = factored_layers(graph).into_iter();
    let layers = layers.filter(|layer| layer.rank > rank).map(|layer| {
        let keep = (0..rank).collect();
        let rank = layer.rank;
        (layer.name, LayerPlan { rank, keep })
    });
    let plan = PruningPlan {
        version: PLAN_VERSION,
        basis: crate::decompose::Basis::Svd,
        layers: layers.collect(),
        predicted: crate::graph::Size::default(),
    };
    apply(graph, &plan).unwrap()
}

#[test]
fn a_network_that_lost_nothing_stays() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (uncut, batches) = (network(&mut rng), batches(&mut rng));
    let found = refitted(&uncut, &uncut, &KeptOutputs::new(), &batches);
    let found = error(&outputs(&uncut, &batches), &outputs(&found, &batches));
    assert!(found < 1e-6, "{found}");
}

#[test]
fn images_that_were_not_fitted_are_put_out_better() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let uncut = network(&mut rng);
    let (seen, unseen) = (batches(&mut rng), batches(&mut rng));
    let cut = cut_to(&uncut, 6);
    let want = outputs(&uncut, &unseen);
    let before = error(&want, &outputs(&cut, &unseen));
    let after = refitted(&uncut, &cut, &KeptOutputs::new(), &seen);
    let after = error(&want, &outputs(&after, &unseen));
    assert!(after < 0.7 * before, "{before} {after}");
}

/// Moments that make every output of a layer count alike.
fn alike(graph: &Graph) -> BTreeMap<String, OutputMoments> {
    let moments = |layer: FactoredLayer| {
        let co = layer.shape.co;
        let moments = OutputMoments {
            mean: Array1::zeros(co),
            positions: 1.0,
            covariance: Array2::eye(co),
            gradient: Array2::eye(co),
        };
        (layer.output, moments)
    };
    factored_layers(graph).into_iter().map(moments).collect()
}

fn refitted_kernels(uncut: &Graph, cut: &Graph, batches: &[Batch]) -> Graph {
    let reference = Reference {
        uncut,
        kept: &KeptOutputs::new(),
        moments: &alike(cut),
        batches,
    };
    refit_layers(&NativeEngine::new(), cut, &reference, &Silent).unwrap()
}

#[test]
fn as_many_images_are_looked_at_as_the_work_allows() {
    use super::target::images_within;
    // ResNet-20 at 32x32, 64 channels: all of the default's 2,048. ResNet-50 at 224x224: the least.
    assert!(images_within(80_000_000, 576, 64) > 2_048);
    assert_eq!(images_within(8_200_000_000, 2_304, 196), LEAST_IMAGES);
    // VGG-16 at 32x32, twice, costs more than the moments of patches of 2,304 values.
    let (layer, network) = (
        images_within(0, 2_304, 64),
        images_within(626_000_000, 0, 0),
    );
    assert!(
        network < layer && network > LEAST_IMAGES,
        "{layer} {network}"
    );
    assert!(images_within(u64::MAX, usize::MAX, u64::MAX / 2) == LEAST_IMAGES);
    assert!(images_within(0, 0, 0) > 1_000_000);
}

#[test]
fn a_wrong_basis_is_solved_away() {
    // Both networks have the same ranks, so the right kernel can be found.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let right = cut_to(&network(&mut rng), 5);
    let batches = batches(&mut rng);
    let mut wrong = right.clone();
    for tensor in ["first.basis.weight", "inner.basis.weight"] {
        if let Some(Tensor::F32(basis)) = wrong.initializers.get_mut(tensor) {
            basis.mapv_inplace(|_| rng.random_range(-1.0..1.0_f32));
        }
    }
    let want = outputs(&right, &batches);
    let projections = refitted(&right, &wrong, &KeptOutputs::new(), &batches);
    let projections = error(&want, &outputs(&projections, &batches));
    let kernels = refitted_kernels(&right, &wrong, &batches);
    let kernels = error(&want, &outputs(&kernels, &batches));
    assert!(projections > 0.01, "{projections}");
    // Not 0: the ridge holds directions that hardly vary near the start, which is wrong.
    assert!(kernels < 0.05 * projections, "{kernels} {projections}");
}

/// Random images, flattened, and two dense layers, each a product and the sum with a bias, decomposed at full rank.
fn perceptron(rng: &mut ChaCha8Rng) -> Graph {
    let mut b = Builder::new(3);
    let mut value = b.node("flat", Op::Flatten { axis: 1 }, &["x"]);
    for (name, shape) in [("hidden", [3 * SIZE * SIZE, 16]), ("last", [16, 6])] {
        let weight = b.zeros(&format!("{name}.weight"), &shape);
        let bias = b.zeros(&format!("{name}.bias"), &shape[1..]);
        let product = format!("{name}.product");
        b.node(&product, Op::MatMul, &[&value, &weight]);
        let add = Op::Arithmetic(Arithmetic::Add);
        value = b.node(name, add, &[&product, &bias]);
        if name == "hidden" {
            value = b.relu("relu", &value);
        }
    }
    let mut graph = b.output(&value);
    for tensor in graph.initializers.values_mut() {
        if let Tensor::F32(array) = tensor {
            let scale = (2.0 / array.shape()[0] as f32).sqrt();
            array.mapv_inplace(|_| scale * rng.random_range(-1.0..1.0_f32));
        }
    }
    let config = DecomposeConfig {
        exclude: None,
        head: None,
        output_scale: OutputScale::Nowhere,
    };
    convolutions(&graph, &config, &Silent).unwrap().0
}

#[test]
fn products_with_added_biases_are_fitted_after_every_cut() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let uncut = perceptron(&mut rng);
    let seen = batches(&mut rng);
    let want = outputs(&uncut, &seen);
    let mut graph = uncut.clone();
    for rank in [12, 5] {
        let cut = cut_to(&graph, rank);
        graph = refitted(&uncut, &cut, &KeptOutputs::new(), &seen);
        let before = error(&want, &outputs(&cut, &seen));
        let after = error(&want, &outputs(&graph, &seen));
        assert!(after < 0.97 * before, "{rank}: {before} {after}");
        assert_eq!(graph.nodes.len(), uncut.nodes.len());
    }
}

#[test]
fn later_layers_make_up_for_what_earlier_ones_lost() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (uncut, batches) = (network(&mut rng), batches(&mut rng));
    // Only the first layer is cut; its own projection is fitted in both.
    let plan = PruningPlan {
        version: PLAN_VERSION,
        basis: crate::decompose::Basis::Svd,
        layers: [(
            "first".to_owned(),
            LayerPlan {
                rank: 12,
                keep: (0..5).collect(),
            },
        )]
        .into(),
        predicted: crate::graph::Size::default(),
    };
    let cut = apply(&uncut, &plan).unwrap();
    let all = refitted(&uncut, &cut, &KeptOutputs::new(), &batches);
    let mut alone = cut;
    for name in [
        "first.projection.weight",
        "first.norm.mean",
        "first.norm.variance",
    ] {
        let fitted = all.initializers[name].clone();
        alone.initializers.insert(name.to_owned(), fitted);
    }
    let want = outputs(&uncut, &batches);
    let alone = error(&want, &outputs(&alone, &batches));
    let all = error(&want, &outputs(&all, &batches));
    assert!(all < 0.97 * alone, "{alone} {all}");
}

#[test]
fn channels_that_are_left_are_found_again() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (uncut, batches) = (network(&mut rng), batches(&mut rng));
    let mut graph = uncut.clone();
    let mut plans = Vec::new();
    // Twice channels go, so the second plan counts what the first has left.
    for channels in [[1, 4], [0, 5]] {
        let inferred = infer_images(&graph, 1, SIZE, SIZE).unwrap();
        let groups = discover(&graph, &inferred);
        let is_inner = |group: &crate::groups::ChannelGroup| {
            group
                .nodes(Role::Produces)
                .any(|node| node == "inner.projection")
        };
        let group = groups.groups.iter().position(is_inner).unwrap();
        let mut removed = Removed::nothing(&groups);
        for channel in channels {
            removed.insert(ChannelId { group, channel });
        }
        plans.push(ChannelPlan::of(&groups, &removed));
        graph = channels::apply(&graph, &inferred, &plans[plans.len() - 1]).unwrap();
    }
    let kept = kept_outputs(&uncut, &plans, [SIZE, SIZE]).unwrap();
    let left = vec![2, 3, 5, 6, 8, 9];
    assert_eq!(kept["inner"], left);
    assert_eq!(kept["depthwise.norm"], left);
    assert_eq!(kept["first"], (0..12).collect::<Vec<_>>());

    let want = outputs(&uncut, &batches);
    let before = error(&want, &outputs(&graph, &batches));
    let after = refitted(&uncut, &graph, &kept, &batches);
    let after = error(&want, &outputs(&after, &batches));
    assert!(after < before, "{before} {after}");
}

#[test]
fn what_is_run_from_the_frontier_is_what_is_run_from_the_images() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (uncut, batches) = (network(&mut rng), batches(&mut rng));
    let cut = cut_to(&uncut, 6);
    let engine = NativeEngine::new();
    let mut frontier = Frontier::new(&batches);
    // Inside the block the shortcut is still to be read.
    for value in ["first.relu", "inner.relu"] {
        frontier.reached(value, &cut, &uncut);
    }
    frontier.advance(&engine, &cut, &uncut).unwrap();
    let rest = frontier.rest(&cut);
    assert_eq!(rest.inputs[0].name, "first.relu");
    let (whole, part) = (outputs(&cut, &batches), outputs(&rest, &frontier.ours));
    assert_eq!(whole, part);
    let theirs = outputs(&frontier.rest(&uncut), &frontier.theirs);
    assert_eq!(theirs, outputs(&uncut, &batches));
}

#[test]
fn the_trained_scale_of_what_is_not_fitted_stays() {
    let mut b = Builder::new(1);
    let mut made = "x".to_owned();
    for name in ["a", "b"] {
        made = b.conv(name, &made, [1, 1, 1, 1], 1);
        let scale = b.zeros(&format!("{name}.output_scale"), &[1, 1, 1, 1]);
        made = b.node(
            &format!("{name}.scaled"),
            Op::Arithmetic(Arithmetic::Mul),
            &[&made, &scale],
        );
    }
    let mut cut = b.output(&made);
    target::reset_scale(&mut cut, &"a".to_owned());
    let scale = |name: &str| cut.float(name).unwrap().iter().copied().collect::<Vec<_>>();
    assert_eq!(scale("a.output_scale"), [1.0]);
    assert_eq!(scale("b.output_scale"), [0.0]);
}
