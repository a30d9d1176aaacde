//! Builds small messages for tests.

use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use crate::onnx::proto::type_proto::{Tensor as TensorType, Value as TypeValue};
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
};
use prost::Message;

const FLOAT: i32 = 1;

/// A model of one input `x` `[1, 3, 8, 8]` and one output `y`.
pub fn model(opset: i64, nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(opset),
        }],
        graph: Some(GraphProto {
            name: Some("g".into()),
            node: nodes,
            initializer: initializers,
            input: vec![value("x", &[1, 3, 8, 8])],
            output: vec![value("y", &[])],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

pub fn bytes(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// `shape` empty: none stated.
pub fn value(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |&v: &i64| Dimension {
        value: Some(DimValue::DimValue(v)),
        denotation: None,
    };
    let shape = (!shape.is_empty()).then(|| TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
    });
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(TypeValue::TensorType(TensorType {
                elem_type: Some(FLOAT),
                shape,
            })),
        }),
        ..ValueInfoProto::default()
    }
}

pub fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
    NodeProto {
        name: Some(name.into()),
        op_type: Some(op.into()),
        input: owned(inputs),
        output: owned(outputs),
        ..NodeProto::default()
    }
}

pub fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}
