//! 16-bit floats: read as 32-bit ones, in which everything is computed and written.
//!
//! Weights may be stored in them, and values cast to them on the way; images and outputs may not.

use super::proto::tensor_proto::DataType;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::tensor::{self, Store};
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
    for node in &mut graph.node {
        if node.op_type() == "ConstantOfShape" {
            let values = node.attribute.iter_mut().filter_map(|a| a.t.as_mut());
            values.for_each(fill_wide);
        }
    }
    graph.value_info.iter_mut().for_each(declare_wide);
    // Weights may be declared among the inputs; images of 16 bits stay what they are, and are refused.
    let narrow: BTreeSet<String> = narrow_weights(graph).map(str::to_owned).collect();
    let inputs = graph.input.iter_mut();
    let weights = inputs.filter(|input| narrow.contains(input.name()));
    weights.for_each(declare_wide);
    store_wide(graph);
}

fn narrow_weights(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let is_narrow = |tensor: &&TensorProto| Narrow::of(tensor.data_type()).is_some();
    let narrow = graph.initializer.iter().filter(is_narrow);
    narrow.map(|tensor| tensor.name())
}

/// Makes the value of an attribute a 32-bit one; what cannot be read stays, and is refused when it is.
fn fill_wide(value: &mut TensorProto) {
    let mut data = value.clone();
    if Narrow::of(value.data_type()).is_some()
        && let Ok((tensor, encoding)) = Store::new(None).take(&mut data)
    {
        tensor::put(&mut data, &tensor, encoding);
        *value = data;
    }
}

fn is_cast(node: &NodeProto) -> bool {
    node.op_type() == "Cast" && matches!(node.domain(), "" | "ai.onnx")
}

/// Gives narrow weights the names of their casts, which go.
fn store_wide(graph: &mut GraphProto) {
    if narrow_weights(graph).next().is_none() {
        return;
    }
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    let read = graph.node.iter().flat_map(|node| &node.input);
    let declared = graph.input.iter().chain(&graph.output);
    for name in read
        .map(String::as_str)
        .chain(declared.map(|value| value.name()))
    {
        *readers.entry(name).or_default() += 1;
    }
    // A name that stands for something else already is refused as it stands.
    let mut taken: BTreeSet<&str> = graph.input.iter().map(|input| input.name()).collect();
    let mut twice: BTreeSet<&str> = BTreeSet::from([""]);
    for tensor in &graph.initializer {
        if !taken.insert(tensor.name()) {
            twice.insert(tensor.name());
        }
    }
    taken.insert("");
    let is_alone = |name: &&str| readers.get(name) == Some(&1) && !twice.contains(name);
    let alone: BTreeSet<&str> = narrow_weights(graph).filter(is_alone).collect();
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
            && !taken.contains(output.as_str())
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
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::super::proto::{AttributeProto, TypeProto, type_proto};
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

    fn weight(name: &str) -> TensorProto {
        TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(DataType::Float16 as i32),
            dims: vec![1],
            raw_data: Some(vec![0, 0x3c].into()),
            ..TensorProto::default()
        }
    }

    fn attribute(name: &str) -> AttributeProto {
        AttributeProto {
            name: Some(name.to_owned()),
            ..AttributeProto::default()
        }
    }

    fn cast(from: &str, to: &str) -> NodeProto {
        NodeProto {
            op_type: Some("Cast".to_owned()),
            input: vec![from.to_owned()],
            output: vec![to.to_owned()],
            attribute: vec![AttributeProto {
                i: Some(DataType::Float as i64),
                ..attribute("to")
            }],
            ..NodeProto::default()
        }
    }

    fn declared(name: &str) -> ValueInfoProto {
        let tensor = type_proto::Tensor {
            elem_type: Some(DataType::Float16 as i32),
            shape: None,
        };
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(TypeProto {
                value: Some(TypeValue::TensorType(tensor)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        }
    }

    fn type_of(value: &ValueInfoProto) -> i32 {
        match &value.r#type.as_ref().unwrap().value {
            Some(TypeValue::TensorType(tensor)) => tensor.elem_type(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn weights_among_the_inputs_are_declared_wide_and_images_are_not() {
        let mut graph = GraphProto {
            initializer: vec![weight("w")],
            input: vec![declared("image"), declared("w")],
            value_info: vec![declared("inside")],
            ..GraphProto::default()
        };
        widen(&mut graph);
        let types: Vec<i32> = graph
            .input
            .iter()
            .chain(&graph.value_info)
            .map(type_of)
            .collect();
        assert_eq!(types, [10, 1, 1]);
    }

    #[test]
    fn what_fills_a_shape_is_wide() {
        let mut graph = GraphProto {
            node: vec![NodeProto {
                op_type: Some("ConstantOfShape".to_owned()),
                attribute: vec![AttributeProto {
                    t: Some(weight("")),
                    ..attribute("value")
                }],
                ..NodeProto::default()
            }],
            ..GraphProto::default()
        };
        widen(&mut graph);
        let value = graph.node[0].attribute[0].t.as_ref().unwrap();
        assert_eq!(value.data_type(), DataType::Float as i32);
        assert_eq!(value.raw_data(), 1.0_f32.to_le_bytes());
    }

    /// The casts and the names of weights that are left of some of both.
    fn left(weights: &[&str], inputs: &[&str], casts: &[(&str, &str)]) -> (usize, Vec<String>) {
        let mut graph = GraphProto {
            node: casts.iter().map(|(from, to)| cast(from, to)).collect(),
            initializer: weights.iter().map(|name| weight(name)).collect(),
            input: inputs.iter().map(|name| declared(name)).collect(),
            ..GraphProto::default()
        };
        widen(&mut graph);
        let names = graph
            .initializer
            .iter()
            .map(|tensor| tensor.name().to_owned());
        (graph.node.len(), names.collect())
    }

    #[test]
    fn a_cast_goes_only_where_its_name_is_free_and_its_weight_its_own() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(left(&["w"], &["x"], &[("w", "v")]), (0, named(&["v"])));
        let twice = [("w", "v"), ("w", "u")];
        assert_eq!(left(&["w"], &["x"], &twice), (2, named(&["w"])));
        assert_eq!(left(&["w"], &["x"], &[("w", "x")]), (1, named(&["w"])));
        assert_eq!(
            left(&["w", "v"], &["x"], &[("w", "v")]),
            (1, named(&["w", "v"]))
        );
        assert_eq!(
            left(&["w", "w"], &["x"], &[("w", "v")]),
            (1, named(&["w", "w"]))
        );
        assert_eq!(left(&["w"], &["x", "w"], &[("w", "v")]), (1, named(&["w"])));
    }
}
