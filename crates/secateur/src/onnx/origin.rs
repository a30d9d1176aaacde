//! What a file says beyond its graph, so that an untouched part can be written back as it was.

use super::proto::ModelProto;
use super::tensor::Encoding;
use crate::graph::{Node, ValueDecl};
use crate::tensor::{ElementType, Ints, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything of an imported file that a [`crate::graph::Graph`] does not hold: format version,
/// producer, doc strings, other operator sets, intermediate shapes, each node as it stood, names and
/// order of initializers. Cloning is cheap. It holds no weights.
#[derive(Clone, Debug, Default)]
pub struct Origin(pub(super) Option<Arc<File>>);

/// The imported file without its weights.
#[derive(Debug)]
pub(super) struct File {
    /// The file's message; the data of all tensors has been taken out.
    pub model: ModelProto,
    /// What each of its nodes became.
    pub sources: Vec<Source>,
    /// How the data of each of its initializers was stored.
    pub encodings: Vec<Encoding>,
    /// The graph's nodes as imported, by name, with their positions in the file.
    pub nodes: BTreeMap<String, (usize, Node)>,
    /// The graph's inputs as imported.
    pub inputs: Vec<ValueDecl>,
    /// The graph's outputs as imported.
    pub outputs: Vec<ValueDecl>,
    /// The graph's metadata as imported.
    pub metadata: BTreeMap<String, String>,
    /// What shapes depend on, of each constant of the imported graph.
    pub constants: BTreeMap<String, Signature>,
    /// Shapes that nothing but `ConstantOfShape` nodes read; they are not in the graph.
    pub hidden: BTreeMap<String, Tensor>,
    /// Version of the default operator set.
    pub opset: i64,
}

/// What a node of the file became in the graph.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A node.
    Node,
    /// The initializer of this name (or a hidden one).
    Constant(String, Encoding),
    /// The initializer of this name, filled with one element.
    Fill(String, Tensor),
}

/// What the shapes of other values can depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signature {
    element_type: ElementType,
    shape: Vec<usize>,
    /// Integers may be a shape themselves.
    ints: Option<Ints>,
}

impl Signature {
    pub fn of(tensor: &Tensor) -> Self {
        Self {
            element_type: tensor.element_type(),
            shape: tensor.shape().to_vec(),
            ints: tensor.as_ints().cloned(),
        }
    }

    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}
