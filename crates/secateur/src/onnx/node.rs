//! From a typed operator to a node of the file.

use super::attributes::make;
use super::error::OnnxError;
use super::proto::{AttributeProto, NodeProto};
use super::table;
use super::{interpolation, tensor};
use crate::graph::{
    Activation, AutoPad, ConvAttrs, ConvTransposeAttrs, DepthOrder, GeluForm, Graph, Node, Op,
    PadMode, PoolAttrs, SoftmaxAxis, SpatialPads,
};

/// Writes `node` anew, in the form of the graph's operator set.
pub(super) fn proto(node: &Node, graph: &Graph) -> Result<NodeProto, OnnxError> {
    let fail = |problem| OnnxError::Node {
        node: node.name.clone(),
        op: node.op.name().to_owned(),
        problem,
    };
    let mut attribute = attributes(node, graph).map_err(fail)?;
    attribute.sort_by(|a, b| a.name().cmp(b.name()));
    let proto = NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: Some(node.name.clone()),
        op_type: Some(node.op.name().to_owned()),
        attribute,
        ..NodeProto::default()
    };
    check(&proto, graph.opset).map_err(fail)?;
    Ok(proto)
}

/// An operator must exist in the operator set, in this form.
fn check(proto: &NodeProto, opset: i64) -> Result<(), String> {
    let entry = table::entry(proto.op_type()).filter(|entry| entry.exists_in(opset));
    let entry =
        entry.ok_or_else(|| format!("the operator does not exist in operator set {opset}"))?;
    let (least, most) = entry.arity(opset);
    let given = proto.input.len();
    if given < least || given > most {
        return Err(format!(
            "has {given} inputs, which operator set {opset} does not allow"
        ));
    }
    if proto.output.len() > entry.max_outputs || proto.output.first().is_none_or(String::is_empty) {
        return Err(format!("has {} outputs", proto.output.len()));
    }
    let unknown = proto
        .attribute
        .iter()
        .find(|a| !entry.has_attribute(a.name(), opset));
    match unknown {
        None => Ok(()),
        Some(a) => Err(format!(
            "attribute `{}` does not exist in operator set {opset}",
            a.name()
        )),
    }
}

fn attributes(node: &Node, graph: &Graph) -> Result<Vec<AttributeProto>, String> {
    let opset = graph.opset;
    Ok(match &node.op {
        Op::Conv(attrs) => convolution(attrs, kernel_shape(node, graph)),
        &Op::Gemm {
            alpha,
            beta,
            trans_a,
            trans_b,
        } => vec![
            make::float("alpha", alpha),
            make::float("beta", beta),
            make::flag("transA", trans_a),
            make::flag("transB", trans_b),
        ],
        &Op::BatchNormalization { epsilon, momentum } => {
            vec![
                make::float("epsilon", epsilon),
                make::float("momentum", momentum),
            ]
        }
        Op::Activation(function) => activation(*function),
        Op::ConvTranspose(attrs) => transposed_convolution(attrs, kernel_shape(node, graph)),
        &Op::LayerNormalization { axis, epsilon } => {
            vec![make::int("axis", axis), make::float("epsilon", epsilon)]
        }
        &Op::InstanceNormalization { epsilon } => vec![make::float("epsilon", epsilon)],
        &Op::GroupNormalization { groups, epsilon } => vec![
            make::float("epsilon", epsilon),
            make::size("num_groups", groups),
        ],
        Op::Resize(attrs) => interpolation::resize_attributes(attrs, opset)?,
        Op::Upsample {
            interpolation,
            scales,
        } => interpolation::upsample_attributes(*interpolation, scales.as_deref())?,
        Op::DepthToSpace { block, order } => blocks(*block, *order, opset >= 11),
        Op::SpaceToDepth { block, order } => blocks(*block, *order, opset >= 28),
        Op::Split {
            axis,
            sizes,
            num_outputs,
        } => {
            let mut all = vec![make::int("axis", *axis)];
            all.extend(sizes.as_ref().map(|sizes| make::ints("split", sizes)));
            all.extend(num_outputs.map(|count| make::size("num_outputs", count)));
            all
        }
        Op::Clip { min, max } => {
            let min = min.map(|v| make::float("min", v));
            min.into_iter()
                .chain(max.map(|v| make::float("max", v)))
                .collect()
        }
        Op::Concat { axis } | Op::Flatten { axis } | Op::Gather { axis } => {
            vec![make::int("axis", *axis)]
        }
        Op::MaxPool(attrs) => {
            if attrs.count_include_pad {
                return Err("a maximum has no `count_include_pad`".into());
            }
            pool(attrs, opset, 10)
        }
        Op::AveragePool(attrs) => {
            let mut all = pool(attrs, opset, 19);
            all.push(make::flag("count_include_pad", attrs.count_include_pad));
            all
        }
        Op::Reduce {
            reduction: _,
            axes,
            keep_dims,
            noop_with_empty_axes,
        } => {
            let mut all = vec![make::flag("keepdims", *keep_dims)];
            all.extend(axes.as_ref().map(|axes| make::ints("axes", axes)));
            if *noop_with_empty_axes {
                all.push(make::flag("noop_with_empty_axes", true));
            }
            all
        }
        &Op::ArgMax {
            axis,
            keep_dims,
            select_last_index,
        } => {
            let mut all = vec![make::int("axis", axis), make::flag("keepdims", keep_dims)];
            if select_last_index {
                all.push(make::flag("select_last_index", true));
            }
            all
        }
        Op::Reshape { allow_zero } => match allow_zero {
            true => vec![make::flag("allowzero", true)],
            false => vec![],
        },
        Op::Transpose { perm } => perm.iter().map(|perm| make::sizes("perm", perm)).collect(),
        Op::Squeeze { axes } | Op::Unsqueeze { axes } => {
            axes.iter().map(|axes| make::ints("axes", axes)).collect()
        }
        Op::Slice { bounds } => match bounds {
            None => vec![],
            Some(bounds) => {
                let mut all = vec![
                    make::ints("starts", &bounds.starts),
                    make::ints("ends", &bounds.ends),
                ];
                all.extend(bounds.axes.as_ref().map(|axes| make::ints("axes", axes)));
                all
            }
        },
        Op::Pad { mode, pads, value } => {
            let mode = match mode {
                PadMode::Constant => "constant",
                PadMode::Reflect => "reflect",
                PadMode::Edge => "edge",
            };
            let mut all = vec![make::text("mode", mode)];
            all.extend(pads.as_ref().map(|pads| make::ints("pads", pads)));
            all.extend(value.map(|value| make::float("value", value)));
            all
        }
        Op::Softmax(axis) | Op::LogSoftmax(axis) => vec![softmax_axis(*axis, opset)?],
        Op::Dropout { ratio } => ratio
            .iter()
            .map(|&ratio| make::float("ratio", ratio))
            .collect(),
        &Op::Lrn {
            alpha,
            beta,
            bias,
            size,
        } => vec![
            make::float("alpha", alpha),
            make::float("beta", beta),
            make::float("bias", bias),
            make::size("size", size),
        ],
        Op::Cast { to } => vec![make::int("to", i64::from(tensor::type_code(*to)))],
        Op::Shape { start, end } => {
            let mut all = Vec::new();
            if *start != 0 {
                all.push(make::int("start", *start));
            }
            all.extend(end.map(|end| make::int("end", end)));
            all
        }
        Op::ConstantOfShape { value } => vec![make::tensor("value", tensor::fresh(None, value))],
        Op::MatMul
        | Op::PRelu
        | Op::Arithmetic(_)
        | Op::Variadic(_)
        | Op::GlobalAveragePool
        | Op::GlobalMaxPool
        | Op::Expand
        | Op::Where
        | Op::Identity => vec![],
    })
}

fn activation(function: Activation) -> Vec<AttributeProto> {
    match function {
        Activation::LeakyRelu { alpha }
        | Activation::Elu { alpha }
        | Activation::Celu { alpha }
        | Activation::ThresholdedRelu { alpha }
        | Activation::Swish { alpha } => vec![make::float("alpha", alpha)],
        Activation::HardSigmoid { alpha, beta } => {
            vec![make::float("alpha", alpha), make::float("beta", beta)]
        }
        Activation::Selu { alpha, gamma } => {
            vec![make::float("alpha", alpha), make::float("gamma", gamma)]
        }
        Activation::Gelu(form) => {
            let form = match form {
                GeluForm::Exact => "none",
                GeluForm::Tanh => "tanh",
            };
            vec![make::text("approximate", form)]
        }
        Activation::Relu
        | Activation::Sigmoid
        | Activation::HardSwish
        | Activation::Tanh
        | Activation::Exp
        | Activation::Log
        | Activation::Sqrt
        | Activation::Erf
        | Activation::Abs
        | Activation::Neg
        | Activation::Reciprocal
        | Activation::Floor
        | Activation::Ceil
        | Activation::Round
        | Activation::Softplus
        | Activation::Softsign
        | Activation::Mish => vec![],
    }
}

/// Where the operator set has no `mode`, one other than its default fails the check.
fn blocks(block: usize, order: DepthOrder, has_mode: bool) -> Vec<AttributeProto> {
    let mut all = vec![make::size("blocksize", block)];
    match order {
        DepthOrder::ColumnFirst => all.push(make::text("mode", "CRD")),
        DepthOrder::DepthFirst if has_mode => all.push(make::text("mode", "DCR")),
        DepthOrder::DepthFirst => {}
    }
    all
}

fn transposed_convolution(
    attrs: &ConvTransposeAttrs,
    kernel_shape: Option<&[usize]>,
) -> Vec<AttributeProto> {
    let conv = ConvAttrs {
        strides: attrs.strides,
        pads: attrs.pads,
        dilations: attrs.dilations,
        groups: attrs.groups,
        auto_pad: attrs.auto_pad,
    };
    let mut all = convolution(&conv, kernel_shape);
    if attrs.output_padding != [0, 0] {
        all.push(make::sizes("output_padding", &attrs.output_padding));
    }
    all.extend(
        attrs
            .output_shape
            .map(|shape| make::sizes("output_shape", &shape)),
    );
    all
}

/// Height and width of a convolution's stored weight.
pub(super) fn kernel_shape<'g>(node: &Node, graph: &'g Graph) -> Option<&'g [usize]> {
    let weight = node
        .inputs
        .get(1)
        .and_then(|name| graph.initializers.get(name))?;
    weight.shape().get(2..)
}

fn convolution(attrs: &ConvAttrs, kernel_shape: Option<&[usize]>) -> Vec<AttributeProto> {
    let mut all = vec![
        make::sizes("dilations", &attrs.dilations),
        make::sizes("strides", &attrs.strides),
    ];
    all.push(make::size("group", attrs.groups));
    all.extend(kernel_shape.map(|shape| make::sizes("kernel_shape", shape)));
    all.push(padding(attrs.auto_pad, attrs.pads));
    all
}

/// `dilations_since` is the operator set in which the pool got dilations.
fn pool(attrs: &PoolAttrs, opset: i64, dilations_since: i64) -> Vec<AttributeProto> {
    let mut all = vec![
        make::sizes("kernel_shape", &attrs.kernel),
        make::sizes("strides", &attrs.strides),
        padding(attrs.auto_pad, attrs.pads),
    ];
    // Where the operator set lacks one of these, a value other than its default fails the check.
    if attrs.dilations != [1, 1] || opset >= dilations_since {
        all.push(make::sizes("dilations", &attrs.dilations));
    }
    if attrs.ceil_mode || opset >= 10 {
        all.push(make::flag("ceil_mode", attrs.ceil_mode));
    }
    all
}

/// ONNX allows either explicit pads or an automatic choice.
fn padding(auto_pad: AutoPad, pads: SpatialPads) -> AttributeProto {
    match auto_pad {
        AutoPad::NotSet => make::sizes("pads", &[pads.top, pads.left, pads.bottom, pads.right]),
        AutoPad::SameUpper => make::text("auto_pad", "SAME_UPPER"),
        AutoPad::SameLower => make::text("auto_pad", "SAME_LOWER"),
        AutoPad::Valid => make::text("auto_pad", "VALID"),
    }
}

fn softmax_axis(axis: SoftmaxAxis, opset: i64) -> Result<AttributeProto, String> {
    match axis {
        SoftmaxAxis::Single(axis) if opset >= 13 => Ok(make::int("axis", axis)),
        SoftmaxAxis::FlattenFrom(axis) if opset < 13 => Ok(make::int("axis", axis)),
        SoftmaxAxis::Single(_) | SoftmaxAxis::FlattenFrom(_) => Err(format!(
            "its axis has a meaning that operator set {opset} does not know"
        )),
    }
}
