//! One ranking of the directions of all layers.

use super::times::RankTimes;
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
    /// Its time at each rank, where it was measured.
    pub times: Option<RankTimes>,
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
            times: None,
        }
    }

    /// What the layer costs at `rank`, as it is exported.
    #[must_use]
    pub fn size_at(&self, rank: usize) -> Size {
        let pays = rank <= self.shape.break_even_rank();
        Size {
            nanos: self.times.as_ref().map_or(0, |times| times.at(rank, pays)),
            ..self.shape.size_at(rank, self.positions)
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
    /// Remove until a run takes at most this many nanoseconds, likewise.
    Nanos(u64),
}

impl Goal {
    /// Whether `size` is within it.
    #[must_use]
    pub fn is_met(self, size: Size) -> bool {
        match self {
            Self::Params(want) => size.params <= want,
            Self::Macs(want) => size.macs <= want,
            Self::Nanos(want) => size.nanos <= want,
        }
    }
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
    /// The time that the direction costs, as it was measured: see [`Candidate::times`].
    Time,
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
        /// `parameters`, `MACs` or `nanoseconds`.
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

    /// Ranks at which the layer can be left, the largest first: those that save more than any larger
    /// one does.
    fn ranks(&self, config: &SelectConfig) -> Vec<usize> {
        let largest = self.candidate.shape.break_even_rank();
        let largest = largest.min(self.candidate.rank.saturating_sub(1));
        let mut most = 0.0;
        let mut saves_more = |rank: &usize| {
            let saved = self.saved(*rank, config.per);
            let more = saved > most;
            most = saved.max(most);
            more
        };
        (config.min_rank..=largest)
            .rev()
            .filter(|rank| rank.is_multiple_of(config.align))
            .filter(|rank| saves_more(rank))
            .collect()
    }

    /// What leaving `rank` directions saves, in the unit of the ranking.
    fn saved(&self, rank: usize, per: Per) -> f64 {
        let full = self.candidate.size_at(self.candidate.rank);
        let saved = full.minus(self.candidate.size_at(rank));
        match per {
            Per::Parameter => saved.params as f64,
            Per::Mac => saved.macs as f64,
            Per::Time => saved.nanos as f64,
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

    let mut total = layers.iter().fold(config.rest, |total, layer| {
        total.plus(layer.candidate.size_at(layer.rank))
    });
    let mut steps = steps.into_iter();
    while !config.goal.is_met(total) {
        let Some(step) = steps.next() else {
            let (unit, want, least) = match config.goal {
                Goal::Params(want) => ("parameters", want, total.params),
                Goal::Macs(want) => ("MACs", want, total.macs),
                Goal::Nanos(want) => ("nanoseconds", want, total.nanos),
            };
            return Err(SelectError::Unreachable { unit, want, least });
        };
        let layer = &mut layers[step.layer];
        let others = total.minus(layer.candidate.size_at(layer.rank));
        // The last step goes no further than the goal.
        let reaches = |rank: &usize| {
            let size = others.plus(layer.candidate.size_at(*rank));
            config.goal.is_met(size)
        };
        let ranks = layer.ranks(config);
        let mut within = ranks
            .into_iter()
            .filter(|&rank| rank >= step.rank && rank < layer.rank);
        layer.rank = within.find(reaches).unwrap_or(step.rank.min(layer.rank));
        total = others.plus(layer.candidate.size_at(layer.rank));
    }
    Ok(plan(&layers, total))
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
mod tests;
