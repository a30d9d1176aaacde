//! Times of layers add up to that of the whole, and foretell what a cut saves.

use super::*;
use crate::decompose::{DecomposeConfig, OutputScale, convolutions};
use crate::graph::samples::resnet20;
use crate::prune::{Candidate, Goal, Per, SelectConfig, select};

/// ResNet-20 in factors, its cost as it is exported, and times that are twice the dense work of each
/// layer, in nanoseconds for every thousand multiply-accumulates; two factors take half of it.
fn network() -> (Vec<FactoredLayer>, Cost, BTreeMap<String, RankTimes>) {
    let config = DecomposeConfig {
        exclude: None,
        head: None,
        output_scale: OutputScale::Nowhere,
    };
    let (graph, _) = convolutions(&resnet20(), &config, &crate::progress::Silent).unwrap();
    let (exported, _) = fold(&graph, &FoldConfig::default()).unwrap();
    let cost = cost::of(&exported, &infer_images(&exported, 1, 32, 32).unwrap());
    let layers = factored_layers(&graph);
    let times = layers
        .iter()
        .map(|layer| {
            let dense = macs_of(&cost, &layer.name) / 500;
            (
                layer.name.clone(),
                RankTimes::new(dense, vec![(1, 1), (8, dense / 2)]),
            )
        })
        .collect();
    (layers, cost, times)
}

#[test]
fn layers_never_take_more_than_the_whole() {
    let (layers, cost, found) = network();
    let sum: u64 = found.values().map(|times| times.at(0, false)).sum();
    for whole in [sum / 3, 2 * sum] {
        let times = Times::from_parts(whole, &layers, found.clone(), &cost, BTreeMap::new());
        let own: u64 = layers
            .iter()
            .filter_map(|layer| times.of_layer(&layer.name))
            .map(|times| times.at(0, false))
            .sum();
        assert!(own <= whole && own > whole * 3 / 10, "{own} of {whole}");
        // The network as it is takes what was measured.
        let foretold = times.foretold(&cost);
        assert!(
            foretold.abs_diff(whole) <= whole / 1000,
            "{foretold} {whole}"
        );
    }
}

#[test]
fn layers_that_cannot_run_alone_go_at_the_rate_of_the_rest() {
    let (layers, cost, mut found) = network();
    let alone = layers[3].name.clone();
    found.remove(&alone);
    let whole = 1_000_000_000;
    let times = Times::from_parts(whole, &layers, found, &cost, BTreeMap::new());
    let nanos = times.of_layer(&alone).unwrap().at(layers[3].rank, false);
    let expected = times.other_rate * macs_of(&cost, &alone) as f64;
    assert!((nanos as f64 - expected).abs() <= 1.0 && nanos > 0);
    // At no more than the rate of the layers that are known: the head's few products take no half of it.
    let most = times.rates.values().fold(0.0, |a: f64, &b| a.max(b));
    assert!(times.other_rate <= most, "{} {most}", times.other_rate);
    assert!(times.fixed > 0.0);
    assert_eq!(times.rate(&format!("{alone}.basis")), times.other_rate);
}

#[test]
fn a_cut_for_time_takes_the_layer_that_saves_time() {
    let (layers, cost, mut found) = network();
    // As two factors, only the last layer is faster than as one kernel.
    for (name, times) in &mut found {
        if *name != layers[layers.len() - 1].name {
            let dense = times.at(0, false);
            *times = RankTimes::new(dense, vec![(1, dense + 1), (8, dense + 1)]);
        }
    }
    let whole = 1_000_000_000;
    let times = Times::from_parts(whole, &layers, found, &cost, BTreeMap::new());
    let candidates: Vec<Candidate> = layers
        .iter()
        .map(|layer| Candidate {
            times: times.of_layer(&layer.name),
            ..Candidate::new(layer, 1)
        })
        .collect();
    let scores = layers
        .iter()
        .map(|layer| (layer.name.clone(), vec![1.0; layer.rank]))
        .collect();
    let total: u64 = candidates
        .iter()
        .map(|candidate| candidate.size_at(candidate.rank).nanos)
        .sum();
    let config = SelectConfig {
        per: Per::Time,
        align: 8,
        ..SelectConfig::new(Goal::Nanos(total - 1))
    };
    let plan = select(&candidates, &scores, &config).unwrap();
    for (layer, plan) in &plan.layers {
        let is_last = *layer == layers[layers.len() - 1].name;
        assert_eq!(plan.keep.len() < plan.rank, is_last, "{layer}");
    }
    assert!(plan.predicted.nanos < total);
}

#[test]
fn a_layer_that_is_cut_already_costs_more_at_its_full_rank() {
    let (mut layers, ..) = network();
    let layer = &mut layers[5];
    layer.rank = 4;
    let times = at_rate(layer, 1000.0);
    assert_eq!(times.at(4, true), 1000);
    let dense = 1000.0 * layer.shape.dense_params() as f64 / layer.shape.params_at(4) as f64;
    assert_eq!(times.at(16, false), dense as u64);
    assert!((times.at(2, true) as f64 - 500.0).abs() < 2.0);
}
