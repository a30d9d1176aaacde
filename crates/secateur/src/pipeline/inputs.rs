//! One cut of input spaces: which directions of what convolutions read go, and the smaller network
//! (docs/method.md, section 4).

use super::choose::Choice;
use super::score::Scoring;
use super::{PipelineError, Prepared};
use crate::decompose::{DecomposeError, OutputMoments, Subspace, subspace};
use crate::graph::{Graph, infer_images};
use crate::importance::Scores;
use crate::prune::{
    Candidate, Goal, InputSpace, PruningPlan, SelectError, cut_inputs, input_spaces,
};
use crate::train::{ChannelAxis, Wanted};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A network that has lost directions of input spaces.
#[derive(Clone, Debug)]
pub(super) struct InputCut {
    pub graph: Graph,
    pub plan: PruningPlan,
}

impl Scoring<'_> {
    /// Removes the directions of input spaces that lose least for what they save in the unit of the ranking,
    /// until `goal`, but no further than `targets`. `None` where that much cannot go.
    ///
    /// `known` are the moments of `graph`; gathered where there are none.
    pub(super) fn cut_inputs(
        &self,
        graph: &Graph,
        known: &BTreeMap<String, OutputMoments>,
        goal: Goal,
        targets: &[Goal],
    ) -> Result<Option<InputCut>, PipelineError> {
        let spaces = input_spaces(graph);
        let gathered;
        let moments = if known.is_empty() {
            gathered = self.moments(graph)?;
            &gathered
        } else {
            known
        };
        let settings = &self.settings.prune;
        let found: Vec<Option<Subspace>> = spaces
            .par_iter()
            .map(|space| subspace(settings.basis, moments.get(&space.value)?))
            .collect();
        let mut known = Vec::new();
        let mut scores = Scores::new();
        for (space, found) in spaces.into_iter().zip(found) {
            let node = space.layer().name.clone();
            let found = found.ok_or(DecomposeError::NoBasis { node })?;
            scores.insert(space.name.clone(), found.scores.clone());
            known.push((space, found));
        }
        let candidates = candidates(graph, self.prepared, known.iter().map(|(space, _)| space))?;
        let choice = Choice::of_inputs(graph, candidates, self.prepared, settings)?;
        let plan = match choice.plan(&scores, goal) {
            Err(SelectError::Unreachable { .. }) => return Ok(None),
            plan => choice.no_further(plan?, &scores, targets)?,
        };
        let cuts = known.iter().filter_map(|(space, found)| {
            let plan = plan.layers.get(&space.name)?;
            (plan.keep.len() < plan.rank).then_some((space, found, plan))
        });
        let cuts: Vec<_> = cuts.collect();
        if cuts.is_empty() {
            return Ok(None);
        }
        let graph = cut_inputs(graph, cuts)?;
        Ok(Some(InputCut { graph, plan }))
    }
}

/// The values whose moments a cut of `spaces` wants.
pub(super) fn wanted(spaces: &[InputSpace]) -> impl Iterator<Item = Wanted> {
    spaces.iter().map(|space| Wanted {
        value: space.value.clone(),
        channels: ChannelAxis::Second,
    })
}

fn candidates<'s>(
    graph: &Graph,
    prepared: &Prepared,
    spaces: impl Iterator<Item = &'s InputSpace>,
) -> Result<Vec<Candidate>, PipelineError> {
    let preprocess = &prepared.preprocess;
    let inferred = infer_images(graph, 1, preprocess.height, preprocess.width)?;
    let candidate = |space: &InputSpace| {
        Some(Candidate {
            name: space.name.clone(),
            rank: space.rank,
            shape: space.shape,
            // Strides are 1, so the input has about as many.
            positions: space.layer().positions(&inferred)?,
            times: None,
        })
    };
    Ok(spaces.filter_map(candidate).collect())
}
