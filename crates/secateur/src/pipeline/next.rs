//! What the next cut is to do: a share of what is left, but no further than the targets on size ask for.

use super::PipelineError;
use super::choose::{Choice, File, all_met, removes_nothing};
use super::rounds::Context;
use super::settings::Removal;
use super::times::Times;
use crate::graph::{Graph, factored_layers};
use crate::importance::Scores;
use crate::prune::{Goal, Per, PruningPlan, input_spaces};

/// What the next cut is to do.
#[derive(Clone, Debug)]
pub(super) struct Next {
    /// The cut of directions, where one can go that far.
    pub plan: Option<PruningPlan>,
    /// The size that a cut of channels is to come to.
    pub goal: Goal,
    /// The share of what can be cut that is to go, and the one that goes with `plan`.
    pub step: f64,
    pub share: f64,
    /// The sizes that all targets ask for; where all of them hold, no more goes. None where there is no
    /// such target.
    pub targets: Vec<Goal>,
}

/// The sizes that the targets ask for, as one network has them in view.
pub(super) struct Sizes<'c> {
    context: &'c Context<'c>,
    choice: Choice<'c>,
    goals: Vec<Goal>,
}

impl<'c> Sizes<'c> {
    /// Those of `graph`, whose times are given where time counts.
    pub fn of(
        context: &'c Context<'c>,
        graph: &Graph,
        times: Option<&Times>,
    ) -> Result<Self, PipelineError> {
        let settings = &context.settings.prune;
        let layers = factored_layers(graph);
        let choice = Choice::of(graph, &layers, context.prepared, settings, times)?;
        let original = &context.original;
        let want = |target: &super::Target| target.want(original);
        let wants: Vec<_> = settings
            .targets
            .iter()
            .map(|target| (*target, want(target)))
            .collect();
        let goals = choice.goals(
            &wants,
            File {
                bytes: original.bytes,
                params: original.params,
                layers: match settings.cuts_inputs() {
                    true => layers.len() + input_spaces(graph).len(),
                    false => layers.len(),
                },
            },
        );
        Ok(Self {
            context,
            choice,
            goals,
        })
    }

    /// Whether there are such targets and the network is within them all.
    pub fn hold(&self) -> bool {
        all_met(&self.goals, self.choice.total)
    }

    /// The cut that removes the share `step`; `None` where nothing can go.
    pub fn next(self, scores: &Scores, step: f64) -> Result<Option<Next>, PipelineError> {
        let settings = &self.context.settings.prune;
        let mut plan = match settings.removes {
            Removal::Channels => None,
            Removal::Basis | Removal::Double => self.choice.plan_step(scores, step)?,
        };
        if let Some(further) = plan {
            plan = Some(self.choice.no_further(further, scores, &self.goals)?);
        }
        let plan = plan.filter(|plan| !removes_nothing(plan));
        let share = match &plan {
            Some(plan) => self.choice.share(plan.predicted).min(step),
            None => step,
        };
        // Channels may go further than directions can.
        let goal = match plan.as_ref().filter(|_| share >= step) {
            Some(plan) => match settings.per() {
                Per::Mac => Goal::Macs(plan.predicted.macs),
                Per::Time => Goal::Nanos(plan.predicted.nanos),
                Per::Parameter | Per::Direction => Goal::Params(plan.predicted.params),
            },
            None => self.choice.step_goal(step),
        };
        let goes_on =
            plan.is_some() || settings.removes != Removal::Basis || settings.cuts_inputs();
        Ok(goes_on.then_some(Next {
            plan,
            goal,
            step,
            share,
            targets: self.goals,
        }))
    }
}
