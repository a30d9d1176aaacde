//! Folding: what training needed and serving does not becomes part of the weights.
//!
//! The last stage before export. Scaling factors go into the projection, output scales and batch
//! normalisation into the layer before them; a factored layer that is not smaller than its dense
//! kernel is recomposed (the size rule of method, section 2), and so is an input factor. All of it is exact: computed in `f64`,
//! rounded once per step to `f32`.
//!
//! A recomposed layer is one node with the layer's own name and the initializer `<layer>.weight`. A
//! layer that stays factored keeps the nodes `<layer>.basis` and `<layer>.projection`.

mod affine;
mod input;
mod recompose;

pub use recompose::recompose;

use crate::graph::{FactoredLayer, Graph, InputFactor, LayerShape, factored_layers, is_of_layer};

/// What becomes of factored layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeRule {
    /// A layer above its break-even rank is recomposed, any other stays factored.
    #[default]
    Smaller,
    /// Every layer stays factored.
    Factored,
    /// Every layer is recomposed.
    Dense,
}

/// What becomes of batch normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNorm {
    /// Where nobody else reads its input, it is folded into the layer that makes it.
    #[default]
    Fold,
    /// It stays.
    Keep,
}

/// What becomes of input factors that are no smaller than the one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputFactors {
    /// They are joined with the convolutions that read them.
    #[default]
    Join,
    /// They stay.
    Keep,
}

/// How to fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldConfig {
    /// What becomes of factored layers.
    pub size_rule: SizeRule,
    /// What becomes of batch normalisation.
    pub batch_norm: BatchNorm,
    /// What becomes of input factors.
    pub input_factors: InputFactors,
}

/// The form in which a layer is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Basis and projection.
    Factored,
    /// One dense kernel.
    Dense,
}

/// One layer that was factored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FoldedLayer {
    /// The layer's name.
    pub name: String,
    /// The form in which it is left.
    pub form: Form,
    /// The rank that it had.
    pub rank: usize,
    /// The matrix shape.
    pub shape: LayerShape,
    /// Weights now, without bias.
    pub params: u64,
}

/// What was folded.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FoldSummary {
    /// The layers that were factored, in node order.
    pub layers: Vec<FoldedLayer>,
    /// Nodes of batch normalisation that are gone.
    pub batch_norms: usize,
    /// Output scales that are gone.
    pub output_scales: usize,
}

/// A graph that cannot be folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The layer is not in the graph as it was found.
    #[error("the graph has no factored layer `{0}` of the stated shape")]
    NoSuchLayer(String),
}

/// Folds scaling factors, output scales and, where asked for, batch normalisation.
///
/// # Errors
/// None is known for a graph that is valid.
pub fn fold(graph: &Graph, config: &FoldConfig) -> Result<(Graph, FoldSummary), FoldError> {
    let mut result = graph.clone();
    let mut summary = FoldSummary::default();
    for layer in factored_layers(graph) {
        let form = match config.size_rule {
            SizeRule::Smaller if layer.rank > layer.shape.break_even_rank() => Form::Dense,
            SizeRule::Smaller | SizeRule::Factored => Form::Factored,
            SizeRule::Dense => Form::Dense,
        };
        match form {
            Form::Factored => recompose::absorb_factors(&mut result, &layer)?,
            Form::Dense => recompose::recompose_in_place(&mut result, &layer)?,
        }
        summary.layers.push(folded(&layer, form));
    }
    let joins = |factor: &InputFactor| match (config.size_rule, config.input_factors) {
        (SizeRule::Smaller, InputFactors::Join) => factor.rank > factor.shape.break_even_rank(),
        (SizeRule::Factored, _) | (SizeRule::Smaller, InputFactors::Keep) => false,
        (SizeRule::Dense, _) => true,
    };
    for (reader, factor) in input::join_inputs(&mut result, joins) {
        // The kernel reads all channels again.
        let mut layers = summary.layers.iter_mut();
        if let Some(layer) = layers.find(|layer| is_of_layer(&reader, &layer.name)) {
            layer.shape.n = layer.shape.n / factor.rank.max(1) * factor.shape.n;
            layer.params = params(layer.shape, layer.rank, layer.form);
        }
    }
    summary.output_scales = affine::fold_output_scales(&mut result);
    summary.batch_norms = match config.batch_norm {
        BatchNorm::Fold => affine::fold_batch_norms(&mut result),
        BatchNorm::Keep => 0,
    };
    Ok((result, summary))
}

fn params(shape: LayerShape, rank: usize, form: Form) -> u64 {
    match form {
        Form::Factored => shape.direction_params().saturating_mul(rank as u64),
        Form::Dense => shape.dense_params(),
    }
}

fn folded(layer: &FactoredLayer, form: Form) -> FoldedLayer {
    FoldedLayer {
        name: layer.name.clone(),
        form,
        rank: layer.rank,
        shape: layer.shape,
        params: params(layer.shape, layer.rank, form),
    }
}
