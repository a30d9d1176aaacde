//! Declarations of values.

use crate::graph::{Dim, ValueDecl};
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use crate::onnx::proto::type_proto::{Tensor as TensorType, Value as TypeValue};
use crate::onnx::proto::{TensorShapeProto, TypeProto, ValueInfoProto};
use crate::onnx::tensor;
use crate::tensor::{ElementType, Tensor};

pub(super) fn declared(decl: &ValueDecl) -> ValueInfoProto {
    let dimension = |dim: &Dim| Dimension {
        value: match dim {
            // Lengths were at most 2^63 - 1 when read, or are lengths of arrays in memory.
            Dim::Fixed(length) => Some(DimValue::DimValue(
                i64::try_from(*length).unwrap_or(i64::MAX),
            )),
            Dim::Named(name) => Some(DimValue::DimParam(name.clone())),
            Dim::Unknown => None,
        },
        denotation: None,
    };
    let shape = decl.dims.as_ref().map(|dims| TensorShapeProto {
        dim: dims.iter().map(dimension).collect(),
    });
    value_info(&decl.name, decl.element_type, shape)
}

pub(super) fn of_tensor(name: &str, tensor: &Tensor) -> ValueInfoProto {
    let dims = tensor
        .shape()
        .iter()
        .map(|&axis| Dim::Fixed(axis))
        .collect();
    declared(&ValueDecl {
        name: name.to_owned(),
        element_type: tensor.element_type(),
        dims: Some(dims),
    })
}

fn value_info(
    name: &str,
    element_type: ElementType,
    shape: Option<TensorShapeProto>,
) -> ValueInfoProto {
    let tensor = TensorType {
        elem_type: Some(tensor::type_code(element_type)),
        shape,
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(TypeValue::TensorType(tensor)),
        }),
        ..ValueInfoProto::default()
    }
}
