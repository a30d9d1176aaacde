//! Shapes of what layers with weights, pools and normalisations make, and of moves between channels and space.

use super::InferError;
use super::operands::Operands;
use super::shared::{Shape, image, joined, one_way, window};
use crate::graph::op::ConvAttrs;
use crate::graph::transposed::ConvTransposeAttrs;

pub(super) fn conv(n: &Operands<'_>, attrs: &ConvAttrs) -> Shape {
    let [batch, channels, height, width] = image(n)?;
    let weight = n.shape(1)?;
    let &[out, per_group, kernel_h, kernel_w] = weight else {
        return Err(n.error(format!(
            "the weight has shape {weight:?}, wanted [out, in/groups, kh, kw]"
        )));
    };
    let groups = attrs.groups;
    if groups == 0 || out % groups != 0 {
        return Err(n.error(format!(
            "{out} output channels do not split into {groups} groups"
        )));
    }
    if per_group.checked_mul(groups) != Some(channels) {
        let wanted =
            format!("weight {weight:?} in {groups} group(s) expects {per_group} channels each");
        return Err(n.error(format!("{wanted}, but the input has {channels}")));
    }
    if let Some(bias) = n.optional_shape(2)?.filter(|&bias| bias != [out]) {
        return Err(n.error(format!("the bias has shape {bias:?}, wanted [{out}]")));
    }
    let [rows, columns] = window(n, attrs.output_size([height, width], [kernel_h, kernel_w]))?;
    Ok(vec![batch, out, rows, columns])
}

pub(super) fn gemm(n: &Operands<'_>, trans_a: bool, trans_b: bool) -> Shape {
    let (a, b) = (n.shape(0)?, n.shape(1)?);
    let (&[a0, a1], &[b0, b1]) = (a, b) else {
        return Err(n.error(format!(
            "factors have shapes {a:?} and {b:?}, wanted two matrices"
        )));
    };
    let (rows, inner_a) = if trans_a { (a1, a0) } else { (a0, a1) };
    let (inner_b, columns) = if trans_b { (b1, b0) } else { (b0, b1) };
    if inner_a != inner_b {
        return Err(n.error(format!("inner lengths {inner_a} and {inner_b} differ")));
    }
    match n.optional_shape(2)? {
        Some(c) => one_way(n, &[rows, columns], c),
        None => Ok(vec![rows, columns]),
    }
}

pub(super) fn mat_mul(n: &Operands<'_>) -> Shape {
    let (a, b) = (n.shape(0)?, n.shape(1)?);
    let (batch_a, rows, inner_a) = match a {
        [] => return Err(n.error("the first factor is a scalar")),
        [inner] => (&[][..], None, *inner),
        [batch @ .., rows, inner] => (batch, Some(*rows), *inner),
    };
    let (batch_b, inner_b, columns) = match b {
        [] => return Err(n.error("the second factor is a scalar")),
        [inner] => (&[][..], *inner, None),
        [batch @ .., inner, columns] => (batch, *inner, Some(*columns)),
    };
    if inner_a != inner_b {
        return Err(n.error(format!("inner lengths of {a:?} and {b:?} differ")));
    }
    let mut shape = joined(n, batch_a, batch_b)?;
    shape.extend(rows.into_iter().chain(columns));
    Ok(shape)
}

pub(super) fn batch_normalization(n: &Operands<'_>) -> Shape {
    let x = n.shape(0)?;
    let &[_, channels, ..] = x else {
        return Err(n.error(format!("the input has shape {x:?}, wanted [n, c, ...]")));
    };
    for (index, what) in [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")] {
        let shape = n.shape(index)?;
        if shape != [channels] {
            return Err(n.error(format!(
                "the {what} has shape {shape:?}, wanted [{channels}]"
            )));
        }
    }
    Ok(x.to_vec())
}

pub(super) fn conv_transpose(n: &Operands<'_>, attrs: &ConvTransposeAttrs) -> Shape {
    let [batch, channels, height, width] = image(n)?;
    let weight = n.shape(1)?;
    let &[in_channels, per_group, kernel_h, kernel_w] = weight else {
        return Err(n.error(format!(
            "the weight has shape {weight:?}, wanted [in, out/groups, kh, kw]"
        )));
    };
    let groups = attrs.groups;
    if groups == 0 || in_channels != channels || channels % groups != 0 {
        return Err(n.error(format!(
            "weight {weight:?} in {groups} group(s) does not fit an input of {channels} channels"
        )));
    }
    let out = per_group
        .checked_mul(groups)
        .ok_or_else(|| n.error("the output has too many channels"))?;
    if let Some(bias) = n.optional_shape(2)?.filter(|&bias| bias != [out]) {
        return Err(n.error(format!("the bias has shape {bias:?}, wanted [{out}]")));
    }
    let extents = attrs.extents([height, width], [kernel_h, kernel_w]);
    let [rows, columns] = extents.map_err(|problem| n.error(problem))?;
    // The engines compute what is cut off, too.
    super::check_size(&n.node.name, &[batch, out, rows.full, columns.full])?;
    Ok(vec![batch, out, rows.output, columns.output])
}

/// Images and channels of a value that has both.
pub(super) fn positions(n: &Operands<'_>) -> Result<[usize; 2], InferError> {
    let shape = n.shape(0)?;
    match *shape {
        [images, channels, _, ..] => Ok([images, channels]),
        _ => Err(n.error(format!(
            "the input has shape {shape:?}, wanted [n, c, positions ...]"
        ))),
    }
}

/// Scale and bias must have `count` elements.
pub(super) fn per_channel(n: &Operands<'_>, count: usize) -> Shape {
    for (index, what) in [(1, "scale"), (2, "bias")] {
        let shape = n.shape(index)?;
        if shape != [count] {
            return Err(n.error(format!("the {what} has shape {shape:?}, wanted [{count}]")));
        }
    }
    Ok(n.shape(0)?.to_vec())
}

pub(super) fn group_normalization(n: &Operands<'_>, groups: usize) -> Shape {
    let [_, channels] = positions(n)?;
    if groups == 0 || channels % groups != 0 {
        return Err(n.error(format!(
            "{channels} channels do not split into {groups} groups"
        )));
    }
    per_channel(n, if n.opset() < 21 { groups } else { channels })
}

pub(super) fn layer_normalization(n: &Operands<'_>, axis: i64) -> Shape {
    let shape = n.shape(0)?;
    let axis = n.axis(axis, shape.len())?;
    one_way(n, shape, n.shape(1)?)?;
    if let Some(bias) = n.optional_shape(2)? {
        one_way(n, shape, bias)?;
    }
    // The mean and the inverse deviation have length 1 where the input is normalised.
    let kept = if n.output == 0 { shape.len() } else { axis };
    let lengths = shape.iter().enumerate();
    Ok(lengths
        .map(|(i, &length)| if i < kept { length } else { 1 })
        .collect())
}

pub(super) fn depth_to_space(n: &Operands<'_>, block: usize) -> Shape {
    let [batch, channels, height, width] = image(n)?;
    let unfit = || {
        n.error(format!(
            "blocks of {block} do not fit an input of {channels} channels"
        ))
    };
    let area = block
        .checked_mul(block)
        .filter(|&area| area > 0)
        .ok_or_else(unfit)?;
    if channels % area != 0 {
        return Err(unfit());
    }
    let rows = height.checked_mul(block).ok_or_else(unfit)?;
    let columns = width.checked_mul(block).ok_or_else(unfit)?;
    Ok(vec![batch, channels / area, rows, columns])
}

pub(super) fn space_to_depth(n: &Operands<'_>, block: usize) -> Shape {
    let [batch, channels, height, width] = image(n)?;
    let unfit = || {
        n.error(format!(
            "blocks of {block} do not fit an image of {height} by {width}"
        ))
    };
    if block == 0 || height % block != 0 || width % block != 0 {
        return Err(unfit());
    }
    let area = block.checked_mul(block).ok_or_else(unfit)?;
    let channels = channels.checked_mul(area).ok_or_else(unfit)?;
    Ok(vec![batch, channels, height / block, width / block])
}
