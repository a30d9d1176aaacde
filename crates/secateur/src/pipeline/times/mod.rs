//! How long a network and its layers take in the runtime that will serve it, so that a cut takes what
//! saves time (docs/method.md, section 7).

mod curve;

use super::PipelineError;
use super::latency::{latency, latency_shape};
use super::rounds::Context;
use crate::cost::{self, Cost};
use crate::fold::{FoldConfig, fold};
use crate::graph::{FactoredLayer, Graph, factored_layers, infer_images, is_of_layer, layer_of};
use crate::onnx;
use crate::prune::RankTimes;
use curve::{Curve, Measured};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a network and its layers take.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Times {
    /// Nanoseconds of one run of the network as it is exported.
    pub whole: u64,
    layers: BTreeMap<String, RankTimes>,
    /// Nanoseconds of one multiply-accumulate: of each layer, and of everything else.
    rates: BTreeMap<String, f64>,
    other_rate: f64,
    /// Nanoseconds that no cut changes.
    fixed: f64,
    /// All that was measured, by the kind of layer.
    curves: BTreeMap<String, Measured>,
}

// How long a candidate is timed.
const LIMIT: Duration = Duration::from_secs(3);

impl Times {
    /// Those of `graph`, one run of which takes `whole` nanoseconds, or what the run's folder holds of
    /// them, so that a run that goes on makes the same choices. `before` are those of the round before,
    /// whose layers need no second measurement.
    pub fn of(
        context: &Context<'_>,
        graph: &Graph,
        round: usize,
        before: Option<&Self>,
        whole: u64,
    ) -> Result<Self, PipelineError> {
        let name = context.run.checkpoint(&format!("times-{round:02}.json"));
        if let Some(known) = context.run.read_json(&name)? {
            return Ok(known);
        }
        let curves = before.map_or_else(BTreeMap::new, |before| before.curves.clone());
        let times = Self::measured(context, graph, curves, whole)?;
        context.run.write_json(&name, &times)?;
        Ok(times)
    }

    fn measured(
        context: &Context<'_>,
        graph: &Graph,
        mut curves: BTreeMap<String, Measured>,
        whole: u64,
    ) -> Result<Self, PipelineError> {
        let [batch, _, height, width] = latency_shape(context)?;
        let is_free = graph.image_input()?.batch.is_none();
        let shapes = infer_images(graph, batch, height, width)?;
        let layers = factored_layers(graph);
        let align = context.settings.prune.align();
        context
            .progress
            .begin("time of layers", layers.len() as u64);
        let mut found = BTreeMap::new();
        for layer in &layers {
            context.progress.go_on()?;
            if let Some(curve) = Curve::of(graph, layer, &shapes, is_free) {
                let kind = curve.kind();
                let rank = layer.rank.min(layer.shape.break_even_rank());
                let known = curves.get(&kind).filter(|known| known.covers >= rank);
                let measured = match known {
                    Some(known) => known.clone(),
                    None => curve.measure(context.runtime, align, context.settings.seed)?,
                };
                found.insert(layer.name.clone(), measured.times.clone());
                curves.insert(kind, measured);
            }
            context.progress.advance(1);
        }
        context.progress.end();
        let (exported, _) = fold(graph, &FoldConfig::default())?;
        let shapes = super::stages::shapes(&exported, context.prepared)?;
        let cost = cost::of(&exported, &shapes);
        Ok(Self::from_parts(whole, &layers, found, &cost, curves))
    }

    /// The times, given the time of the whole and of the layers that could be measured alone.
    fn from_parts(
        whole: u64,
        layers: &[FactoredLayer],
        found: BTreeMap<String, RankTimes>,
        cost: &Cost,
        curves: BTreeMap<String, Measured>,
    ) -> Self {
        let now = |layer: &FactoredLayer, times: &RankTimes| {
            times.at(layer.rank, layer.rank <= layer.shape.break_even_rank())
        };
        let timed = || {
            layers
                .iter()
                .filter_map(|layer| Some((layer, found.get(&layer.name)?)))
        };
        // A layer alone pays for its run what the layers of a network pay together.
        let sum: u64 = timed().map(|(layer, times)| now(layer, times)).sum();
        let factor = (whole as f64 / sum.max(1) as f64).min(1.0);
        let mut times = Self {
            whole,
            curves,
            ..Self::default()
        };
        let (mut known_nanos, mut known_macs) = (0.0, 0);
        for (layer, known) in timed() {
            let known = known.scaled(factor);
            let macs = macs_of(cost, &layer.name);
            let nanos = now(layer, &known) as f64;
            known_nanos += nanos;
            known_macs += macs;
            let rate = nanos / macs.max(1) as f64;
            times.rates.insert(layer.name.clone(), rate);
            times.layers.insert(layer.name.clone(), known);
        }
        // What is left is the work of other layers, at no more than the rate of those that are known, and
        // what no cut changes: activations, pooling, the start of each kernel.
        let left = (whole as f64 - known_nanos).max(0.0);
        let others = cost.macs.saturating_sub(known_macs).max(1) as f64;
        let known_rate = match known_macs {
            0 => f64::INFINITY,
            macs => known_nanos / macs as f64,
        };
        times.other_rate = (left / others).min(known_rate);
        times.fixed = left - times.other_rate * others;
        for layer in layers {
            if !times.layers.contains_key(&layer.name) {
                let nanos = times.other_rate * macs_of(cost, &layer.name) as f64;
                times
                    .layers
                    .insert(layer.name.clone(), at_rate(layer, nanos));
            }
        }
        times
    }

    /// The times of a factored layer.
    pub fn of_layer(&self, name: &str) -> Option<RankTimes> {
        self.layers.get(name).cloned()
    }

    /// Nanoseconds of one multiply-accumulate in `node`.
    pub fn rate(&self, node: &str) -> f64 {
        // A file that was compressed before has nodes of their own that are named like factors.
        let rate = self.rates.get(node);
        let rate = rate.or_else(|| self.rates.get(layer_of(node)));
        rate.copied().unwrap_or(self.other_rate)
    }

    /// Nanoseconds of one run of a network that `cost` describes, from what this one takes.
    pub fn foretold(&self, cost: &Cost) -> u64 {
        let layers = cost.layers.iter();
        let work: f64 = layers
            .map(|layer| self.rate(&layer.node) * layer.macs as f64)
            .sum();
        (self.fixed + work).round() as u64
    }
}

/// Nanoseconds of one run of `graph` as it is exported, measured in turns with the uncut network's file.
pub(super) fn whole(context: &Context<'_>, graph: &Graph) -> Result<u64, PipelineError> {
    let (exported, _) = fold(graph, &FoldConfig::default())?;
    let bytes = onnx::to_bytes(&context.model.with_graph(exported))?;
    let files = [("uncut", context.before_bytes), ("cut", &bytes[..])];
    let found = latency(context, &files, LIMIT)?.models;
    let speedup = found.last().map_or(1.0, |cut| cut.speedup);
    Ok((1e6 * context.original.millis / speedup.max(f64::MIN_POSITIVE)) as u64)
}

fn macs_of(cost: &Cost, layer: &str) -> u64 {
    let nodes = cost.layers.iter();
    nodes
        .filter(|node| is_of_layer(&node.node, layer))
        .map(|node| node.macs)
        .sum()
}

/// The times of a layer that cannot be run alone and is taken to need `nanos` as it is: in proportion to its
/// weights.
fn at_rate(layer: &FactoredLayer, nanos: f64) -> RankTimes {
    let shape = layer.shape;
    let now = shape.params_at(layer.rank).max(1) as f64;
    let of = |params: u64| (nanos * params as f64 / now) as u64;
    let most = shape.break_even_rank();
    let at = |rank: usize| (rank, of(shape.params_at(rank)));
    RankTimes::new(of(shape.dense_params()), vec![at(1), at(most)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
