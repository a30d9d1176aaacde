//! 16-bit floats: read as 32-bit ones, in which everything is computed and written.
//!
//! Weights may be stored in them, and values cast to them on the way; images and outputs may not.

use super::proto::tensor_proto::DataType;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use half::{bf16, f16};
use std::collections::{BTreeMap, BTreeSet};

/// A 16-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Narrow {
    /// IEEE 754 binary16.
    Half,
    /// The upper half of a 32-bit float.
    Brain,
}

impl Narrow {
    /// The one of an ONNX type code.
    pub fn of(code: i32) -> Option<Self> {
        match DataType::try_from(code) {
            Ok(DataType::Float16) => Some(Self::Half),
            Ok(DataType::Bfloat16) => Some(Self::Brain),
            _ => None,
        }
    }

    fn wide(self, bits: u16) -> f32 {
        match self {
            Self::Half => f16::from_bits(bits).to_f32(),
            Self::Brain => bf16::from_bits(bits).to_f32(),
        }
    }

    /// The values of little-endian data; a last odd byte is left out.
    pub fn wide_raw(self, raw: &[u8]) -> Vec<f32> {
        let (pairs, _) = raw.as_chunks();
        let values = pairs.iter().map(|&pair| u16::from_le_bytes(pair));
        values.map(|bits| self.wide(bits)).collect()
    }

    /// The values of `int32_data`, which holds the bits of one in each number.
    ///
    /// # Errors
    /// A number that is not 16 bits.
    pub fn wide_typed(self, data: &[i32]) -> Result<Vec<f32>, String> {
        let value = |&number: &i32| match u16::try_from(number) {
            Ok(bits) => Ok(self.wide(bits)),
            Err(_) => Err(format!("holds {number} where 16 bits are wanted")),
        };
        data.iter().map(value).collect()
    }
}

/// Makes the casts to 16-bit floats, and the intermediate values that are declared as such, 32-bit ones. A
/// weight that is stored narrow and only read through one cast to floats is that cast's value.
pub(super) fn widen(graph: &mut GraphProto) {
    let casts = graph.node.iter_mut().filter(|node| is_cast(node));
    for attribute in casts.flat_map(|node| &mut node.attribute) {
        let code = attribute.i.and_then(|to| i32::try_from(to).ok());
        if attribute.name() == "to" && code.and_then(Narrow::of).is_some() {
            attribute.i = Some(DataType::Float as i64);
        }
    }
    graph.value_info.iter_mut().for_each(declare_wide);
    store_wide(graph);
}

fn is_cast(node: &NodeProto) -> bool {
    node.op_type() == "Cast" && matches!(node.domain(), "" | "ai.onnx")
}

/// Gives narrow weights the names of their casts, which go.
fn store_wide(graph: &mut GraphProto) {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    let read = graph.node.iter().flat_map(|node| &node.input);
    let declared = graph.input.iter().chain(&graph.output);
    for name in read
        .map(String::as_str)
        .chain(declared.map(|value| value.name()))
    {
        *readers.entry(name).or_default() += 1;
    }
    let is_narrow = |tensor: &&TensorProto| Narrow::of(tensor.data_type()).is_some();
    let narrow = graph
        .initializer
        .iter()
        .filter(is_narrow)
        .map(|tensor| tensor.name());
    let alone: BTreeSet<&str> = narrow
        .filter(|name| readers.get(name) == Some(&1))
        .collect();
    let to_floats = |node: &NodeProto| {
        let mut to = node
            .attribute
            .iter()
            .filter(|attribute| attribute.name() == "to");
        to.any(|attribute| attribute.i == Some(DataType::Float as i64))
    };
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for node in &graph.node {
        if let ([input], [output]) = (&node.input[..], &node.output[..])
            && is_cast(node)
            && to_floats(node)
            && alone.contains(input.as_str())
        {
            names.insert(input.clone(), output.clone());
        }
    }
    graph.node.retain(|node| {
        !(is_cast(node) && node.input.iter().any(|input| names.contains_key(input)))
    });
    for tensor in &mut graph.initializer {
        if let Some(name) = names.remove(tensor.name()) {
            tensor.name = Some(name);
        }
    }
}

fn declare_wide(value: &mut ValueInfoProto) {
    if let Some(TypeValue::TensorType(tensor)) =
        value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
        && Narrow::of(tensor.elem_type()).is_some()
    {
        tensor.elem_type = Some(DataType::Float as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from the definitions of the formats: the largest, the least above 0, and a third.
    #[test]
    fn bits_are_the_values_that_the_formats_define() {
        let half = Narrow::Half.wide_typed(&[0x7bff, 0x0001, 0x3555]).unwrap();
        assert_eq!(half, [65_504.0, 2.0_f32.powi(-24), 0.333_251_95]);
        let brain = Narrow::Brain.wide_typed(&[0x7f7f, 0x0001, 0x3eab]).unwrap();
        assert_eq!(brain, [3.389_531_4e38, 2.0_f32.powi(-133), 0.333_984_38]);
        assert_eq!(Narrow::Half.wide_raw(&[0xff, 0x7b, 0]), [65_504.0]);
        assert!(Narrow::Half.wide_typed(&[-1]).is_err());
    }
}
