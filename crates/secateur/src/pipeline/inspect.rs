//! What a file holds: shapes, costs, ranks, and what can be pruned.

use super::PipelineError;
use crate::cost;
use crate::data::{
    CLASSES_METADATA_KEY, ChannelOrder, METADATA_KEY, Preprocess, classes_from_metadata,
};
use crate::decompose::{DecomposeConfig, Kept, LayerRecord, examine};
use crate::graph::{
    Dim, FactoredLayer, Graph, Inferred, Node, ValueDecl, factored_layers, infer_images,
};
use crate::onnx;
use crate::report::{InspectReport, LayerInfo, ValueInfo};
use crate::tensor::ElementType;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads a file and says what it holds. `size` is the height and width of the image where the file
/// does not fix them; without it the size in the metadata counts, and without that nothing is said
/// of shapes and multiply-accumulates.
///
/// # Errors
/// [`PipelineError`] where the file is no usable ONNX model, or takes no images of this size.
pub fn inspect(path: &Path, size: Option<[usize; 2]>) -> Result<InspectReport, PipelineError> {
    let model = onnx::read(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    inspect_graph(&model.graph, size, &path.display().to_string(), bytes)
}

/// As [`inspect`], of a graph whose file `name` has `bytes` bytes.
pub(super) fn inspect_graph(
    graph: &Graph,
    size: Option<[usize; 2]>,
    name: &str,
    bytes: u64,
) -> Result<InspectReport, PipelineError> {
    let classes = match graph.metadata.get(CLASSES_METADATA_KEY) {
        Some(text) => Some(classes_from_metadata(text)?),
        None => None,
    };
    let image = image(graph, size)?;
    let inferred = match image {
        Some([_, height, width]) => Some(infer_images(graph, 1, height, width)?),
        None => None,
    };
    // Parameters do not depend on shapes, so they are known without an image size.
    let unknown = Inferred {
        shapes: BTreeMap::new(),
        constants: BTreeMap::new(),
    };
    let cost = cost::of(graph, inferred.as_ref().unwrap_or(&unknown));
    let mut operators = BTreeMap::new();
    for node in &graph.nodes {
        *operators.entry(node.op.name().to_owned()).or_insert(0) += 1;
    }
    Ok(InspectReport {
        model: name.to_owned(),
        bytes,
        opset: graph.opset,
        inputs: graph.inputs.iter().map(value).collect(),
        outputs: graph.outputs.iter().map(value).collect(),
        image,
        params: cost.params,
        macs: inferred.is_some().then_some(cost.macs),
        layers: layers(graph, inferred.as_ref(), &cost)?,
        operators,
        preprocess: stored(graph)?.as_ref().map(preprocess_text),
        classes,
    })
}

/// `[channels, height, width]`: the input's where fixed, else the user's, else the metadata's.
pub(super) fn image(
    graph: &Graph,
    size: Option<[usize; 2]>,
) -> Result<Option<[usize; 3]>, PipelineError> {
    let input = graph.image_input()?;
    let stored = stored(graph)?.map(|preprocess| [preprocess.height, preprocess.width]);
    let side = |fixed: Option<usize>, axis: usize| {
        fixed
            .or(size.map(|size| size[axis]))
            .or(stored.map(|size| size[axis]))
    };
    Ok(match (side(input.height, 0), side(input.width, 1)) {
        (Some(height), Some(width)) => Some([input.channels, height, width]),
        _ => None,
    })
}

/// The preprocessing in the metadata.
fn stored(graph: &Graph) -> Result<Option<Preprocess>, PipelineError> {
    Ok(match graph.metadata.get(METADATA_KEY) {
        Some(text) => Some(Preprocess::from_metadata(text)?),
        None => None,
    })
}

/// `32x32 rgb, scale 0.0039215689, mean 0.5,0.5,0.5, std 0.5,0.5,0.5`.
pub(super) fn preprocess_text(preprocess: &Preprocess) -> String {
    let Preprocess {
        height,
        width,
        channels,
        scale,
        mean,
        std,
    } = preprocess;
    let order = match channels {
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
        ChannelOrder::Gray => "gray",
    };
    let list = |numbers: &[f32]| {
        let numbers: Vec<String> = numbers.iter().map(f32::to_string).collect();
        numbers.join(",")
    };
    format!(
        "{height}x{width} {order}, scale {scale}, mean {}, std {}",
        list(mean),
        list(std)
    )
}

/// Convolutions and dense layers; two factors count as the layer they stand for.
fn layers(
    graph: &Graph,
    inferred: Option<&Inferred>,
    cost: &cost::Cost,
) -> Result<Vec<LayerInfo>, PipelineError> {
    let records = examine(graph, &DecomposeConfig::default())?.layers;
    let factored = factored_layers(graph);
    let context = Context {
        graph,
        inferred,
        cost,
    };
    let mut layers = Vec::new();
    for record in &records {
        if let Some(layer) = factored.iter().find(|layer| layer.basis == record.name) {
            layers.push(context.factored(record, layer));
        } else if !factored.iter().any(|layer| layer.projection == record.name) {
            layers.push(context.whole(record));
        }
    }
    Ok(layers)
}

struct Context<'c> {
    graph: &'c Graph,
    inferred: Option<&'c Inferred>,
    cost: &'c cost::Cost,
}

impl Context<'_> {
    fn whole(&self, record: &LayerRecord) -> LayerInfo {
        let node = self.graph.node(&record.name);
        let stored = |slot: usize| {
            let name = node?.inputs.get(slot)?;
            self.graph.initializers.get(name)
        };
        LayerInfo {
            name: record.name.clone(),
            op: record.op.to_owned(),
            weight: stored(1).map_or_else(Vec::new, |tensor| tensor.shape().to_vec()),
            output: node.and_then(|node| self.output(node)),
            params: (1..3)
                .filter_map(stored)
                .map(|tensor| tensor.len() as u64)
                .sum(),
            macs: self.macs(&[&record.name]),
            rank: record.full_rank,
            full_rank: record.full_rank,
            break_even_rank: record.break_even_rank,
            prunable: record.kept.is_none(),
            why: record
                .kept
                .as_ref()
                .map_or_else(String::new, Kept::to_string),
        }
    }

    fn factored(&self, record: &LayerRecord, layer: &FactoredLayer) -> LayerInfo {
        let length = |name: &String| {
            self.graph
                .initializers
                .get(name)
                .map_or(0, |tensor| tensor.len() as u64)
        };
        let stored = [
            &layer.basis_weight,
            &layer.factors,
            &layer.projection_weight,
        ];
        LayerInfo {
            name: layer.name.clone(),
            op: record.op.to_owned(),
            weight: vec![layer.shape.n, layer.shape.co / layer.shape.groups.max(1)],
            output: self
                .graph
                .node(&layer.projection)
                .and_then(|node| self.output(node)),
            params: stored.into_iter().chain(&layer.bias).map(length).sum(),
            macs: self.macs(&[&layer.basis, &layer.projection]),
            rank: layer.rank,
            full_rank: layer.shape.full_rank(),
            break_even_rank: layer.shape.break_even_rank(),
            prunable: true,
            why: "factored".to_owned(),
        }
    }

    fn output(&self, node: &Node) -> Option<Vec<usize>> {
        Some(
            self.inferred?
                .shape(node.outputs.first()?)?
                .get(1..)?
                .to_vec(),
        )
    }

    fn macs(&self, nodes: &[&str]) -> Option<u64> {
        self.inferred?;
        let layers = &self.cost.layers;
        Some(
            layers
                .iter()
                .filter(|layer| nodes.contains(&layer.node.as_str()))
                .map(|layer| layer.macs)
                .sum(),
        )
    }
}

fn value(decl: &ValueDecl) -> ValueInfo {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(length) => length.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    };
    let element_type = match decl.element_type {
        ElementType::F32 => "f32",
        ElementType::F64 => "f64",
        ElementType::I32 => "i32",
        ElementType::I64 => "i64",
        ElementType::Bool => "bool",
    };
    ValueInfo {
        name: decl.name.clone(),
        element_type: element_type.to_owned(),
        dims: decl
            .dims
            .as_ref()
            .map(|dims| dims.iter().map(dim).collect()),
    }
}
