//! Tests of inference: each rule against the ONNX specification, NumPy, ONNX Runtime or a loop.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::graph::op::*;
use crate::graph::{ConvTransposeAttrs, Coordinates, Dim, Interpolation, ResizeAttrs, ValueDecl};
use crate::tensor::ElementType;
use ndarray::{ArcArray, IxDyn};

mod constants;
mod properties;
mod sizes;

/// What a test node reads: a shape alone, or a constant.
#[derive(Clone)]
enum Operand {
    Shape(Vec<usize>),
    Constant(Tensor),
    LeftOut,
}
use Operand::{LeftOut, Shape};

fn ints(values: &[i64]) -> Operand {
    Operand::Constant(int_tensor(values))
}

fn int_tensor(values: &[i64]) -> Tensor {
    Tensor::I64(ArcArray::from(values.to_vec()).into_dyn())
}

fn float(value: f32) -> Operand {
    Operand::Constant(Tensor::F32(ArcArray::from_elem(IxDyn(&[]), value)))
}

fn graph_of(op: Op, operands: &[Operand]) -> (Graph, BTreeMap<String, Vec<usize>>) {
    let mut graph = Graph {
        name: String::new(),
        opset: 17,
        inputs: Vec::new(),
        outputs: Vec::new(),
        nodes: Vec::new(),
        initializers: BTreeMap::new(),
        metadata: BTreeMap::new(),
    };
    let mut node = Node {
        name: "n".into(),
        op,
        inputs: Vec::new(),
        outputs: vec!["y".into()],
    };
    let mut shapes = BTreeMap::new();
    for (index, operand) in operands.iter().enumerate() {
        let name = format!("x{index}");
        node.inputs.push(if matches!(operand, LeftOut) {
            String::new()
        } else {
            name.clone()
        });
        match operand {
            Shape(shape) => {
                let dims = Some(shape.iter().map(|&length| Dim::Fixed(length)).collect());
                graph.inputs.push(ValueDecl {
                    name: name.clone(),
                    element_type: ElementType::F32,
                    dims,
                });
                shapes.insert(name, shape.clone());
            }
            Operand::Constant(tensor) => drop(graph.initializers.insert(name, tensor.clone())),
            LeftOut => {}
        }
    }
    graph.nodes.push(node);
    (graph, shapes)
}

fn infer_one(op: Op, operands: &[Operand]) -> Result<Inferred, InferError> {
    let (graph, shapes) = graph_of(op, operands);
    infer(&graph, &shapes)
}

#[track_caller]
fn gives(op: Op, operands: &[Operand], expected: &[usize]) {
    let name = op.name();
    assert_eq!(
        infer_one(op, operands).unwrap().shapes["y"],
        expected,
        "{name}"
    );
}

#[track_caller]
fn fails(op: Op, operands: &[Operand], expected: &str) {
    let message = infer_one(op, operands).unwrap_err().to_string();
    assert!(message.contains(expected), "`{message}` lacks `{expected}`");
}

#[track_caller]
fn computes(op: Op, operands: &[Operand], expected: &Tensor) {
    let inferred = infer_one(op, operands).unwrap();
    assert_eq!(inferred.constants.get("y"), Some(expected));
    assert_eq!(inferred.shapes["y"], expected.shape());
}

fn pool(kernel: usize, stride: usize, ceil_mode: bool) -> PoolAttrs {
    PoolAttrs {
        kernel: [kernel; 2],
        strides: [stride; 2],
        pads: SpatialPads::default(),
        dilations: [1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode,
        count_include_pad: false,
    }
}

fn gemm(trans_a: bool, trans_b: bool) -> Op {
    Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a,
        trans_b,
    }
}

fn shape(lengths: &[usize]) -> Operand {
    Shape(lengths.to_vec())
}

const RESHAPE: Op = Op::Reshape { allow_zero: false };
const PAD: Op = Op::Pad {
    mode: PadMode::Constant,
    pads: None,
    value: None,
};
const SLICE: Op = Op::Slice { bounds: None };

#[test]
fn convolutions_have_the_channels_of_their_weight() {
    let halving = ConvAttrs {
        strides: [2, 2],
        pads: SpatialPads {
            top: 3,
            left: 3,
            bottom: 3,
            right: 3,
        },
        ..ConvAttrs::default()
    };
    // The first layer of ResNet.
    gives(
        Op::Conv(halving),
        &[shape(&[8, 3, 224, 224]), shape(&[64, 3, 7, 7])],
        &[8, 64, 112, 112],
    );
    let depthwise = ConvAttrs {
        groups: 6,
        ..ConvAttrs::default()
    };
    gives(
        Op::Conv(depthwise),
        &[shape(&[1, 6, 5, 4]), shape(&[12, 1, 3, 2]), shape(&[12])],
        &[1, 12, 3, 3],
    );
}

#[test]
fn convolutions_that_do_not_fit_are_errors() {
    let x = shape(&[1, 4, 5, 5]);
    let conv = |groups| {
        Op::Conv(ConvAttrs {
            groups,
            ..ConvAttrs::default()
        })
    };
    fails(
        conv(1),
        &[x.clone(), shape(&[8, 3, 3, 3])],
        "expects 3 channels each, but the input has 4",
    );
    fails(
        conv(0),
        &[x.clone(), shape(&[8, 4, 3, 3])],
        "do not split into 0 groups",
    );
    fails(
        conv(2),
        &[x.clone(), shape(&[7, 2, 3, 3])],
        "7 output channels do not split into 2 groups",
    );
    fails(
        conv(usize::MAX),
        &[x.clone(), shape(&[0, 2, 3, 3])],
        "channels each",
    );
    fails(
        conv(1),
        &[x.clone(), shape(&[8, 4, 3, 3]), shape(&[4])],
        "the bias has shape [4], wanted [8]",
    );
    fails(
        conv(1),
        &[x.clone(), shape(&[8, 4, 6, 6])],
        "a window that spans 6 does not fit an input of 5",
    );
    fails(
        conv(1),
        &[x, shape(&[8, 4, 3])],
        "the weight has shape [8, 4, 3]",
    );
    fails(
        conv(1),
        &[shape(&[4, 5, 5]), shape(&[8, 4, 3, 3])],
        "wanted [n, c, h, w]",
    );
}

#[test]
fn matrix_products_follow_numpy() {
    gives(
        gemm(false, true),
        &[shape(&[2, 5]), shape(&[7, 5]), shape(&[7])],
        &[2, 7],
    );
    gives(
        gemm(true, false),
        &[shape(&[5, 2]), shape(&[5, 7]), shape(&[2, 1])],
        &[2, 7],
    );
    fails(
        gemm(false, false),
        &[shape(&[2, 5]), shape(&[7, 5])],
        "inner lengths 5 and 7 differ",
    );
    fails(
        gemm(false, true),
        &[shape(&[1, 5]), shape(&[7, 5]), shape(&[2, 7])],
        "does not broadcast to [1, 7]",
    );
    for (a, b, expected) in [
        (&[2, 3][..], &[3, 4][..], &[2, 4][..]),
        (&[5, 1, 2, 3], &[6, 3, 4], &[5, 6, 2, 4]),
        (&[3], &[3, 4], &[4]),
        (&[7, 2, 3], &[3], &[7, 2]),
        (&[3], &[3], &[]),
    ] {
        gives(Op::MatMul, &[shape(a), shape(b)], expected);
    }
    fails(
        Op::MatMul,
        &[shape(&[2, 3]), shape(&[4, 3])],
        "inner lengths",
    );
    fails(Op::MatMul, &[shape(&[]), shape(&[3])], "scalar");
    fails(
        Op::MatMul,
        &[shape(&[2, 1, 3]), shape(&[5, 3, 1])],
        "do not broadcast",
    );
}

#[test]
fn pooling_keeps_the_channels() {
    gives(
        Op::MaxPool(pool(3, 2, false)),
        &[shape(&[2, 7, 13, 13])],
        &[2, 7, 6, 6],
    );
    // GoogLeNet's pooling of 112 by 112 with a partial last window.
    gives(
        Op::MaxPool(pool(3, 2, true)),
        &[shape(&[2, 64, 112, 112])],
        &[2, 64, 56, 56],
    );
    gives(
        Op::AveragePool(pool(2, 2, false)),
        &[shape(&[2, 7, 4, 5])],
        &[2, 7, 2, 2],
    );
    gives(
        Op::GlobalAveragePool,
        &[shape(&[2, 7, 4, 5])],
        &[2, 7, 1, 1],
    );
    fails(
        Op::MaxPool(pool(3, 0, false)),
        &[shape(&[2, 7, 4, 5])],
        "the stride is 0",
    );
}

#[test]
fn elementwise_operators_broadcast_or_refuse() {
    let x = shape(&[2, 3, 4, 5]);
    gives(
        Op::Arithmetic(Arithmetic::Add),
        &[x.clone(), shape(&[3, 1, 1])],
        &[2, 3, 4, 5],
    );
    gives(
        Op::Arithmetic(Arithmetic::Mul),
        &[shape(&[5]), x.clone()],
        &[2, 3, 4, 5],
    );
    fails(
        Op::Arithmetic(Arithmetic::Add),
        &[x.clone(), shape(&[3])],
        "do not broadcast",
    );
    gives(
        Op::Variadic(Variadic::Sum),
        &[shape(&[2, 1]), shape(&[3]), shape(&[4, 1, 1])],
        &[4, 2, 3],
    );
    gives(Op::PRelu, &[x.clone(), shape(&[3, 1, 1])], &[2, 3, 4, 5]);
    fails(
        Op::PRelu,
        &[shape(&[3, 1]), shape(&[1, 4])],
        "does not broadcast to",
    );
    gives(
        Op::Clip {
            min: None,
            max: None,
        },
        &[x.clone(), LeftOut, float(6.0)],
        &[2, 3, 4, 5],
    );
    fails(
        Op::Clip {
            min: None,
            max: None,
        },
        &[x.clone(), shape(&[])],
        "must be a constant f32 of one element",
    );
    let norm = Op::BatchNormalization {
        epsilon: 1e-5,
        momentum: 0.9,
    };
    let vector = shape(&[3]);
    gives(
        norm.clone(),
        &[
            x.clone(),
            vector.clone(),
            vector.clone(),
            vector.clone(),
            vector.clone(),
        ],
        &[2, 3, 4, 5],
    );
    fails(
        norm,
        &[x, vector.clone(), vector.clone(), vector, shape(&[4])],
        "the variance has shape [4], wanted [3]",
    );
}

#[test]
fn concat_adds_lengths_along_its_axis() {
    gives(
        Op::Concat { axis: 1 },
        &[shape(&[2, 3, 4]), shape(&[2, 5, 4])],
        &[2, 8, 4],
    );
    gives(
        Op::Concat { axis: -1 },
        &[shape(&[2, 3]), shape(&[2, 5])],
        &[2, 8],
    );
    fails(
        Op::Concat { axis: 1 },
        &[shape(&[2, 3, 4]), shape(&[2, 5, 3])],
        "cannot be joined",
    );
    fails(
        Op::Concat { axis: 2 },
        &[shape(&[2, 3])],
        "axis 2 is outside a value of rank 2",
    );
}

#[test]
fn indices_of_the_largest_have_one_axis_less_or_of_length_1() {
    let op = |axis, keep_dims| Op::ArgMax {
        axis,
        keep_dims,
        select_last_index: false,
    };
    let x = [shape(&[2, 3, 4, 5])];
    gives(op(1, true), &x, &[2, 1, 4, 5]);
    gives(op(-1, false), &x, &[2, 3, 4]);
    gives(op(0, false), &[shape(&[7])], &[]);
    fails(op(4, true), &x, "axis 4 is outside a value of rank 4");
    fails(
        op(0, true),
        &[shape(&[])],
        "axis 0 is outside a value of rank 0",
    );
}

#[test]
fn reductions_take_axes_from_attribute_or_input() {
    let mean = |axes: Option<&[i64]>, keep_dims, noop_with_empty_axes| Op::Reduce {
        reduction: Reduction::Mean,
        axes: axes.map(<[i64]>::to_vec),
        keep_dims,
        noop_with_empty_axes,
    };
    let x = shape(&[2, 3, 4, 5]);
    gives(
        mean(Some(&[2, 3]), true, false),
        std::slice::from_ref(&x),
        &[2, 3, 1, 1],
    );
    gives(
        mean(None, false, false),
        &[x.clone(), ints(&[-1, -2])],
        &[2, 3],
    );
    gives(
        mean(None, true, false),
        std::slice::from_ref(&x),
        &[1, 1, 1, 1],
    );
    gives(mean(None, false, false), &[x.clone(), ints(&[])], &[]);
    gives(
        mean(None, false, true),
        &[x.clone(), ints(&[])],
        &[2, 3, 4, 5],
    );
    gives(
        mean(None, false, true),
        std::slice::from_ref(&x),
        &[2, 3, 4, 5],
    );
    fails(
        mean(Some(&[1, -3]), false, false),
        std::slice::from_ref(&x),
        "named twice",
    );
    fails(
        mean(None, false, false),
        &[x, shape(&[1])],
        "must be a constant",
    );
}

#[test]
fn reshape_copies_infers_and_refuses() {
    let x = shape(&[2, 3, 4]);
    gives(RESHAPE, &[x.clone(), ints(&[0, -1])], &[2, 12]);
    gives(RESHAPE, &[x.clone(), ints(&[-1])], &[24]);
    gives(RESHAPE, &[x.clone(), ints(&[4, 0, 2])], &[4, 3, 2]);
    gives(RESHAPE, &[shape(&[0, 3]), ints(&[0, 7])], &[0, 7]);
    gives(
        Op::Reshape { allow_zero: true },
        &[shape(&[0, 3]), ints(&[3, 0])],
        &[3, 0],
    );
    for wanted in [
        &[5, -1][..],
        &[-1, -1],
        &[2, 3],
        &[-2, 12],
        &[2, 3, 4, 0],
        &[i64::MAX, i64::MAX],
    ] {
        fails(RESHAPE, &[x.clone(), ints(wanted)], "does not reshape to");
    }
    fails(
        RESHAPE,
        &[shape(&[0, 3]), ints(&[0, -1])],
        "does not reshape to",
    );
    fails(RESHAPE, &[x, shape(&[1])], "must be a constant");
}

#[test]
fn axes_come_and_go() {
    let squeeze = |axes: Option<&[i64]>| Op::Squeeze {
        axes: axes.map(<[i64]>::to_vec),
    };
    gives(squeeze(None), &[shape(&[1, 3, 1, 5])], &[3, 5]);
    gives(squeeze(Some(&[-2])), &[shape(&[1, 3, 1, 5])], &[1, 3, 5]);
    gives(
        squeeze(None),
        &[shape(&[1, 3, 1, 5]), ints(&[0, 2])],
        &[3, 5],
    );
    fails(squeeze(Some(&[1])), &[shape(&[1, 3])], "has not length 1");
    let unsqueeze = |axes: Option<&[i64]>| Op::Unsqueeze {
        axes: axes.map(<[i64]>::to_vec),
    };
    gives(unsqueeze(Some(&[0, 3])), &[shape(&[3, 5])], &[1, 3, 5, 1]);
    gives(
        unsqueeze(None),
        &[shape(&[3, 5]), ints(&[-1, 1])],
        &[3, 1, 5, 1],
    );
    fails(unsqueeze(None), &[shape(&[3])], "axes are missing");
    fails(unsqueeze(Some(&[4])), &[shape(&[3, 5])], "outside");
    gives(
        Op::Transpose { perm: None },
        &[shape(&[2, 3, 4])],
        &[4, 3, 2],
    );
    gives(
        Op::Transpose {
            perm: Some(vec![0, 2, 1]),
        },
        &[shape(&[2, 3, 4])],
        &[2, 4, 3],
    );
    fails(
        Op::Transpose {
            perm: Some(vec![0, 2, 2]),
        },
        &[shape(&[2, 3, 4])],
        "no permutation",
    );
    for (axis, expected) in [(1, [2, 60]), (0, [1, 120]), (4, [120, 1]), (-1, [24, 5])] {
        gives(Op::Flatten { axis }, &[shape(&[2, 3, 4, 5])], &expected);
    }
    fails(Op::Flatten { axis: 5 }, &[shape(&[2, 3, 4, 5])], "outside");
    fails(
        Op::Softmax(SoftmaxAxis::Single(2)),
        &[shape(&[2, 3])],
        "outside",
    );
}

#[test]
fn pads_add_and_remove() {
    let x = shape(&[2, 3, 4]);
    gives(PAD, &[x.clone(), ints(&[0, 1, 2, 0, 3, -1])], &[2, 7, 5]);
    gives(
        PAD,
        &[x.clone(), ints(&[2, -3]), LeftOut, ints(&[-1])],
        &[2, 3, 3],
    );
    fails(
        PAD,
        &[x.clone(), ints(&[0, 0, -3, 0, 0, -2])],
        "cannot be padded by -3 and -2",
    );
    fails(
        PAD,
        &[x.clone(), ints(&[0, 0])],
        "2 pads are given for 3 axes",
    );
    fails(
        PAD,
        &[x.clone(), ints(&[0, 0, i64::MAX, 0, 0, 1])],
        "cannot be padded",
    );
    fails(
        PAD,
        &[x.clone(), ints(&[0, 0, 1 << 40, 0, 0, 1])],
        "too large",
    );
    let reflect = Op::Pad {
        mode: PadMode::Reflect,
        pads: Some(vec![0, 0, 3, 0, 0, 0]),
        value: None,
    };
    gives(reflect, std::slice::from_ref(&x), &[2, 3, 7]);
    let reflect = Op::Pad {
        mode: PadMode::Reflect,
        pads: Some(vec![0, 0, 4, 0, 0, 0]),
        value: None,
    };
    fails(reflect, &[x], "cannot be padded");
}

#[test]
fn errors_name_what_is_at_fault() {
    let (graph, _) = graph_of(Op::Identity, &[shape(&[1])]);
    let error = infer(&graph, &BTreeMap::new()).unwrap_err().to_string();
    assert_eq!(error, "no shape is given for input `x0`");
    let (mut graph, shapes) =
        graph_of(Op::Arithmetic(Arithmetic::Add), &[shape(&[2]), shape(&[3])]);
    let error = infer(&graph, &shapes).unwrap_err().to_string();
    assert_eq!(error, "node `n` (Add): shapes [2] and [3] do not broadcast");
    graph.nodes[0].inputs[1] = "z".into();
    let error = infer(&graph, &shapes).unwrap_err().to_string();
    assert_eq!(
        error,
        "node `n` (Add): input `z` is not defined before this node"
    );
    graph.nodes[0].inputs.truncate(1);
    let error = infer(&graph, &shapes).unwrap_err().to_string();
    assert_eq!(error, "node `n` (Add): input 1 is missing");
}

#[test]
fn a_batch_of_images_reaches_every_layer() {
    let (mut graph, _) = graph_of(Op::GlobalAveragePool, &[shape(&[1, 3, 9, 9])]);
    graph.inputs[0].dims = Some(vec![
        Dim::Named("n".into()),
        Dim::Fixed(3),
        Dim::Unknown,
        Dim::Unknown,
    ]);
    let inferred = infer_images(&graph, 5, 32, 48).unwrap();
    assert_eq!(inferred.shape("x0"), Some(&[5, 3, 32, 48][..]));
    assert_eq!(inferred.shape("y"), Some(&[5, 3, 1, 1][..]));
}
