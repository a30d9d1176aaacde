//! From a node of the file to a typed operator.
//!
//! Problems are phrases; the caller names the node. Attributes have been checked against the table
//! of operators, so that an unknown one never reaches this place.

use super::attributes::Attributes;
use super::constant::fill_value;
use super::interpolation;
use super::proto::NodeProto;
use super::table::{self, Entry};
use super::tensor;
use super::windows::{convolution, pool, positive, transposed_convolution};
use crate::graph::{
    Activation, Arithmetic, DepthOrder, GeluForm, Op, PadMode, Reduction, SliceBounds, SoftmaxAxis,
    Variadic,
};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// What a node is read against.
pub(super) struct Context<'a> {
    /// Version of the default operator set.
    pub opset: i64,
    /// Constants known so far.
    pub constants: &'a BTreeMap<String, Tensor>,
    /// Names that some node reads, or the graph returns.
    pub read: &'a BTreeSet<String>,
}

/// Checks numbers of inputs and outputs, and that outputs beyond the first are not read where they
/// are not computed.
pub(super) fn check_signature(
    node: &NodeProto,
    entry: &Entry,
    context: &Context<'_>,
) -> Result<(), String> {
    let (least, most) = entry.arity(context.opset);
    let given = node.input.len();
    if given < least || given > most {
        let wanted = match (least, most) {
            (a, b) if a == b => format!("{a}"),
            (a, usize::MAX) => format!("{a} or more"),
            (a, b) => format!("{a} to {b}"),
        };
        return Err(format!(
            "has {given} inputs, wanted {wanted} in operator set {}",
            context.opset
        ));
    }
    let required = if most == usize::MAX { given } else { least };
    if let Some(i) = node.input.iter().take(required).position(String::is_empty) {
        return Err(format!("required input {i} is left out"));
    }
    if node.output.first().is_none_or(String::is_empty) {
        return Err("has no output".into());
    }
    if node.output.len() > entry.max_outputs {
        return Err(format!(
            "has {} outputs, wanted at most {}",
            node.output.len(),
            entry.max_outputs
        ));
    }
    let extra = node.output.iter().skip(1).filter(|name| !name.is_empty());
    for name in extra {
        if matches!(node.op_type(), "Split" | "LayerNormalization") {
            continue;
        }
        if node.op_type() == "BatchNormalization" {
            return Err(format!(
                "has the output `{name}` of training mode; export the model in evaluation mode"
            ));
        }
        if context.read.contains(name) {
            return Err(format!(
                "its second output `{name}` is read, which is not supported"
            ));
        }
    }
    Ok(())
}

/// The typed operator of `node`, which is neither a `Constant` nor unsupported.
pub(super) fn operator(
    node: &NodeProto,
    entry: &Entry,
    context: &Context<'_>,
) -> Result<Op, String> {
    let attributes = Attributes::of(node, entry, context.opset)?;
    let constant = |i: usize| {
        node.input
            .get(i)
            .and_then(|name| context.constants.get(name))
    };
    let a = &attributes;
    Ok(match node.op_type() {
        "Conv" => Op::Conv(convolution(a, constant(1))?),
        "Gemm" => Op::Gemm {
            alpha: a.float("alpha")?.unwrap_or(1.0),
            beta: a.float("beta")?.unwrap_or(1.0),
            trans_a: a.flag("transA")?.unwrap_or(false),
            trans_b: a.flag("transB")?.unwrap_or(false),
        },
        "MatMul" => Op::MatMul,
        "BatchNormalization" => batch_normalization(a)?,
        "PRelu" => Op::PRelu,
        "Clip" => Op::Clip {
            min: a.float("min")?,
            max: a.float("max")?,
        },
        "Add" => Op::Arithmetic(Arithmetic::Add),
        "Sub" => Op::Arithmetic(Arithmetic::Sub),
        "Mul" => Op::Arithmetic(Arithmetic::Mul),
        "Div" => Op::Arithmetic(Arithmetic::Div),
        "Pow" => Op::Arithmetic(Arithmetic::Pow),
        "Sum" => Op::Variadic(Variadic::Sum),
        "Mean" => Op::Variadic(Variadic::Mean),
        "Max" => Op::Variadic(Variadic::Max),
        "Min" => Op::Variadic(Variadic::Min),
        "Concat" => Op::Concat {
            axis: a.int("axis")?.ok_or("attribute `axis` is missing")?,
        },
        "MaxPool" => {
            a.int("storage_order")?; // Concerns `Indices` only, which nothing reads.
            Op::MaxPool(pool(a)?)
        }
        "AveragePool" => Op::AveragePool(pool(a)?),
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "GlobalMaxPool" => Op::GlobalMaxPool,
        "ReduceMean" => reduce(a, Reduction::Mean)?,
        "ReduceSum" => reduce(a, Reduction::Sum)?,
        "ReduceMax" => reduce(a, Reduction::Max)?,
        "ReduceMin" => reduce(a, Reduction::Min)?,
        "ReduceL1" => reduce(a, Reduction::L1)?,
        "ReduceL2" => reduce(a, Reduction::L2)?,
        "ReduceSumSquare" => reduce(a, Reduction::SumSquare)?,
        "ArgMax" => Op::ArgMax {
            axis: a.int("axis")?.unwrap_or(0),
            keep_dims: a.flag("keepdims")?.unwrap_or(true),
            select_last_index: a.flag("select_last_index")?.unwrap_or(false),
        },
        "ConvTranspose" => Op::ConvTranspose(transposed_convolution(a, constant(1))?),
        "InstanceNormalization" => Op::InstanceNormalization {
            epsilon: a.float("epsilon")?.unwrap_or(NORM_EPSILON),
        },
        "LayerNormalization" => {
            check_stash(a)?;
            Op::LayerNormalization {
                axis: a.int("axis")?.unwrap_or(-1),
                epsilon: a.float("epsilon")?.unwrap_or(NORM_EPSILON),
            }
        }
        "GroupNormalization" => {
            check_stash(a)?;
            let groups = a
                .int("num_groups")?
                .ok_or("attribute `num_groups` is missing")?;
            Op::GroupNormalization {
                groups: positive(groups, "num_groups")?,
                epsilon: a.float("epsilon")?.unwrap_or(NORM_EPSILON),
            }
        }
        "Resize" if context.opset >= 11 && node.input.len() < 3 => {
            return Err("neither scales nor sizes are given".into());
        }
        "Resize" => Op::Resize(interpolation::resize(a, context.opset)?),
        "Upsample" => interpolation::upsample(a, node.input.len())?,
        "DepthToSpace" => Op::DepthToSpace {
            block: block(a)?,
            order: depth_order(a)?,
        },
        "SpaceToDepth" => Op::SpaceToDepth {
            block: block(a)?,
            order: depth_order(a)?,
        },
        "Split" => split(a, node)?,
        "Expand" => Op::Expand,
        "Where" => Op::Where,
        "Flatten" => Op::Flatten {
            axis: a.int("axis")?.unwrap_or(1),
        },
        "Reshape" => Op::Reshape {
            allow_zero: a.flag("allowzero")?.unwrap_or(false),
        },
        "Transpose" => Op::Transpose {
            perm: permutation(a)?,
        },
        "Squeeze" => Op::Squeeze {
            axes: a.ints("axes")?.map(<[i64]>::to_vec),
        },
        "Unsqueeze" => {
            let axes = a.ints("axes")?.map(<[i64]>::to_vec);
            if axes.is_none() && node.input.len() < 2 {
                return Err("attribute `axes` is missing".into());
            }
            Op::Unsqueeze { axes }
        }
        "Slice" => slice(a, node)?,
        "Pad" => pad(a, node)?,
        "Softmax" => Op::Softmax(softmax_axis(a, context.opset)?),
        "LogSoftmax" => Op::LogSoftmax(softmax_axis(a, context.opset)?),
        "Dropout" => dropout(a, node, constant(2))?,
        "Identity" => Op::Identity,
        "LRN" => Op::Lrn {
            // The schema's defaults.
            alpha: a.float("alpha")?.unwrap_or(1e-4),
            beta: a.float("beta")?.unwrap_or(0.75),
            bias: a.float("bias")?.unwrap_or(1.0),
            size: positive(a.int("size")?.ok_or("attribute `size` is missing")?, "size")?,
        },
        "Cast" => {
            a.int("saturate")?; // Both concern 8-bit floats only, which are refused.
            a.text("round_mode")?;
            let to = a.int("to")?.ok_or("attribute `to` is missing")?;
            Op::Cast {
                to: tensor::element_type(i32::try_from(to).unwrap_or(-1))?,
            }
        }
        "Shape" => Op::Shape {
            start: a.int("start")?.unwrap_or(0),
            end: a.int("end")?,
        },
        "Gather" => Op::Gather {
            axis: a.int("axis")?.unwrap_or(0),
        },
        "ConstantOfShape" => Op::ConstantOfShape {
            value: fill_value(a)?,
        },
        other => match activation(other, a)? {
            Some(activation) => Op::Activation(activation),
            None => {
                return Err(format!(
                    "`{other}` is in the table of operators but not read"
                ));
            }
        },
    })
}

/// The elementwise function of one input that `op` is.
fn activation(op: &str, a: &Attributes<'_>) -> Result<Option<Activation>, String> {
    let alpha = |default: f32| a.float("alpha").map(|alpha| alpha.unwrap_or(default));
    // The defaults are the schemas'.
    Ok(Some(match op {
        "Relu" => Activation::Relu,
        "LeakyRelu" => Activation::LeakyRelu {
            alpha: alpha(0.01)?,
        },
        "Sigmoid" => Activation::Sigmoid,
        "HardSigmoid" => Activation::HardSigmoid {
            alpha: alpha(0.2)?,
            beta: a.float("beta")?.unwrap_or(0.5),
        },
        "HardSwish" => Activation::HardSwish,
        "Tanh" => Activation::Tanh,
        "Exp" => Activation::Exp,
        "Log" => Activation::Log,
        "Sqrt" => Activation::Sqrt,
        "Erf" => Activation::Erf,
        "Abs" => Activation::Abs,
        "Neg" => Activation::Neg,
        "Reciprocal" => Activation::Reciprocal,
        "Floor" => Activation::Floor,
        "Ceil" => Activation::Ceil,
        "Round" => Activation::Round,
        "Softplus" => Activation::Softplus,
        "Softsign" => Activation::Softsign,
        "Mish" => Activation::Mish,
        "Elu" => Activation::Elu { alpha: alpha(1.0)? },
        "Selu" => Activation::Selu {
            alpha: alpha(1.673_263_2)?,
            gamma: a.float("gamma")?.unwrap_or(1.050_701),
        },
        "Celu" => match alpha(1.0)? {
            0.0 => return Err("attribute `alpha` is 0, by which it divides".into()),
            alpha => Activation::Celu { alpha },
        },
        "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: alpha(1.0)? },
        "Gelu" => Activation::Gelu(match a.text("approximate")? {
            None | Some("none") => GeluForm::Exact,
            Some("tanh") => GeluForm::Tanh,
            Some(other) => {
                return Err(format!(
                    "attribute `approximate` is `{other}`, which is unknown"
                ));
            }
        }),
        "Swish" => Activation::Swish { alpha: alpha(1.0)? },
        _ => return Ok(None),
    }))
}

/// The schema's default of `InstanceNormalization`, `LayerNormalization` and `GroupNormalization`.
const NORM_EPSILON: f32 = 1e-5;

/// The type in which a normalisation computes; 1 is `f32`.
fn check_stash(a: &Attributes<'_>) -> Result<(), String> {
    match a.int("stash_type")? {
        None | Some(1) => Ok(()),
        Some(other) => Err(format!(
            "attribute `stash_type` is {other}; supported is 1, 32-bit float"
        )),
    }
}

fn block(a: &Attributes<'_>) -> Result<usize, String> {
    let block = a
        .int("blocksize")?
        .ok_or("attribute `blocksize` is missing")?;
    positive(block, "blocksize")
}

fn depth_order(a: &Attributes<'_>) -> Result<DepthOrder, String> {
    match a.text("mode")? {
        None | Some("DCR") => Ok(DepthOrder::DepthFirst),
        Some("CRD") => Ok(DepthOrder::ColumnFirst),
        Some(other) => Err(format!("attribute `mode` is `{other}`, which is unknown")),
    }
}

fn reduce(a: &Attributes<'_>, reduction: Reduction) -> Result<Op, String> {
    Ok(Op::Reduce {
        reduction,
        axes: a.ints("axes")?.map(<[i64]>::to_vec),
        keep_dims: a.flag("keepdims")?.unwrap_or(true),
        noop_with_empty_axes: a.flag("noop_with_empty_axes")?.unwrap_or(false),
    })
}

fn split(a: &Attributes<'_>, node: &NodeProto) -> Result<Op, String> {
    if let Some(i) = node.output.iter().position(String::is_empty) {
        return Err(format!(
            "its output {i} is left out, which is not supported"
        ));
    }
    let sizes = a.ints("split")?.map(<[i64]>::to_vec);
    let num_outputs = match a.int("num_outputs")? {
        None => None,
        Some(count) => Some(positive(count, "num_outputs")?),
    };
    if num_outputs.is_some_and(|count| count != node.output.len()) {
        return Err(format!(
            "attribute `num_outputs` is not the number of its outputs, {}",
            node.output.len()
        ));
    }
    Ok(Op::Split {
        axis: a.int("axis")?.unwrap_or(0),
        sizes,
        num_outputs,
    })
}

/// The rules of `node`'s operator, where it is supported in operator set `opset`.
pub(super) fn entry_of(node: &NodeProto, opset: i64) -> Option<&'static Entry> {
    let default_domain = matches!(node.domain(), "" | "ai.onnx");
    let entry =
        table::entry(node.op_type()).filter(|entry| default_domain && entry.exists_in(opset))?;
    node.overload().is_empty().then_some(entry)
}

fn batch_normalization(a: &Attributes<'_>) -> Result<Op, String> {
    if a.flag("training_mode")?.unwrap_or(false) {
        return Err("is in training mode; export the model in evaluation mode".into());
    }
    if !a.flag("spatial")?.unwrap_or(true) {
        return Err(
            "attribute `spatial` is 0 (statistics for each position), which is not supported"
                .into(),
        );
    }
    Ok(Op::BatchNormalization {
        // The schema's defaults.
        epsilon: a.float("epsilon")?.unwrap_or(1e-5),
        momentum: a.float("momentum")?.unwrap_or(0.9),
    })
}

fn permutation(a: &Attributes<'_>) -> Result<Option<Vec<usize>>, String> {
    let Some(perm) = a.sizes("perm", 0)? else {
        return Ok(None);
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.iter().enumerate().any(|(i, &axis)| i != axis) {
        return Err(format!("attribute `perm` {perm:?} is not a permutation"));
    }
    Ok(Some(perm))
}

fn slice(a: &Attributes<'_>, node: &NodeProto) -> Result<Op, String> {
    let starts = a.ints("starts")?;
    let ends = a.ints("ends")?;
    let axes = a.ints("axes")?;
    if node.input.len() > 1 {
        return Ok(Op::Slice { bounds: None });
    }
    let starts = starts.ok_or("attribute `starts` is missing")?;
    let ends = ends.ok_or("attribute `ends` is missing")?;
    if starts.len() != ends.len() || axes.is_some_and(|axes| axes.len() != starts.len()) {
        return Err("attributes `starts`, `ends` and `axes` differ in length".into());
    }
    Ok(Op::Slice {
        bounds: Some(SliceBounds {
            starts: starts.to_vec(),
            ends: ends.to_vec(),
            axes: axes.map(<[i64]>::to_vec),
        }),
    })
}

fn pad(a: &Attributes<'_>, node: &NodeProto) -> Result<Op, String> {
    let mode = match a.text("mode")? {
        None | Some("constant") => PadMode::Constant,
        Some("reflect") => PadMode::Reflect,
        Some("edge") => PadMode::Edge,
        Some(other) => {
            return Err(format!(
                "mode `{other}` is not supported; supported are constant, reflect and edge"
            ));
        }
    };
    let pads = a.ints("pads")?.map(<[i64]>::to_vec);
    if pads.is_none() && node.input.len() < 2 {
        return Err("attribute `pads` is missing".into());
    }
    Ok(Op::Pad {
        mode,
        pads,
        value: a.float("value")?,
    })
}

fn softmax_axis(a: &Attributes<'_>, opset: i64) -> Result<SoftmaxAxis, String> {
    let axis = a.int("axis")?;
    Ok(if opset < 13 {
        SoftmaxAxis::FlattenFrom(axis.unwrap_or(1))
    } else {
        SoftmaxAxis::Single(axis.unwrap_or(-1))
    })
}

fn dropout(a: &Attributes<'_>, node: &NodeProto, training: Option<&Tensor>) -> Result<Op, String> {
    a.int("seed")?; // Concerns training mode only.
    let stated = node.input.get(2).is_some_and(|name| !name.is_empty());
    let evaluation = match training {
        Some(Tensor::Bool(mode)) => mode.iter().all(|&on| !on),
        _ => !stated,
    };
    if !evaluation {
        return Err("is, or may be, in training mode; export the model in evaluation mode".into());
    }
    Ok(Op::Dropout {
        ratio: a.float("ratio")?,
    })
}
