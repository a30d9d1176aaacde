//! Questions that stages ask of a graph.

use super::{Dim, Graph, GraphError, Node, Op, ValueDecl};
use crate::tensor::{ElementType, Floats, Tensor};
use std::collections::BTreeMap;

/// Images of a batch that a file may fix: runtimes need memory for all of them.
const MAX_BATCH: usize = 4096;

/// The input of a network that reads a batch of images, `[batch, channels, height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInput {
    /// The value's name.
    pub name: String,
    /// 1 for grey, 3 for colour.
    pub channels: usize,
    /// The height, where the file fixes it.
    pub height: Option<usize>,
    /// The width, where the file fixes it.
    pub width: Option<usize>,
    /// The number of images, where the file fixes it.
    pub batch: Option<usize>,
}

impl Graph {
    /// The graph's input, which must be the only one and a batch of images. Where the file does not
    /// fix the number of channels, the convolution that reads the input does.
    ///
    /// # Errors
    /// [`GraphError::NotAnImage`] says what was found; [`GraphError::Batch`] that it is fixed to too many images.
    pub fn image_input(&self) -> Result<ImageInput, GraphError> {
        let inputs: Vec<&ValueDecl> = self
            .inputs
            .iter()
            .filter(|input| !self.initializers.contains_key(&input.name))
            .collect();
        let found = || {
            let inputs: Vec<String> = inputs.iter().map(|input| describe(input)).collect();
            GraphError::NotAnImage(if inputs.is_empty() {
                "no input".to_owned()
            } else {
                inputs.join(", ")
            })
        };
        let &[input] = &inputs[..] else {
            return Err(found());
        };
        let Some([batch, channels, height, width]) = input.dims.as_deref() else {
            return Err(found());
        };
        if let Some(batch) = fixed(batch).filter(|batch| *batch > MAX_BATCH) {
            return Err(GraphError::Batch {
                batch,
                limit: MAX_BATCH,
            });
        }
        let channels = fixed(channels).or_else(|| self.convolved_channels(&input.name));
        match channels {
            Some(channels @ (1 | 3)) if input.element_type == ElementType::F32 => Ok(ImageInput {
                name: input.name.clone(),
                channels,
                height: fixed(height),
                width: fixed(width),
                batch: fixed(batch),
            }),
            _ if matches!(fixed(width), Some(1 | 3)) && channels.is_none_or(|n| n > 3) => {
                Err(GraphError::ChannelsLast {
                    found: describe(input),
                    input: input.name.clone(),
                })
            }
            Some(_) | None => Err(found()),
        }
    }

    /// The number of channels that a convolution of `value` reads.
    fn convolved_channels(&self, value: &str) -> Option<usize> {
        self.nodes
            .iter()
            .find_map(|node| match (&node.op, &node.inputs[..]) {
                (Op::Conv(attrs), [input, weight, ..]) if input == value => {
                    let shape = self.initializers.get(weight)?.shape();
                    shape.get(1)?.checked_mul(attrs.groups)
                }
                _ => None,
            })
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of this name, to be changed.
    pub fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name)
    }

    /// The `f32` initializer of this name.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<&Floats> {
        self.initializers.get(name).and_then(Tensor::as_floats)
    }

    /// The index of the node that computes each value; inputs and initializers are not in it.
    #[must_use]
    pub fn producers(&self) -> BTreeMap<&str, usize> {
        let mut producers = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            producers.extend(Node::named(&node.outputs).map(|name| (name, index)));
        }
        producers
    }

    /// The indices of the nodes that read each value, ascending, each once. A value that no node
    /// reads is not in it; being an output of the graph does not count as reading.
    #[must_use]
    pub fn consumers(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut consumers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for name in Node::named(&node.inputs) {
                let readers = consumers.entry(name).or_default();
                if readers.last() != Some(&index) {
                    readers.push(index);
                }
            }
        }
        consumers
    }

    /// Whether `value` is an output of the graph.
    #[must_use]
    pub fn is_output(&self, value: &str) -> bool {
        self.outputs.iter().any(|output| output.name == value)
    }
}

impl Node {
    /// The names in a list of operands that are not left out.
    pub(crate) fn named(operands: &[String]) -> impl Iterator<Item = &str> {
        operands
            .iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }
}

fn fixed(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Fixed(length) => Some(*length),
        Dim::Named(_) | Dim::Unknown => None,
    }
}

fn describe(input: &ValueDecl) -> String {
    let dims = match &input.dims {
        Some(dims) => format!(
            "[{}]",
            dims.iter().map(describe_dim).collect::<Vec<_>>().join(", ")
        ),
        None => "of unstated shape".to_owned(),
    };
    format!("`{}` {:?} {dims}", input.name, input.element_type)
}

fn describe_dim(dim: &Dim) -> String {
    match dim {
        Dim::Fixed(length) => length.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::Builder;
    use super::*;
    use crate::graph::{Arithmetic, ConvAttrs};

    fn small() -> Graph {
        let mut b = Builder::new(3);
        b.conv("conv", "x", [8, 3, 3, 3], 1);
        b.relu("relu", "conv");
        b.node("square", Op::Arithmetic(Arithmetic::Mul), &["relu", "relu"]);
        b.node("add", Op::Arithmetic(Arithmetic::Add), &["conv", "square"]);
        b.output("add")
    }

    fn with_dims(dims: Vec<Dim>) -> Graph {
        let mut graph = small();
        graph.inputs[0].dims = Some(dims);
        graph
    }

    #[test]
    fn the_image_input_is_found_with_what_the_file_fixes() {
        let dims = vec![
            Dim::Named("n".into()),
            Dim::Fixed(3),
            Dim::Fixed(32),
            Dim::Unknown,
        ];
        let expected = ImageInput {
            name: "x".into(),
            channels: 3,
            height: Some(32),
            width: None,
            batch: None,
        };
        assert_eq!(with_dims(dims).image_input(), Ok(expected));
        let unknown_channels = with_dims(vec![
            Dim::Fixed(1),
            Dim::Unknown,
            Dim::Unknown,
            Dim::Unknown,
        ]);
        let input = unknown_channels.image_input().unwrap();
        assert_eq!((input.channels, input.batch), (3, Some(1)));
    }

    #[test]
    fn colours_on_the_last_axis_are_told_of_with_the_remedy() {
        let side = Dim::Fixed(32);
        let error = with_dims(vec![Dim::Unknown, side.clone(), side, Dim::Fixed(3)]);
        let error = error.image_input().unwrap_err();
        assert!(matches!(&error, GraphError::ChannelsLast { input, .. } if input == "x"));
        assert!(error.to_string().contains("--inputs-as-nchw x"), "{error}");
    }

    #[test]
    fn a_batch_that_no_memory_holds_is_refused() {
        let batch = |batch| {
            let side = Dim::Fixed(32);
            with_dims(vec![Dim::Fixed(batch), Dim::Fixed(3), side.clone(), side]).image_input()
        };
        assert_eq!(batch(4096).unwrap().batch, Some(4096));
        let error = batch(1 << 30).unwrap_err().to_string();
        assert!(
            error.contains("1073741824 images") && error.contains("free batch"),
            "{error}"
        );
    }

    #[test]
    fn grouped_convolutions_read_all_their_channels() {
        let mut graph = with_dims(vec![Dim::Unknown, Dim::Unknown, Dim::Unknown, Dim::Unknown]);
        graph.nodes[0].op = Op::Conv(ConvAttrs {
            groups: 3,
            ..ConvAttrs::default()
        });
        graph.initializers.insert(
            "conv.weight".into(),
            Tensor::F32(ndarray::ArcArray::zeros(&[6, 1, 3, 3][..])),
        );
        assert_eq!(graph.image_input().unwrap().channels, 3);
    }

    #[test]
    fn other_inputs_are_refused_by_what_they_are() {
        let refused = |graph: &Graph, found: &str| {
            let message = graph.image_input().unwrap_err().to_string();
            let wanted = "wanted one f32 input [n, c, h, w] with 1 or 3 channels";
            assert_eq!(
                message,
                format!("the model's input is not an image: found {found}, {wanted}")
            );
        };
        let four = |dims: [usize; 4]| dims.map(Dim::Fixed).to_vec();
        refused(
            &with_dims(four([1, 224, 224, 4])),
            "`x` F32 [1, 224, 224, 4]",
        );
        refused(
            &with_dims(vec![Dim::Named("n".into()), Dim::Unknown]),
            "`x` F32 [n, ?]",
        );
        let mut graph = small();
        graph.inputs[0].element_type = ElementType::I64;
        graph.inputs[0].dims = None;
        refused(&graph, "`x` I64 of unstated shape");
        let mut graph = with_dims(four([1, 3, 8, 8]));
        let second = ValueDecl {
            name: "mask".into(),
            ..graph.inputs[0].clone()
        };
        graph.inputs.push(second);
        refused(&graph, "`x` F32 [1, 3, 8, 8], `mask` F32 [1, 3, 8, 8]");
        graph.inputs.clear();
        refused(&graph, "no input");
    }

    #[test]
    fn weights_listed_as_inputs_are_not_inputs() {
        let mut graph = small();
        let listed = ValueDecl {
            name: "conv.weight".into(),
            ..graph.inputs[0].clone()
        };
        graph.inputs.push(listed);
        assert_eq!(graph.image_input().unwrap().name, "x");
    }

    #[test]
    fn producers_and_consumers_are_indices_of_nodes() {
        let graph = small();
        let producers = [("add", 3), ("conv", 0), ("relu", 1), ("square", 2)];
        assert_eq!(graph.producers(), producers.into_iter().collect());
        let consumers = graph.consumers();
        assert_eq!(consumers["conv"], [1, 3]);
        assert_eq!(consumers["relu"], [2]);
        assert_eq!(consumers["x"], [0]);
        assert!(!consumers.contains_key("add"));
        assert_eq!(graph.node("square").unwrap().inputs, ["relu", "relu"]);
        assert_eq!(graph.node("absent"), None);
        assert_eq!(graph.float("conv.weight").unwrap().shape(), [8, 3, 3, 3]);
        assert!(graph.is_output("add") && !graph.is_output("conv"));
    }
}
