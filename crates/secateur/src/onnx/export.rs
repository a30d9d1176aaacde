//! From a graph to protobuf.
//!
//! A node that is as it was imported is written as it stood in the file; so are declarations,
//! initializers' names, order and form. The rest is written anew.

mod declared;
mod nodes;

use self::declared::{declared, of_tensor};
use super::Model;
use super::error::OnnxError;
use super::origin::{File, Signature, Source};
use super::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use super::tensor;
use crate::graph::{Graph, ValueDecl};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The message that `model` is written as.
pub(super) fn model(model: &Model) -> Result<ModelProto, OnnxError> {
    model.graph.validate()?;
    let fresh = File::fresh(&model.graph);
    let file = model.origin.0.as_deref().unwrap_or(&fresh);
    let export = Export::new(&model.graph, file);
    let (nodes, verbatim) = export.nodes()?;
    let mut proto = export.frame();
    let mut graph = export.graph_frame();
    graph.initializer = export.initializers();
    graph.input = export.inputs(&graph.initializer);
    graph.output = model
        .graph
        .outputs
        .iter()
        .map(|o| export.declaration(o, Role::Output))
        .collect();
    graph.value_info = export.value_info(&nodes, &verbatim);
    graph.node = nodes;
    proto.graph = Some(graph);
    Ok(proto)
}

/// Initializers are optional among the inputs from this format version on.
const IR_WITH_HIDDEN_INITIALIZERS: i64 = 4;

#[derive(Clone, Copy)]
enum Role {
    Input,
    Output,
}

struct Export<'a> {
    graph: &'a Graph,
    file: &'a File,
    /// The file's graph.
    old: &'a GraphProto,
    /// For each of the file's nodes that make constants, whether it is written again.
    kept: Vec<bool>,
    /// Positions of the kept ones by what they make.
    makers: BTreeMap<&'a str, usize>,
    /// Hidden shapes that kept nodes read.
    needed: BTreeSet<&'a str>,
}

impl File {
    /// Stands in for the file of a graph that never was one.
    fn fresh(graph: &Graph) -> Self {
        let import = OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(graph.opset),
        };
        let name = if graph.name.is_empty() {
            "secateur"
        } else {
            &graph.name
        };
        let model = ModelProto {
            ir_version: Some(ir_version(graph.opset)),
            opset_import: vec![import],
            producer_name: Some("secateur".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(GraphProto {
                name: Some(name.to_owned()),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        Self {
            model,
            sources: Vec::new(),
            encodings: Vec::new(),
            nodes: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            metadata: BTreeMap::new(),
            constants: BTreeMap::new(),
            hidden: BTreeMap::new(),
            opset: graph.opset,
        }
    }
}

/// The format version that came with each operator set (ONNX's Versioning.md), but at least the one
/// that lets initializers be no inputs.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24..=25 => 12,
        26..=27 => 13,
        28.. => 14,
    }
}

impl<'a> Export<'a> {
    fn new(graph: &'a Graph, file: &'a File) -> Self {
        static EMPTY: std::sync::LazyLock<GraphProto> =
            std::sync::LazyLock::new(GraphProto::default);
        let old = file.model.graph.as_ref().unwrap_or(&EMPTY);
        let made: BTreeSet<&str> = graph
            .nodes
            .iter()
            .flat_map(|n| &n.outputs)
            .map(String::as_str)
            .collect();
        let mut export = Self {
            graph,
            file,
            old,
            kept: vec![false; file.sources.len()],
            makers: BTreeMap::new(),
            needed: BTreeSet::new(),
        };
        // Backwards, so that the readers of hidden shapes are known before their makers are met.
        for (i, source) in file.sources.iter().enumerate().rev() {
            let (name, keep) = match source {
                Source::Node => continue,
                Source::Constant(name, _) => (name, export.available(name)),
                Source::Fill(name, value) => {
                    let filled = |t| is_same_fill(t, value, file.constants.get(name));
                    let shape = &old.node[i].input[0];
                    // An edited graph may have given the hidden shape's name to something else.
                    let free = !file.hidden.contains_key(shape)
                        || !(graph.initializers.contains_key(shape)
                            || made.contains(shape.as_str()));
                    let shape_known =
                        file.hidden.contains_key(shape) || export.is_as_imported(shape);
                    let keep = match graph.initializers.get(name) {
                        Some(t) => filled(t),
                        None => export.needed.contains(name.as_str()),
                    };
                    (name, keep && free && shape_known)
                }
            };
            if keep {
                export.kept[i] = true;
                export.makers.insert(name, i);
                if let Source::Fill(..) = source {
                    let shape = &old.node[i].input[0];
                    if file.hidden.contains_key(shape) {
                        export.needed.insert(shape);
                    }
                }
            }
        }
        export
    }

    /// Whether constant `name` exists in the graph, or is a hidden one that is needed.
    fn available(&self, name: &str) -> bool {
        self.graph.initializers.contains_key(name) || self.needed.contains(name)
    }

    /// Whether constant `name` has its imported type and shape (and content, for integers).
    fn is_as_imported(&self, name: &str) -> bool {
        match (
            self.graph.initializers.get(name),
            self.file.constants.get(name),
        ) {
            (Some(now), Some(then)) => Signature::of(now) == *then,
            _ => self.needed.contains(name),
        }
    }

    fn constant(&self, name: &str) -> Option<&'a Tensor> {
        let hidden = || {
            self.file
                .hidden
                .get(name)
                .filter(|_| self.needed.contains(name))
        };
        self.graph.initializers.get(name).or_else(hidden)
    }

    /// Everything of the model but its graph.
    fn frame(&self) -> ModelProto {
        let old = &self.file.model;
        let mut proto = ModelProto {
            ir_version: old.ir_version,
            opset_import: old.opset_import.clone(),
            producer_name: old.producer_name.clone(),
            producer_version: old.producer_version.clone(),
            domain: old.domain.clone(),
            model_version: old.model_version,
            doc_string: old.doc_string.clone(),
            configuration: old.configuration.clone(),
            ..ModelProto::default()
        };
        for import in &mut proto.opset_import {
            if matches!(import.domain(), "" | "ai.onnx") && import.version() != self.graph.opset {
                import.version = Some(self.graph.opset);
                proto.ir_version = proto.ir_version.max(Some(ir_version(self.graph.opset)));
            }
        }
        proto.metadata_props = self.metadata();
        proto
    }

    fn metadata(&self) -> Vec<StringStringEntryProto> {
        let now = &self.graph.metadata;
        let mut all = Vec::new();
        for entry in &self.file.model.metadata_props {
            let key = entry.key();
            let Some(value) = now.get(key) else {
                continue;
            };
            if self.file.metadata.get(key) == Some(value) {
                all.push(entry.clone());
            } else {
                all.push(StringStringEntryProto {
                    value: Some(value.clone()),
                    ..entry.clone()
                });
            }
        }
        let new = now
            .iter()
            .filter(|(key, _)| !self.file.metadata.contains_key(*key));
        all.extend(new.map(|(key, value)| StringStringEntryProto {
            key: Some(key.clone()),
            value: Some(value.clone()),
        }));
        all
    }

    /// Everything of the graph but its lists.
    fn graph_frame(&self) -> GraphProto {
        let name = match self.old.name() == self.graph.name || self.graph.name.is_empty() {
            true => self.old.name.clone(),
            false => Some(self.graph.name.clone()),
        };
        GraphProto {
            name,
            doc_string: self.old.doc_string.clone(),
            metadata_props: self.old.metadata_props.clone(),
            ..GraphProto::default()
        }
    }

    /// Initializers in the file's order, then new ones by name.
    fn initializers(&self) -> Vec<TensorProto> {
        let mut all = Vec::new();
        let mut written = BTreeSet::new();
        for (proto, &encoding) in self.old.initializer.iter().zip(&self.file.encodings) {
            if let Some(tensor) = self.constant(proto.name()) {
                let mut proto = proto.clone();
                tensor::put(&mut proto, tensor, encoding);
                written.insert(proto.name().to_owned());
                all.push(proto);
            }
        }
        for (name, tensor) in &self.graph.initializers {
            if !written.contains(name) && !self.makers.contains_key(name.as_str()) {
                all.push(tensor::fresh(Some(name), tensor));
            }
        }
        all
    }

    /// Inputs in the file's order, among them the initializers that it lists as inputs.
    fn inputs(&self, initializers: &[TensorProto]) -> Vec<ValueInfoProto> {
        let stored: BTreeSet<&str> = initializers.iter().map(TensorProto::name).collect();
        let names =
            |list: &[ValueDecl]| -> Vec<String> { list.iter().map(|d| d.name.clone()).collect() };
        let mut all = Vec::new();
        let same_names = names(&self.graph.inputs) == names(&self.file.inputs);
        if !same_names {
            all.extend(
                self.graph
                    .inputs
                    .iter()
                    .map(|i| self.declaration(i, Role::Input)),
            );
        }
        let mut listed = BTreeSet::new();
        for old in &self.old.input {
            let name = old.name();
            if let Some(decl) = self.graph.inputs.iter().find(|d| d.name == name) {
                if same_names {
                    all.push(self.declaration(decl, Role::Input));
                }
            } else if stored.contains(name)
                && let Some(tensor) = self.constant(name)
            {
                listed.insert(name);
                all.push(if self.is_as_imported(name) {
                    old.clone()
                } else {
                    of_tensor(name, tensor)
                });
            }
        }
        if self.file.model.ir_version() < IR_WITH_HIDDEN_INITIALIZERS {
            for proto in initializers
                .iter()
                .filter(|proto| !listed.contains(proto.name()))
            {
                if let Some(tensor) = self.constant(proto.name()) {
                    all.push(of_tensor(proto.name(), tensor));
                }
            }
        }
        all
    }

    /// As it stood in the file, where it is unchanged.
    fn declaration(&self, decl: &ValueDecl, role: Role) -> ValueInfoProto {
        let (old, imported) = match role {
            Role::Input => (&self.old.input, &self.file.inputs),
            Role::Output => (&self.old.output, &self.file.outputs),
        };
        let old = old.iter().find(|o| o.name() == decl.name);
        match old.filter(|_| imported.contains(decl)) {
            Some(old) => old.clone(),
            None => declared(decl),
        }
    }

    /// The file's shapes of those values that no change can have reached.
    fn value_info(&self, nodes: &[NodeProto], verbatim: &[bool]) -> Vec<ValueInfoProto> {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let inputs = self
            .graph
            .inputs
            .iter()
            .filter(|decl| self.file.inputs.contains(decl));
        known.extend(inputs.map(|decl| decl.name.as_str()));
        let constants = self.graph.initializers.keys().map(String::as_str);
        known.extend(
            constants
                .chain(self.needed.iter().copied())
                .filter(|name| self.is_as_imported(name)),
        );
        let mut all_known = nodes.len() == self.old.node.len();
        for (node, &verbatim) in nodes.iter().zip(verbatim) {
            let mut inputs = node.input.iter().filter(|name| !name.is_empty());
            if verbatim && inputs.all(|name| known.contains(name.as_str())) {
                known.extend(node.output.iter().map(String::as_str));
            } else {
                all_known = false;
            }
        }
        let info = self.old.value_info.iter();
        info.filter(|info| all_known || known.contains(info.name()))
            .cloned()
            .collect()
    }
}

/// Whether `tensor` is what the file's `ConstantOfShape` node makes.
fn is_same_fill(tensor: &Tensor, value: &Tensor, then: Option<&Signature>) -> bool {
    let same = |then: &Signature| {
        then.shape() == tensor.shape() && then.element_type() == tensor.element_type()
    };
    then.is_some_and(same) && tensor::is_filled(tensor, value)
}
