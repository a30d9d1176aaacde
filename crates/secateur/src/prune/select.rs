//! One ranking of the directions of all layers.

use super::{LayerPlan, PLAN_VERSION, PruningPlan};
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Remove this fraction (0 to 1) of the directions that are there, rounded down.
    Remove(f64),
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

/// What becomes of a layer that is left above its break-even rank, where it costs its dense size
/// whatever its rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AboveBreakEven {
    /// It is cut as ranked: several rounds of pruning can bring it below.
    #[default]
    Cut,
    /// It keeps every direction that it has, which costs nothing: for the last or only round.
    KeepWhole,
}

/// How to select.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelectConfig {
    /// When to stop.
    pub goal: Goal,
    /// The unit of the ranking.
    pub per: Per,
    /// No layer goes below this rank (or the rank it has); at least 1.
    pub min_rank: usize,
    /// Kept ranks are rounded up to a multiple of this (or the rank the layer has); at least 1.
    pub align: usize,
    /// What becomes of layers left above their break-even rank.
    pub above_break_even: AboveBreakEven,
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
            above_break_even: AboveBreakEven::default(),
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
        value: f64,
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

/// What is left while directions go.
struct Left<'a> {
    candidates: Vec<&'a Candidate>,
    ranks: Vec<usize>,
    align: usize,
    total: Size,
}

impl Left<'_> {
    /// The rank at which a layer with `rank` directions ends.
    fn aligned(&self, layer: usize, rank: usize) -> usize {
        rank.div_ceil(self.align)
            .saturating_mul(self.align)
            .min(self.candidates[layer].rank)
    }

    fn size(&self, layer: usize) -> Size {
        let candidate = self.candidates[layer];
        candidate
            .shape
            .size_at(self.aligned(layer, self.ranks[layer]), candidate.positions)
    }

    fn remove_one(&mut self, layer: usize) {
        let before = self.size(layer);
        self.ranks[layer] -= 1;
        let after = self.size(layer);
        self.total.params = self
            .total
            .params
            .saturating_sub(before.params)
            .saturating_add(after.params);
        self.total.macs = self
            .total
            .macs
            .saturating_sub(before.macs)
            .saturating_add(after.macs);
    }
}

/// Chooses the directions that go: those with the lowest score per cost, over all layers, until the
/// goal is reached.
///
/// Sizes follow the size rule: a layer above its break-even rank costs its dense size. Ties are
/// broken by layer name, then the later direction goes first, so the plan does not depend on the
/// order of `candidates`. With [`Goal::Remove`], `min_rank` and `align` can leave more than asked.
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
    let mut left = Left {
        ranks: candidates.iter().map(|candidate| candidate.rank).collect(),
        candidates,
        align: config.align,
        total: config.rest,
    };
    for layer in 0..left.candidates.len() {
        let size = left.size(layer);
        left.total.params = left.total.params.saturating_add(size.params);
        left.total.macs = left.total.macs.saturating_add(size.macs);
    }

    let mut removed: Vec<Vec<usize>> = vec![Vec::new(); left.candidates.len()];
    let mut queue = ranking(&left.candidates, scores, config.per).into_iter();
    let mut to_remove = match config.goal {
        // The product is at most the number of directions, which is exact in f64.
        Goal::Remove(ratio) => (ratio * left.ranks.iter().sum::<usize>() as f64).floor() as usize,
        Goal::Params(_) | Goal::Macs(_) => usize::MAX,
    };
    loop {
        let done = match config.goal {
            Goal::Remove(_) => to_remove == 0,
            Goal::Params(want) => left.total.params <= want,
            Goal::Macs(want) => left.total.macs <= want,
        };
        if done {
            break;
        }
        let Some((layer, direction)) = queue.next() else {
            let (unit, want, least) = match config.goal {
                Goal::Remove(_) => break,
                Goal::Params(want) => ("parameters", want, left.total.params),
                Goal::Macs(want) => ("MACs", want, left.total.macs),
            };
            return Err(SelectError::Unreachable { unit, want, least });
        };
        if left.ranks[layer] > config.min_rank {
            left.remove_one(layer);
            removed[layer].push(direction);
            to_remove -= 1;
        }
    }
    Ok(plan(&left, removed, config.above_break_even))
}

fn check_settings(config: &SelectConfig) -> Result<(), SelectError> {
    let setting = |setting, value, want| {
        Err(SelectError::Setting {
            setting,
            value,
            want,
        })
    };
    if config.min_rank == 0 {
        return setting("min_rank", 0.0, "at least 1");
    }
    if config.align == 0 {
        return setting("align", 0.0, "at least 1");
    }
    match config.goal {
        Goal::Remove(ratio) if !(0.0..=1.0).contains(&ratio) => {
            setting("ratio", ratio, "a fraction from 0 to 1")
        }
        Goal::Remove(_) | Goal::Params(_) | Goal::Macs(_) => Ok(()),
    }
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

/// `(layer, direction)`, the first to go first.
fn ranking(
    candidates: &[&Candidate],
    scores: &BTreeMap<String, Vec<f64>>,
    per: Per,
) -> Vec<(usize, usize)> {
    let mut order = Vec::new();
    for (layer, candidate) in candidates.iter().enumerate() {
        let params = candidate.shape.direction_params();
        let cost = match per {
            Per::Parameter => params,
            Per::Mac => params.saturating_mul(candidate.positions),
            Per::Direction => 1,
        };
        let scores = scores.get(&candidate.name).map_or(&[][..], Vec::as_slice);
        order.extend(scores.iter().enumerate().map(|(direction, score)| {
            // Adding 0 turns -0 into 0, which the total order would put before it.
            (score / cost.max(1) as f64 + 0.0, layer, direction)
        }));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)));
    order
        .into_iter()
        .map(|(_, layer, direction)| (layer, direction))
        .collect()
}

fn plan(left: &Left<'_>, removed: Vec<Vec<usize>>, above: AboveBreakEven) -> PruningPlan {
    let mut layers = BTreeMap::new();
    for (layer, mut removed) in removed.into_iter().enumerate() {
        let candidate = left.candidates[layer];
        let mut rank = left.aligned(layer, left.ranks[layer]);
        if above == AboveBreakEven::KeepWhole && rank > candidate.shape.break_even_rank() {
            rank = candidate.rank;
        }
        // The last to go are the first to come back.
        removed.truncate(candidate.rank - rank);
        removed.sort_unstable();
        let keep = (0..candidate.rank)
            .filter(|direction| removed.binary_search(direction).is_err())
            .collect();
        layers.insert(
            candidate.name.clone(),
            LayerPlan {
                rank: candidate.rank,
                keep,
            },
        );
    }
    PruningPlan {
        version: PLAN_VERSION,
        layers,
        predicted: left.total,
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
                ..SelectConfig::new(Goal::Remove(0.25))
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
        let plan = select(&candidates, &scores, &SelectConfig::new(Goal::Remove(0.5))).unwrap();
        assert_eq!(plan.layers["a"].keep, [0]);
        assert_eq!(plan.layers["b"].keep, [0, 1]);
        let swapped = [candidates[1].clone(), candidates[0].clone()];
        assert_eq!(
            select(&swapped, &scores, &SelectConfig::new(Goal::Remove(0.5))).unwrap(),
            plan
        );
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
    fn alignment_brings_back_the_best_of_the_removed() {
        let candidates = [candidate("a", 10, 100, 100, 1)];
        let scores = scores(&[("a", &[0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0])]);
        let config = SelectConfig {
            align: 4,
            ..SelectConfig::new(Goal::Remove(0.5))
        };
        let plan = select(&candidates, &scores, &config).unwrap();
        // Rank 5 becomes 8: of the removed 0, 2, 4, 6, 8 the scores 2, 3, 4 return.
        assert_eq!(plan.layers["a"].keep, [1, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(plan.predicted.params, 8 * 200);
    }

    #[test]
    fn a_layer_left_above_break_even_can_keep_everything() {
        let candidates = [candidate("a", 8, 8, 8, 1), candidate("b", 8, 8, 8, 1)];
        let scores = scores(&[
            ("a", &[1.0; 8]),
            ("b", &[9.0, 9.0, 9.0, 9.0, 9.0, 0.1, 0.1, 0.1]),
        ]);
        let config = SelectConfig::new(Goal::Params(128 - 16));
        let cut = select(&candidates, &scores, &config).unwrap();
        assert_eq!(cut.layers["b"].keep.len(), 5);
        let config = SelectConfig {
            above_break_even: AboveBreakEven::KeepWhole,
            ..config
        };
        let whole = select(&candidates, &scores, &config).unwrap();
        assert_eq!(whole.layers["b"].keep.len(), 8);
        assert_eq!(
            (whole.predicted, &whole.layers["a"]),
            (cut.predicted, &cut.layers["a"])
        );
    }

    #[test]
    fn scores_that_do_not_fit_are_errors_that_name_the_layer() {
        let candidates = [candidate("a", 2, 8, 8, 1)];
        let config = SelectConfig::new(Goal::Remove(0.5));
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
        let over = SelectConfig::new(Goal::Remove(f64::NAN));
        assert!(matches!(
            select(&[], &BTreeMap::new(), &over),
            Err(SelectError::Setting {
                setting: "ratio",
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
