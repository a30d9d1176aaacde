//! Shapes of every value for concrete input shapes, and the values of the small integer
//! computations (`Shape`, `Gather`, `Concat`, ...) that exporters leave in a graph.
//!
//! The rules are those of the ONNX operator specification. A file is not trusted: sizes are checked
//! before they are multiplied, and no more than [`MAX_CONSTANT`] elements are computed for a node.

mod constants;
mod layer_shapes;
mod operands;
mod shape_rules;
mod shared;
mod sizes;

pub use operands::{AxisSlice, Operands};
pub use shared::broadcast;

use super::{Graph, GraphError, Node, Op};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The largest number of elements of a value that inference computes; larger constants stay nodes.
pub const MAX_CONSTANT: usize = 65_536;

/// The largest number of elements of any value, 256 GiB of `f32`: larger ones are taken for a
/// damaged file.
const MAX_ELEMENTS: u64 = 1 << 36;

/// The largest number of axes of any value (NumPy's limit before version 2).
const MAX_RANK: usize = 32;

/// What is known of a graph once the shapes of its inputs are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inferred {
    /// The shape of every value: inputs, initializers and node outputs.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of node outputs that depend on no input's content, such as computed shapes. They do
    /// depend on the initializers: an engine that trains an initializer runs the nodes that read it.
    pub constants: BTreeMap<String, Tensor>,
}

impl Inferred {
    /// The shape of `value`.
    #[must_use]
    pub fn shape(&self, value: &str) -> Option<&[usize]> {
        self.shapes.get(value).map(Vec::as_slice)
    }
}

/// A graph whose shapes do not fit.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// A node's inputs do not fit its operator.
    #[error("node `{node}` ({op}): {problem}")]
    Node {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// What was found and what was wanted.
        problem: String,
    },
    /// An input of the graph has no shape among those given.
    #[error("no shape is given for input `{0}`")]
    MissingInput(String),
    /// A value has more elements or axes than any network needs.
    #[error("value `{value}` of shape {shape:?} is too large")]
    TooLarge {
        /// The value's name.
        value: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The graph's input is not one image batch.
    #[error(transparent)]
    Input(#[from] GraphError),
}

/// Infers the shape of every value from the shapes of the graph's inputs.
///
/// # Errors
/// [`InferError`] names the node whose inputs do not fit.
pub fn infer(graph: &Graph, inputs: &BTreeMap<String, Vec<usize>>) -> Result<Inferred, InferError> {
    let mut inferred = Inferred::default();
    for (name, tensor) in &graph.initializers {
        define(&mut inferred, name, tensor.shape().to_vec())?;
    }
    for input in &graph.inputs {
        if !graph.initializers.contains_key(&input.name) {
            let missing = || InferError::MissingInput(input.name.clone());
            define(
                &mut inferred,
                &input.name,
                inputs.get(&input.name).ok_or_else(missing)?.clone(),
            )?;
        }
    }
    for node in &graph.nodes {
        infer_node(graph, &mut inferred, node)?;
    }
    Ok(inferred)
}

/// Infers the shapes of a graph whose only input is a batch of images, for `batch` images of
/// `height` by `width`. Sizes that the file declares are not enforced: the nodes decide.
///
/// # Errors
/// [`InferError::Input`] where the input is not a batch of images, else as [`infer`].
pub fn infer_images(
    graph: &Graph,
    batch: usize,
    height: usize,
    width: usize,
) -> Result<Inferred, InferError> {
    let input = graph.image_input()?;
    let shape = vec![batch, input.channels, height, width];
    infer(graph, &BTreeMap::from([(input.name, shape)]))
}

fn infer_node(graph: &Graph, inferred: &mut Inferred, node: &Node) -> Result<(), InferError> {
    let outputs = node.outputs.iter().enumerate();
    for (index, name) in outputs.filter(|(_, name)| !name.is_empty()) {
        let operands = Operands::new(graph, inferred, node).at_output(index);
        let is_computed = index == 0 || node.op.computes_all_outputs();
        if !is_computed && !repeats_shape(&node.op) {
            return Err(operands.error(format!("output {index} `{name}` is not supported")));
        }
        let shape = shape_rules::output_shape(&operands)?;
        check_size(name, &shape)?;
        let constant = match is_computed {
            true => constants::evaluate(&operands, &shape)?,
            false => None,
        };
        define(inferred, name, shape)?;
        if let Some(value) = constant
            && constants::is_kept(&value, &inferred.constants)
        {
            inferred.constants.insert(name.clone(), value);
        }
    }
    Ok(())
}

/// Whether a second output, the mask or the indices, has the shape of the first.
fn repeats_shape(op: &Op) -> bool {
    matches!(op, Op::Dropout { .. } | Op::MaxPool(_))
}

fn define(inferred: &mut Inferred, name: &str, shape: Vec<usize>) -> Result<(), InferError> {
    check_size(name, &shape)?;
    inferred.shapes.insert(name.to_owned(), shape);
    Ok(())
}

/// Axes of length 0 count as 1, so that no single axis is out of range either.
fn check_size(name: &str, shape: &[usize]) -> Result<(), InferError> {
    let count = shape.iter().try_fold(1_u64, |product, &length| {
        product.checked_mul(length.max(1) as u64)
    });
    if shape.len() <= MAX_RANK && count.is_some_and(|count| count <= MAX_ELEMENTS) {
        return Ok(());
    }
    Err(InferError::TooLarge {
        value: name.to_owned(),
        shape: shape.iter().copied().take(MAX_RANK).collect(),
    })
}

#[cfg(test)]
mod tests;
