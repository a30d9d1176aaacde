//! From protobuf to a graph.

use super::constant;
use super::error::{OnnxError, UnsupportedOperators};
use super::operator::{self, Context};
use super::origin::{File, Origin, Signature, Source};
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::table::{self, Entry, NEWEST_OPSET, OLDEST_OPSET};
use super::tensor::{self, Encoding, Store};
use super::{Model, names, narrow};
use crate::graph::{Dim, Graph, Node, Op, ValueDecl};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Reads a decoded model; `folder` is where its external data may be.
pub(super) fn model(mut proto: ModelProto, folder: Option<&Path>) -> Result<Model, OnnxError> {
    let mut graph_proto = proto
        .graph
        .take()
        .ok_or_else(|| OnnxError::Damaged("it holds no graph".into()))?;
    let opset = opset(&proto)?;
    refuse_features(&proto, &graph_proto)?;
    narrow::widen(&mut graph_proto);
    let names = names::unique(&graph_proto.node);
    let entries = entries(&graph_proto, &names, opset)?;
    let mut store = Store::new(folder);
    let (mut constants, encodings) = initializers(&mut graph_proto, &mut store)?;
    let (inputs, outputs) = declarations(&graph_proto, &constants)?;

    let read = read_names(&graph_proto);
    let mut walk = Walk {
        made: constants
            .keys()
            .cloned()
            .chain(inputs.iter().map(|i| i.name.clone()))
            .collect(),
        sources: Vec::with_capacity(graph_proto.node.len()),
        nodes: Vec::new(),
        fill_shapes: BTreeSet::new(),
    };
    for ((node, name), entry) in graph_proto.node.iter_mut().zip(names).zip(entries) {
        let context = Context {
            opset,
            constants: &constants,
            read: &read,
        };
        let fail = |problem| OnnxError::Node {
            node: name.clone(),
            op: node.op_type().to_owned(),
            problem,
        };
        operator::check_signature(node, entry, &context).map_err(fail)?;
        walk.check_inputs(node).map_err(fail)?;
        let output = node.output[0].clone();
        if entry.op == "Constant" {
            let op_type = node.op_type().to_owned();
            let (value, encoding) =
                constant::constant(node, entry, opset, &mut store).map_err(|problem| {
                    OnnxError::Node {
                        node: name.clone(),
                        op: op_type,
                        problem,
                    }
                })?;
            walk.make(node, &name)?;
            constants.insert(output.clone(), value);
            walk.sources.push(Source::Constant(output, encoding));
            continue;
        }
        let op = operator::operator(node, entry, &context).map_err(fail)?;
        if let Op::ConstantOfShape { value } = &op
            && let Some(shape) = constants.get(&node.input[0])
        {
            let filled = fill(value, shape, &mut store).map_err(fail)?;
            let value = value.clone();
            walk.make(node, &name)?;
            walk.fill_shapes.insert(node.input[0].clone());
            constants.insert(output.clone(), filled);
            walk.sources.push(Source::Fill(output, value));
            continue;
        }
        walk.make(node, &name)?;
        walk.sources.push(Source::Node);
        let outputs = match op.computes_all_outputs() {
            true => {
                let computed = node.output.iter().rposition(|name| !name.is_empty());
                node.output[..=computed.unwrap_or(0)].to_vec()
            }
            false => vec![output],
        };
        walk.nodes.push(Node {
            name,
            op,
            inputs: node.input.clone(),
            outputs,
        });
    }
    for output in &outputs {
        if !walk.made.contains(&output.name) {
            return Err(OnnxError::Graph(format!(
                "output `{}` is made by no node",
                output.name
            )));
        }
    }
    let hidden = hide(&walk, &outputs, &mut constants);
    let metadata = metadata(&proto);
    let graph = Graph {
        name: graph_proto.name().to_owned(),
        opset,
        inputs,
        outputs,
        nodes: walk.nodes,
        initializers: constants,
        metadata,
    };
    graph.validate()?;
    proto.graph = Some(graph_proto);
    let origin = Origin(Some(Arc::new(file(
        proto,
        &graph,
        walk.sources,
        encodings,
        hidden,
    ))));
    Ok(Model { graph, origin })
}

/// The state of the walk over the nodes.
struct Walk {
    /// Names of all values made so far.
    made: BTreeSet<String>,
    sources: Vec<Source>,
    nodes: Vec<Node>,
    /// Constants that `ConstantOfShape` nodes read.
    fill_shapes: BTreeSet<String>,
}

impl Walk {
    fn check_inputs(&self, node: &NodeProto) -> Result<(), String> {
        let mut inputs = node.input.iter().filter(|name| !name.is_empty());
        match inputs.find(|&name| !self.made.contains(name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "reads `{name}`, which is no input, no initializer and made by no earlier node"
            )),
        }
    }

    fn make(&mut self, node: &NodeProto, name: &str) -> Result<(), OnnxError> {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if !self.made.insert(output.clone()) {
                return Err(OnnxError::Node {
                    node: name.to_owned(),
                    op: node.op_type().to_owned(),
                    problem: format!("makes `{output}`, which exists already"),
                });
            }
        }
        Ok(())
    }
}

/// The version of the default operator set.
fn opset(proto: &ModelProto) -> Result<i64, OnnxError> {
    let mut found = None;
    for import in &proto.opset_import {
        if !matches!(import.domain(), "" | "ai.onnx") {
            continue;
        }
        if found.is_some_and(|version| version != import.version()) {
            return Err(OnnxError::Graph(
                "the model imports two versions of the default operator set".into(),
            ));
        }
        found = Some(import.version());
    }
    match found {
        None => Err(OnnxError::Damaged(
            "it names no version of the default operator set".into(),
        )),
        Some(version) if (OLDEST_OPSET..=NEWEST_OPSET).contains(&version) => Ok(version),
        Some(version) => Err(OnnxError::Opset(version)),
    }
}

fn refuse_features(proto: &ModelProto, graph: &GraphProto) -> Result<(), OnnxError> {
    let refuse = |what: String, remedy| Err(OnnxError::Feature { what, remedy });
    if let Some(function) = proto.functions.first() {
        return refuse(
            format!("function `{}` of the model is", function.name()),
            "write the model without functions, for example with `onnx.inliner.inline_local_functions`",
        );
    }
    if !proto.training_info.is_empty() {
        return refuse(
            "training information is".into(),
            "export the model for inference",
        );
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |values| values.name());
        return refuse(
            format!("sparse initializer `{name}` is"),
            "store the weights densely",
        );
    }
    if let Some(annotation) = graph.quantization_annotation.first() {
        return refuse(
            format!("the quantisation of `{}` is", annotation.tensor_name()),
            "give the 32-bit float model that it was made from",
        );
    }
    Ok(())
}

/// The rules of every node's operator, or all nodes without any.
fn entries(
    graph: &GraphProto,
    names: &[String],
    opset: i64,
) -> Result<Vec<&'static Entry>, OnnxError> {
    let mut entries = Vec::with_capacity(graph.node.len());
    let mut unsupported = Vec::new();
    for (node, name) in graph.node.iter().zip(names) {
        match operator::entry_of(node, opset) {
            Some(entry) => entries.push(entry),
            None => unsupported.push((name.clone(), operator_name(node, opset))),
        }
    }
    if unsupported.is_empty() {
        Ok(entries)
    } else {
        Err(UnsupportedOperators { nodes: unsupported }.into())
    }
}

/// The operator as a message names it.
fn operator_name(node: &NodeProto, opset: i64) -> String {
    let op = node.op_type();
    match node.domain() {
        "" | "ai.onnx" if table::entry(op).is_some() => format!("{op} in operator set {opset}"),
        "" | "ai.onnx" => op.to_owned(),
        domain => format!("{domain}.{op}"),
    }
}

type Initializers = (BTreeMap<String, Tensor>, Vec<Encoding>);

fn initializers(graph: &mut GraphProto, store: &mut Store<'_>) -> Result<Initializers, OnnxError> {
    let mut all = BTreeMap::new();
    let mut encodings = Vec::with_capacity(graph.initializer.len());
    for proto in &mut graph.initializer {
        let name = proto.name().to_owned();
        if name.is_empty() {
            return Err(OnnxError::Graph("an initializer has no name".into()));
        }
        let (tensor, encoding) = store.take(proto).map_err(|problem| OnnxError::Tensor {
            name: name.clone(),
            problem,
        })?;
        encodings.push(encoding);
        if all.insert(name.clone(), tensor).is_some() {
            return Err(OnnxError::Graph(format!(
                "two initializers are named `{name}`"
            )));
        }
    }
    Ok((all, encodings))
}

/// Inputs (those that are not initializers) and outputs.
fn declarations(
    graph: &GraphProto,
    constants: &BTreeMap<String, Tensor>,
) -> Result<(Vec<ValueDecl>, Vec<ValueDecl>), OnnxError> {
    let mut seen = BTreeSet::new();
    let mut inputs = Vec::new();
    for proto in &graph.input {
        if !seen.insert(proto.name()) {
            return Err(OnnxError::Graph(format!(
                "two inputs are named `{}`",
                proto.name()
            )));
        }
        if !constants.contains_key(proto.name()) {
            inputs.push(declaration(proto, "input")?);
        }
    }
    let outputs: Vec<_> = graph
        .output
        .iter()
        .map(|o| declaration(o, "output"))
        .collect::<Result<_, _>>()?;
    if outputs.is_empty() {
        return Err(OnnxError::Graph("the graph has no output".into()));
    }
    Ok((inputs, outputs))
}

/// A length that is absent, negative or 0 is unknown: exporters write each of these for "any".
fn declaration(proto: &ValueInfoProto, role: &str) -> Result<ValueDecl, OnnxError> {
    let name = proto.name();
    let fail = |problem: &str| Err(OnnxError::Graph(format!("{role} `{name}`: {problem}")));
    if name.is_empty() {
        return fail("has no name");
    }
    let Some(TypeValue::TensorType(tensor)) = proto.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return fail("is not a tensor");
    };
    let element_type = match tensor::element_type(tensor.elem_type()) {
        Ok(element_type) => element_type,
        Err(problem) => return fail(&problem),
    };
    let dims = tensor.shape.as_ref().map(|shape| {
        let dim = |value: Option<&DimValue>| match value {
            Some(&DimValue::DimValue(length)) => match usize::try_from(length) {
                Ok(length) if length > 0 => Dim::Fixed(length),
                _ => Dim::Unknown,
            },
            Some(DimValue::DimParam(name)) if !name.is_empty() => Dim::Named(name.clone()),
            _ => Dim::Unknown,
        };
        shape.dim.iter().map(|d| dim(d.value.as_ref())).collect()
    });
    Ok(ValueDecl {
        name: name.to_owned(),
        element_type,
        dims,
    })
}

/// Names that some node reads, or the graph returns.
fn read_names(graph: &GraphProto) -> BTreeSet<String> {
    let read = graph
        .node
        .iter()
        .flat_map(|node| node.input.iter().cloned());
    read.chain(graph.output.iter().map(|o| o.name().to_owned()))
        .collect()
}

/// The tensor that `ConstantOfShape` makes of a constant shape.
fn fill(value: &Tensor, shape: &Tensor, store: &mut Store<'_>) -> Result<Tensor, String> {
    let Tensor::I64(dims) = shape else {
        return Err("its shape is not of type INT64".into());
    };
    let axis =
        |&dim: &i64| usize::try_from(dim).map_err(|_| format!("its shape {dims:?} is not a shape"));
    let shape: Vec<usize> = dims.iter().map(axis).collect::<Result<_, _>>()?;
    let bytes = tensor::count(&shape)?.saturating_mul(tensor::size_of(value.element_type()));
    store.claim_filled(u64::try_from(bytes).unwrap_or(u64::MAX))?;
    tensor::filled(value, &shape)
}

/// Takes out of `constants` what only replaced `ConstantOfShape` nodes read.
fn hide(
    walk: &Walk,
    outputs: &[ValueDecl],
    constants: &mut BTreeMap<String, Tensor>,
) -> BTreeMap<String, Tensor> {
    let mut hidden = BTreeMap::new();
    if walk.fill_shapes.is_empty() {
        return hidden;
    }
    let read: BTreeSet<&String> = walk.nodes.iter().flat_map(|node| &node.inputs).collect();
    for name in &walk.fill_shapes {
        let elsewhere = read.contains(name) || outputs.iter().any(|o| o.name == *name);
        if !elsewhere && let Some(shape) = constants.remove(name) {
            hidden.insert(name.clone(), shape);
        }
    }
    hidden
}

/// Free text by key; where a key stands twice, the first counts.
fn metadata(proto: &ModelProto) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in &proto.metadata_props {
        all.entry(entry.key().to_owned())
            .or_insert_with(|| entry.value().to_owned());
    }
    all
}

fn file(
    model: ModelProto,
    graph: &Graph,
    sources: Vec<Source>,
    encodings: Vec<Encoding>,
    hidden: BTreeMap<String, Tensor>,
) -> File {
    let positions = sources
        .iter()
        .enumerate()
        .filter_map(|(i, source)| match source {
            Source::Node => Some(i),
            Source::Constant(..) | Source::Fill(..) => None,
        });
    let nodes = graph.nodes.iter().zip(positions);
    File {
        model,
        nodes: nodes
            .map(|(node, i)| (node.name.clone(), (i, node.clone())))
            .collect(),
        sources,
        encodings,
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        metadata: graph.metadata.clone(),
        constants: graph
            .initializers
            .iter()
            .map(|(name, t)| (name.clone(), Signature::of(t)))
            .collect(),
        hidden,
        opset: graph.opset,
    }
}
