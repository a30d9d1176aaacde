//! One cut of input spaces: which directions of what convolutions read go, and the smaller network
//! (docs/method.md, section 4).

use super::PipelineError;
use super::choose::Choice;
use super::next::Next;
use super::score::Scoring;
use super::stages::shapes;
use crate::decompose::{OutputMoments, Subspace, subspace};
use crate::graph::Graph;
use crate::importance::Scores;
use crate::prune::{Candidate, InputSpace, PruningPlan, cut_inputs, input_spaces};
use crate::train::{ChannelAxis, Wanted};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A network that has lost directions of input spaces.
#[derive(Clone, Debug)]
pub(super) struct InputCut {
    pub graph: Graph,
    pub plan: PruningPlan,
    /// The share of what can be cut that goes.
    pub share: f64,
}

impl Scoring<'_> {
    /// Removes the directions of input spaces that lose least for what they save in the unit of the ranking,
    /// until the goal of `next` or as far as they can, but no further than its targets. `None` where nothing
    /// can go.
    ///
    /// `moments` are those of `graph`, `measured` the scores of its input spaces, where they are known.
    pub(super) fn cut_inputs(
        &self,
        graph: &Graph,
        moments: &BTreeMap<String, OutputMoments>,
        measured: &Scores,
        next: &Next,
    ) -> Result<Option<InputCut>, PipelineError> {
        let settings = &self.settings.prune;
        let known = self.payable(graph, moments)?;
        let scores: Scores = known
            .iter()
            .map(|Payable { space, found, .. }| {
                let measured = measured.get(&space.name);
                let scores = measured.filter(|measured| measured.len() == found.scores.len());
                (space.name.clone(), scores.unwrap_or(&found.scores).clone())
            })
            .collect();
        let candidates = known.iter().map(|known| Candidate {
            name: known.space.name.clone(),
            rank: known.space.rank,
            shape: known.space.shape,
            positions: known.positions,
            times: None,
        });
        let choice = Choice::of_inputs(graph, candidates.collect(), self.prepared, settings)?;
        let Some(plan) = choice.plan_to(&scores, next.goal)? else {
            return Ok(None);
        };
        let plan = choice.no_further(plan, &scores, &next.targets)?;
        let share = choice.share(plan.predicted).min(next.step);
        let cuts = known.iter().filter_map(|Payable { space, found, .. }| {
            let plan = plan.layers.get(&space.name)?;
            (plan.keep.len() < plan.rank).then_some((space, found, plan))
        });
        let cuts: Vec<_> = cuts.collect();
        if cuts.is_empty() {
            return Ok(None);
        }
        let graph = cut_inputs(graph, cuts)?;
        Ok(Some(InputCut { graph, plan, share }))
    }

    /// The input spaces of `graph`, whose moments are given, that a cut can make smaller. Where a layer makes fewer
    /// positions than it reads, the factor would run at more of them than the layer does: it stays whole, as does a
    /// space without a subspace, as of values that are not finite.
    pub(super) fn payable(
        &self,
        graph: &Graph,
        moments: &BTreeMap<String, OutputMoments>,
    ) -> Result<Vec<Payable>, PipelineError> {
        let inferred = shapes(graph, self.prepared)?;
        let payable = |space: InputSpace| {
            let positions = space.layer().positions(&inferred)?;
            let read = inferred.shape(space.read())?.iter().skip(2);
            let read = read.fold(1_u64, |product, &axis| product.saturating_mul(axis as u64));
            if read > positions {
                return None;
            }
            let found = subspace(self.settings.prune.basis, moments.get(&space.value)?)?;
            Some(Payable {
                space,
                found,
                positions,
            })
        };
        let spaces: Vec<Option<Payable>> =
            input_spaces(graph).into_par_iter().map(payable).collect();
        Ok(spaces.into_iter().flatten().collect())
    }
}

/// An input space that a cut can make smaller.
#[derive(Clone, Debug)]
pub(super) struct Payable {
    pub space: InputSpace,
    /// Its directions.
    pub found: Subspace,
    /// Output positions of its layer.
    pub positions: u64,
}

/// The values whose moments a cut of `spaces` wants.
pub(super) fn wanted(spaces: &[InputSpace]) -> impl Iterator<Item = Wanted> {
    spaces.iter().map(|space| Wanted {
        value: space.value.clone(),
        channels: ChannelAxis::Second,
    })
}
