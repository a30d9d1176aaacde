//! Where a network ends: in class scores, or in features that want a head.

use super::TransferError;
use crate::data::{CLASSES_METADATA_KEY, classes_from_metadata, same_classes};
use crate::graph::{
    Activation, Arithmetic, Dim, Graph, Node, Op, Reduction, ValueDecl, infer_images,
};
use crate::tensor::{ElementType, Floats, Tensor};
use ndarray::{ArcArray, IxDyn};

/// The last layer of a classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The node that holds the weights: `Gemm`, `MatMul` or a 1x1 `Conv`.
    pub node: String,
    /// The value it reads.
    pub features: String,
    /// The value with the class scores, before any softmax.
    pub logits: String,
    /// Number of classes.
    pub classes: usize,
}

impl Head {
    /// Whether its scores are those of `classes`: as many, and where `graph`, whose head it is, names its classes, the
    /// same ones.
    #[must_use]
    pub fn fits(&self, graph: &Graph, classes: &[String]) -> bool {
        let known = graph.metadata.get(CLASSES_METADATA_KEY);
        let is_same = |text: &String| {
            classes_from_metadata(text).is_ok_and(|known| same_classes(&known, classes))
        };
        self.classes == classes.len() && known.is_none_or(is_same)
    }
}

/// How a network ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In class scores.
    Classifier(Head),
    /// In features.
    Features {
        /// The value that holds them.
        value: String,
    },
}

/// Finds how `graph` ends for images of `height` x `width`: back from the output over nodes that
/// keep the scores' order, to the layer that made them. A layer counts as a classifier only where
/// no activation follows it (a ReLU under a softmax excepted).
///
/// # Errors
/// [`TransferError`] where the network has not exactly one output or takes no such images.
pub fn ending(graph: &Graph, height: usize, width: usize) -> Result<Ending, TransferError> {
    let [output] = graph.outputs.as_slice() else {
        return Err(TransferError::Outputs(graph.outputs.len()));
    };
    let inferred = infer_images(graph, 2, height, width)?;
    let producers = graph.producers();
    let shape = |value: &str| inferred.shapes.get(value).cloned().unwrap_or_default();
    let features = Ending::Features {
        value: output.name.clone(),
    };
    let out_shape = shape(&output.name);
    let is_scores = out_shape.len() >= 2 && out_shape[2..].iter().all(|&length| length == 1);
    if !is_scores {
        return Ok(features);
    }
    let classes = out_shape[1];
    let mut logits = output.name.clone();
    let mut value = output.name.clone();
    let mut below_softmax = false;
    while let Some(node) = producers.get(value.as_str()).map(|&i| &graph.nodes[i]) {
        let classifier = |features: &str, node: &Node| {
            Ending::Classifier(Head {
                node: node.name.clone(),
                features: features.to_owned(),
                logits: logits.clone(),
                classes,
            })
        };
        match &node.op {
            Op::Identity
            | Op::Dropout { .. }
            | Op::Flatten { .. }
            | Op::Reshape { .. }
            | Op::Squeeze { .. }
            | Op::Cast {
                to: ElementType::F32,
            }
            | Op::GlobalAveragePool
            | Op::AveragePool(_)
            | Op::Reduce {
                reduction: Reduction::Mean,
                ..
            } => value.clone_from(&node.inputs[0]),
            Op::Softmax(_) | Op::LogSoftmax(_) => {
                below_softmax = true;
                logits.clone_from(&node.inputs[0]);
                value.clone_from(&node.inputs[0]);
            }
            Op::Activation(Activation::Sigmoid) if classes == 1 => {
                logits.clone_from(&node.inputs[0]);
                value.clone_from(&node.inputs[0]);
            }
            Op::Activation(_) if below_softmax => value.clone_from(&node.inputs[0]),
            Op::Gemm { .. } | Op::MatMul | Op::Conv(_) => {
                let weighted = graph.initializers.contains_key(&node.inputs[1]);
                return Ok(
                    if weighted && shape(&node.outputs[0]).get(1) == Some(&classes) {
                        classifier(&node.inputs[0], node)
                    } else {
                        features
                    },
                );
            }
            Op::Arithmetic(Arithmetic::Add) => {
                // The bias of a `MatMul`.
                let Some(sum) = node
                    .inputs
                    .iter()
                    .find(|input| !graph.initializers.contains_key(*input))
                else {
                    return Ok(features);
                };
                let is_bias = node
                    .inputs
                    .iter()
                    .any(|input| graph.initializers.contains_key(input));
                match producers.get(sum.as_str()).map(|&i| &graph.nodes[i]) {
                    Some(product) if is_bias && product.op == Op::MatMul => {
                        value.clone_from(sum);
                    }
                    _ => return Ok(features),
                }
            }
            Op::BatchNormalization { .. }
            | Op::Activation(_)
            | Op::PRelu
            | Op::Clip { .. }
            | Op::Arithmetic(
                Arithmetic::Sub | Arithmetic::Mul | Arithmetic::Div | Arithmetic::Pow,
            )
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::ConvTranspose(_)
            | Op::LayerNormalization { .. }
            | Op::InstanceNormalization { .. }
            | Op::GroupNormalization { .. }
            | Op::GlobalMaxPool
            | Op::Resize(_)
            | Op::Upsample { .. }
            | Op::DepthToSpace { .. }
            | Op::SpaceToDepth { .. }
            | Op::Split { .. }
            | Op::Expand
            | Op::Where
            | Op::Variadic(_)
            | Op::Concat { .. }
            | Op::MaxPool(_)
            | Op::Transpose { .. }
            | Op::Unsqueeze { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Lrn { .. }
            | Op::Cast { .. }
            | Op::Shape { .. }
            | Op::Gather { .. }
            | Op::ConstantOfShape { .. } => return Ok(features),
        }
    }
    Ok(features)
}

/// A graph with an untrained head.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// The graph; the head's weight and bias are zero.
    pub graph: Graph,
    /// The head.
    pub head: Head,
    /// Length of the feature vectors.
    pub n_features: usize,
    /// The weight initializer, `[classes, features]`.
    pub weight: String,
    /// The bias initializer, `[classes]`.
    pub bias: String,
}

/// Puts a dense layer for `classes` classes behind the network's features, with global average
/// pooling in between where they have positions, for images of `height` x `width`. What came after the old head is
/// dropped; the output keeps its name and holds class scores without softmax.
///
/// # Errors
/// [`TransferError::OutputShape`] where the features are neither vectors nor maps.
pub fn with_new_head(
    graph: &Graph,
    ending: &Ending,
    classes: usize,
    [height, width]: [usize; 2],
) -> Result<NewHead, TransferError> {
    let mut graph = graph.clone();
    let output = graph.outputs[0].name.clone();
    let mut features = match ending {
        Ending::Classifier(head) => head.features.clone(),
        Ending::Features { value } => {
            // The output's name goes to the head, so what made it gets another.
            let renamed = graph.fresh_value("features");
            graph.rename_value(value, &renamed);
            renamed
        }
    };
    // Drop what made the old output.
    graph.nodes.retain(|node| !node.outputs.contains(&output));
    let mut probe = graph.clone();
    probe.outputs = vec![declared(&features, None)];
    probe.remove_unused();
    let shape = infer_images(&probe, 1, height, width)?
        .shapes
        .remove(&features)
        .unwrap_or_default();
    let n_features = match *shape.as_slice() {
        [_, n] => n,
        [_, n, _, _] => {
            let pooled = graph.fresh_value("head.pooled");
            let flat = graph.fresh_value("head.features");
            let pool = node(
                &graph,
                "head.pool",
                Op::GlobalAveragePool,
                &[&features],
                &pooled,
            );
            graph.nodes.push(pool);
            let flatten = node(
                &graph,
                "head.flatten",
                Op::Flatten { axis: 1 },
                &[&pooled],
                &flat,
            );
            graph.nodes.push(flatten);
            features = flat;
            n
        }
        _ => {
            return Err(TransferError::OutputShape {
                output: features,
                shape,
            });
        }
    };
    let weight = graph.fresh_value("head.weight");
    let bias = graph.fresh_value("head.bias");
    let zeros = |shape: &[usize]| Tensor::F32(Floats::from(ArcArray::zeros(IxDyn(shape))));
    graph
        .initializers
        .insert(weight.clone(), zeros(&[classes, n_features]));
    graph.initializers.insert(bias.clone(), zeros(&[classes]));
    let gemm = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    };
    let dense = node(&graph, "head", gemm, &[&features, &weight, &bias], &output);
    let name = dense.name.clone();
    graph.nodes.push(dense);
    let batch = graph.outputs[0]
        .dims
        .as_ref()
        .and_then(|d| d.first().cloned());
    graph.outputs = vec![declared(
        &output,
        Some(vec![batch.unwrap_or(Dim::Unknown), Dim::Fixed(classes)]),
    )];
    graph.remove_unused();
    Ok(NewHead {
        graph,
        head: Head {
            node: name,
            features,
            logits: output,
            classes,
        },
        n_features,
        weight,
        bias,
    })
}

fn declared(name: &str, dims: Option<Vec<Dim>>) -> ValueDecl {
    ValueDecl {
        name: name.to_owned(),
        element_type: ElementType::F32,
        dims,
    }
}

fn node(graph: &Graph, hint: &str, op: Op, inputs: &[&str], output: &str) -> Node {
    Node {
        name: graph.fresh_node(hint),
        op,
        inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
        outputs: vec![output.to_owned()],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::samples::Builder;
    use crate::tensor::Tensor;
    use ndarray::ArcArray;

    #[test]
    fn a_new_head_reads_as_many_features_as_images_of_that_size_have() {
        let mut b = Builder::new(1);
        let made = b.conv("conv", "x", [2, 1, 3, 3], 1);
        let made = b.node("flat", Op::Flatten { axis: 1 }, &[&made]);
        let gemm = Op::Gemm {
            alpha: 1.0,
            beta: 1.0,
            trans_a: false,
            trans_b: true,
        };
        let weight = b.zeros("weight", &[5, 2 * 8 * 6]);
        let made = b.node("scores", gemm, &[&made, &weight]);
        let graph = b.output(&made);
        let found = ending(&graph, 8, 6).unwrap();
        assert!(matches!(&found, Ending::Classifier(head) if head.classes == 5));
        let new = with_new_head(&graph, &found, 3, [8, 6]).unwrap();
        assert_eq!(new.n_features, 2 * 8 * 6);
    }

    #[test]
    fn a_single_sigmoid_is_the_end_of_a_head_for_one_class() {
        let mut b = Builder::new(1);
        let made = b.node("flat", Op::Flatten { axis: 1 }, &["x"]);
        let weight = b.zeros("weight", &[64, 1]);
        let made = b.node("score", Op::MatMul, &[&made, &weight]);
        let made = b.node("sigmoid", Op::Activation(Activation::Sigmoid), &[&made]);
        let graph = b.output(&made);
        let found = ending(&graph, 8, 8).unwrap();
        assert!(
            matches!(&found, Ending::Classifier(head) if head.classes == 1 && head.logits == "score")
        );
        assert_eq!(
            with_new_head(&graph, &found, 2, [8, 8]).unwrap().n_features,
            64
        );
    }

    #[test]
    fn a_matrix_product_of_all_images_at_once_is_no_classifier() {
        let mut b = Builder::new(1);
        let ints = |values: &[i64]| Tensor::I64(ArcArray::from(values.to_vec()).into_dyn());
        for (name, shape) in [("all", &[-1][..]), ("row", &[1, 10])] {
            b.graph.initializers.insert(name.into(), ints(shape));
        }
        let reshape = || Op::Reshape { allow_zero: false };
        let made = b.node("flat", reshape(), &["x", "all"]);
        let weight = b.zeros("weight", &[2 * 64, 10]);
        let made = b.node("product", Op::MatMul, &[&made, &weight]);
        let made = b.node("scores", reshape(), &[&made, "row"]);
        let graph = b.output(&made);
        let found = ending(&graph, 8, 8).unwrap();
        assert!(matches!(found, Ending::Features { .. }), "{found:?}");
    }
}
