//! What every pruned graph must fulfil.

use ndarray::{ArcArray, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secateur::cost;
use secateur::exec::{Engine, Request};
use secateur::graph::{Graph, infer};
use secateur::groups::{ChannelGroups, ChannelId, Removed, discover};
use secateur::onnx::{self, Model};
use secateur::prune::channels::{self, ChannelPlan};
use secateur::tensor::Floats;
use std::collections::BTreeMap;

/// What a check found.
pub struct Found {
    /// Channels of all groups, and those that were removed.
    pub channels: [usize; 2],
    /// Parameters before and after.
    pub params: [u64; 2],
    /// The largest difference between applied and zeroed, as a share of the largest output.
    pub difference: f32,
    /// The same between the whole network and the zeroed one.
    pub change: f32,
}

/// Uniform numbers between -1 and 1.
pub fn noise(shape: &[usize], seed: u64) -> Floats {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArcArray::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

pub fn forward(engine: &dyn Engine, graph: &Graph, input: &Floats) -> Vec<Floats> {
    let outputs = graph.outputs.iter().map(|output| output.name.clone());
    let request = Request::evaluation(graph, outputs.collect());
    let mut session = engine.session(&request).unwrap();
    session.forward(input).unwrap()
}

/// Removes each channel with probability `share` as long as nothing is emptied by it.
pub fn random_removal(groups: &ChannelGroups, share: f64, seed: u64) -> Removed {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut removed = Removed::nothing(groups);
    for (group, found) in groups.groups.iter().enumerate() {
        let before = removed.clone();
        let stays = rng.random_range(0..found.channels);
        for channel in (0..found.channels).filter(|&channel| channel != stays) {
            if rng.random_bool(share) {
                removed.insert(ChannelId { group, channel });
            }
        }
        // Pieces of the group may be values of their own.
        if groups.emptied(&removed).is_some() {
            removed = before;
        }
    }
    removed
}

/// The largest difference as a share of the largest value.
pub fn difference(a: &[Floats], b: &[Floats]) -> f32 {
    let mut worst = 0.0_f32;
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.shape(), b.shape());
        let largest = a.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let pairs = a.iter().zip(b);
        let difference = pairs.map(|(a, b)| (a - b).abs());
        assert!(a.iter().all(|value| value.is_finite()));
        worst = worst.max(difference.fold(0.0, f32::max) / largest);
    }
    worst
}

/// Prunes at random and checks: applied equals zeroed, the cost is the predicted one, and the plan
/// and the file survive being written and read.
pub fn check(engine: &dyn Engine, graph: &Graph, input: &Floats, share: f64, seed: u64) -> Found {
    let name = graph.inputs.iter().map(|input| input.name.clone());
    let inputs: BTreeMap<String, Vec<usize>> =
        name.map(|name| (name, input.shape().to_vec())).collect();
    let inferred = infer(graph, &inputs).unwrap();
    let groups = discover(graph, &inferred);
    let removed = random_removal(&groups, share, seed);
    let plan = ChannelPlan::of(&groups, &removed);
    let text = serde_json::to_string(&plan).unwrap();
    let plan: ChannelPlan = serde_json::from_str(&text).unwrap();
    assert_eq!(plan.removed(&groups).unwrap(), removed);

    let pruned = channels::apply(graph, &inferred, &plan).unwrap();
    let zeroed = channels::zero(graph, &inferred, &plan).unwrap();
    pruned.validate().unwrap();
    let after = infer(&pruned, &inputs).unwrap();
    let want = forward(engine, &zeroed, input);
    let got = forward(engine, &pruned, input);

    let predicted = channels::cost(graph, &inferred, &plan).unwrap();
    assert_eq!(predicted, cost::of(&pruned, &after));

    let model = Model::new(pruned.clone());
    let read = onnx::from_bytes(&onnx::to_bytes(&model).unwrap()).unwrap();
    assert_eq!(difference(&got, &forward(engine, &read.graph, input)), 0.0);

    let left: usize = plan
        .groups
        .values()
        .map(|group| group.channels - group.keep.len())
        .sum();
    let total = |groups: &ChannelGroups| groups.groups.iter().map(|g| g.channels).sum::<usize>();
    Found {
        channels: [total(&groups), left],
        params: [cost::of(graph, &inferred).params, predicted.params],
        difference: difference(&want, &got),
        change: difference(&want, &forward(engine, graph, input)),
    }
}
