//! The ranking is optimal for what a cut saves, and keeps to its limits.

use super::*;
use proptest::prelude::*;

fn candidate(name: &str, rank: usize, n: usize, co: usize, positions: u64) -> Candidate {
    Candidate {
        name: name.into(),
        rank,
        shape: LayerShape { n, co, groups: 1 },
        positions,
        times: None,
    }
}

fn scores(layers: &[(&str, &[f64])]) -> BTreeMap<String, Vec<f64>> {
    layers
        .iter()
        .map(|(name, scores)| ((*name).to_owned(), scores.to_vec()))
        .collect()
}

#[test]
fn the_lowest_score_per_cost_goes_first() {
    // A direction of `a` costs 10 parameters at 100 positions, one of `b` 40 at 1.
    let candidates = [candidate("a", 2, 6, 4, 100), candidate("b", 2, 20, 20, 1)];
    let scores = scores(&[("a", &[10.0, 3.0]), ("b", &[8.0, 6.0])]);
    // Per parameter: a 1, 0.3; b 0.2, 0.15. Per MAC: a 0.01, 0.003; b 0.2, 0.15.
    for (per, goes) in [
        (Per::Parameter, "b"),
        (Per::Mac, "a"),
        (Per::Direction, "a"),
    ] {
        let config = SelectConfig {
            per,
            ..SelectConfig::new(Goal::Params(99))
        };
        let plan = select(&candidates, &scores, &config).unwrap();
        for (name, layer) in &plan.layers {
            let expected = if name == goes { vec![0] } else { vec![0, 1] };
            assert_eq!(layer.keep, expected, "{per:?} {name}");
        }
    }
}

#[test]
fn ties_go_by_name_and_then_from_the_last_direction() {
    let candidates = [candidate("b", 3, 9, 9, 1), candidate("a", 3, 9, 9, 1)];
    let scores = scores(&[("a", &[0.0, -0.0, 0.0]), ("b", &[0.0; 3])]);
    let config = SelectConfig::new(Goal::Params(3 * 18));
    let plan = select(&candidates, &scores, &config).unwrap();
    assert_eq!(plan.layers["a"].keep, [0]);
    assert_eq!(plan.layers["b"].keep, [0, 1]);
    let swapped = [candidates[1].clone(), candidates[0].clone()];
    assert_eq!(select(&swapped, &scores, &config).unwrap(), plan);
}

#[test]
fn a_size_goal_counts_layers_above_break_even_as_dense() {
    // n = co = 8: dense 64, a direction 16, break-even rank 3 (48 < 64).
    let candidates = [candidate("a", 8, 8, 8, 2)];
    let scores = scores(&[("a", &[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])]);
    let kept = |goal| select(&candidates, &scores, &SelectConfig::new(goal)).unwrap();
    assert_eq!(kept(Goal::Params(64)).layers["a"].keep.len(), 8);
    let plan = kept(Goal::Params(63));
    assert_eq!(plan.layers["a"].keep, [0, 1, 2]);
    assert_eq!(
        plan.predicted,
        Size {
            params: 48,
            macs: 96,
            nanos: 0
        }
    );
    assert_eq!(kept(Goal::Macs(95)).layers["a"].keep, [0, 1]);
    let rest = Size {
        params: 100,
        ..Size::default()
    };
    let config = SelectConfig {
        rest,
        ..SelectConfig::new(Goal::Params(148))
    };
    assert_eq!(
        select(&candidates, &scores, &config)
            .unwrap()
            .predicted
            .params,
        148
    );
}

#[test]
fn a_goal_below_the_smallest_ranks_is_an_error_that_says_what_can_be_reached() {
    let candidates = [candidate("a", 8, 8, 8, 1)];
    let scores = scores(&[("a", &[1.0; 8])]);
    let error = select(&candidates, &scores, &SelectConfig::new(Goal::Params(15))).unwrap_err();
    assert!(
        matches!(
            error,
            SelectError::Unreachable {
                want: 15,
                least: 16,
                ..
            }
        ),
        "{error}"
    );
    let config = SelectConfig {
        min_rank: 2,
        ..SelectConfig::new(Goal::Params(31))
    };
    let error = select(&candidates, &scores, &config).unwrap_err();
    assert!(
        matches!(error, SelectError::Unreachable { least: 32, .. }),
        "{error}"
    );
}

#[test]
fn kept_ranks_are_aligned() {
    let candidates = [candidate("a", 10, 100, 100, 1)];
    let scores = scores(&[("a", &[0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0])]);
    let config = SelectConfig {
        align: 4,
        ..SelectConfig::new(Goal::Params(9 * 200))
    };
    let plan = select(&candidates, &scores, &config).unwrap();
    assert_eq!(plan.layers["a"].keep, [1, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(plan.predicted.params, 8 * 200);
}

#[test]
fn what_a_cut_saves_counts_and_not_what_a_direction_costs() {
    // `a` is dense, 64; it saves 16 at rank 3 and loses 5 with that. `b` is factored already
    // and saves 16 with one direction, the score of which is 4.
    let candidates = [candidate("a", 8, 8, 8, 1), candidate("b", 3, 8, 8, 1)];
    let scores = scores(&[
        ("a", &[5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("b", &[9.0, 9.0, 4.0]),
    ]);
    let config = SelectConfig::new(Goal::Params(64 + 48 - 1));
    let plan = select(&candidates, &scores, &config).unwrap();
    assert_eq!(plan.layers["a"].keep.len(), 8);
    assert_eq!(plan.layers["b"].keep, [0, 1]);
}

#[test]
fn scores_that_do_not_fit_are_errors_that_name_the_layer() {
    let candidates = [candidate("a", 2, 8, 8, 1)];
    let config = SelectConfig::new(Goal::Params(1));
    let fails = |layers: &[(&str, &[f64])]| {
        select(&candidates, &scores(layers), &config)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        fails(&[("a", &[1.0, f64::NAN])]),
        "layer `a`: the score of direction 1 is NaN"
    );
    assert_eq!(
        fails(&[("a", &[1.0])]),
        "layer `a`: 1 scores for 2 directions"
    );
    assert_eq!(fails(&[]), "layer `a` has no scores");
    assert!(fails(&[("a", &[1.0, 1.0]), ("b", &[1.0])]).contains("`b`"));
    let zero = SelectConfig {
        min_rank: 0,
        ..config
    };
    assert!(matches!(
        select(&[], &BTreeMap::new(), &zero),
        Err(SelectError::Setting {
            setting: "min_rank",
            ..
        })
    ));
}

fn network() -> impl Strategy<Value = Vec<(Candidate, Vec<f64>)>> {
    let layer = (1_usize..20, 1_usize..20, 1_usize..4, 1_u64..50);
    prop::collection::vec(layer, 1..6).prop_flat_map(|layers| {
        layers
            .into_iter()
            .enumerate()
            .map(|(index, (n, group_co, groups, positions))| {
                let shape = LayerShape {
                    n,
                    co: group_co * groups,
                    groups,
                };
                let rank = shape.full_rank();
                let candidate = Candidate {
                    name: format!("layer{index}"),
                    rank,
                    shape,
                    positions,
                    times: None,
                };
                (Just(candidate), prop::collection::vec(0.0..1.0_f64, rank))
            })
            .collect::<Vec<_>>()
    })
}

proptest! {
    /// Every step ends where loss plus price times size is least, its loss per cost being the
    /// price: no other ranks of the same total size lose less.
    #[test]
    fn steps_are_optimal(network in network(), min_rank in 1_usize..4, align in 1_usize..3) {
        let config = SelectConfig { min_rank, align, ..SelectConfig::new(Goal::Params(0)) };
        for (candidate, scores) in &network {
            let layer = Layer::new(candidate, scores);
            let price_of = |rank: usize, price: f64| {
                let lost: f64 = layer.order[..candidate.rank - rank].iter().map(|&j| scores[j]).sum();
                lost - price * layer.saved(rank, config.per)
            };
            for step in layer.steps(0, scores, &config) {
                let least = layer.ranks(&config).into_iter().chain([candidate.rank])
                    .map(|rank| price_of(rank, step.loss_per_cost))
                    .fold(f64::MAX, f64::min);
                prop_assert!((price_of(step.rank, step.loss_per_cost) - least).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn plans_reach_the_goal_and_keep_to_the_limits(
        network in network(), part in 0.0..1.0_f64, min_rank in 1_usize..4, align in 1_usize..5,
    ) {
        let candidates: Vec<_> = network.iter().map(|(candidate, _)| candidate.clone()).collect();
        let scores: BTreeMap<_, _> = network.iter().map(|(c, scores)| (c.name.clone(), scores.clone())).collect();
        let dense: u64 = candidates.iter().map(|c| c.shape.dense_params()).sum();
        let want = (dense as f64 * part) as u64;
        let config = SelectConfig { min_rank, align, ..SelectConfig::new(Goal::Params(want)) };
        match select(&candidates, &scores, &config) {
            Ok(plan) => {
                prop_assert!(plan.predicted.params <= want);
                let mut total = Size::default();
                for candidate in &candidates {
                    let layer = &plan.layers[&candidate.name];
                    layer.check(&candidate.name).unwrap();
                    let rank = layer.keep.len();
                    prop_assert!(rank >= min_rank.min(candidate.rank));
                    prop_assert!(rank % align == 0 || rank == candidate.rank);
                    total = total.plus(candidate.size_at(rank));
                    // Within a layer only the lowest scores go.
                    let lowest_kept = layer.keep.iter().map(|&j| scores[&candidate.name][j]).fold(f64::MAX, f64::min);
                    prop_assert!(layer.removed().all(|j| scores[&candidate.name][j] <= lowest_kept));
                }
                prop_assert_eq!(total, plan.predicted);
                let json = serde_json::to_string(&plan).unwrap();
                prop_assert_eq!(serde_json::from_str::<PruningPlan>(&json).unwrap(), plan);
            }
            Err(SelectError::Unreachable { want: stated, least, .. }) => {
                prop_assert_eq!(stated, want);
                let smallest: u64 = candidates.iter().map(|c| {
                    let rank = min_rank.min(c.rank).div_ceil(align) * align;
                    c.shape.params_at(rank.min(c.rank))
                }).sum();
                prop_assert_eq!(least, smallest);
                prop_assert!(least > want);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
