//! The network as data: nodes, typed operators, initializers.
//!
//! Every stage takes a [`Graph`] and gives back a new one. A graph holds standard ONNX operators
//! only, so that every intermediate result can be exported and run elsewhere.

mod activation;
mod arity;
mod edit;
mod factor_matrices;
mod factored;
mod infer;
mod input_factor;
mod layer_shape;
mod op;
mod query;
mod resize;
#[cfg(test)]
pub(crate) mod samples;
mod transposed;
mod validate;
mod window;

pub use activation::{Activation, GeluForm};
pub use arity::Arity;
pub use factor_matrices::FactorMatrices;
pub use factored::{FactoredKind, FactoredLayer, factored_layers};
pub(crate) use factored::{OUTPUT_SCALE, Uses, is_of_layer, layer_of, optional};
pub use infer::{
    AxisSlice, InferError, Inferred, MAX_CONSTANT, Operands, broadcast, infer, infer_images,
};
pub(crate) use input_factor::{INPUT_FACTOR, InputFactor, input_factor};
pub use layer_shape::{LayerShape, Size};
pub use op::{
    Arithmetic, AutoPad, ConvAttrs, DepthOrder, Op, PadMode, PoolAttrs, Reduction, SliceBounds,
    SoftmaxAxis, SpatialPads, Variadic,
};
pub use query::ImageInput;
pub use resize::{AspectRatio, AxisResize, Coordinates, Interpolation, Nearest, ResizeAttrs, Taps};
pub use transposed::{ConvTransposeAttrs, Extent};
pub use validate::GraphError;
pub use window::WindowError;

use crate::tensor::{ElementType, Tensor};
use std::collections::BTreeMap;

/// One axis of a declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A fixed length.
    Fixed(usize),
    /// A named length, known when the graph runs.
    Named(String),
    /// A length of which the file says nothing.
    Unknown,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueDecl {
    /// The value's name.
    pub name: String,
    /// The element type.
    pub element_type: ElementType,
    /// The axes, or `None` where the file does not even state the rank.
    pub dims: Option<Vec<Dim>>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in the graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Names of the values it reads; the empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Names of the values it makes; the empty name is an optional output left out.
    pub outputs: Vec<String>,
}

/// A network: nodes in topological order, and the constants they read.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// The version of the default ONNX operator set in which the nodes are written.
    pub opset: i64,
    /// What the caller supplies (initializers are not among them).
    pub inputs: Vec<ValueDecl>,
    /// What the graph computes.
    pub outputs: Vec<ValueDecl>,
    /// Operations, each after those whose outputs it reads.
    pub nodes: Vec<Node>,
    /// Constants by value name: weights, biases, shapes.
    pub initializers: BTreeMap<String, Tensor>,
    /// Free text by key, stored in the file.
    pub metadata: BTreeMap<String, String>,
}
