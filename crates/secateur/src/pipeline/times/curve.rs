//! The time of one layer, run alone: as one kernel, and as two factors of several ranks.

use crate::bench::{Turns, in_turns};
use crate::fold::{BatchNorm, FoldConfig, SizeRule, fold};
use crate::graph::{
    Activation, Dim, FactoredKind, FactoredLayer, Graph, Inferred, Node, Op, Size, ValueDecl,
};
use crate::onnx::{self, Model};
use crate::pipeline::PipelineError;
use crate::pipeline::judge::noise;
use crate::progress::Silent;
use crate::prune::{LayerPlan, PLAN_VERSION, PruningPlan, RankTimes, apply};
use crate::tensor::ElementType;
use crate::verify::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was measured of a kind of layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub times: RankTimes,
    /// The largest rank up to which that holds.
    pub covers: usize,
}

/// A layer by itself.
pub(super) struct Curve<'g> {
    layer: &'g FactoredLayer,
    /// The layer's three nodes, which read `[n, c, h, w]`.
    alone: Graph,
    input: [usize; 4],
    output: [usize; 4],
    /// Whether the network takes any number of images.
    is_free: bool,
}

const TURNS: Turns = Turns {
    warm_up: 2,
    least: 7,
    most: 60,
    limit: Duration::from_millis(300),
};

// Where the ranks are at which a layer is measured, as parts of the largest that pays.
const PARTS: [f64; 8] = [0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.8, 1.0];

impl<'g> Curve<'g> {
    /// `layer` of `graph`; `None` where it does not read a batch of maps, which runtimes are given.
    pub fn of(
        graph: &Graph,
        layer: &'g FactoredLayer,
        shapes: &Inferred,
        is_free: bool,
    ) -> Option<Self> {
        if layer.kind != FactoredKind::Convolution {
            return None;
        }
        let of_layer = [&layer.basis, &layer.scaling, &layer.projection];
        let nodes: Vec<Node> = graph
            .nodes
            .iter()
            .filter(|node| of_layer.contains(&&node.name))
            .cloned()
            .collect();
        let value = graph.node(&layer.basis)?.inputs.first()?;
        let shape = |value: &String| -> Option<[usize; 4]> {
            shapes.shapes.get(value)?.as_slice().try_into().ok()
        };
        let (input, output) = (shape(value)?, shape(&layer.output)?);
        let read: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.inputs).collect();
        let initializers = graph.initializers.iter();
        let initializers: BTreeMap<_, _> = initializers
            .filter(|(name, _)| read.contains(name))
            .map(|(name, array)| (name.clone(), array.clone()))
            .collect();
        let alone = Graph {
            name: layer.name.clone(),
            opset: graph.opset,
            inputs: vec![image(value, input, is_free)],
            outputs: vec![image(&layer.output, output, is_free)],
            nodes,
            initializers,
            metadata: BTreeMap::new(),
        };
        Some(Self {
            layer,
            alone,
            input,
            output,
            is_free,
        })
    }

    /// What layers of equal time have in common.
    pub fn kind(&self) -> String {
        let op = self.alone.node(&self.layer.basis).map(|node| &node.op);
        format!("{:?} {:?} {op:?}", self.input, self.layer.shape)
    }

    /// Runs the layer in turns in all its forms, the ranks being multiples of `align`.
    pub fn measure(
        &self,
        runtime: &dyn Runtime,
        align: usize,
        seed: u64,
    ) -> Result<Measured, PipelineError> {
        let largest = self.layer.rank.min(self.layer.shape.break_even_rank());
        let ranks: BTreeSet<usize> = PARTS
            .iter()
            .map(|part| ((part * largest as f64) as usize).next_multiple_of(align))
            .map(|rank| rank.clamp(1, largest.max(1)))
            .filter(|_| largest > 0)
            .collect();
        let nothing = |shape| (nothing(shape, self.is_free, &self.alone), shape);
        let mut forms = vec![
            nothing(self.input),
            nothing(self.output),
            (self.dense()?, self.input),
        ];
        for &rank in &ranks {
            forms.push((self.factored(rank)?, self.input));
        }
        let images = noise(self.input, seed)?.images;
        let maps = noise(self.output, seed)?.images;
        let mut networks = Vec::new();
        for (form, shape) in forms {
            let bytes = onnx::to_bytes(&Model::new(form))?;
            let network = runtime.load(&bytes, shape)?;
            let read = if shape == self.input { &images } else { &maps };
            networks.push((network, read.clone()));
        }
        let samples = in_turns(&mut networks, &TURNS, &Silent)?;
        let nanos = |index: usize| {
            samples
                .get(index)
                .map_or(0.0, |samples| 1e6 * samples.p50())
        };
        // What a run costs that takes in and puts out as much and computes next to nothing is no cost of
        // the layer.
        let nothing = f64::midpoint(nanos(0), nanos(1));
        let layer = |index: usize| (nanos(index) - nothing).max(0.05 * nanos(index)) as u64;
        let factored = ranks
            .iter()
            .enumerate()
            .map(|(at, &rank)| (rank, layer(at + 3)));
        Ok(Measured {
            times: RankTimes::new(layer(2), factored.collect()),
            covers: largest,
        })
    }

    /// The layer as it is exported as one kernel.
    fn dense(&self) -> Result<Graph, PipelineError> {
        folded(&self.alone, SizeRule::Dense)
    }

    /// The layer as it is exported as two factors of `rank`.
    fn factored(&self, rank: usize) -> Result<Graph, PipelineError> {
        folded(
            &apply(&self.alone, &keeping(self.layer, rank))?,
            SizeRule::Factored,
        )
    }
}

fn folded(graph: &Graph, size_rule: SizeRule) -> Result<Graph, PipelineError> {
    let config = FoldConfig {
        size_rule,
        batch_norm: BatchNorm::Fold,
        ..FoldConfig::default()
    };
    Ok(fold(graph, &config)?.0)
}

/// The cut that leaves the first `rank` directions of a layer.
fn keeping(layer: &FactoredLayer, rank: usize) -> PruningPlan {
    let plan = LayerPlan {
        rank: layer.rank,
        keep: (0..rank).collect(),
    };
    PruningPlan {
        version: PLAN_VERSION,
        basis: crate::decompose::Basis::Svd,
        layers: BTreeMap::from([(layer.name.clone(), plan)]),
        predicted: Size::default(),
    }
}

/// A network that puts out what it takes in, but for what is negative.
fn nothing(shape: [usize; 4], is_free: bool, like: &Graph) -> Graph {
    Graph {
        inputs: vec![image("x", shape, is_free)],
        outputs: vec![image("y", shape, is_free)],
        nodes: vec![Node {
            name: "nothing".to_owned(),
            op: Op::Activation(Activation::Relu),
            inputs: vec!["x".to_owned()],
            outputs: vec!["y".to_owned()],
        }],
        initializers: BTreeMap::new(),
        ..like.clone()
    }
}

fn image(name: &str, shape: [usize; 4], is_free: bool) -> ValueDecl {
    let mut dims = shape.map(Dim::Fixed).to_vec();
    if is_free {
        dims[0] = Dim::Named("batch".to_owned());
    }
    ValueDecl {
        name: name.to_owned(),
        element_type: ElementType::F32,
        dims: Some(dims),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decompose::{DecomposeConfig, OutputScale, convolutions};
    use crate::graph::samples::resnet20;
    use crate::graph::{factored_layers, infer_images};
    use crate::verify::{Options, RuntimeKind, open};

    #[test]
    fn a_layer_alone_is_the_same_as_one_kernel_and_as_two_factors_and_its_times_are_known() {
        let config = DecomposeConfig {
            exclude: None,
            head: None,
            output_scale: OutputScale::Nowhere,
        };
        let (graph, _) = convolutions(&resnet20(), &config, &Silent).unwrap();
        let shapes = infer_images(&graph, 2, 32, 32).unwrap();
        let layers = factored_layers(&graph);
        // A layer in the middle, with a stride.
        let layer = layers.iter().find(|layer| layer.shape.co == 32).unwrap();
        let curve = Curve::of(&graph, layer, &shapes, true).unwrap();
        assert_eq!(curve.input, [2, 16, 32, 32]);
        let runtime = open(RuntimeKind::Tract, &Options::default()).unwrap();
        let images = noise(curve.input, 0).unwrap().images;
        let output = |graph: Graph| {
            let bytes = onnx::to_bytes(&Model::new(graph)).unwrap();
            let mut network = runtime.load(&bytes, curve.input).unwrap();
            network.run(&images).unwrap()
        };
        let (dense, factored) = (curve.dense().unwrap(), curve.factored(layer.rank).unwrap());
        assert_eq!((dense.nodes.len(), factored.nodes.len()), (1, 2));
        let (dense, factored) = (output(dense), output(factored));
        assert_eq!(dense.shape(), [2, 32, 16, 16]);
        let apart = dense.iter().zip(&factored).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0_f32, f32::max) < 1e-4);

        let measured = curve.measure(&*runtime, 8, 0).unwrap();
        assert_eq!(measured.covers, layer.shape.break_even_rank());
        assert!(measured.times.at(8, true) > 0 && measured.times.at(8, false) > 0);
    }
}
