//! The tensors of nodes that hold or fill one.

use super::attributes::Attributes;
use super::proto::NodeProto;
use super::table::Entry;
use super::tensor::{Encoding, Store};
use crate::tensor::{Floats, Tensor};
use ndarray::{ArcArray, IxDyn};

/// The tensor that a `Constant` node makes.
pub(super) fn constant(
    node: &mut NodeProto,
    entry: &Entry,
    opset: i64,
    store: &mut Store<'_>,
) -> Result<(Tensor, Encoding), String> {
    for attribute in &node.attribute {
        match attribute.name() {
            "sparse_value" => {
                return Err(
                    "holds a sparse tensor, which is not supported; store it densely".into(),
                );
            }
            "value_string" | "value_strings" => {
                return Err("holds text, which is not supported".into());
            }
            _ => {}
        }
    }
    let attributes = Attributes::of(node, entry, opset)?;
    let forms = node.attribute.len();
    if forms != 1 {
        return Err(format!("holds {forms} values, wanted one"));
    }
    fn array<T: Clone>(shape: &[usize], values: &[T]) -> Result<ArcArray<T, IxDyn>, String> {
        ArcArray::from_shape_vec(IxDyn(shape), values.to_vec()).map_err(|error| error.to_string())
    }
    if let Some(value) = attributes.float("value_float")? {
        return Ok((Tensor::F32(array(&[], &[value])?), Encoding::Typed));
    }
    if let Some(values) = attributes.floats("value_floats")? {
        return Ok((
            Tensor::F32(array(&[values.len()], values)?),
            Encoding::Typed,
        ));
    }
    if let Some(value) = attributes.int("value_int")? {
        return Ok((Tensor::I64(array(&[], &[value])?), Encoding::Typed));
    }
    if let Some(values) = attributes.ints("value_ints")? {
        return Ok((
            Tensor::I64(array(&[values.len()], values)?),
            Encoding::Typed,
        ));
    }
    attributes.tensor("value")?;
    let value = node.attribute.first_mut().and_then(|a| a.t.as_mut());
    let value = value.ok_or("holds no value")?;
    store.take(value)
}

/// The element that a `ConstantOfShape` node fills with.
pub(super) fn fill_value(a: &Attributes<'_>) -> Result<Tensor, String> {
    let value = match a.tensor("value")? {
        // The schema's default: one f32 zero.
        None => Tensor::F32(Floats::zeros(IxDyn(&[1]))),
        Some(value) => Store::new(None).take(&mut value.clone())?.0,
    };
    match value.len() {
        1 => Ok(value),
        other => Err(format!(
            "attribute `value` has {other} elements, wanted one"
        )),
    }
}
