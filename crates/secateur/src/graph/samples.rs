//! Graphs for tests, put together by hand.

use super::{
    Activation, Arithmetic, AutoPad, ConvAttrs, Dim, Graph, Node, Op, PadMode, PoolAttrs,
    SliceBounds, SpatialPads, ValueDecl,
};
use crate::tensor::{ElementType, Floats, Tensor};
use ndarray::{ArcArray, IxDyn};
use std::collections::BTreeMap;

/// Adds layers one by one; every method returns the name of its output, which is also the node's.
/// Weights are zeros: only shapes matter here.
pub(crate) struct Builder {
    pub(crate) graph: Graph,
}

impl Builder {
    /// A graph that reads images `x` `[n, channels, h, w]`.
    pub(crate) fn new(channels: usize) -> Self {
        let dims = vec![
            Dim::Named("n".into()),
            Dim::Fixed(channels),
            Dim::Unknown,
            Dim::Unknown,
        ];
        let input = ValueDecl {
            name: "x".into(),
            element_type: ElementType::F32,
            dims: Some(dims),
        };
        let graph = Graph {
            name: "sample".into(),
            opset: 17,
            inputs: vec![input],
            outputs: Vec::new(),
            nodes: Vec::new(),
            initializers: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        Self { graph }
    }

    /// A node named `name` with the output `name`.
    pub(crate) fn node(&mut self, name: &str, op: Op, inputs: &[&str]) -> String {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.graph.nodes.push(Node {
            name: name.into(),
            op,
            inputs,
            outputs: vec![name.into()],
        });
        name.into()
    }

    /// An initializer of zeros.
    pub(crate) fn zeros(&mut self, name: &str, shape: &[usize]) -> String {
        self.graph
            .initializers
            .insert(name.into(), Tensor::F32(ArcArray::zeros(IxDyn(shape))));
        name.into()
    }

    /// A convolution with the padding that keeps the size at stride 1, without bias.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        input: &str,
        weight: [usize; 4],
        stride: usize,
    ) -> String {
        let pad = weight[2] / 2;
        let attrs = ConvAttrs {
            strides: [stride; 2],
            pads: SpatialPads {
                top: pad,
                left: pad,
                bottom: pad,
                right: pad,
            },
            ..ConvAttrs::default()
        };
        let weight = self.zeros(&format!("{name}.weight"), &weight);
        self.node(name, Op::Conv(attrs), &[input, &weight])
    }

    /// Gives the last node one more input, an initializer of zeros.
    pub(crate) fn with(&mut self, what: &str, shape: &[usize]) {
        let name = format!(
            "{}.{what}",
            self.graph.nodes.last().map_or("", |node| &node.name)
        );
        self.zeros(&name, shape);
        if let Some(node) = self.graph.nodes.last_mut() {
            node.inputs.push(name);
        }
    }

    /// Batch normalisation.
    pub(crate) fn batch_norm(&mut self, name: &str, input: &str, channels: usize) -> String {
        self.node(
            name,
            Op::BatchNormalization {
                epsilon: 1e-5,
                momentum: 0.9,
            },
            &[input],
        );
        for what in ["scale", "bias", "mean", "variance"] {
            self.with(what, &[channels]);
        }
        name.into()
    }

    /// A rectifier.
    pub(crate) fn relu(&mut self, name: &str, input: &str) -> String {
        self.node(name, Op::Activation(Activation::Relu), &[input])
    }

    /// Declares `value` an output and returns the graph.
    pub(crate) fn output(mut self, value: &str) -> Graph {
        self.graph.outputs.push(ValueDecl {
            name: value.into(),
            element_type: ElementType::F32,
            dims: None,
        });
        self.graph
    }
}

/// `conv` with `weight`, then `norm` of scale 1 with the stored statistics `mean` and `variance` in
/// each channel.
pub(crate) fn conv_and_batch_norm(weight: Floats, mean: f32, variance: f32) -> Graph {
    let mut b = Builder::new(weight.shape()[1]);
    let (channels, kernel) = (weight.shape()[0], weight.shape()[2]);
    b.conv(
        "conv",
        "x",
        [channels, weight.shape()[1], kernel, kernel],
        1,
    );
    let norm = b.batch_norm("norm", "conv", channels);
    let mut graph = b.output(&norm);
    let each = |value: f32| Tensor::F32(ArcArray::from_elem(IxDyn(&[channels]), value));
    graph.initializers.extend([
        ("conv.weight".to_owned(), Tensor::F32(weight)),
        ("norm.scale".to_owned(), each(1.0)),
        ("norm.mean".to_owned(), each(mean)),
        ("norm.variance".to_owned(), each(variance)),
    ]);
    graph
}

/// VGG-16 without its head (Simonyan & Zisserman, configuration D).
pub(crate) fn vgg16_features() -> Graph {
    let mut b = Builder::new(3);
    let pool = PoolAttrs {
        kernel: [2; 2],
        strides: [2; 2],
        pads: SpatialPads::default(),
        dilations: [1; 2],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
    };
    let (mut value, mut channels) = ("x".to_owned(), 3);
    for (stage, (width, depth)) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
        .into_iter()
        .enumerate()
    {
        for layer in 0..depth {
            let name = format!("conv{stage}_{layer}");
            b.conv(&name, &value, [width, channels, 3, 3], 1);
            b.with("bias", &[width]);
            value = b.relu(&format!("{name}.relu"), &name);
            channels = width;
        }
        value = b.node(
            &format!("pool{stage}"),
            Op::MaxPool(pool.clone()),
            &[&value],
        );
    }
    b.output(&value)
}

/// ResNet-20 for CIFAR-10 (He et al., section 4.2) with option-A shortcuts.
pub(crate) fn resnet20() -> Graph {
    let mut b = Builder::new(3);
    b.conv("conv", "x", [16, 3, 3, 3], 1);
    b.batch_norm("bn", "conv", 16);
    let (mut value, mut channels) = (b.relu("relu", "bn"), 16);
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("s{stage}b{block}");
            let at = |part: &str| format!("{name}.{part}");
            b.conv(&at("conv1"), &value, [width, channels, 3, 3], stride);
            b.batch_norm(&at("bn1"), &at("conv1"), width);
            b.relu(&at("relu1"), &at("bn1"));
            b.conv(&at("conv2"), &at("relu1"), [width, width, 3, 3], 1);
            b.batch_norm(&at("bn2"), &at("conv2"), width);
            if stride == 2 {
                value = shortcut(&mut b, &name, &value, width / 4);
            }
            b.node(
                &at("add"),
                Op::Arithmetic(Arithmetic::Add),
                &[&at("bn2"), &value],
            );
            value = b.relu(&at("relu2"), &at("add"));
            channels = width;
        }
    }
    b.node("pool", Op::GlobalAveragePool, &[&value]);
    b.node("flat", Op::Flatten { axis: 1 }, &["pool"]);
    let gemm = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    };
    b.node("head", gemm, &["flat"]);
    b.with("weight", &[10, 64]);
    b.with("bias", &[10]);
    b.output("head")
}

/// Every second row and column, and zeros for the new channels.
fn shortcut(b: &mut Builder, block: &str, input: &str, new_channels: usize) -> String {
    let slice = |axis: i64| Op::Slice {
        bounds: Some(SliceBounds {
            starts: vec![0],
            ends: vec![i64::MAX],
            axes: Some(vec![axis]),
        }),
    };
    // The attribute form has no steps, so the input form halves the image.
    b.node(&format!("{block}.all"), slice(1), &[input]);
    for (name, values) in [
        ("starts", [0, 0]),
        ("ends", [i64::MAX; 2]),
        ("axes", [2, 3]),
        ("steps", [2, 2]),
    ] {
        let list = Tensor::I64(ArcArray::from(values.to_vec()).into_dyn());
        b.graph.initializers.insert(name.into(), list);
    }
    let half = format!("{block}.half");
    b.node(
        &half,
        Op::Slice { bounds: None },
        &[&format!("{block}.all"), "starts", "ends", "axes", "steps"],
    );
    let n = new_channels as i64;
    let pads = Some(vec![0, n, 0, 0, 0, n, 0, 0]);
    b.node(
        &format!("{block}.pad"),
        Op::Pad {
            mode: PadMode::Constant,
            pads,
            value: None,
        },
        &[&half],
    )
}
