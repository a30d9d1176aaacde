//! What leaving out each direction costs, measured on the network written in those directions (docs/method.md,
//! section 4).

use super::PipelineError;
use super::basis::Ranked;
use super::inputs::Payable;
use super::score::Scoring;
use super::stages::source;
use crate::fold::{BatchNorm, FoldConfig, InputFactors, SizeRule, fold};
use crate::graph::{FactoredLayer, Graph};
use crate::importance::over_groups;
use crate::prune::spelled_out;
use crate::train::{ChannelAxis, Wanted, channel_costs};
use std::collections::BTreeMap;

impl Scoring<'_> {
    /// What it costs to put its mean in the place of each channel of `values`, which come with those means, by name. Those
    /// that are not all numbers are left out.
    pub(super) fn channel_costs(
        &self,
        graph: &Graph,
        values: &[(Wanted, Vec<f64>)],
    ) -> Result<BTreeMap<String, Vec<f64>>, PipelineError> {
        let mut costs = channel_costs(
            self.engine,
            graph,
            &self.task.outputs(),
            values,
            &source(self.prepared, self.settings),
            &self.statistics(),
            self.progress,
        )?;
        costs.retain(|_, costs| costs.iter().all(|cost| cost.is_finite()));
        Ok(costs)
    }

    /// Puts measured scores in the place of those that follow from moments (docs/method.md, section 4): of the directions of
    /// `layers`, in which `ranked` is written and whose activations have these `means`, and of `spaces`. Those that are not
    /// finite stay as they are.
    pub(super) fn measure(
        &self,
        ranked: &mut Ranked,
        layers: &[FactoredLayer],
        means: &BTreeMap<String, Vec<f64>>,
        spaces: &[Payable],
    ) -> Result<(), PipelineError> {
        let subspaces = spaces.iter().map(|known| (&known.space, &known.found));
        let (graph, coordinates) = spelled_out(&ranked.graph, subspaces)?;
        let of_layers = layers.iter().filter_map(|layer| {
            let wanted = Wanted::of_layer(layer, &layer.basis_output);
            Some((wanted, means.get(&layer.name)?.clone()))
        });
        // Nothing stands in for the mean of what is read (section 4).
        let of_spaces = coordinates.iter().zip(spaces).map(|(value, known)| {
            let wanted = Wanted {
                value: value.clone(),
                channels: ChannelAxis::Second,
            };
            (wanted, vec![0.0; known.space.rank])
        });
        let values: Vec<(Wanted, Vec<f64>)> = of_layers.chain(of_spaces).collect();
        let config = FoldConfig {
            size_rule: SizeRule::Factored,
            batch_norm: BatchNorm::Keep,
            input_factors: InputFactors::Keep,
        };
        let mut costs = self.channel_costs(&fold(&graph, &config)?.0, &values)?;
        for layer in layers {
            let scores = ranked.state.scores.get_mut(&layer.name);
            if let (Some(scores), Some(costs)) = (scores, costs.get(&layer.basis_output)) {
                *scores = over_groups(costs, layer.rank);
            }
        }
        for (value, known) in coordinates.iter().zip(spaces) {
            if let Some(costs) = costs.remove(value) {
                ranked.state.inputs.insert(known.space.name.clone(), costs);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stages::shapes;
    use super::super::task::Task;
    use super::super::{DataSettings, Prepared, Removal, Settings, prepare};
    use super::*;
    use crate::decompose::{DecomposeConfig, convolutions};
    use crate::exec::{Engine, NativeEngine, Request};
    use crate::graph::samples::Builder;
    use crate::graph::{ConvAttrs, Graph, Op, Size, factored_layers};
    use crate::groups::{Removed, discover};
    use crate::importance::Scores;
    use crate::progress::Silent;
    use crate::prune::channels::{self, ChannelPlan};
    use crate::prune::{LayerPlan, PLAN_VERSION, PruningPlan, apply, cut_inputs};
    use crate::tensor::Tensor;
    use crate::train::training_batches;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const IMAGES: usize = 64;

    /// Three convolutions with nothing between them, to one number: the square of its change is what a cut costs,
    /// and no draw of signs changes it.
    fn network() -> Graph {
        let mut b = Builder::new(1);
        let made = b.conv("first", "x", [4, 1, 3, 3], 1);
        let made = b.conv("second", &made, [5, 4, 3, 3], 1);
        let made = b.conv("sum", &made, [1, 5, 8, 8], 1);
        let mut graph = b.output(&made);
        if let Some(Op::Conv(attrs)) = graph.nodes.last_mut().map(|node| &mut node.op) {
            *attrs = ConvAttrs::default();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for tensor in graph.initializers.values_mut() {
            if let Tensor::F32(array) = tensor {
                array.mapv_inplace(|_| rng.random_range(-1.0..1.0_f32));
            }
        }
        convolutions(&graph, &DecomposeConfig::default(), &Silent)
            .unwrap()
            .0
    }

    fn settings() -> Settings {
        let mut settings = Settings {
            data: DataSettings {
                preprocess: Some("unit".to_owned()),
                ..DataSettings::default()
            },
            ..Settings::default()
        };
        settings.prune.statistics_images = IMAGES;
        settings
    }

    fn outputs(graph: &Graph, prepared: &Prepared, settings: &Settings) -> Vec<f64> {
        let engine = NativeEngine::new();
        let names = vec![graph.outputs[0].name.clone()];
        let mut session = engine.session(&Request::evaluation(graph, names)).unwrap();
        let batches = training_batches(&source(prepared, settings), IMAGES, settings.seed);
        let mut made = Vec::new();
        for batch in batches.unwrap() {
            let output = session.forward(&batch.images).unwrap().remove(0);
            made.extend(output.iter().copied().map(f64::from));
        }
        made
    }

    #[test]
    fn a_cut_of_one_direction_costs_its_score() {
        let graph = network();
        let settings = settings();
        let prepared = prepare(&graph, &settings.data, settings.seed, &Silent).unwrap();
        let scoring = Scoring {
            engine: &NativeEngine::new(),
            prepared: &prepared,
            settings: &settings,
            task: &Task::of_outputs(&graph),
            progress: &Silent,
        };
        let layers = factored_layers(&graph);
        let ranked = scoring.rank(&graph, &layers, Scores::new()).unwrap();
        let want = outputs(&graph, &prepared, &settings);
        let cost = |cut: &Graph| {
            let got = outputs(cut, &prepared, &settings);
            let change = want.iter().zip(&got).map(|(a, b)| (a - b).powi(2));
            change.sum::<f64>() / want.len() as f64
        };
        let without = |rank: usize, direction: usize| LayerPlan {
            rank,
            keep: (0..rank).filter(|&at| at != direction).collect(),
        };
        for layer in layers.iter().filter(|layer| layer.rank > 1) {
            for (direction, score) in ranked.state.scores[&layer.name].iter().enumerate() {
                let plan = PruningPlan {
                    version: PLAN_VERSION,
                    basis: settings.prune.basis,
                    layers: [(layer.name.clone(), without(layer.rank, direction))].into(),
                    predicted: Size::default(),
                };
                let cut = apply(&ranked.adopt(&graph, &plan).unwrap(), &plan).unwrap();
                let got = cost(&cut);
                assert!(
                    (got - score).abs() < 1e-3 * score,
                    "{}: {got} {score}",
                    layer.name
                );
            }
        }
        let moments = ranked.moments(&scoring, &graph).unwrap();
        let spaces = scoring.payable(&graph, moments).unwrap();
        assert_eq!(spaces.len(), 1);
        let Payable { space, found, .. } = &spaces[0];
        for (direction, score) in ranked.state.inputs[&space.name].iter().enumerate() {
            let plan = without(space.rank, direction);
            let got = cost(&cut_inputs(&graph, [(space, found, &plan)]).unwrap());
            assert!(
                (got - score).abs() < 1e-3 * score,
                "{}: {got} {score}",
                space.name
            );
        }
    }

    #[test]
    fn a_channel_costs_what_the_output_loses_without_it() {
        let graph = network();
        let mut settings = settings();
        settings.prune.removes = Removal::Channels;
        let prepared = prepare(&graph, &settings.data, settings.seed, &Silent).unwrap();
        let scoring = Scoring {
            engine: &NativeEngine::new(),
            prepared: &prepared,
            settings: &settings,
            task: &Task::of_outputs(&graph),
            progress: &Silent,
        };
        let inferred = shapes(&graph, &prepared).unwrap();
        let groups = discover(&graph, &inferred);
        let costs = scoring.alone(&graph).unwrap();
        let whole = outputs(&graph, &prepared, &settings);
        let mut seen = 0;
        for (value, costs) in costs {
            let ids = &groups.value(&value).unwrap().channels;
            for (id, cost) in ids.iter().zip(costs) {
                let Some(id) = *id else { continue };
                let mut removed = Removed::nothing(&groups);
                removed.insert(id);
                let plan = ChannelPlan::of(&groups, &removed);
                let cut = channels::zero(&graph, &inferred, &plan).unwrap();
                let left = outputs(&cut, &prepared, &settings);
                let change = whole.iter().zip(&left).map(|(a, b)| (a - b).powi(2));
                let got = change.sum::<f64>() / whole.len() as f64;
                assert!((got - cost).abs() < 1e-3 * cost, "{value}: {got} {cost}");
                seen += 1;
            }
        }
        assert_eq!(seen, 4 + 5);
    }
}
