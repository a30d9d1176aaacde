//! Training of scaling factors, batch-norm affines and head, with the Taylor scores of the
//! directions gathered on the way (docs/method.md, sections 3 and 5).

use super::stages::source;
use super::task::Task;
use super::{PipelineError, Prepared, Settings};
use crate::exec::Engine;
use crate::graph::{FactoredLayer, Graph};
use crate::importance::{Scores, TaylorWindow};
use crate::progress::Progress;
use crate::train::{FitConfig, FitSummary, NoCheckpoints, StepRecord, Trainable, fit, names};

/// What a training between two cuts works on.
pub(super) struct Scoring<'s> {
    pub engine: &'s dyn Engine,
    pub prepared: &'s Prepared,
    pub settings: &'s Settings,
    /// What losses are of; the head is trained along.
    pub task: &'s Task,
    pub progress: &'s dyn Progress,
}

impl Scoring<'_> {
    /// Trains `graph`, and scores the directions of `layers` by their mean over all steps.
    pub(super) fn train_and_score(
        &self,
        graph: &Graph,
        layers: &[FactoredLayer],
        config: &FitConfig,
    ) -> Result<(Graph, FitSummary, Scores), PipelineError> {
        let (head, logits) = self.task.classes()?;
        let (mut window, mut broken) = (TaylorWindow::new(layers), None);
        let mut observe = |step: &StepRecord<'_>| {
            if let Err(error) = window.add(step.gradients, step.values) {
                broken.get_or_insert(error);
            }
        };
        let (graph, summary) = fit(
            self.engine,
            graph,
            logits,
            &names(graph, Trainable::Scaling, Some(head)),
            &source(self.prepared, self.settings),
            config,
            &mut observe,
            &mut NoCheckpoints,
            self.progress,
        )?;
        match broken {
            Some(error) => Err(error.into()),
            None => Ok((graph, summary, window.scores()?)),
        }
    }
}
