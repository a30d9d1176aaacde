//! The shape of a node's output from the shapes (and constant values) of its inputs.

use super::layer_shapes::{
    batch_normalization, conv, conv_transpose, depth_to_space, gemm, group_normalization,
    layer_normalization, mat_mul, per_channel, positions, space_to_depth,
};
use super::operands::Operands;
use super::shared::{Shape, image, joined, one_way, window};
use crate::graph::op::{Op, PadMode, SoftmaxAxis};

/// The shape of the output that `n` looks at.
pub(super) fn output_shape(n: &Operands<'_>) -> Shape {
    match &n.node.op {
        Op::Conv(attrs) => conv(n, attrs),
        Op::Gemm {
            trans_a, trans_b, ..
        } => gemm(n, *trans_a, *trans_b),
        Op::MatMul => mat_mul(n),
        Op::ConvTranspose(attrs) => conv_transpose(n, attrs),
        Op::LayerNormalization { axis, .. } => layer_normalization(n, *axis),
        Op::InstanceNormalization { .. } => {
            let [_, channels] = positions(n)?;
            per_channel(n, channels)
        }
        Op::GroupNormalization { groups, .. } => group_normalization(n, *groups),
        Op::Resize(_) | Op::Upsample { .. } => {
            let mut shape = n.shape(0)?.to_vec();
            for axis in n.resize()?.1 {
                shape[axis.axis] = axis.resized;
            }
            Ok(shape)
        }
        Op::DepthToSpace { block, .. } => depth_to_space(n, *block),
        Op::SpaceToDepth { block, .. } => space_to_depth(n, *block),
        Op::Split { .. } => {
            let mut shape = n.shape(0)?.to_vec();
            let (axis, parts) = n.parts()?;
            let part = parts.get(n.output);
            shape[axis] = part.ok_or_else(|| n.error("has too many outputs"))?.len;
            Ok(shape)
        }
        Op::Expand => {
            let wanted = n.integers(1)?.unwrap_or_default();
            joined(n, n.shape(0)?, &lengths(n, &wanted)?)
        }
        Op::Where => {
            let values = joined(n, n.shape(1)?, n.shape(2)?)?;
            joined(n, &values, n.shape(0)?)
        }
        Op::BatchNormalization { .. } => batch_normalization(n),
        Op::Activation(_) | Op::Identity | Op::Cast { .. } | Op::Dropout { .. } => {
            Ok(n.shape(0)?.to_vec())
        }
        Op::PRelu => p_relu(n),
        Op::Clip { .. } => {
            n.clip_bounds()?;
            Ok(n.shape(0)?.to_vec())
        }
        Op::Arithmetic(_) => joined(n, n.shape(0)?, n.shape(1)?),
        Op::Variadic(_) => joined_all(n),
        Op::Concat { axis } => concat(n, *axis),
        Op::MaxPool(attrs) | Op::AveragePool(attrs) => {
            let [batch, channels, height, width] = image(n)?;
            let [rows, columns] = window(n, attrs.output_size([height, width]))?;
            Ok(vec![batch, channels, rows, columns])
        }
        Op::GlobalAveragePool | Op::GlobalMaxPool => {
            let [batch, channels, ..] = image(n)?;
            Ok(vec![batch, channels, 1, 1])
        }
        Op::Reduce { keep_dims, .. } | Op::ArgMax { keep_dims, .. } => {
            let shape = n.shape(0)?;
            let axes = n.reduced_axes()?;
            let kept = (0..shape.len()).filter(|axis| *keep_dims || !axes.contains(axis));
            Ok(kept
                .map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] })
                .collect())
        }
        Op::Flatten { axis } => flatten(n, *axis),
        Op::Reshape { allow_zero } => reshape(n, *allow_zero),
        Op::Transpose { perm } => transpose(n, perm.as_deref()),
        Op::Squeeze { axes } => squeeze(n, axes.as_deref()),
        Op::Unsqueeze { axes } => unsqueeze(n, axes.as_deref()),
        Op::Slice { .. } => Ok(n.slices()?.iter().map(|slice| slice.len).collect()),
        Op::Pad { mode, .. } => pad(n, *mode),
        Op::Softmax(axis) | Op::LogSoftmax(axis) => {
            let shape = n.shape(0)?;
            match axis {
                SoftmaxAxis::Single(axis) | SoftmaxAxis::FlattenFrom(axis) => {
                    n.axis(*axis, shape.len())?
                }
            };
            Ok(shape.to_vec())
        }
        Op::Lrn { size, .. } => {
            if *size == 0 {
                return Err(n.error("the size is 0"));
            }
            Ok(image(n)?.to_vec())
        }
        Op::Shape { start, end } => Ok(vec![shape_range(n.shape(0)?.len(), *start, *end).len()]),
        Op::Gather { axis } => {
            let (data, indices) = (n.shape(0)?, n.shape(1)?);
            let axis = n.axis(*axis, data.len())?;
            Ok([&data[..axis], indices, &data[axis + 1..]].concat())
        }
        Op::ConstantOfShape { value } => {
            if value.len() != 1 {
                return Err(n.error(format!(
                    "the value has {} elements instead of one",
                    value.len()
                )));
            }
            lengths(n, &n.integers(0)?.unwrap_or_default())
        }
    }
}

/// The axes that `Shape` lists: ONNX clamps both ends to what exists.
pub(super) fn shape_range(rank: usize, start: i64, end: Option<i64>) -> std::ops::Range<usize> {
    let r = rank as i64;
    let clamp = |bound: i64| (if bound < 0 { bound + r } else { bound }).clamp(0, r) as usize;
    let start = clamp(start);
    start..clamp(end.unwrap_or(r)).max(start)
}

fn lengths(n: &Operands<'_>, values: &[i64]) -> Shape {
    let length = |&value: &i64| {
        usize::try_from(value).map_err(|_| n.error(format!("{value} is not a length")))
    };
    values.iter().map(length).collect()
}

fn p_relu(n: &Operands<'_>) -> Shape {
    one_way(n, n.shape(0)?, n.shape(1)?)
}

fn joined_all(n: &Operands<'_>) -> Shape {
    (1..n.node.inputs.len()).try_fold(n.shape(0)?.to_vec(), |shape, index| {
        joined(n, &shape, n.shape(index)?)
    })
}

fn concat(n: &Operands<'_>, axis: i64) -> Shape {
    let mut shape = n.shape(0)?.to_vec();
    let axis = n.axis(axis, shape.len())?;
    for index in 1..n.node.inputs.len() {
        let other = n.shape(index)?;
        let fits = other.len() == shape.len()
            && (0..shape.len()).all(|i| i == axis || other[i] == shape[i]);
        if !fits {
            return Err(n.error(format!(
                "shape {other:?} cannot be joined to {shape:?} along axis {axis}"
            )));
        }
        shape[axis] = shape[axis]
            .checked_add(other[axis])
            .ok_or_else(|| n.error("the joined axis overflows"))?;
    }
    Ok(shape)
}

fn flatten(n: &Operands<'_>, axis: i64) -> Shape {
    let shape = n.shape(0)?;
    // The axis may be the rank itself: everything goes into the first length.
    let axis = if axis == shape.len() as i64 {
        shape.len()
    } else {
        n.axis(axis, shape.len())?
    };
    let (head, tail) = shape.split_at(axis);
    Ok(vec![head.iter().product(), tail.iter().product()])
}

fn reshape(n: &Operands<'_>, allow_zero: bool) -> Shape {
    let input = n.shape(0)?;
    let wanted = n
        .integers(1)?
        .ok_or_else(|| n.error("the shape is missing"))?;
    let count: usize = input.iter().product();
    let unfit = || {
        n.error(format!(
            "a value of shape {input:?} does not reshape to {wanted:?}"
        ))
    };
    let mut shape = Vec::with_capacity(wanted.len());
    let mut inferred_axis = None;
    for (axis, &length) in wanted.iter().enumerate() {
        shape.push(match length {
            -1 if inferred_axis.is_none() => {
                inferred_axis = Some(axis);
                1
            }
            0 if !allow_zero => *input.get(axis).ok_or_else(unfit)?,
            length => usize::try_from(length).map_err(|_| unfit())?,
        });
    }
    let known = shape
        .iter()
        .try_fold(1_usize, |product, &length| product.checked_mul(length))
        .ok_or_else(unfit)?;
    match inferred_axis {
        Some(axis) if known > 0 && count.is_multiple_of(known) => shape[axis] = count / known,
        None if known == count => {}
        Some(_) | None => return Err(unfit()),
    }
    Ok(shape)
}

fn transpose(n: &Operands<'_>, perm: Option<&[usize]>) -> Shape {
    let shape = n.shape(0)?;
    let Some(perm) = perm else {
        return Ok(shape.iter().rev().copied().collect());
    };
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..shape.len()) {
        return Err(n.error(format!(
            "{perm:?} is no permutation of the axes of {shape:?}"
        )));
    }
    Ok(perm.iter().map(|&axis| shape[axis]).collect())
}

fn squeeze(n: &Operands<'_>, axes: Option<&[i64]>) -> Shape {
    let shape = n.shape(0)?;
    let axes = match n.integers(1)?.or_else(|| axes.map(<[i64]>::to_vec)) {
        Some(axes) => n.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        return Err(n.error(format!("axis {axis} of {shape:?} has not length 1")));
    }
    Ok((0..shape.len())
        .filter(|axis| !axes.contains(axis))
        .map(|axis| shape[axis])
        .collect())
}

fn unsqueeze(n: &Operands<'_>, axes: Option<&[i64]>) -> Shape {
    let mut shape = n.shape(0)?.to_vec();
    let axes = n
        .integers(1)?
        .or_else(|| axes.map(<[i64]>::to_vec))
        .ok_or_else(|| n.error("axes are missing"))?;
    for axis in n.axes(&axes, shape.len() + axes.len())? {
        shape.insert(axis, 1);
    }
    Ok(shape)
}

fn pad(n: &Operands<'_>, mode: PadMode) -> Shape {
    let shape = n.shape(0)?;
    n.pad_value()?;
    let padded = |(&length, &[before, after]): (&usize, &[i64; 2])| {
        let source_fits = match mode {
            PadMode::Constant => true,
            PadMode::Reflect => before.max(after) < length.max(1) as i64,
            PadMode::Edge => length > 0 || before.max(after) <= 0,
        };
        let sum = (length as i64)
            .checked_add(before)
            .and_then(|sum| sum.checked_add(after));
        let size = sum
            .filter(|_| source_fits)
            .and_then(|sum| usize::try_from(sum).ok());
        size.ok_or_else(|| {
            n.error(format!(
                "an axis of length {length} cannot be padded by {before} and {after}"
            ))
        })
    };
    shape.iter().zip(&n.pad_widths()?).map(padded).collect()
}
