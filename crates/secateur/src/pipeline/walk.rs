//! Round after round, from the network before any cut until the targets stop it (docs/method.md, sections 5 and 7).

use super::PipelineError;
use super::basis::Ranked;
use super::candidate::best_cut;
use super::choose::exported_size;
use super::next::Sizes;
use super::pace::Pace;
use super::rounds::{Context, RoundState, fitted, note_round, rank, train_cut, window};
use super::task::spent;
use super::times::{Times, whole};
use crate::graph::{Graph, Size};
use crate::prune::channels::ChannelPlan;
use crate::prune::{PLAN_VERSION, Per, PruningPlan};
use crate::report::{CutKind, Round};
use std::collections::BTreeMap;

/// A network between two cuts, and how it came there.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub graph: Graph,
    pub state: RoundState,
    /// The start and all cuts, those that were taken back, too.
    pub rounds: Vec<Round>,
    pace: Pace,
    /// Times of the network, or of one before it, and of which round that is.
    times: Option<(usize, Times)>,
}

impl Walk {
    /// The network before any cut.
    pub fn start(context: &Context<'_>) -> Result<Self, PipelineError> {
        let (decomposed, settings) = (context.uncut, &context.settings.prune);
        let (graph, state) = context.run.stage("round-00", context.model, || {
            let size = Size {
                nanos: match settings.wants_times() {
                    true => whole(context, decomposed)?,
                    false => 0,
                },
                ..exported_size(decomposed, context.prepared, None)?
            };
            let start = Round::unjudged(0, None, 0.0, size);
            let plan = PruningPlan {
                version: PLAN_VERSION,
                basis: settings.basis,
                layers: BTreeMap::new(),
                predicted: start.size,
            };
            window(context, decomposed, start, plan)
        })?;
        Ok(Self {
            graph,
            rounds: vec![state.round.clone()],
            state,
            pace: Pace::new(settings.step(), settings.halvings),
            times: None,
        })
    }

    /// Goes on until the targets are reached, or another cut would break one. `before` hears what each cut takes,
    /// with the walk as it was before that. Whether there are targets on size, and all of them hold.
    pub fn go_on(
        &mut self,
        context: &Context<'_>,
        before: &mut dyn FnMut(CutKind, &Self),
    ) -> Result<bool, PipelineError> {
        let settings = &context.settings.prune;
        let mut ranked: Option<Ranked> = None;
        loop {
            let Round { round, size, .. } = self.state.round;
            if settings.wants_times() && self.times.as_ref().is_none_or(|(of, _)| *of != round) {
                let former = self.times.as_ref().map(|(_, times)| times);
                let times = Times::of(context, &self.graph, round, former, size.nanos)?;
                self.times = Some((round, times));
            }
            let times = self.times.as_ref().map(|(_, times)| times);
            let sizes = Sizes::of(context, &self.graph, times)?;
            if sizes.hold() {
                return Ok(true);
            }
            let ranked_now = match ranked.take() {
                Some(ranked) => ranked,
                None => rank(context, &self.graph, &self.state)?,
            };
            let ranked_now = &*ranked.insert(ranked_now);
            let Some(next) = sizes.next(&ranked_now.state.scores, self.pace.step)? else {
                return Ok(false);
            };
            let number = self.rounds.len();
            let name = format!("round-{number:02}");
            let (graph, state) = (&self.graph, &self.state);
            let (cut, tried) = context.run.stage(&name, context.model, || {
                match best_cut(context, graph, ranked_now, &next, &state.plan, times)? {
                    Some(mut candidate) => {
                        let plans = state.channels.iter().chain(&candidate.channels);
                        let plans: Vec<ChannelPlan> = plans.cloned().collect();
                        candidate.graph =
                            fitted(context, graph, ranked_now, &candidate.graph, &plans)?;
                        let (cut, mut tried) = train_cut(context, candidate, number)?;
                        // What was foretold to be faster and is not is of no use where time is the unit.
                        let is_faster = |times: &Times| tried.round.size.nanos < times.whole;
                        tried.round.accepted &=
                            settings.per() != Per::Time || times.is_none_or(is_faster);
                        Ok((cut, tried))
                    }
                    None => Ok((graph.clone(), state.nothing_left(number))),
                }
            })?;
            let Some(kind) = tried.round.kind else {
                return Ok(false);
            };
            before(kind, self);
            note_round(context, &tried.round);
            // Where less can go than was wanted, that is what failed or not.
            self.pace.step = tried.round.step;
            self.rounds.push(tried.round.clone());
            self.write_history(context)?;
            let goes_on = if tried.round.accepted {
                let goes_on = self.pace.succeeded(spent(context, &tried.round));
                let mut channels = std::mem::take(&mut self.state.channels);
                (self.graph, self.state) = (cut, tried);
                channels.append(&mut self.state.channels);
                self.state.channels = channels;
                ranked = None;
                goes_on
            } else {
                self.pace.failed()
            };
            if !goes_on {
                return Ok(false);
            }
        }
    }

    /// All rounds, in the run's folder.
    pub fn write_history(&self, context: &Context<'_>) -> Result<(), PipelineError> {
        let lines = self
            .rounds
            .iter()
            .filter_map(|round| serde_json::to_string(round).ok());
        let history: String = lines.map(|line| line + "\n").collect();
        let path = context.run.path("history.jsonl");
        Ok(crate::files::write_atomic(&path, history.as_bytes())?)
    }
}
