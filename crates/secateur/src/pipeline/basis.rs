//! The basis in which the next cut is made, with the scores of its directions (docs/method.md,
//! section 4): statistics of the network as it is now, so a later cut sees what earlier ones did.

use super::PipelineError;
use super::inputs::wanted as wanted_inputs;
use super::score::Scoring;
use super::settings::Removal;
use super::stages::{light_with, source};
use crate::decompose::{Basis, DecomposeError, Directions, OutputMoments, directions};
use crate::graph::{FactoredLayer, Graph, Op, Uses, factored_layers};
use crate::importance::{Score, Scores, score};
use crate::prune::{PruningPlan, compensate, input_spaces, observed};
use crate::train::{MomentsConfig, Wanted, output_moments};
use ndarray::Array1;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// A network whose layers are written in the directions that are scored.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    pub graph: Graph,
    pub state: RankedState,
    /// Moments of values of the network, gathered on the way, or once they are asked for where a run goes on from
    /// a checkpoint.
    pub moments: OnceCell<BTreeMap<String, OutputMoments>>,
    /// What its channels cost alone, from when they are asked for.
    costs: OnceCell<BTreeMap<String, Vec<f64>>>,
}

/// What is known of those directions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RankedState {
    pub scores: Scores,
    /// Those of input spaces.
    #[serde(default)]
    pub inputs: Scores,
    /// By layer, the mean of each basis activation. Layers that batch norm follows have none: it takes
    /// the mean over.
    means: BTreeMap<String, Vec<f64>>,
}

impl Scoring<'_> {
    /// The moments of all values of `graph` that the cuts of the settings want to know of, in one pass.
    pub(super) fn moments(
        &self,
        graph: &Graph,
    ) -> Result<BTreeMap<String, OutputMoments>, PipelineError> {
        let settings = &self.settings.prune;
        let mut all = BTreeSet::new();
        if settings.removes != Removal::Channels {
            let outputs = |layer: &FactoredLayer| Wanted::of_layer(layer, &layer.output);
            all.extend(factored_layers(graph).iter().map(outputs));
        }
        if settings.removes != Removal::Basis {
            all.extend(self.channel_reads(graph)?);
        }
        let mut watched = graph.clone();
        if settings.cuts_inputs() {
            let spaces = input_spaces(graph);
            all.extend(wanted_inputs(&spaces));
            watched = observed(graph, &spaces);
        }
        let all: Vec<Wanted> = all.into_iter().collect();
        let values: Vec<String> = all.iter().map(|wanted| wanted.value.clone()).collect();
        Ok(output_moments(
            self.engine,
            &light_with(&watched, &values)?,
            &self.task.outputs(),
            &all,
            &source(self.prepared, self.settings),
            &self.statistics(),
            self.progress,
        )?)
    }

    /// The directions of `layers` in the basis of the settings, with their scores. Taylor scores are
    /// `taylor`, those that training has gathered for the directions as they are.
    pub(super) fn rank(
        &self,
        graph: &Graph,
        layers: &[FactoredLayer],
        taylor: Scores,
    ) -> Result<Ranked, PipelineError> {
        let settings = &self.settings.prune;
        if settings.score == Score::Taylor {
            let state = RankedState {
                scores: taylor,
                ..RankedState::default()
            };
            return Ok(Ranked::new(graph.clone(), state));
        }
        let moments = self.moments(graph)?;
        self.progress.begin("bases", layers.len() as u64);
        let found: Vec<Result<Directions, PipelineError>> = layers
            .par_iter()
            .map(|layer| {
                self.progress.go_on()?;
                let found = moments
                    .get(&layer.output)
                    .and_then(|moments| layer_directions(settings.basis, graph, layer, moments));
                self.progress.advance(1);
                found.ok_or_else(|| {
                    let node = layer.name.clone();
                    DecomposeError::NoBasis { node }.into()
                })
            })
            .collect();
        self.progress.end();
        let uses = Uses::of(graph);
        let mut ranked = Ranked::new(graph.clone(), RankedState::default());
        let mut means = BTreeMap::new();
        for (layer, found) in layers.iter().zip(found) {
            let found = found?;
            let Some(scores) = score(settings.score, &found) else {
                continue;
            };
            if found.matrices.store(&mut ranked.graph, layer).is_none() {
                let node = layer.name.clone();
                return Err(DecomposeError::NoBasis { node }.into());
            }
            ranked.state.scores.insert(layer.name.clone(), scores);
            let mean: Vec<f64> = found.means.iter().copied().collect();
            let is_known = layer.bias_values(graph).is_some();
            if is_known && !feeds_batch_norm_alone(graph, &uses, &layer.output) {
                ranked.state.means.insert(layer.name.clone(), mean.clone());
            }
            means.insert(layer.name.clone(), mean);
        }
        if settings.score == Score::Fisher {
            let spaces = match settings.cuts_inputs() {
                true => self.payable(graph, &moments)?,
                false => Vec::new(),
            };
            self.measure(&mut ranked, layers, &means, &spaces)?;
        }
        Ok(ranked.with_moments(moments))
    }

    /// How statistics are gathered.
    pub(super) fn statistics(&self) -> MomentsConfig {
        MomentsConfig {
            images: self.settings.prune.statistics_images,
            curvature: self.settings.prune.curvature,
            seed: self.settings.seed,
        }
    }
}

/// Biases that [`Ranked::adopt`] may give to layers that have none.
pub(super) fn new_biases(graph: &Graph, layers: &[FactoredLayer]) -> u64 {
    let uses = Uses::of(graph);
    let gets_one = |layer: &&FactoredLayer| {
        layer.bias.is_none() && !feeds_batch_norm_alone(graph, &uses, &layer.output)
    };
    let biases = layers.iter().filter(gets_one);
    biases.map(|layer| layer.shape.co as u64).sum()
}

/// Whether every reader of the value is a batch norm, and nobody outside reads it.
pub(super) fn feeds_batch_norm_alone(graph: &Graph, uses: &Uses<'_>, value: &str) -> bool {
    let readers = uses.readers(value);
    let is_norm = |&reader: &usize| {
        let op = graph.nodes.get(reader).map(|node| &node.op);
        matches!(op, Some(Op::BatchNormalization { .. }))
    };
    !readers.is_empty() && readers.iter().all(is_norm) && !graph.is_output(value)
}

fn layer_directions(
    basis: Basis,
    graph: &Graph,
    layer: &FactoredLayer,
    moments: &OutputMoments,
) -> Option<Directions> {
    let weight = layer.matrices(graph)?.product();
    let bias = layer.bias_values(graph).flatten().map(Array1::from);
    let bias = bias.as_ref().map(|bias| bias.view());
    directions(basis, weight.view(), bias, moments, layer.rank)
}

impl Ranked {
    pub(super) fn new(graph: Graph, state: RankedState) -> Self {
        Self {
            graph,
            state,
            moments: OnceCell::new(),
            costs: OnceCell::new(),
        }
    }

    pub(super) fn with_moments(self, moments: BTreeMap<String, OutputMoments>) -> Self {
        Self {
            moments: OnceCell::from(moments),
            ..self
        }
    }

    /// The moments of `graph`, the network that was ranked.
    pub(super) fn moments(
        &self,
        scoring: &Scoring<'_>,
        graph: &Graph,
    ) -> Result<&BTreeMap<String, OutputMoments>, PipelineError> {
        if let Some(moments) = self.moments.get() {
            return Ok(moments);
        }
        let moments = scoring.moments(graph)?;
        Ok(self.moments.get_or_init(|| moments))
    }

    /// What the channels of `graph`, the network that was ranked, cost alone (`Scoring::alone`).
    pub(super) fn costs(
        &self,
        scoring: &Scoring<'_>,
        graph: &Graph,
    ) -> Result<&BTreeMap<String, Vec<f64>>, PipelineError> {
        if let Some(costs) = self.costs.get() {
            return Ok(costs);
        }
        let costs = scoring.alone(graph)?;
        Ok(self.costs.get_or_init(|| costs))
    }

    /// `graph` with the layers that `plan` cuts written in the scored directions, the means of those
    /// that go added to their biases. Layers that lose nothing stay as they are, to the bit.
    pub(super) fn adopt(&self, graph: &Graph, plan: &PruningPlan) -> Result<Graph, PipelineError> {
        let mut result = graph.clone();
        let is_cut = |layer: &FactoredLayer| {
            let plan = plan.layers.get(&layer.name);
            plan.is_some_and(|plan| plan.keep.len() < plan.rank)
        };
        for layer in factored_layers(graph).iter().filter(|layer| is_cut(layer)) {
            for name in [
                &layer.basis_weight,
                &layer.factors,
                &layer.projection_weight,
            ] {
                if let Some(array) = self.graph.initializers.get(name) {
                    result.initializers.insert(name.clone(), array.clone());
                }
            }
        }
        Ok(compensate(&result, plan, &self.state.means)?)
    }
}
