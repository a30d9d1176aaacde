//! What a file holds, layer by layer.

use super::numbers::{bytes, count, grouped};
use super::table::Table;
use serde::Serialize;
use std::collections::BTreeMap;

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueInfo {
    /// The value's name.
    pub name: String,
    /// The element type, such as `f32`.
    pub element_type: String,
    /// The axes as the file declares them; a name or `?` where the length is not fixed, `None` where
    /// not even their number is stated.
    pub dims: Option<Vec<String>>,
}

/// A convolution or dense layer, factored or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// The layer's name; of a factored layer the name it had before.
    pub name: String,
    /// The ONNX operator, of a factored layer that of its basis.
    pub op: String,
    /// The shape of the weight as stored; of a factored layer that of the layer it stands for, per
    /// group `[n, co / groups]`.
    pub weight: Vec<usize>,
    /// The shape of the output for one image, the image's axis left out; `None` where the image size
    /// is not known.
    pub output: Option<Vec<usize>>,
    /// Weights and biases, scaling factors included.
    pub params: u64,
    /// Multiply-accumulates of one image; `None` where the image size is not known.
    pub macs: Option<u64>,
    /// Directions that are there now.
    pub rank: usize,
    /// Directions that a decomposition of the layer can have.
    pub full_rank: usize,
    /// The largest rank at which two factors are smaller than one kernel.
    pub break_even_rank: usize,
    /// Whether basis pruning can make the layer smaller.
    pub prunable: bool,
    /// Why it cannot be pruned, or that it is factored already; else empty.
    pub why: String,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InspectReport {
    /// The file.
    pub model: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// The operator set.
    pub opset: i64,
    /// What the caller supplies.
    pub inputs: Vec<ValueInfo>,
    /// What the network computes.
    pub outputs: Vec<ValueInfo>,
    /// `[channels, height, width]` of the image that shapes and multiply-accumulates are for; `None`
    /// where neither the file nor the user says.
    pub image: Option<[usize; 3]>,
    /// Weights and biases of the file (batch norm as it is stored).
    pub params: u64,
    /// Multiply-accumulates of one image; `None` where the image size is not known.
    pub macs: Option<u64>,
    /// Convolutions and dense layers, in the order in which they run.
    pub layers: Vec<LayerInfo>,
    /// How many nodes of each operator there are.
    pub operators: BTreeMap<String, usize>,
    /// The preprocessing in the metadata.
    pub preprocess: Option<String>,
    /// The classes in the metadata.
    pub classes: Option<Vec<String>>,
}

impl InspectReport {
    /// One row a layer.
    #[must_use]
    pub fn layer_table(&self) -> Table {
        layer_table(&self.layers)
    }

    /// The file as a whole.
    #[must_use]
    pub fn total_table(&self) -> Table {
        let mut table = Table::new("File", &["", ""]);
        let mut push = |name: &str, text: String| table.push([name.to_owned(), text]);
        push("file", format!("{} ({})", self.model, bytes(self.bytes)));
        push("operator set", self.opset.to_string());
        for input in &self.inputs {
            push("input", input.to_string());
        }
        for output in &self.outputs {
            push("output", output.to_string());
        }
        push(
            "image",
            match &self.image {
                Some(image) => dims(image),
                None => "size not fixed".to_owned(),
            },
        );
        push(
            "parameters",
            format!("{} ({})", count(self.params), grouped(self.params)),
        );
        push("MACs", self.macs.map_or_else(|| "-".to_owned(), count));
        let prunable = self.layers.iter().filter(|layer| layer.prunable);
        let (layers, params) =
            prunable.fold((0, 0), |(n, params), layer| (n + 1, params + layer.params));
        push(
            "prunable",
            format!(
                "{layers} of {} layers, {} parameters",
                self.layers.len(),
                count(params)
            ),
        );
        let operators: Vec<String> = self
            .operators
            .iter()
            .map(|(op, n)| format!("{op} {n}"))
            .collect();
        push("operators", operators.join(", "));
        push(
            "preprocessing",
            self.preprocess
                .clone()
                .unwrap_or_else(|| "not stored".to_owned()),
        );
        push(
            "classes",
            match &self.classes {
                None => "not stored".to_owned(),
                Some(classes) if classes.len() <= SHOWN_CLASSES => {
                    format!("{}: {}", classes.len(), classes.join(", "))
                }
                Some(classes) => {
                    format!(
                        "{}: {}, ...",
                        classes.len(),
                        classes[..SHOWN_CLASSES].join(", ")
                    )
                }
            },
        );
        table
    }
}

pub(super) fn layer_table(layers: &[LayerInfo]) -> Table {
    let columns = [
        "layer",
        "operator",
        "weight",
        "output",
        "#params",
        "#MACs",
        "#rank",
        "#break-even",
        "prunable",
    ];
    let mut table = Table::new("Layers", &columns);
    for layer in layers {
        let rank = if layer.rank == layer.full_rank {
            layer.rank.to_string()
        } else {
            format!("{} of {}", layer.rank, layer.full_rank)
        };
        let prunable = match (layer.prunable, layer.why.is_empty()) {
            (true, true) => "yes".to_owned(),
            (true, false) => format!("yes, {}", layer.why),
            (false, _) => format!("no: {}", layer.why),
        };
        table.push([
            layer.name.clone(),
            layer.op.clone(),
            dims(&layer.weight),
            layer.output.as_deref().map_or_else(|| "-".to_owned(), dims),
            grouped(layer.params),
            layer.macs.map_or_else(|| "-".to_owned(), count),
            rank,
            layer.break_even_rank.to_string(),
            prunable,
        ]);
    }
    table
}

/// Classes that are listed by name.
const SHOWN_CLASSES: usize = 10;

impl std::fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.dims {
            Some(dims) => write!(
                f,
                "{} {} [{}]",
                self.name,
                self.element_type,
                dims.join(", ")
            ),
            None => write!(f, "{} {} of any shape", self.name, self.element_type),
        }
    }
}

fn dims(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    dims.join("x")
}
