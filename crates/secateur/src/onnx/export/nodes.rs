//! The nodes of the file: those of the graph, and those that make its constants, where they stood.

use super::Export;
use crate::graph::{Node, Op};
use crate::onnx::attributes::make;
use crate::onnx::error::OnnxError;
use crate::onnx::node;
use crate::onnx::origin::Source;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::{self, Encoding};
use crate::tensor::Tensor;
use std::collections::BTreeSet;

impl Export<'_> {
    /// All nodes in order, and for each whether it stands as it stood in the file.
    pub(super) fn nodes(&self) -> Result<(Vec<NodeProto>, Vec<bool>), OnnxError> {
        let mut writer = NodeWriter {
            export: self,
            written: vec![false; self.file.sources.len()],
            next: 0,
            nodes: Vec::new(),
            verbatim: Vec::new(),
        };
        for node in &self.graph.nodes {
            let before = self.file.nodes.get(&node.name);
            if let Some(&(position, _)) = before {
                writer.constants_before(position);
            }
            for input in &node.inputs {
                writer.constant(input);
            }
            match before {
                Some((position, imported)) if self.is_untouched(node, imported, *position) => {
                    writer.push(self.old.node[*position].clone(), true);
                }
                _ => {
                    let mut proto = node::proto(node, self.graph)?;
                    if let Some(&(position, ref imported)) = before
                        && imported.op.name() == node.op.name()
                    {
                        let old = &self.old.node[position];
                        proto.doc_string.clone_from(&old.doc_string);
                        proto.metadata_props.clone_from(&old.metadata_props);
                    }
                    writer.push(proto, false);
                }
            }
        }
        writer.constants_before(self.file.sources.len());
        let (mut nodes, verbatim) = (writer.nodes, writer.verbatim);
        self.free_names(&mut nodes);
        Ok((nodes, verbatim))
    }

    /// Whether `node` can be written as it stood in the file.
    fn is_untouched(&self, node: &Node, imported: &Node, position: usize) -> bool {
        if node != imported || self.graph.opset != self.file.opset {
            return false;
        }
        // The file may state the kernel's shape, which the graph keeps in the weight alone.
        let stated = self.old.node[position]
            .attribute
            .iter()
            .find(|a| a.name() == "kernel_shape");
        match (&node.op, stated, node::kernel_shape(node, self.graph)) {
            (Op::Conv(_) | Op::ConvTranspose(_), Some(stated), Some(kernel)) => {
                let stated = stated.ints.iter().map(|&v| usize::try_from(v).ok());
                stated.eq(kernel.iter().map(|&v| Some(v)))
            }
            _ => true,
        }
    }

    /// A new node may have taken the name of one that makes a constant; names must differ.
    fn free_names(&self, nodes: &mut [NodeProto]) {
        let taken: BTreeSet<&str> = self.graph.nodes.iter().map(|n| n.name.as_str()).collect();
        for node in nodes {
            let output = node.output.first().map_or("", String::as_str);
            let makes_constant = node.input.len() < 2 && self.makers.contains_key(output);
            if makes_constant && !node.name().is_empty() && taken.contains(node.name()) {
                node.name = None;
            }
        }
    }
}

struct NodeWriter<'e, 'a> {
    export: &'e Export<'a>,
    /// For each of the file's nodes, whether it has been written.
    written: Vec<bool>,
    /// The first of the file's nodes that has not been passed.
    next: usize,
    nodes: Vec<NodeProto>,
    verbatim: Vec<bool>,
}

impl NodeWriter<'_, '_> {
    fn push(&mut self, proto: NodeProto, verbatim: bool) {
        self.nodes.push(proto);
        self.verbatim.push(verbatim);
    }

    /// Writes the constants that stood before `position` in the file.
    fn constants_before(&mut self, position: usize) {
        while self.next < position {
            self.write(self.next);
            self.next += 1;
        }
    }

    /// Writes what makes constant `name`, if that is a node.
    fn constant(&mut self, name: &str) {
        if let Some(&position) = self.export.makers.get(name) {
            self.write(position);
        }
    }

    fn write(&mut self, position: usize) {
        let export = self.export;
        if !export.kept[position] || std::mem::replace(&mut self.written[position], true) {
            return;
        }
        let mut proto = export.old.node[position].clone();
        match &export.file.sources[position] {
            Source::Node => return,
            Source::Constant(name, encoding) => {
                if let Some(tensor) = export.constant(name) {
                    put_value(&mut proto, tensor, *encoding);
                }
            }
            Source::Fill(..) => {
                // Shapes are made before what they shape; the chain was in order in the file.
                let shape = proto.input[0].clone();
                self.constant(&shape);
            }
        }
        let unchanged = proto.output.iter().all(|name| export.is_as_imported(name));
        self.push(proto, unchanged);
    }
}

/// Puts `tensor` into a `Constant` node, in the form it had where that can hold it.
fn put_value(proto: &mut NodeProto, tensor: &Tensor, encoding: Encoding) {
    let Some(attribute) = proto.attribute.first_mut() else {
        return;
    };
    let rank = tensor.shape().len();
    match (attribute.name(), tensor) {
        ("value_float", Tensor::F32(a)) if rank == 0 => attribute.f = a.first().copied(),
        ("value_floats", Tensor::F32(a)) if rank == 1 => {
            attribute.floats = a.iter().copied().collect()
        }
        ("value_int", Tensor::I64(a)) if rank == 0 => attribute.i = a.first().copied(),
        ("value_ints", Tensor::I64(a)) if rank == 1 => attribute.ints = a.iter().copied().collect(),
        ("value", _) if attribute.t.is_some() => {
            if let Some(value) = &mut attribute.t {
                tensor::put(value, tensor, encoding);
            }
        }
        _ => *attribute = make::tensor("value", tensor::fresh(None, tensor)),
    }
}
