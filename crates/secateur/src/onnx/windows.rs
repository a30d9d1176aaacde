//! How kernels slide, from the attributes of convolutions and pools.

use super::attributes::Attributes;
use crate::graph::{AutoPad, ConvAttrs, ConvTransposeAttrs, PoolAttrs, SpatialPads};
use crate::tensor::Tensor;

pub(super) fn transposed_convolution(
    a: &Attributes<'_>,
    weight: Option<&Tensor>,
) -> Result<ConvTransposeAttrs, String> {
    let conv = convolution(a, weight)?;
    Ok(ConvTransposeAttrs {
        strides: conv.strides,
        pads: conv.pads,
        dilations: conv.dilations,
        groups: conv.groups,
        auto_pad: conv.auto_pad,
        output_padding: match a.sizes("output_padding", 0)? {
            None => [0, 0],
            some => pair("output_padding", some)?,
        },
        output_shape: match a.sizes("output_shape", 1)? {
            None => None,
            some => Some(pair("output_shape", some)?),
        },
    })
}

pub(super) fn convolution(
    a: &Attributes<'_>,
    weight: Option<&Tensor>,
) -> Result<ConvAttrs, String> {
    let kernel = a.sizes("kernel_shape", 1)?;
    let strides = a.sizes("strides", 1)?;
    let dilations = a.sizes("dilations", 1)?;
    let pads = a.sizes("pads", 0)?;
    let of_weight = weight.map(|w| w.shape().len().saturating_sub(2));
    let of_attributes = [kernel.as_ref(), strides.as_ref(), dilations.as_ref()];
    let mut spatial = of_attributes.iter().flatten().map(|v| v.len());
    two_dimensional("convolutions", of_weight.or_else(|| spatial.next()))?;
    if let (Some(kernel), Some(weight)) = (&kernel, weight)
        && weight.shape().get(2..) != Some(kernel)
    {
        return Err(format!(
            "attribute `kernel_shape` is {kernel:?}, but the weight's shape is {:?}",
            weight.shape()
        ));
    }
    Ok(ConvAttrs {
        strides: pair("strides", strides)?,
        pads: spatial_pads(pads)?,
        dilations: pair("dilations", dilations)?,
        groups: positive(a.int("group")?.unwrap_or(1), "group")?,
        auto_pad: auto_pad(a)?,
    })
}

pub(super) fn pool(a: &Attributes<'_>) -> Result<PoolAttrs, String> {
    let kernel = a
        .sizes("kernel_shape", 1)?
        .ok_or("attribute `kernel_shape` is missing")?;
    two_dimensional("pools", Some(kernel.len()))?;
    Ok(PoolAttrs {
        kernel: pair("kernel_shape", Some(kernel))?,
        strides: pair("strides", a.sizes("strides", 1)?)?,
        pads: spatial_pads(a.sizes("pads", 0)?)?,
        dilations: pair("dilations", a.sizes("dilations", 1)?)?,
        auto_pad: auto_pad(a)?,
        ceil_mode: a.flag("ceil_mode")?.unwrap_or(false),
        count_include_pad: a.flag("count_include_pad")?.unwrap_or(false),
    })
}

/// `spatial` is the number of spatial axes, where it is known.
fn two_dimensional(what: &str, spatial: Option<usize>) -> Result<(), String> {
    match spatial {
        None | Some(2) => Ok(()),
        Some(other) => Err(format!(
            "only two-dimensional {what} are supported, this one has {other} spatial axes"
        )),
    }
}

/// `[height, width]`, 1 where nothing is stated.
fn pair(name: &str, values: Option<Vec<usize>>) -> Result<[usize; 2], String> {
    match values.as_deref() {
        None => Ok([1, 1]),
        Some(&[height, width]) => Ok([height, width]),
        Some(other) => Err(format!(
            "attribute `{name}` has {} values, wanted 2",
            other.len()
        )),
    }
}

fn spatial_pads(values: Option<Vec<usize>>) -> Result<SpatialPads, String> {
    match values.as_deref() {
        None => Ok(SpatialPads::default()),
        Some(&[top, left, bottom, right]) => Ok(SpatialPads {
            top,
            left,
            bottom,
            right,
        }),
        Some(other) => Err(format!(
            "attribute `pads` has {} values, wanted 4",
            other.len()
        )),
    }
}

fn auto_pad(a: &Attributes<'_>) -> Result<AutoPad, String> {
    match a.text("auto_pad")? {
        None | Some("NOTSET" | "") => Ok(AutoPad::NotSet),
        Some("SAME_UPPER") => Ok(AutoPad::SameUpper),
        Some("SAME_LOWER") => Ok(AutoPad::SameLower),
        Some("VALID") => Ok(AutoPad::Valid),
        Some(other) => Err(format!(
            "attribute `auto_pad` is `{other}`, which is unknown"
        )),
    }
}

pub(super) fn positive(value: i64, name: &str) -> Result<usize, String> {
    let size = i32::try_from(value)
        .ok()
        .and_then(|v| usize::try_from(v).ok());
    size.filter(|&v| v > 0)
        .ok_or_else(|| format!("attribute `{name}` is {value}, wanted 1 or more"))
}
