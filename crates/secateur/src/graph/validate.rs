//! Whether a graph is well formed: names, order, numbers of operands, ranks of weights.
//!
//! Whether the shapes fit each other is the business of [`infer`](super::infer).

use super::{Graph, Node, Op};
use crate::tensor::Tensor;
use std::collections::BTreeSet;

/// A graph that is not well formed, or a question that it does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two nodes have one name, or a node has none.
    #[error("the node name `{0}` is empty or used twice")]
    NodeName(String),
    /// Two inputs, initializers or node outputs have one name.
    #[error("the value `{0}` is defined twice")]
    ValueTwice(String),
    /// A node reads a value that nothing before it defines.
    #[error("node `{node}` ({op}) reads `{value}`, which nothing before it defines")]
    Undefined {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// The value it reads.
        value: String,
    },
    /// An output of the graph is not computed.
    #[error("nothing defines the graph's output `{0}`")]
    UndefinedOutput(String),
    /// A node has too few or too many inputs or outputs.
    #[error("node `{node}` ({op}) has {found} {what}, wanted {wanted}")]
    Arity {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        wanted: String,
    },
    /// A node's first output or a required input is left out.
    #[error("node `{node}` ({op}): {operand} is left out")]
    LeftOut {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// Such as `input 1`.
        operand: String,
    },
    /// A weight has the wrong rank or element type.
    #[error("node `{node}` ({op}): weight `{value}` has {found}, wanted {wanted}")]
    Weight {
        /// The node's name.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// The initializer.
        value: String,
        /// Its element type and shape.
        found: String,
        /// The element type and rank that the operator reads.
        wanted: String,
    },
    /// Nodes read each other's outputs in a circle.
    #[error("node `{0}` depends on its own output")]
    Cycle(String),
    /// There is no node of this name.
    #[error("the graph has no node `{0}`")]
    NoNode(String),
    /// The model does not take one batch of images.
    #[error(
        "the model's input is not an image: found {0}, wanted one f32 input [n, c, h, w] with 1 or 3 channels"
    )]
    NotAnImage(String),
    /// The axis of colours is the last one.
    #[error(
        "the model's input is an image with its colours on the last axis: found {found}, wanted one f32 input [n, c, h, w]; convert \
         it by `python -m tf2onnx.convert ... --inputs-as-nchw {input}`"
    )]
    ChannelsLast {
        /// The input and its shape.
        found: String,
        /// The input.
        input: String,
    },
    /// The file fixes a batch that is too large to be run.
    #[error(
        "the model's input is fixed to {batch} images at a time, more than {limit}: export it with a free batch"
    )]
    Batch {
        /// The images.
        batch: usize,
        /// The most that are taken.
        limit: usize,
    },
}

impl Graph {
    /// Checks that names are unique, values are defined before they are read, every operator has
    /// as many operands as it wants, and weights have the ranks it wants.
    ///
    /// # Errors
    /// [`GraphError`] names the first node or value that is at fault.
    pub fn validate(&self) -> Result<(), GraphError> {
        let mut defined = BTreeSet::new();
        for name in self
            .initializers
            .keys()
            .chain(self.inputs.iter().map(|input| &input.name))
        {
            define(&mut defined, name)?;
        }
        let mut node_names = BTreeSet::new();
        for node in &self.nodes {
            if node.name.is_empty() || !node_names.insert(node.name.as_str()) {
                return Err(GraphError::NodeName(node.name.clone()));
            }
            check_arity(node)?;
            check_weights(self, node)?;
            for value in node.inputs.iter().filter(|name| !name.is_empty()) {
                if !defined.contains(value.as_str()) {
                    let (node, op) = (node.name.clone(), node.op.name());
                    return Err(GraphError::Undefined {
                        node,
                        op,
                        value: value.clone(),
                    });
                }
            }
            for value in node.outputs.iter().filter(|name| !name.is_empty()) {
                define(&mut defined, value)?;
            }
        }
        match self
            .outputs
            .iter()
            .find(|output| !defined.contains(output.name.as_str()))
        {
            Some(output) => Err(GraphError::UndefinedOutput(output.name.clone())),
            None => Ok(()),
        }
    }
}

fn define<'a>(defined: &mut BTreeSet<&'a str>, name: &'a str) -> Result<(), GraphError> {
    if defined.insert(name) {
        Ok(())
    } else {
        Err(GraphError::ValueTwice(name.to_owned()))
    }
}

fn check_arity(node: &Node) -> Result<(), GraphError> {
    let arity = node.op.arity();
    let sides = [
        ("inputs", &node.inputs, &arity.inputs),
        ("outputs", &node.outputs, &arity.outputs),
    ];
    for (what, names, allowed) in sides {
        if !allowed.contains(&names.len()) {
            let wanted = match (*allowed.start(), *allowed.end()) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let (node, op) = (node.name.clone(), node.op.name());
            return Err(GraphError::Arity {
                node,
                op,
                what,
                found: names.len(),
                wanted,
            });
        }
        // Every input of a list operator, such as `Sum`, is required.
        let required = if *allowed.end() == usize::MAX {
            names.len()
        } else {
            *allowed.start()
        };
        if let Some(index) = names.iter().take(required).position(String::is_empty) {
            let operand = format!("{} {index}", what.trim_end_matches('s'));
            return Err(GraphError::LeftOut {
                node: node.name.clone(),
                op: node.op.name(),
                operand,
            });
        }
    }
    Ok(())
}

/// Weights that are initializers must be `f32` and of the operator's rank.
fn check_weights(graph: &Graph, node: &Node) -> Result<(), GraphError> {
    let ranks: &[(usize, Option<usize>)] = match &node.op {
        Op::Conv(_) | Op::ConvTranspose(_) => &[(1, Some(4)), (2, Some(1))],
        Op::LayerNormalization { .. } => &[(1, None), (2, None)],
        Op::InstanceNormalization { .. } | Op::GroupNormalization { .. } => {
            &[(1, Some(1)), (2, Some(1))]
        }
        Op::Gemm { .. } => &[(0, Some(2)), (1, Some(2)), (2, None)],
        Op::MatMul => &[(0, None), (1, None)],
        Op::BatchNormalization { .. } => &[(1, Some(1)), (2, Some(1)), (3, Some(1)), (4, Some(1))],
        Op::PRelu => &[(1, None)],
        Op::Activation(_)
        | Op::Clip { .. }
        | Op::Arithmetic(_)
        | Op::Variadic(_)
        | Op::Concat { .. }
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::GlobalAveragePool
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::GlobalMaxPool
        | Op::Resize(_)
        | Op::Upsample { .. }
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Split { .. }
        | Op::Expand
        | Op::Where
        | Op::Flatten { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Squeeze { .. }
        | Op::Unsqueeze { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::Dropout { .. }
        | Op::Identity
        | Op::Lrn { .. }
        | Op::Cast { .. }
        | Op::Shape { .. }
        | Op::Gather { .. }
        | Op::ConstantOfShape { .. } => &[],
    };
    for &(index, rank) in ranks {
        let Some((value, tensor)) = node
            .inputs
            .get(index)
            .and_then(|name| graph.initializers.get_key_value(name))
        else {
            continue;
        };
        let fits = matches!(tensor, Tensor::F32(_))
            && rank.is_none_or(|rank| tensor.shape().len() == rank);
        if !fits {
            return Err(GraphError::Weight {
                node: node.name.clone(),
                op: node.op.name(),
                value: value.clone(),
                found: format!(
                    "type {:?} and shape {:?}",
                    tensor.element_type(),
                    tensor.shape()
                ),
                wanted: rank.map_or("type F32".to_owned(), |rank| {
                    format!("type F32 and rank {rank}")
                }),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::{Builder, resnet20, vgg16_features};
    use super::*;
    use crate::graph::{Activation, ConvAttrs, Variadic};
    use ndarray::ArcArray;

    fn small() -> Graph {
        let mut b = Builder::new(3);
        b.conv("conv", "x", [8, 3, 3, 3], 1);
        b.relu("relu", "conv");
        b.output("relu")
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Graph), expected: &str) {
        let mut graph = small();
        assert_eq!(graph.validate(), Ok(()));
        change(&mut graph);
        assert_eq!(graph.validate().unwrap_err().to_string(), expected);
    }

    #[test]
    fn whole_networks_are_valid() {
        assert_eq!(vgg16_features().validate(), Ok(()));
        assert_eq!(resnet20().validate(), Ok(()));
    }

    #[test]
    fn names_must_be_unique() {
        refused(
            |g| g.nodes[1].name = "conv".into(),
            "the node name `conv` is empty or used twice",
        );
        refused(
            |g| g.nodes[1].name.clear(),
            "the node name `` is empty or used twice",
        );
        refused(
            |g| g.nodes[1].outputs[0] = "conv".into(),
            "the value `conv` is defined twice",
        );
        refused(
            |g| g.nodes[1].outputs[0] = "x".into(),
            "the value `x` is defined twice",
        );
        let shadowed = |g: &mut Graph| g.inputs[0].name = "conv.weight".into();
        refused(shadowed, "the value `conv.weight` is defined twice");
    }

    #[test]
    fn values_must_be_defined_before_they_are_read() {
        let reversed = "node `relu` (Relu) reads `conv`, which nothing before it defines";
        refused(|g| g.nodes.reverse(), reversed);
        refused(
            |g| g.outputs[0].name = "z".into(),
            "nothing defines the graph's output `z`",
        );
    }

    #[test]
    fn operators_have_their_number_of_operands() {
        refused(
            |g| g.nodes[0].inputs.truncate(1),
            "node `conv` (Conv) has 1 inputs, wanted 2 to 3",
        );
        refused(
            |g| g.nodes[1].inputs.push("x".into()),
            "node `relu` (Relu) has 2 inputs, wanted 1",
        );
        refused(
            |g| g.nodes[1].inputs[0].clear(),
            "node `relu` (Relu): input 0 is left out",
        );
        refused(
            |g| g.nodes[1].outputs[0].clear(),
            "node `relu` (Relu): output 0 is left out",
        );
        let no_sum = |g: &mut Graph| {
            g.nodes[1].op = Op::Variadic(Variadic::Sum);
            g.nodes[1].inputs.clear();
        };
        refused(no_sum, "node `relu` (Sum) has 0 inputs, wanted at least 1");
        let hole = |g: &mut Graph| {
            g.nodes[1].op = Op::Variadic(Variadic::Sum);
            g.nodes[1].inputs.push(String::new());
        };
        refused(hole, "node `relu` (Sum): input 1 is left out");
    }

    #[test]
    fn attribute_and_input_forms_have_their_own_arity() {
        let op = |axes| Op::Unsqueeze { axes };
        assert_eq!(op(None).arity().inputs, 2..=2);
        assert_eq!(op(Some(vec![0])).arity().inputs, 1..=1);
        assert_eq!(Op::Activation(Activation::Relu).arity().outputs, 1..=1);
        assert_eq!(Op::Conv(ConvAttrs::default()).arity().inputs, 2..=3);
    }

    #[test]
    fn weights_have_the_rank_and_type_of_their_operator() {
        let flat = |g: &mut Graph| {
            drop(
                g.initializers
                    .insert("conv.weight".into(), Tensor::F32(ArcArray::zeros(&[8][..]))),
            )
        };
        let wanted = "node `conv` (Conv): weight `conv.weight` has type F32 and shape [8], wanted type F32 and rank 4";
        refused(flat, wanted);
        let whole = |g: &mut Graph| {
            g.initializers.insert(
                "conv.weight".into(),
                Tensor::I64(ArcArray::zeros(&[8, 3, 3, 3][..])),
            );
        };
        let wanted = "node `conv` (Conv): weight `conv.weight` has type I64 and shape [8, 3, 3, 3], wanted type F32 and rank 4";
        refused(whole, wanted);
    }
}
