//! Typed access to the attributes of a node.
//!
//! Problems are phrases such as "attribute `axis` is not an integer"; the caller names the node.

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto, TensorProto};
use super::table::Entry;
use std::collections::BTreeMap;

/// The attributes of one node, checked against the operator's definition.
pub(super) struct Attributes<'a>(BTreeMap<&'a str, &'a AttributeProto>);

impl<'a> Attributes<'a> {
    /// Every attribute must exist in operator set `opset`, and once.
    pub fn of(node: &'a NodeProto, entry: &Entry, opset: i64) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for attribute in &node.attribute {
            let name = attribute.name();
            if !entry.has_attribute(name, opset) {
                return Err(format!(
                    "attribute `{name}` is not known in operator set {opset}"
                ));
            }
            if !attribute.ref_attr_name().is_empty() {
                return Err(format!(
                    "attribute `{name}` refers to a function's attribute"
                ));
            }
            if all.insert(name, attribute).is_some() {
                return Err(format!("attribute `{name}` is given twice"));
            }
        }
        Ok(Self(all))
    }

    /// The attribute if it is present and of type `kind` (files of the oldest format state none).
    fn get(
        &self,
        name: &str,
        kind: AttributeType,
        what: &str,
    ) -> Result<Option<&'a AttributeProto>, String> {
        let Some(&attribute) = self.0.get(name) else {
            return Ok(None);
        };
        match attribute.r#type.unwrap_or(0) {
            stated if stated == kind as i32 || stated == AttributeType::Undefined as i32 => {
                Ok(Some(attribute))
            }
            _ => Err(format!("attribute `{name}` is not {what}")),
        }
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        let found = self.get(name, AttributeType::Int, "an integer")?;
        Ok(found.map(AttributeProto::i))
    }

    /// An integer that must be 0 or 1.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.int(name)? {
            None => Ok(None),
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            Some(other) => Err(format!("attribute `{name}` is {other}, neither 0 nor 1")),
        }
    }

    pub fn float(&self, name: &str) -> Result<Option<f32>, String> {
        let found = self.get(name, AttributeType::Float, "a float")?;
        Ok(found.map(AttributeProto::f))
    }

    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, String> {
        let found = self.get(name, AttributeType::Ints, "a list of integers")?;
        Ok(found.map(|a| a.ints.as_slice()))
    }

    pub fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, String> {
        let found = self.get(name, AttributeType::Floats, "a list of floats")?;
        Ok(found.map(|a| a.floats.as_slice()))
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        let found = self.get(name, AttributeType::String, "a string")?;
        let text = |a: &'a AttributeProto| {
            let bytes = a.s.as_deref().unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| format!("attribute `{name}` is not text"))
        };
        found.map(text).transpose()
    }

    pub fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, String> {
        let found = self.get(name, AttributeType::Tensor, "a tensor")?;
        let tensor = |a: &'a AttributeProto| {
            a.t.as_ref()
                .ok_or_else(|| format!("attribute `{name}` holds no tensor"))
        };
        found.map(tensor).transpose()
    }

    /// Sizes such as strides: each from `least` to 2^31 - 1.
    pub fn sizes(&self, name: &str, least: usize) -> Result<Option<Vec<usize>>, String> {
        let Some(values) = self.ints(name)? else {
            return Ok(None);
        };
        let size = |&value: &i64| {
            let size = i32::try_from(value)
                .ok()
                .and_then(|v| usize::try_from(v).ok());
            size.filter(|&s| s >= least)
                .ok_or_else(|| format!("attribute `{name}` holds {value}, wanted {least} or more"))
        };
        values.iter().map(size).collect::<Result<_, _>>().map(Some)
    }
}

/// Makes attributes for a node that is written.
pub(super) mod make {
    use super::{AttributeProto, AttributeType, TensorProto};
    use prost::bytes::Bytes;

    fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
        AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(kind as i32),
            ..AttributeProto::default()
        }
    }

    pub fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto {
            i: Some(value),
            ..attribute(name, AttributeType::Int)
        }
    }

    pub fn flag(name: &str, value: bool) -> AttributeProto {
        int(name, i64::from(value))
    }

    pub fn float(name: &str, value: f32) -> AttributeProto {
        AttributeProto {
            f: Some(value),
            ..attribute(name, AttributeType::Float)
        }
    }

    pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
        AttributeProto {
            ints: values.to_vec(),
            ..attribute(name, AttributeType::Ints)
        }
    }

    pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
        AttributeProto {
            floats: values.to_vec(),
            ..attribute(name, AttributeType::Floats)
        }
    }

    pub fn size(name: &str, value: usize) -> AttributeProto {
        int(name, number(value))
    }

    pub fn sizes(name: &str, values: &[usize]) -> AttributeProto {
        let values: Vec<i64> = values.iter().copied().map(number).collect();
        ints(name, &values)
    }

    /// Sizes were at most 2^31 - 1 when read, or are lengths of arrays in memory: they fit.
    fn number(size: usize) -> i64 {
        i64::try_from(size).unwrap_or(i64::MAX)
    }

    pub fn text(name: &str, value: &'static str) -> AttributeProto {
        AttributeProto {
            s: Some(Bytes::from_static(value.as_bytes())),
            ..attribute(name, AttributeType::String)
        }
    }

    pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
        AttributeProto {
            t: Some(value),
            ..attribute(name, AttributeType::Tensor)
        }
    }
}
