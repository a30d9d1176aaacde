//! One ranking of the directions of all layers.

use super::{LayerPlan, PLAN_VERSION, PruningPlan};
use crate::decompose::Basis;
use crate::graph::{FactoredLayer, LayerShape, Size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A layer that can lose directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The layer's name.
    pub name: String,
    /// Directions that are there.
    pub rank: usize,
    /// The matrix shape.
    pub shape: LayerShape,
    /// Output positions of one image.
    pub positions: u64,
}

impl Candidate {
    /// The candidate of a factored layer; `positions` is [`FactoredLayer::positions`].
    #[must_use]
    pub fn new(layer: &FactoredLayer, positions: u64) -> Self {
        Self {
            name: layer.name.clone(),
            rank: layer.rank,
            shape: layer.shape,
            positions,
        }
    }
}

/// When to stop removing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Remove until at most this many parameters are left, those of [`SelectConfig::rest`] included.
    Params(u64),
    /// Remove until at most this many multiply-accumulates are left, likewise.
    Macs(u64),
}

/// What a score is divided by before directions of different layers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// The weights that the direction costs: loss per parameter.
    #[default]
    Parameter,
    /// The multiply-accumulates that the direction costs in one image.
    Mac,
    /// Nothing.
    Direction,
}

/// How to select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectConfig {
    /// When to stop.
    pub goal: Goal,
    /// The unit of the ranking.
    pub per: Per,
    /// No layer goes below this rank (or the rank it has); at least 1.
    pub min_rank: usize,
    /// Kept ranks are rounded up to a multiple of this (or the rank the layer has); at least 1.
    pub align: usize,
    /// The size of everything that is not a candidate.
    pub rest: Size,
}

impl SelectConfig {
    /// The defaults: per parameter, rank 1 at least, no alignment, nothing besides the candidates.
    #[must_use]
    pub fn new(goal: Goal) -> Self {
        Self {
            goal,
            per: Per::default(),
            min_rank: 1,
            align: 1,
            rest: Size::default(),
        }
    }
}

/// Scores or settings from which no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A candidate has no scores.
    #[error("layer `{0}` has no scores")]
    NoScores(String),
    /// Scores are given for a layer that is no candidate.
    #[error("scores are given for `{0}`, which is not among the layers")]
    UnknownLayer(String),
    /// Two candidates have one name.
    #[error("two layers are named `{0}`")]
    Duplicate(String),
    /// The number of scores is not the rank.
    #[error("layer `{layer}`: {got} scores for {want} directions")]
    Length {
        /// The layer.
        layer: String,
        /// Scores found.
        got: usize,
        /// The layer's rank.
        want: usize,
    },
    /// A score is infinite or not a number.
    #[error("layer `{layer}`: the score of direction {direction} is {score}")]
    NotFinite {
        /// The layer.
        layer: String,
        /// The direction.
        direction: usize,
        /// Its score.
        score: f64,
    },
    /// A setting is out of range.
    #[error("`{setting}` is {value}, but it must be {want}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The value found.
        value: usize,
        /// The values that can be.
        want: &'static str,
    },
    /// Even the smallest ranks leave more than wanted.
    #[error(
        "at most {want} {unit} are wanted, but {least} are left when every layer is at its smallest rank"
    )]
    Unreachable {
        /// `parameters` or `MACs`.
        unit: &'static str,
        /// What was wanted.
        want: u64,
        /// What can be reached.
        least: u64,
    },
}

/// A layer with its directions in the order in which they go.
struct Layer<'a> {
    candidate: &'a Candidate,
    /// The direction with the lowest score first.
    order: Vec<usize>,
    /// The rank that is left.
    rank: usize,
}

/// A cut of one layer from the rank of its step before, and its loss per cost.
struct Step {
    layer: usize,
    rank: usize,
    loss_per_cost: f64,
}

impl<'a> Layer<'a> {
    fn new(candidate: &'a Candidate, scores: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..candidate.rank).collect();
        // Adding 0 turns -0 into 0, which the total order would put before it.
        let score = |direction: usize| scores[direction] + 0.0;
        order.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(b.cmp(&a)));
        Self {
            candidate,
            order,
            rank: candidate.rank,
        }
    }

    fn size_at(&self, rank: usize) -> Size {
        self.candidate.shape.size_at(rank, self.candidate.positions)
    }

    /// Ranks at which the layer can be left, the largest first: those that save something.
    fn ranks(&self, config: &SelectConfig) -> impl Iterator<Item = usize> + use<> {
        let largest = self.candidate.shape.break_even_rank();
        let largest = largest.min(self.candidate.rank.saturating_sub(1));
        let (least, align) = (config.min_rank, config.align);
        (least..=largest)
            .rev()
            .filter(move |rank| rank.is_multiple_of(align))
    }

    /// What leaving `rank` directions saves, in the unit of the ranking.
    fn saved(&self, rank: usize, per: Per) -> f64 {
        let (full, cut) = (self.size_at(self.candidate.rank), self.size_at(rank));
        match per {
            Per::Parameter => full.params.saturating_sub(cut.params) as f64,
            Per::Mac => full.macs.saturating_sub(cut.macs) as f64,
            Per::Direction => (self.candidate.rank - rank) as f64,
        }
    }

    /// The cuts that lose least for what they save: the lower convex hull of the points
    /// (saved, lost), from the uncut layer on.
    fn steps(&self, index: usize, scores: &[f64], config: &SelectConfig) -> Vec<Step> {
        let mut lost = vec![0.0];
        for &direction in &self.order {
            lost.push(lost.last().copied().unwrap_or_default() + scores[direction]);
        }
        let point = |rank: usize| {
            (
                self.saved(rank, config.per),
                lost[self.candidate.rank - rank],
            )
        };
        let slope = |from: usize, to: usize| {
            let ((saved, lost), (saved_to, lost_to)) = (point(from), point(to));
            (lost_to - lost) / (saved_to - saved)
        };
        let mut hull = vec![self.candidate.rank];
        for rank in self.ranks(config) {
            while let [.., before, last] = hull[..]
                && slope(before, last) > slope(last, rank)
            {
                hull.pop();
            }
            hull.push(rank);
        }
        hull.windows(2)
            .map(|pair| Step {
                layer: index,
                rank: pair[1],
                loss_per_cost: slope(pair[0], pair[1]),
            })
            .collect()
    }
}

/// Chooses the directions that go: the cuts of all layers that lose least for what they save, until
/// the goal is reached.
///
/// What a cut saves follows the size rule: a layer above its break-even rank costs its dense size,
/// so a layer is left whole or cut below that rank at once, as far as the cut's loss per cost is
/// lowest (the hull of method, section 7); from there on it goes direction by direction. Ties are
/// broken by layer name, then the later direction goes first, so the plan does not depend on the
/// order of `candidates`.
///
/// # Errors
/// [`SelectError`] names the layer, setting or goal that does not fit.
pub fn select(
    candidates: &[Candidate],
    scores: &BTreeMap<String, Vec<f64>>,
    config: &SelectConfig,
) -> Result<PruningPlan, SelectError> {
    check_settings(config)?;
    let candidates = check_candidates(candidates, scores)?;
    let scores = |candidate: &Candidate| scores.get(&candidate.name).map_or(&[][..], Vec::as_slice);
    let mut layers: Vec<Layer<'_>> = candidates
        .into_iter()
        .map(|candidate| Layer::new(candidate, scores(candidate)))
        .collect();
    let mut steps: Vec<Step> = layers
        .iter()
        .enumerate()
        .flat_map(|(index, layer)| layer.steps(index, scores(layer.candidate), config))
        .collect();
    steps.sort_by(|a, b| {
        a.loss_per_cost
            .total_cmp(&b.loss_per_cost)
            .then(a.layer.cmp(&b.layer))
    });

    let sum = |a: Size, b: Size| Size {
        params: a.params.saturating_add(b.params),
        macs: a.macs.saturating_add(b.macs),
    };
    let mut total = layers.iter().fold(config.rest, |total, layer| {
        sum(total, layer.size_at(layer.rank))
    });
    let mut steps = steps.into_iter();
    while !is_reached(total, config.goal) {
        let Some(step) = steps.next() else {
            let (unit, want, least) = match config.goal {
                Goal::Params(want) => ("parameters", want, total.params),
                Goal::Macs(want) => ("MACs", want, total.macs),
            };
            return Err(SelectError::Unreachable { unit, want, least });
        };
        let layer = &mut layers[step.layer];
        let size = layer.size_at(layer.rank);
        let others = Size {
            params: total.params.saturating_sub(size.params),
            macs: total.macs.saturating_sub(size.macs),
        };
        // The last step goes no further than the goal.
        let reaches = |rank: &usize| is_reached(sum(others, layer.size_at(*rank)), config.goal);
        let mut within = layer
            .ranks(config)
            .filter(|&rank| rank >= step.rank && rank < layer.rank);
        layer.rank = within.find(reaches).unwrap_or(step.rank.min(layer.rank));
        total = sum(others, layer.size_at(layer.rank));
    }
    Ok(plan(&layers, total))
}

fn is_reached(total: Size, goal: Goal) -> bool {
    match goal {
        Goal::Params(want) => total.params <= want,
        Goal::Macs(want) => total.macs <= want,
    }
}

fn check_settings(config: &SelectConfig) -> Result<(), SelectError> {
    for (setting, value) in [("min_rank", config.min_rank), ("align", config.align)] {
        if value == 0 {
            let want = "at least 1";
            return Err(SelectError::Setting {
                setting,
                value,
                want,
            });
        }
    }
    Ok(())
}

/// The candidates by name, each with a finite score per direction.
fn check_candidates<'a>(
    candidates: &'a [Candidate],
    scores: &BTreeMap<String, Vec<f64>>,
) -> Result<Vec<&'a Candidate>, SelectError> {
    let mut by_name = BTreeMap::new();
    for candidate in candidates {
        if by_name.insert(candidate.name.as_str(), candidate).is_some() {
            return Err(SelectError::Duplicate(candidate.name.clone()));
        }
        let Some(scores) = scores.get(&candidate.name) else {
            return Err(SelectError::NoScores(candidate.name.clone()));
        };
        if scores.len() != candidate.rank {
            let (got, want) = (scores.len(), candidate.rank);
            return Err(SelectError::Length {
                layer: candidate.name.clone(),
                got,
                want,
            });
        }
        if let Some(direction) = scores.iter().position(|score| !score.is_finite()) {
            let (layer, score) = (candidate.name.clone(), scores[direction]);
            return Err(SelectError::NotFinite {
                layer,
                direction,
                score,
            });
        }
    }
    match scores
        .keys()
        .find(|name| !by_name.contains_key(name.as_str()))
    {
        Some(name) => Err(SelectError::UnknownLayer(name.clone())),
        None => Ok(by_name.into_values().collect()),
    }
}

fn plan(layers: &[Layer<'_>], predicted: Size) -> PruningPlan {
    let plan = |layer: &Layer<'_>| {
        let rank = layer.candidate.rank;
        let mut keep = layer.order[rank - layer.rank..].to_vec();
        keep.sort_unstable();
        (layer.candidate.name.clone(), LayerPlan { rank, keep })
    };
    PruningPlan {
        version: PLAN_VERSION,
        basis: Basis::Svd,
        layers: layers.iter().map(plan).collect(),
        predicted,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(name: &str, rank: usize, n: usize, co: usize, positions: u64) -> Candidate {
        Candidate {
            name: name.into(),
            rank,
            shape: LayerShape { n, co, groups: 1 },
            positions,
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
                macs: 96
            }
        );
        assert_eq!(kept(Goal::Macs(95)).layers["a"].keep, [0, 1]);
        let rest = Size {
            params: 100,
            macs: 0,
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
                    let least = layer.ranks(&config).chain([candidate.rank])
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
                        let size = candidate.shape.size_at(rank, candidate.positions);
                        total.params += size.params;
                        total.macs += size.macs;
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
}
