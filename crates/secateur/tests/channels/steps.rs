//! Networks put together step by step, with random weights.

use crate::check::noise;
use ndarray::{ArcArray, IxDyn};
use proptest::prelude::*;
use secateur::graph::{
    Activation, Arithmetic, AutoPad, ConvAttrs, Dim, Graph, Node, Op, PadMode, PoolAttrs,
    Reduction, SoftmaxAxis, SpatialPads, ValueDecl, Variadic,
};
use secateur::tensor::{ElementType, Tensor};
use std::collections::BTreeMap;

/// One piece of a network, which reads the last value.
#[derive(Clone, Debug)]
pub enum Step {
    Conv { co: usize, kernel: usize },
    BatchNorm,
    Activation(usize),
    Scale,
    Shift,
    Slope,
    Residual,
    OptionA,
    Concat(usize),
    Depthwise(usize),
    Grouped,
    SqueezeExcite,
    Spatial,
    Pool(usize),
    Shuffle,
    Halves,
    Factored,
    SharedTwice,
    Softmax,
}

/// How the map becomes features.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    Pool,
    Mean,
    Flatten,
    Copy,
    Literal,
    Map,
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (2_usize..7, prop_oneof![Just(1_usize), Just(3)])
            .prop_map(|(co, kernel)| Step::Conv { co, kernel }),
        2 => Just(Step::BatchNorm),
        2 => (0_usize..5).prop_map(Step::Activation),
        1 => Just(Step::Scale),
        1 => Just(Step::Shift),
        1 => Just(Step::Slope),
        2 => Just(Step::Residual),
        1 => Just(Step::OptionA),
        2 => (2_usize..6).prop_map(Step::Concat),
        2 => (1_usize..3).prop_map(Step::Depthwise),
        1 => Just(Step::Grouped),
        2 => Just(Step::SqueezeExcite),
        1 => Just(Step::Spatial),
        1 => (0_usize..2).prop_map(Step::Pool),
        2 => Just(Step::Shuffle),
        2 => Just(Step::Halves),
        1 => Just(Step::Factored),
        1 => Just(Step::SharedTwice),
        1 => Just(Step::Softmax),
    ]
}

pub fn head() -> impl Strategy<Value = Head> {
    prop_oneof![
        Just(Head::Pool),
        Just(Head::Mean),
        Just(Head::Flatten),
        Just(Head::Copy),
        Just(Head::Literal),
        Just(Head::Map),
    ]
}

pub struct Net {
    pub graph: Graph,
    value: String,
    channels: usize,
    size: usize,
    batch: usize,
    count: usize,
}

impl Net {
    /// Reads `x` `[batch, 3, size, size]`.
    pub fn new(batch: usize, size: usize) -> Self {
        let dims = [batch, 3, size, size].map(Dim::Fixed).to_vec();
        let input = ValueDecl {
            name: "x".into(),
            element_type: ElementType::F32,
            dims: Some(dims),
        };
        Self {
            graph: Graph {
                name: "net".into(),
                opset: 17,
                inputs: vec![input],
                outputs: Vec::new(),
                nodes: Vec::new(),
                initializers: BTreeMap::new(),
                metadata: BTreeMap::new(),
            },
            value: "x".into(),
            channels: 3,
            size,
            batch,
            count: 0,
        }
    }

    /// The whole network, with a head of five outputs.
    pub fn build(steps: &[Step], head: Head) -> Graph {
        let mut net = Self::new(2, 6);
        net.conv("x", 3, 6, 3, 1);
        for step in steps {
            net.step(step);
        }
        net.head(head)
    }

    fn fresh(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    fn store(&mut self, name: String, shape: &[usize], scale: f32) -> String {
        let seed = self.fresh() as u64;
        let values = noise(shape, seed).mapv(|value| value * scale);
        self.graph
            .initializers
            .insert(name.clone(), Tensor::F32(values.into_shared()));
        name
    }

    fn integers(&mut self, name: String, values: &[i64]) -> String {
        let list = ArcArray::from(values.to_vec()).into_dyn();
        self.graph
            .initializers
            .insert(name.clone(), Tensor::I64(list));
        name
    }

    fn node(&mut self, op: Op, inputs: &[&str]) -> String {
        let name = format!("{}{}", op.name().to_lowercase(), self.fresh());
        self.graph.nodes.push(Node {
            name: name.clone(),
            op,
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            outputs: vec![format!("{name}.out")],
        });
        self.value = format!("{name}.out");
        self.value.clone()
    }

    fn conv(&mut self, from: &str, ci: usize, co: usize, kernel: usize, groups: usize) -> String {
        let id = self.fresh();
        let scale = 1.5 / ((ci / groups * kernel * kernel) as f32).sqrt();
        let shape = [co, ci / groups, kernel, kernel];
        let weight = self.store(format!("w{id}"), &shape, scale);
        let bias = self.store(format!("b{id}"), &[co], 0.3);
        let pad = kernel / 2;
        let attrs = ConvAttrs {
            groups,
            pads: SpatialPads {
                top: pad,
                left: pad,
                bottom: pad,
                right: pad,
            },
            ..ConvAttrs::default()
        };
        self.channels = co;
        self.node(Op::Conv(attrs), &[from, &weight, &bias])
    }

    fn batch_norm(&mut self) -> String {
        let (id, c) = (self.fresh(), self.channels);
        let from = self.value.clone();
        let mut inputs = vec![from];
        for (what, scale) in [("scale", 1.0), ("bias", 0.4), ("mean", 0.4)] {
            inputs.push(self.store(format!("{what}{id}"), &[c], scale));
        }
        let name = self.store(format!("variance{id}"), &[c], 0.5);
        if let Some(Tensor::F32(variance)) = self.graph.initializers.get_mut(&name) {
            variance.mapv_inplace(|value| value + 1.0);
        }
        inputs.push(name);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let op = Op::BatchNormalization {
            epsilon: 1e-5,
            momentum: 0.9,
        };
        self.node(op, &inputs)
    }

    fn arithmetic(&mut self, operation: Arithmetic, a: &str, b: &str) -> String {
        self.node(Op::Arithmetic(operation), &[a, b])
    }

    /// The channels from `start` to `end`.
    fn piece(&mut self, from: &str, start: usize, end: usize) -> String {
        let id = self.fresh();
        let starts = self.integers(format!("starts{id}"), &[start as i64]);
        let ends = self.integers(format!("ends{id}"), &[end as i64]);
        let axes = self.integers(format!("axes{id}"), &[-3]);
        self.node(Op::Slice { bounds: None }, &[from, &starts, &ends, &axes])
    }

    fn step(&mut self, step: &Step) {
        let (x, c) = (self.value.clone(), self.channels);
        match step {
            Step::Conv { co, kernel } => {
                self.conv(&x, c, *co, *kernel, 1);
            }
            Step::BatchNorm => {
                self.batch_norm();
            }
            Step::Activation(index) => {
                let functions = [
                    Activation::Relu,
                    Activation::LeakyRelu { alpha: 0.1 },
                    Activation::Sigmoid,
                    Activation::Tanh,
                    Activation::HardSwish,
                ];
                self.node(Op::Activation(functions[index % 5]), &[&x]);
            }
            Step::Scale | Step::Shift | Step::Slope => {
                let id = self.fresh();
                let shape = if id.is_multiple_of(2) {
                    vec![1, c, 1, 1]
                } else {
                    vec![c, 1, 1]
                };
                let stored = self.store(format!("each{id}"), &shape, 1.0);
                let op = match step {
                    Step::Scale => Op::Arithmetic(Arithmetic::Mul),
                    Step::Shift => Op::Arithmetic(Arithmetic::Add),
                    _ => Op::PRelu,
                };
                self.node(op, &[&x, &stored]);
            }
            Step::Residual => {
                let y = self.conv(&x, c, c, 3, 1);
                let z = self.batch_norm();
                if self.fresh().is_multiple_of(2) {
                    self.arithmetic(Arithmetic::Add, &z, &x);
                } else {
                    self.node(Op::Variadic(Variadic::Sum), &[&x, &z, &y]);
                }
            }
            Step::OptionA => {
                self.conv(&x, c, c + 3, 3, 1);
                let y = self.batch_norm();
                let id = self.fresh();
                let pads = self.integers(format!("pads{id}"), &[0, 1, 0, 0, 0, 2, 0, 0]);
                let op = Op::Pad {
                    mode: PadMode::Constant,
                    pads: None,
                    value: None,
                };
                let padded = self.node(op, &[&x, &pads]);
                self.arithmetic(Arithmetic::Add, &y, &padded);
            }
            Step::Concat(co) => {
                let y = self.conv(&x, c, *co, 1, 1);
                self.node(Op::Concat { axis: 1 }, &[&y, &x]);
                self.channels = c + co;
            }
            Step::Depthwise(times) => {
                self.conv(&x, c, c * times, 3, c);
            }
            Step::Grouped => {
                if c.is_multiple_of(2) {
                    self.conv(&x, c, c + 2, 3, 2);
                } else {
                    self.conv(&x, c, 4, 3, 1);
                }
            }
            Step::SqueezeExcite => {
                let pooled = self.node(Op::GlobalAveragePool, &[&x]);
                let narrow = self.conv(&pooled, c, 3, 1, 1);
                let active = self.node(Op::Activation(Activation::Relu), &[&narrow]);
                let wide = self.conv(&active, 3, c, 1, 1);
                let gate = self.node(Op::Activation(Activation::Sigmoid), &[&wide]);
                self.arithmetic(Arithmetic::Mul, &x, &gate);
            }
            Step::Spatial => {
                let one = self.conv(&x, c, 1, 3, 1);
                let gate = self.node(Op::Activation(Activation::Sigmoid), &[&one]);
                self.arithmetic(Arithmetic::Mul, &gate, &x);
                self.channels = c;
            }
            Step::Pool(index) => {
                let attrs = PoolAttrs {
                    kernel: [2; 2],
                    strides: [1; 2],
                    pads: SpatialPads::default(),
                    dilations: [1; 2],
                    auto_pad: AutoPad::SameUpper,
                    ceil_mode: false,
                    count_include_pad: false,
                };
                let op = if *index == 0 {
                    Op::MaxPool(attrs)
                } else {
                    Op::AveragePool(attrs)
                };
                self.node(op, &[&x]);
            }
            Step::Shuffle => self.shuffle(&x),
            Step::Halves => {
                let half = c / 2;
                let left = self.piece(&x, 0, half);
                let right = self.piece(&x, half, c);
                let right = self.conv(&right, c - half, c - half, 3, 1);
                self.node(Op::Concat { axis: 1 }, &[&left, &right]);
                self.channels = c;
                self.shuffle(&self.value.clone());
            }
            Step::Factored => {
                let id = self.fresh();
                let basis = self.store(format!("basis{id}"), &[2, c, 3, 3], 0.4);
                let attrs = ConvAttrs {
                    pads: SpatialPads {
                        top: 1,
                        left: 1,
                        bottom: 1,
                        right: 1,
                    },
                    ..ConvAttrs::default()
                };
                let z = self.node(Op::Conv(attrs), &[&x, &basis]);
                let factors = self.store(format!("factors{id}"), &[1, 2, 1, 1], 1.0);
                let scaled = self.arithmetic(Arithmetic::Mul, &z, &factors);
                self.conv(&scaled, 2, c + 1, 1, 1);
            }
            Step::SharedTwice => {
                // The same weight and bias at two places.
                self.conv(&x, c, c, 1, 1);
                let again = self.graph.nodes.last().unwrap().clone();
                let inputs = [&self.value.clone(), &again.inputs[1], &again.inputs[2]];
                let inputs = inputs.map(String::as_str);
                self.node(again.op, &inputs);
            }
            Step::Softmax => {
                self.node(Op::Softmax(SoftmaxAxis::Single(1)), &[&x]);
            }
        }
    }

    fn shuffle(&mut self, x: &str) {
        let (n, c, s) = (self.batch as i64, self.channels, self.size as i64);
        if !c.is_multiple_of(2) {
            return;
        }
        let id = self.fresh();
        let split = self.integers(format!("split{id}"), &[n, 2, c as i64 / 2, s, s]);
        let join = self.integers(format!("join{id}"), &[n, -1, s, s]);
        let reshape = Op::Reshape { allow_zero: false };
        let parts = self.node(reshape.clone(), &[x, &split]);
        let perm = Some(vec![0, 2, 1, 3, 4]);
        let turned = self.node(Op::Transpose { perm }, &[&parts]);
        self.node(reshape, &[&turned, &join]);
    }

    fn head(mut self, head: Head) -> Graph {
        let (x, c) = (self.value.clone(), self.channels);
        let area = self.size * self.size;
        let (n, reshape) = (self.batch as i64, Op::Reshape { allow_zero: false });
        let features = match head {
            Head::Pool => {
                let pooled = self.node(Op::GlobalAveragePool, &[&x]);
                self.node(Op::Flatten { axis: 1 }, &[&pooled]);
                c
            }
            Head::Mean => {
                let op = Op::Reduce {
                    reduction: Reduction::Mean,
                    axes: Some(vec![2, 3]),
                    keep_dims: false,
                    noop_with_empty_axes: false,
                };
                self.node(op, &[&x]);
                c
            }
            Head::Flatten => {
                self.node(Op::Flatten { axis: 1 }, &[&x]);
                c * area
            }
            Head::Copy => {
                let shape = self.integers("head.shape".into(), &[0, -1]);
                self.node(reshape, &[&x, &shape]);
                c * area
            }
            Head::Literal => {
                let shape = self.integers("head.shape".into(), &[n, (c * area) as i64]);
                self.node(reshape, &[&x, &shape]);
                c * area
            }
            Head::Map => 0,
        };
        if features == 0 {
            self.conv(&x, c, 5, 1, 1);
        } else {
            let x = self.value.clone();
            let scale = 1.5 / (features as f32).sqrt();
            let first = self.store("dense1".into(), &[features, 7], scale);
            let bias = self.store("dense1.bias".into(), &[7], 0.3);
            let product = self.node(Op::MatMul, &[&x, &first]);
            let sum = self.arithmetic(Arithmetic::Add, &product, &bias);
            let active = self.node(Op::Activation(Activation::Relu), &[&sum]);
            let second = self.store("dense2".into(), &[5, 7], 0.6);
            let bias = self.store("dense2.bias".into(), &[5], 0.3);
            let gemm = Op::Gemm {
                alpha: 1.0,
                beta: 1.0,
                trans_a: false,
                trans_b: true,
            };
            self.node(gemm, &[&active, &second, &bias]);
        }
        self.graph.outputs.push(ValueDecl {
            name: self.value.clone(),
            element_type: ElementType::F32,
            dims: None,
        });
        self.graph
    }
}

/// An input for [`Net::build`].
pub fn input(seed: u64) -> ArcArray<f32, IxDyn> {
    noise(&[2, 3, 6, 6], seed)
}
