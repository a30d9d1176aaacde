//! Which directions go: the layers that can be cut, what a target leaves of them, the plan.

use super::basis::new_biases;
use super::stages::shapes;
use super::times::Times;
use super::{PipelineError, Prepared, PruneSettings, Target};
use crate::cost;
use crate::fold::{FoldConfig, fold};
use crate::graph::{FactoredLayer, Graph, Size, factored_layers};
use crate::importance::{Score, Scores};
use crate::prune::{Candidate, Goal, Per, PruningPlan, SelectConfig, SelectError, select};

/// The layers of a network that can be cut, and the size of everything.
pub(super) struct Choice<'c> {
    settings: &'c PruneSettings,
    candidates: Vec<Candidate>,
    /// Size of the whole network as it would be exported.
    pub total: Size,
    /// Size of what is no candidate.
    rest: Size,
}

/// Size of a graph as it would be exported; its time is foretold from `times`, those of the network that
/// it was cut from.
pub(super) fn exported_size(
    graph: &Graph,
    prepared: &Prepared,
    times: Option<&Times>,
) -> Result<Size, PipelineError> {
    let (folded, _) = fold(graph, &FoldConfig::default())?;
    let cost = cost::of(&folded, &shapes(&folded, prepared)?);
    Ok(Size {
        params: cost.params,
        macs: cost.macs,
        nanos: times.map_or(0, |times| times.foretold(&cost)),
    })
}

impl<'c> Choice<'c> {
    pub(super) fn of(
        graph: &Graph,
        layers: &[FactoredLayer],
        prepared: &Prepared,
        settings: &'c PruneSettings,
        times: Option<&Times>,
    ) -> Result<Self, PipelineError> {
        let inferred = shapes(graph, prepared)?;
        let candidate = |layer: &FactoredLayer| {
            let candidate = Candidate::new(layer, layer.positions(&inferred)?);
            Some(Candidate {
                times: times.and_then(|times| times.of_layer(&layer.name)),
                ..candidate
            })
        };
        let candidates: Vec<Candidate> = layers.iter().filter_map(candidate).collect();
        let mut total = exported_size(graph, prepared, times)?;
        if settings.score != Score::Taylor || settings.refit_images() > 0 {
            total.params = total.params.saturating_add(new_biases(graph, layers));
        }
        Ok(Self::new(settings, candidates, total))
    }

    /// That of the input spaces `candidates`.
    pub(super) fn of_inputs(
        graph: &Graph,
        candidates: Vec<Candidate>,
        prepared: &Prepared,
        settings: &'c PruneSettings,
    ) -> Result<Self, PipelineError> {
        // Layers and their biases are what they are in a cut of layers.
        let layers = Self::of(graph, &factored_layers(graph), prepared, settings, None)?;
        Ok(Self::new(settings, candidates, layers.total))
    }

    fn new(settings: &'c PruneSettings, candidates: Vec<Candidate>, total: Size) -> Self {
        let sizes = candidates.iter().map(|layer| layer.size_at(layer.rank));
        let rest = sizes.fold(total, Size::minus);
        Self {
            settings,
            candidates,
            total,
            rest,
        }
    }

    /// `plan`, or, where it goes below every one of `targets`, the plan that goes just as far as they ask.
    pub(super) fn no_further(
        &self,
        plan: PruningPlan,
        scores: &Scores,
        targets: &[Goal],
    ) -> Result<PruningPlan, SelectError> {
        let are_met = |size| all_met(targets, size);
        if are_met(plan.predicted) {
            for goal in targets {
                let exact = self.plan(scores, *goal)?;
                if are_met(exact.predicted) {
                    return Ok(exact);
                }
            }
        }
        Ok(plan)
    }

    /// The plan that reaches `goal`.
    pub(super) fn plan(&self, scores: &Scores, goal: Goal) -> Result<PruningPlan, SelectError> {
        let config = SelectConfig {
            per: self.settings.per(),
            align: self.settings.align(),
            rest: self.rest,
            ..SelectConfig::new(goal)
        };
        let plan = select(&self.candidates, scores, &config)?;
        Ok(PruningPlan {
            basis: self.settings.basis,
            ..plan
        })
    }

    /// The plan that takes the share `step` from the size of the candidates, in the unit by which
    /// directions are ranked. `None` where nothing more can go.
    pub(super) fn plan_step(
        &self,
        scores: &Scores,
        step: f64,
    ) -> Result<Option<PruningPlan>, SelectError> {
        self.plan_to(scores, self.step_goal(step))
    }

    /// The plan that reaches `goal`, or goes as far as it can. `None` where nothing more can go.
    pub(super) fn plan_to(
        &self,
        scores: &Scores,
        goal: Goal,
    ) -> Result<Option<PruningPlan>, SelectError> {
        let (of, total): (fn(u64) -> Goal, u64) = match goal {
            Goal::Macs(_) => (Goal::Macs, self.total.macs),
            Goal::Nanos(_) => (Goal::Nanos, self.total.nanos),
            Goal::Params(_) => (Goal::Params, self.total.params),
        };
        match self.plan(scores, goal) {
            // What little is left goes in one last cut.
            Err(SelectError::Unreachable { least, .. }) if least < total => {
                self.plan(scores, of(least)).map(Some)
            }
            Err(SelectError::Unreachable { .. }) => Ok(None),
            plan => plan.map(Some),
        }
    }

    /// The size that is left when the share `step` of the candidates goes, in the unit of the ranking.
    pub(super) fn step_goal(&self, step: f64) -> Goal {
        let goal = |total: u64, rest: u64| {
            let goes = (step * total.saturating_sub(rest) as f64).ceil() as u64;
            total.saturating_sub(goes.max(1))
        };
        match self.settings.per() {
            Per::Mac => Goal::Macs(goal(self.total.macs, self.rest.macs)),
            Per::Time => Goal::Nanos(goal(self.total.nanos, self.rest.nanos)),
            Per::Parameter | Per::Direction => {
                Goal::Params(goal(self.total.params, self.rest.params))
            }
        }
    }

    /// The share of the candidates that is gone at `size`, in the unit of the ranking.
    pub(super) fn share(&self, size: Size) -> f64 {
        let unit = |size| in_unit(self.settings.per(), size);
        let all = unit(self.total.minus(self.rest)).max(1);
        unit(self.total.minus(size)) as f64 / all as f64
    }

    /// The sizes that the targets ask for; `wants` holds each target with its number.
    pub(super) fn goals(&self, wants: &[(Target, f64)], file: File) -> Vec<Goal> {
        let goal = |(target, want): &(Target, f64)| match target {
            Target::AccDrop(_) | Target::OutputError(_) => None,
            Target::Params(_) => Some(Goal::Params(*want as u64)),
            Target::Macs(_) => Some(Goal::Macs(*want as u64)),
            Target::Size(_) => Some(Goal::Params(file.params_within(*want) as u64)),
            Target::Latency(_) => {
                let want = 1e6 * want;
                let holds = self.total.nanos as f64 <= want;
                let aim = if holds { want } else { LATENCY_AIM * want };
                Some(Goal::Nanos(aim as u64))
            }
        };
        wants.iter().filter_map(goal).collect()
    }
}

/// A size in the unit by which directions are ranked.
pub(super) fn in_unit(per: Per, size: Size) -> u64 {
    match per {
        Per::Mac => size.macs,
        Per::Time => size.nanos,
        Per::Parameter | Per::Direction => size.params,
    }
}

/// Bytes and parameters of the original network's file, from which the size of a smaller one
/// follows: four bytes a parameter, and room for the nodes of the second factors.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub bytes: u64,
    pub params: u64,
    /// Layers that may be stored as two factors.
    pub layers: usize,
}

const BYTES_PER_PARAM: f64 = 4.0;
// Two measurements of one network differ by some hundredths: what part of a target on latency is aimed at.
const LATENCY_AIM: f64 = 0.96;
// Node, names and value of a second factor.
const BYTES_PER_FACTOR: f64 = 300.0;

impl File {
    /// The number of parameters with which a file has at most `bytes`; negative where none has.
    fn params_within(self, bytes: f64) -> f64 {
        let others = self.bytes as f64 - BYTES_PER_PARAM * self.params as f64;
        let factors = BYTES_PER_FACTOR * self.layers as f64;
        (bytes - others - factors) / BYTES_PER_PARAM
    }
}

/// Whether there are targets, and `size` is within all of them.
pub(super) fn all_met(targets: &[Goal], size: Size) -> bool {
    !targets.is_empty() && targets.iter().all(|goal| goal.is_met(size))
}

/// Whether a plan leaves everything in place.
pub(super) fn removes_nothing(plan: &PruningPlan) -> bool {
    plan.layers
        .values()
        .all(|layer| layer.keep.len() == layer.rank)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::LayerShape;
    use std::collections::BTreeMap;

    /// One layer of 9 x 8 in 8 directions, break-even rank 4, and 10 parameters besides.
    fn choice(settings: &PruneSettings) -> Choice<'_> {
        let shape = LayerShape {
            n: 9,
            co: 8,
            groups: 1,
        };
        Choice {
            settings,
            candidates: vec![Candidate {
                name: "a".to_owned(),
                rank: 8,
                shape,
                positions: 1,
                times: None,
            }],
            total: Size {
                params: 82,
                macs: 82,
                nanos: 0,
            },
            rest: Size {
                params: 10,
                macs: 10,
                nanos: 0,
            },
        }
    }

    #[test]
    fn a_step_goes_below_break_even_or_nowhere() {
        let settings = PruneSettings::default();
        let choice = choice(&settings);
        let scores: Scores = BTreeMap::from([("a".to_owned(), (1..=8).map(f64::from).collect())]);
        // 72 parameters dense, 68 in four directions: any step asks for less than 72.
        let plan = choice.plan_step(&scores, 0.01).unwrap().unwrap();
        assert_eq!(plan.layers["a"].keep, [4, 5, 6, 7]);
        assert_eq!(plan.predicted.params, 78);
        let plan = choice.plan_step(&scores, 0.5).unwrap().unwrap();
        assert_eq!(plan.layers["a"].keep, [6, 7]);
        // More than can go: the least that is left.
        let plan = choice.plan_step(&scores, 0.99).unwrap().unwrap();
        assert_eq!(plan.layers["a"].keep, [7]);
        assert_eq!(plan.predicted.params, 27);
    }

    #[test]
    fn a_file_size_leaves_room_for_nodes() {
        let file = File {
            bytes: 10_000,
            params: 2_000,
            layers: 2,
        };
        // 2,000 bytes are no weights, 600 are for two factors.
        assert!((file.params_within(6_600.0) - 1_000.0).abs() < 1e-9);
    }
}
