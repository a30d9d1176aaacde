//! The slow and obvious: a graph evaluated in `f64`, one loop per index.

use ndarray::{Array4, ArrayD, Axis, Ix1, Ix2, Ix4, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use secateur::graph::{Activation, Arithmetic, ConvAttrs, Graph, Op};
use secateur::tensor::Tensor;
use std::collections::BTreeMap;

pub fn random(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

pub fn max_abs<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values
        .into_iter()
        .fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Explicit padding only.
pub fn naive_conv(x: &Array4<f64>, w: &Array4<f64>, attrs: &ConvAttrs) -> Array4<f64> {
    let (images, _, height, width) = x.dim();
    let (co, group_ci, kernel_h, kernel_w) = w.dim();
    let group_co = co / attrs.groups;
    let pads = attrs.pads;
    let out_h = (height + pads.top + pads.bottom - attrs.dilations[0] * (kernel_h - 1) - 1)
        / attrs.strides[0]
        + 1;
    let out_w = (width + pads.left + pads.right - attrs.dilations[1] * (kernel_w - 1) - 1)
        / attrs.strides[1]
        + 1;
    Array4::from_shape_fn((images, co, out_h, out_w), |(image, o, p, q)| {
        let mut sum = 0.0;
        for c in 0..group_ci {
            for i in 0..kernel_h {
                for j in 0..kernel_w {
                    let row = p * attrs.strides[0] + i * attrs.dilations[0];
                    let column = q * attrs.strides[1] + j * attrs.dilations[1];
                    if row < pads.top || column < pads.left {
                        continue;
                    }
                    let channel = o / group_co * group_ci + c;
                    let value = x.get((image, channel, row - pads.top, column - pads.left));
                    sum += value.copied().unwrap_or(0.0) * w[[o, c, i, j]];
                }
            }
        }
        sum
    })
}

/// Every value of `graph` for the input `x`.
pub fn evaluate(graph: &Graph, x: &ArrayD<f64>) -> BTreeMap<String, ArrayD<f64>> {
    let mut values = BTreeMap::from([(graph.inputs[0].name.clone(), x.clone())]);
    for (name, tensor) in &graph.initializers {
        if let Tensor::F32(array) = tensor {
            values.insert(name.clone(), array.mapv(f64::from).to_owned());
        }
    }
    for node in &graph.nodes {
        let input = |slot: usize| {
            values
                .get(&node.inputs[slot])
                .unwrap_or_else(|| panic!("`{}` has no value", node.inputs[slot]))
        };
        let optional = |slot: usize| {
            node.inputs
                .get(slot)
                .filter(|name| !name.is_empty())
                .map(|_| input(slot))
        };
        let output = match &node.op {
            Op::Conv(attrs) => {
                let x = input(0).clone().into_dimensionality::<Ix4>().unwrap();
                let w = input(1).clone().into_dimensionality::<Ix4>().unwrap();
                let mut y = naive_conv(&x, &w, attrs);
                if let Some(bias) = optional(2) {
                    for (mut channel, bias) in y.axis_iter_mut(Axis(1)).zip(bias) {
                        channel += *bias;
                    }
                }
                y.into_dyn()
            }
            Op::Gemm {
                alpha,
                beta,
                trans_a: false,
                trans_b,
            } => {
                let a = input(0).clone().into_dimensionality::<Ix2>().unwrap();
                let b = input(1).clone().into_dimensionality::<Ix2>().unwrap();
                let b = if *trans_b { b.reversed_axes() } else { b };
                let mut y = (a.dot(&b) * f64::from(*alpha)).into_dyn();
                if let Some(c) = optional(2) {
                    y = y + c * f64::from(*beta);
                }
                y
            }
            Op::MatMul => {
                let b = input(1).clone().into_dimensionality::<Ix2>().unwrap();
                let a = input(0);
                let mut shape = a.shape().to_vec();
                let inner = shape.pop().unwrap();
                let rows = a.to_shape((a.len() / inner, inner)).unwrap().dot(&b);
                shape.push(b.ncols());
                rows.to_shape(IxDyn(&shape)).unwrap().to_owned()
            }
            Op::BatchNormalization { epsilon, .. } => {
                let parameter = |slot| input(slot).clone().into_dimensionality::<Ix1>().unwrap();
                let (scale, bias, mean, variance) =
                    (parameter(1), parameter(2), parameter(3), parameter(4));
                let mut y = input(0).clone();
                for (c, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
                    let deviation = (variance[c] + f64::from(*epsilon)).sqrt();
                    channel
                        .mapv_inplace(|value| scale[c] * (value - mean[c]) / deviation + bias[c]);
                }
                y
            }
            Op::Activation(Activation::Relu) => input(0).mapv(|value| value.max(0.0)),
            Op::Arithmetic(Arithmetic::Add) => input(0) + input(1),
            Op::Arithmetic(Arithmetic::Mul) => input(0) * input(1),
            Op::GlobalAveragePool => {
                let mean = input(0)
                    .mean_axis(Axis(3))
                    .unwrap()
                    .mean_axis(Axis(2))
                    .unwrap();
                mean.insert_axis(Axis(2)).insert_axis(Axis(3))
            }
            Op::Flatten { axis: 1 } => {
                let x = input(0);
                let images = x.shape()[0];
                x.to_shape(IxDyn(&[images, x.len() / images]))
                    .unwrap()
                    .to_owned()
            }
            op => panic!("the reference does not know {}", op.name()),
        };
        values.insert(node.outputs[0].clone(), output);
    }
    values
}

/// The first output of `graph` for the input `x`.
pub fn output(graph: &Graph, x: &ArrayD<f64>) -> ArrayD<f64> {
    evaluate(graph, x).remove(&graph.outputs[0].name).unwrap()
}
