//! Values of nodes that read constants only.

use super::operands::Operands;
use super::shape_rules::shape_range;
use super::{InferError, MAX_CONSTANT};
use crate::graph::op::{Arithmetic, Op};
use crate::tensor::{ElementType, Tensor};
use ndarray::{ArcArray, Axis, IxDyn, ShapeError, Zip};
use std::collections::BTreeMap;

type Array<A> = ArcArray<A, IxDyn>;

/// Applies a function that is generic in the element type to the array inside a [`Tensor`].
macro_rules! keeping_type {
    ($tensor:expr, $array:ident => $result:expr) => {
        match $tensor {
            Tensor::F32($array) => $result.map(Tensor::F32),
            Tensor::F64($array) => $result.map(Tensor::F64),
            Tensor::I32($array) => $result.map(Tensor::I32),
            Tensor::I64($array) => $result.map(Tensor::I64),
            Tensor::Bool($array) => $result.map(Tensor::Bool),
        }
    };
}

/// Casts every element as Rust's `as` does: towards zero, and clamped to the target's range.
macro_rules! cast_elements {
    ($tensor:expr, $to:ty, $from_bool:expr) => {
        match $tensor {
            Tensor::F32(a) => a.mapv(|v| v as $to).into_shared(),
            Tensor::F64(a) => a.mapv(|v| v as $to).into_shared(),
            Tensor::I32(a) => a.mapv(|v| v as $to).into_shared(),
            Tensor::I64(a) => a.mapv(|v| v as $to).into_shared(),
            Tensor::Bool(a) => a.mapv($from_bool).into_shared(),
        }
    };
}

/// Elements of all constants that are computed; small ones do not count.
const MAX_CONSTANTS: usize = 1 << 22;
const SMALL: usize = 256;

/// Whether there is room for one more constant.
pub(super) fn is_kept(value: &Tensor, others: &BTreeMap<String, Tensor>) -> bool {
    let len = |tensor: &Tensor| tensor.shape().iter().product::<usize>();
    let large = others.values().map(len).filter(|len| *len > SMALL);
    len(value) <= SMALL || large.sum::<usize>() + len(value) <= MAX_CONSTANTS
}

/// The value of the output that `n` looks at, whose shape is `shape`; `None` where it depends on an
/// input's content, is large, or belongs to an operator that is left to engines.
pub(super) fn evaluate(n: &Operands<'_>, shape: &[usize]) -> Result<Option<Tensor>, InferError> {
    if let Op::Shape { start, end } = n.node.op {
        return dimensions(n, start, end).map(Some);
    }
    let small = shape.iter().product::<usize>() <= MAX_CONSTANT;
    let Some(inputs) = constant_inputs(n).filter(|_| small) else {
        return Ok(None);
    };
    let Some(&first) = inputs.first() else {
        return Ok(None);
    };
    let value = match &n.node.op {
        Op::Identity => Ok(first.clone()),
        Op::Cast { to } => Ok(cast(first, *to)),
        Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } => {
            keeping_type!(first, a => reshaped(n, a, shape))
        }
        Op::Transpose { perm } => {
            let perm = perm
                .clone()
                .unwrap_or_else(|| (0..shape.len()).rev().collect());
            keeping_type!(first, a => Ok(transposed(a, perm)))
        }
        Op::Slice { .. } => keeping_type!(first, a => sliced(n, a)),
        Op::Concat { axis } => concatenated(n, &inputs, *axis),
        Op::Gather { axis } => {
            let axis = n.axis(*axis, first.shape().len())?;
            let indices = gathered_indices(n, first.shape()[axis])?;
            keeping_type!(first, a => reshaped(n, &a.select(Axis(axis), &indices).into_shared(), shape))
        }
        Op::ConstantOfShape { value } => keeping_type!(value, a => filled(n, a, shape)),
        Op::Arithmetic(operation) => match inputs[..] {
            [a, b] => arithmetic(n, *operation, [a, b], shape),
            _ => Err(n.error(format!("{} inputs instead of two", inputs.len()))),
        },
        Op::Split { .. } => {
            let (axis, parts) = n.parts()?;
            let indices: Vec<usize> = match parts.get(n.output) {
                Some(part) => part.indices().collect(),
                None => return Err(n.error("has too many outputs")),
            };
            keeping_type!(first, a => reshaped(n, &a.select(Axis(axis), &indices).into_shared(), shape))
        }
        Op::Expand => keeping_type!(first, a => expanded(n, a, shape)),
        Op::Where => chosen(n, &inputs, shape),
        // Such as the rounding of a computed size.
        Op::Activation(activation) => match first {
            Tensor::F32(a) => Ok(Tensor::F32(
                a.mapv(|value| activation.value(value)).into_shared(),
            )),
            _ => return Ok(None),
        },
        Op::Shape { .. }
        | Op::Conv(_)
        | Op::Gemm { .. }
        | Op::MatMul
        | Op::BatchNormalization { .. }
        | Op::PRelu
        | Op::Clip { .. }
        | Op::Variadic(_)
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::GlobalAveragePool
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::ConvTranspose(_)
        | Op::LayerNormalization { .. }
        | Op::InstanceNormalization { .. }
        | Op::GroupNormalization { .. }
        | Op::GlobalMaxPool
        | Op::Resize(_)
        | Op::Upsample { .. }
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Pad { .. }
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::Dropout { .. }
        | Op::Lrn { .. } => return Ok(None),
    };
    value.map(Some)
}

/// The inputs that are not left out, where all are small constants.
fn constant_inputs<'a>(n: &Operands<'a>) -> Option<Vec<&'a Tensor>> {
    (0..n.node.inputs.len())
        .filter(|&index| n.name(index).is_some())
        .map(|index| {
            n.constant(index)
                .filter(|tensor| tensor.len() <= MAX_CONSTANT)
        })
        .collect()
}

fn dimensions(n: &Operands<'_>, start: i64, end: Option<i64>) -> Result<Tensor, InferError> {
    let shape = n.shape(0)?;
    let lengths: Vec<i64> = shape[shape_range(shape.len(), start, end)]
        .iter()
        .map(|&l| l as i64)
        .collect();
    Ok(Tensor::I64(ArcArray::from(lengths).into_dyn()))
}

fn cast(tensor: &Tensor, to: ElementType) -> Tensor {
    match to {
        ElementType::F32 => Tensor::F32(cast_elements!(tensor, f32, |v| f32::from(u8::from(v)))),
        ElementType::F64 => Tensor::F64(cast_elements!(tensor, f64, |v| f64::from(u8::from(v)))),
        ElementType::I32 => Tensor::I32(cast_elements!(tensor, i32, i32::from)),
        ElementType::I64 => Tensor::I64(cast_elements!(tensor, i64, i64::from)),
        ElementType::Bool => Tensor::Bool(match tensor {
            Tensor::F32(a) => a.mapv(|v| v != 0.0).into_shared(),
            Tensor::F64(a) => a.mapv(|v| v != 0.0).into_shared(),
            Tensor::I32(a) => a.mapv(|v| v != 0).into_shared(),
            Tensor::I64(a) => a.mapv(|v| v != 0).into_shared(),
            Tensor::Bool(a) => a.clone(),
        }),
    }
}

fn reshaped<A: Clone>(
    n: &Operands<'_>,
    array: &Array<A>,
    shape: &[usize],
) -> Result<Array<A>, InferError> {
    array
        .to_shape(IxDyn(shape))
        .map(|view| view.to_shared())
        .map_err(|problem| unfit(n, &problem))
}

/// `perm` is known to be a permutation of the axes.
fn transposed<A: Clone>(array: &Array<A>, perm: Vec<usize>) -> Array<A> {
    array
        .view()
        .permuted_axes(IxDyn(&perm))
        .as_standard_layout()
        .to_shared()
}

fn sliced<A: Clone>(n: &Operands<'_>, array: &Array<A>) -> Result<Array<A>, InferError> {
    let mut taken = array.clone();
    for (axis, slice) in n.slices()?.iter().enumerate() {
        let indices: Vec<usize> = slice.indices().collect();
        taken = taken.select(Axis(axis), &indices).into_shared();
    }
    Ok(taken)
}

fn filled<A: Clone>(
    n: &Operands<'_>,
    value: &Array<A>,
    shape: &[usize],
) -> Result<Array<A>, InferError> {
    let value = value.first().ok_or_else(|| n.error("the value is empty"))?;
    Ok(ArcArray::from_elem(IxDyn(shape), value.clone()))
}

fn gathered_indices(n: &Operands<'_>, length: usize) -> Result<Vec<usize>, InferError> {
    let stated: Vec<i64> = match n.constant(1) {
        Some(Tensor::I64(values)) => values.iter().copied().collect(),
        Some(Tensor::I32(values)) => values.iter().map(|&v| i64::from(v)).collect(),
        Some(Tensor::F32(_) | Tensor::F64(_) | Tensor::Bool(_)) | None => {
            return Err(n.error("the indices must be constant integers"));
        }
    };
    // An index counts from the end where it is negative, as an axis does.
    stated.iter().map(|&index| n.axis(index, length)).collect()
}

fn concatenated(n: &Operands<'_>, inputs: &[&Tensor], axis: i64) -> Result<Tensor, InferError> {
    macro_rules! of_type {
        ($variant:ident) => {{
            let mut views = Vec::with_capacity(inputs.len());
            for tensor in inputs {
                let Tensor::$variant(array) = tensor else {
                    return Err(mixed(n));
                };
                views.push(array.view());
            }
            let axis = Axis(n.axis(axis, views.first().map_or(0, |view| view.ndim()))?);
            let joined =
                ndarray::concatenate(axis, &views).map_err(|problem| unfit(n, &problem))?;
            Ok(Tensor::$variant(joined.as_standard_layout().to_shared()))
        }};
    }
    match inputs.first().map(|tensor| tensor.element_type()) {
        Some(ElementType::F32) => of_type!(F32),
        Some(ElementType::F64) => of_type!(F64),
        Some(ElementType::I32) => of_type!(I32),
        Some(ElementType::I64) => of_type!(I64),
        Some(ElementType::Bool) => of_type!(Bool),
        None => Err(n.error("there are no inputs")),
    }
}

fn arithmetic(
    n: &Operands<'_>,
    operation: Arithmetic,
    inputs: [&Tensor; 2],
    shape: &[usize],
) -> Result<Tensor, InferError> {
    macro_rules! on_floats {
        ($variant:ident, $a:expr, $b:expr) => {
            elementwise(n, $a, $b, shape, |a, b| {
                Some(match operation {
                    Arithmetic::Add => a + b,
                    Arithmetic::Sub => a - b,
                    Arithmetic::Mul => a * b,
                    Arithmetic::Div => a / b,
                    Arithmetic::Pow => a.powf(b),
                })
            })
            .map(Tensor::$variant)
        };
    }
    macro_rules! on_integers {
        ($variant:ident, $a:expr, $b:expr) => {
            elementwise(n, $a, $b, shape, |a, b| match operation {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Sub => a.checked_sub(b),
                Arithmetic::Mul => a.checked_mul(b),
                Arithmetic::Div => a.checked_div(b),
                Arithmetic::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            })
            .map(Tensor::$variant)
        };
    }
    match inputs {
        [Tensor::F32(a), Tensor::F32(b)] => on_floats!(F32, a, b),
        [Tensor::F64(a), Tensor::F64(b)] => on_floats!(F64, a, b),
        [Tensor::I32(a), Tensor::I32(b)] => on_integers!(I32, a, b),
        [Tensor::I64(a), Tensor::I64(b)] => on_integers!(I64, a, b),
        _ => Err(mixed(n)),
    }
}

/// `operation` gives `None` for integers whose result does not exist.
fn elementwise<A: Copy>(
    n: &Operands<'_>,
    a: &Array<A>,
    b: &Array<A>,
    shape: &[usize],
    operation: impl Fn(A, A) -> Option<A>,
) -> Result<Array<A>, InferError> {
    let (Some(a), Some(b)) = (a.broadcast(IxDyn(shape)), b.broadcast(IxDyn(shape))) else {
        return Err(n.error(format!("a constant does not broadcast to {shape:?}")));
    };
    let results = Zip::from(a).and(b).map_collect(|&a, &b| operation(a, b));
    let values: Option<Vec<A>> = results.iter().copied().collect();
    let values = values.ok_or_else(|| n.error("integers overflow or are divided by 0"))?;
    ArcArray::from_shape_vec(IxDyn(shape), values).map_err(|problem| unfit(n, &problem))
}

fn expanded<A: Clone>(
    n: &Operands<'_>,
    array: &Array<A>,
    shape: &[usize],
) -> Result<Array<A>, InferError> {
    match array.broadcast(IxDyn(shape)) {
        Some(view) => Ok(view.as_standard_layout().to_shared()),
        None => Err(n.error(format!("a constant does not broadcast to {shape:?}"))),
    }
}

/// `Where` of constants.
fn chosen(n: &Operands<'_>, inputs: &[&Tensor], shape: &[usize]) -> Result<Tensor, InferError> {
    let &[Tensor::Bool(condition), a, b] = inputs else {
        return Err(n.error("the condition must be of type bool"));
    };
    let condition = expanded(n, condition, shape)?;
    macro_rules! of_type {
        ($variant:ident, $a:expr, $b:expr) => {{
            let (a, b) = (expanded(n, $a, shape)?, expanded(n, $b, shape)?);
            let chosen = Zip::from(&condition).and(&a).and(&b);
            Ok(Tensor::$variant(
                chosen
                    .map_collect(|&holds, &a, &b| if holds { a } else { b })
                    .into_shared(),
            ))
        }};
    }
    match (a, b) {
        (Tensor::F32(a), Tensor::F32(b)) => of_type!(F32, a, b),
        (Tensor::F64(a), Tensor::F64(b)) => of_type!(F64, a, b),
        (Tensor::I32(a), Tensor::I32(b)) => of_type!(I32, a, b),
        (Tensor::I64(a), Tensor::I64(b)) => of_type!(I64, a, b),
        (Tensor::Bool(a), Tensor::Bool(b)) => of_type!(Bool, a, b),
        _ => Err(mixed(n)),
    }
}

fn mixed(n: &Operands<'_>) -> InferError {
    n.error("the constants it reads are not numbers of one type")
}

fn unfit(n: &Operands<'_>, problem: &ShapeError) -> InferError {
    n.error(problem.to_string())
}
