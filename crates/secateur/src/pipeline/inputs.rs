//! One cut of input spaces: which directions of what convolutions read go, and the smaller network
//! (docs/method.md, section 4).

use super::choose::Choice;
use super::next::Next;
use super::score::Scoring;
use super::stages::shapes;
use super::{PipelineError, Prepared};
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
    /// `known` are the moments of `graph`; gathered where there are none.
    pub(super) fn cut_inputs(
        &self,
        graph: &Graph,
        known: &BTreeMap<String, OutputMoments>,
        next: &Next,
    ) -> Result<Option<InputCut>, PipelineError> {
        let gathered;
        let moments = if known.is_empty() {
            gathered = self.moments(graph)?;
            &gathered
        } else {
            known
        };
        let settings = &self.settings.prune;
        let spaces = payable(graph, self.prepared)?;
        let found: Vec<Option<Subspace>> = spaces
            .par_iter()
            .map(|(space, _)| subspace(settings.basis, moments.get(&space.value)?))
            .collect();
        // A space without a subspace, as of values that are not finite, stays whole.
        let known = spaces.into_iter().zip(found);
        let known: Vec<_> = known
            .filter_map(|((space, positions), found)| Some((space, positions, found?)))
            .collect();
        let scored = |(space, _, found): &(InputSpace, u64, Subspace)| {
            (space.name.clone(), found.scores.clone())
        };
        let scores: Scores = known.iter().map(scored).collect();
        let candidates = known.iter().map(|(space, positions, _)| Candidate {
            name: space.name.clone(),
            rank: space.rank,
            shape: space.shape,
            positions: *positions,
            times: None,
        });
        let choice = Choice::of_inputs(graph, candidates.collect(), self.prepared, settings)?;
        let Some(plan) = choice.plan_to(&scores, next.goal)? else {
            return Ok(None);
        };
        let plan = choice.no_further(plan, &scores, &next.targets)?;
        let share = choice.share(plan.predicted).min(next.step);
        let cuts = known.iter().filter_map(|(space, _, found)| {
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
}

/// The values whose moments a cut of `spaces` wants.
pub(super) fn wanted(spaces: &[InputSpace]) -> impl Iterator<Item = Wanted> {
    spaces.iter().map(|space| Wanted {
        value: space.value.clone(),
        channels: ChannelAxis::Second,
    })
}

/// The input spaces of `graph` with the output positions of their layers. Where a layer makes fewer positions
/// than it reads, the factor would run at more of them than the layer does: it stays whole.
fn payable(graph: &Graph, prepared: &Prepared) -> Result<Vec<(InputSpace, u64)>, PipelineError> {
    let inferred = shapes(graph, prepared)?;
    let with_positions = |space: InputSpace| {
        let made = space.layer().positions(&inferred)?;
        let read = inferred.shape(space.read())?.iter().skip(2);
        let read = read.fold(1_u64, |product, &axis| product.saturating_mul(axis as u64));
        (read <= made).then_some((space, made))
    };
    let spaces = input_spaces(graph).into_iter();
    Ok(spaces.filter_map(with_positions).collect())
}
