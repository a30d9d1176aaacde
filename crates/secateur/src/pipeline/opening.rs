//! What is opened and checked before the long work: the network, the data, and whether they go together.

use super::checks::{check_labels, check_outputs, check_scores};
use super::{PipelineError, Prepared, Settings, prepare};
use crate::data::{CLASSES_METADATA_KEY, Split, classes_from_metadata, same_classes};
use crate::fold::recompose;
use crate::graph::{Graph, factored_layers, infer_images};
use crate::onnx::{self, Model};
use crate::progress::Progress;
use crate::transfer::{Ending, HeadChoice, TransferError, ending, with_new_head};
use crate::verify::{self, Runtime};
use ndarray::{ArcArray, IxDyn};
use std::path::Path;

/// What a run of `compress` works with.
pub(super) struct Opened {
    pub model: Model,
    pub prepared: Prepared,
    /// What becomes of the head, where the images have labels.
    pub head: Option<HeadPlan>,
    /// Has run the network.
    pub runtime: Box<dyn Runtime>,
}

/// Opens the network, the data and the runtime of `compress`, and refuses what the run could not end with.
///
/// # Errors
/// [`PipelineError`] names what does not go together, and the way out.
pub(super) fn open(
    path: &Path,
    settings: &Settings,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<Opened, PipelineError> {
    let runtime = verify::open(settings.verify.runtime, options)?;
    let model = whole(onnx::read(path)?)?;
    check_scores(&model.graph)?;
    let prepared = prepare(&model.graph, &settings.data, settings.seed, progress)?;
    let prepared = in_known_order(&model.graph, prepared)?;
    check_labels(settings, prepared.dataset.has_labels())?;
    let head = if prepared.dataset.has_labels() {
        check_batch(&model.graph, &prepared)?;
        Some(HeadPlan::of(&model.graph, &prepared, settings)?)
    } else {
        check_outputs(&model.graph, &prepared)?;
        None
    };
    if prepared.dataset.is_empty(Split::Val) {
        return Err(PipelineError::NoValidationImages);
    }
    if prepared.dataset.is_empty(Split::Test) {
        return Err(PipelineError::NoTestImages);
    }
    check_runtime(&*runtime, path, &model, &prepared)?;
    Ok(Opened {
        model,
        prepared,
        head,
        runtime,
    })
}

/// The model, factored layers that are larger than one kernel being one again, which is exact: a run decomposes for itself.
fn whole(model: Model) -> Result<Model, PipelineError> {
    let mut graph = model.graph.clone();
    for layer in factored_layers(&model.graph) {
        if layer.rank > layer.shape.break_even_rank() {
            graph = recompose(&graph, &layer)?;
        }
    }
    Ok(model.with_graph(graph))
}

/// Refuses a file whose inside counts on the number of images for which it was exported: training takes batches.
pub(super) fn check_batch(graph: &Graph, prepared: &Prepared) -> Result<(), PipelineError> {
    let Some(batch) = graph.image_input()?.batch else {
        return Ok(());
    };
    let [_, _, height, width] = prepared.input_shape(batch);
    match infer_images(graph, batch + 1, height, width) {
        Err(source) if infer_images(graph, batch, height, width).is_ok() => {
            Err(PipelineError::FixedBatch { batch, source })
        }
        _ => Ok(()),
    }
}

/// Lets the runtime have a go at the network, as it would be written, so that one that it does not know is told of
/// before the work.
///
/// # Errors
/// [`PipelineError::Load`] with the runtime's own words.
fn check_runtime(
    runtime: &dyn Runtime,
    path: &Path,
    model: &Model,
    prepared: &Prepared,
) -> Result<(), PipelineError> {
    let batch = model.graph.image_input()?.batch.unwrap_or(1);
    let shape = prepared.input_shape(batch);
    let bytes = onnx::to_bytes_for(path, model)?;
    let images = ArcArray::zeros(IxDyn(&shape));
    let ran = runtime.load(&bytes, shape);
    ran.and_then(|mut network| network.run_all(&images))
        .map_err(|source| PipelineError::of_file(path, source))?;
    Ok(())
}

/// What becomes of the head.
pub(super) struct HeadPlan {
    pub ending: Ending,
    /// The node of the network's own head, where that stays.
    pub kept: Option<String>,
    /// In words.
    pub text: String,
}

impl HeadPlan {
    /// The plan for `graph` and the classes of the data.
    ///
    /// # Errors
    /// [`PipelineError`] where no head can be put on the network.
    pub fn of(
        graph: &Graph,
        prepared: &Prepared,
        settings: &Settings,
    ) -> Result<Self, PipelineError> {
        let [_, _, height, width] = prepared.input_shape(1);
        let names = prepared.dataset.classes();
        let classes = names.len();
        let ending = ending(graph, height, width)?;
        let is_new = settings.transfer.head == HeadChoice::New;
        if let Ending::Classifier(head) = &ending
            && !is_new
            && head.fits(graph, names)
        {
            return Ok(Self {
                kept: Some(head.node.clone()),
                text: format!(
                    "the head `{}` fits {classes} classes and is kept",
                    head.node
                ),
                ending,
            });
        }
        if classes == 2 && !is_new {
            check_one_score(graph, [height, width])?;
        }
        with_new_head(graph, &ending, classes, [height, width])?;
        let text = match &ending {
            Ending::Classifier(head) => {
                let of_others = match head.classes == classes && !is_new {
                    true => " other classes",
                    false => " classes",
                };
                let softmax = match graph.outputs.first() {
                    Some(output) if output.name != head.logits => {
                        "; its scores come without softmax"
                    }
                    _ => "",
                };
                format!(
                    "the head `{}` for {}{of_others} is replaced by one for {classes}{softmax}",
                    head.node, head.classes
                )
            }
            Ending::Features { value } => {
                format!("a head for {classes} classes is attached to the features `{value}`")
            }
        };
        Ok(Self {
            ending,
            kept: None,
            text,
        })
    }

    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

/// Refuses a network that gives one number for each image.
fn check_one_score(graph: &Graph, [height, width]: [usize; 2]) -> Result<(), PipelineError> {
    let inferred = infer_images(graph, 1, height, width)?;
    match graph.outputs.first() {
        Some(output) if inferred.shape(&output.name).is_some_and(is_one) => {
            Err(TransferError::OneScore(output.name.clone()).into())
        }
        _ => Ok(()),
    }
}

fn is_one(shape: &[usize]) -> bool {
    shape.iter().product::<usize>() == 1
}

/// The classes that the network names.
fn known_classes(graph: &Graph) -> Result<Option<Vec<String>>, PipelineError> {
    let text = graph.metadata.get(CLASSES_METADATA_KEY);
    Ok(text.map(|text| classes_from_metadata(text)).transpose()?)
}

/// The data with their labels in the order of the network's classes, where it names the same ones in another order.
pub(super) fn in_known_order(graph: &Graph, prepared: Prepared) -> Result<Prepared, PipelineError> {
    let classes = prepared.dataset.classes();
    let reordered = match known_classes(graph)? {
        Some(names) if names.len() == classes.len() && !same_classes(&names, classes) => {
            prepared.dataset.numbered_as(&names).ok()
        }
        _ => None,
    };
    Ok(Prepared {
        dataset: reordered.unwrap_or(prepared.dataset),
        preprocess: prepared.preprocess,
    })
}

/// The data with their labels in the order of the network's classes, where those are known, of which the data may have a
/// part.
///
/// # Errors
/// [`PipelineError`] where the data have a class that the network has not, or the network has another number of scores
/// than the data have classes.
pub(super) fn in_order_of(graph: &Graph, prepared: Prepared) -> Result<Prepared, PipelineError> {
    let dataset = match known_classes(graph)? {
        Some(names) if !same_classes(&names, prepared.dataset.classes()) => {
            prepared.dataset.numbered_as(&names)?
        }
        _ => prepared.dataset,
    };
    let prepared = Prepared {
        dataset,
        preprocess: prepared.preprocess,
    };
    let batch = graph.image_input()?.batch.unwrap_or(1);
    let [_, _, height, width] = prepared.input_shape(batch);
    let classes = prepared.dataset.classes().len();
    if let (Some(output), Ok(inferred)) = (
        graph.outputs.first(),
        infer_images(graph, batch, height, width),
    ) && let Some(&[_, scores, ref rest @ ..]) = inferred.shape(&output.name)
        && rest.iter().all(|&axis| axis == 1)
        && scores != classes
    {
        return Err(PipelineError::Classes { scores, classes });
    }
    Ok(prepared)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::samples::Builder;
    use crate::graph::{Dim, Op};
    use crate::pipeline::DataSettings;
    use crate::progress::Silent;
    use crate::tensor::Tensor;
    use crate::verify::{Options, RuntimeKind};

    fn prepared(graph: &Graph) -> Prepared {
        let settings = DataSettings {
            preprocess: Some("unit".to_owned()),
            ..DataSettings::default()
        };
        prepare(graph, &settings, 0, &Silent).unwrap()
    }

    #[test]
    fn a_file_that_counts_on_its_batch_is_told_of() {
        let network = |row: &[i64]| {
            let mut b = Builder::new(1);
            if let Some(dims) = &mut b.graph.inputs[0].dims {
                dims[0] = Dim::Fixed(1);
            }
            let row = ArcArray::from(row.to_vec()).into_dyn();
            b.graph.initializers.insert("row".into(), Tensor::I64(row));
            let made = b.node("flat", Op::Reshape { allow_zero: false }, &["x", "row"]);
            let weight = b.zeros("weight", &[64, 10]);
            let made = b.node("scores", Op::MatMul, &[&made, &weight]);
            b.output(&made)
        };
        let counting = network(&[1, -1]);
        let error = check_batch(&counting, &prepared(&counting)).unwrap_err();
        assert!(matches!(error, PipelineError::FixedBatch { batch: 1, .. }));
        assert!(error.to_string().contains("`dynamic_axes`"), "{error}");
        let free = network(&[-1, 64]);
        check_batch(&free, &prepared(&free)).unwrap();
    }

    #[test]
    fn a_network_that_the_runtime_does_not_know_is_told_of_before_the_work() {
        let mut b = Builder::new(1);
        let made = b.conv("conv", "x", [2, 1, 3, 3], 1);
        let good = b.output(&made);
        let runtime = verify::open(RuntimeKind::Tract, &Options::default()).unwrap();
        let check = |graph: &Graph| {
            let data = prepared(graph);
            let model = Model::new(graph.clone());
            check_runtime(&*runtime, Path::new("model.onnx"), &model, &data)
        };
        check(&good).unwrap();
        // A convolution that gets an image of one channel, and wants two.
        let mut wrong = good.clone();
        let weight = ArcArray::zeros(IxDyn(&[2, 2, 3, 3]));
        wrong
            .initializers
            .insert("conv.weight".into(), Tensor::F32(weight));
        let error = check(&wrong).unwrap_err();
        assert!(matches!(error, PipelineError::Load { .. }), "{error}");
    }

    #[test]
    fn one_number_for_two_classes_is_refused_with_the_ways_out() {
        let mut b = Builder::new(1);
        let made = b.conv("conv", "x", [1, 1, 8, 8], 1);
        let made = b.node(
            "sigmoid",
            Op::Activation(crate::graph::Activation::Sigmoid),
            &[&made],
        );
        let made = b.node("pool", Op::GlobalAveragePool, &[&made]);
        let made = b.node("flat", Op::Flatten { axis: 1 }, &[&made]);
        let graph = b.output(&made);
        let error = check_one_score(&graph, [8, 8]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`--head new`") && text.contains("`--data-kind images`"),
            "{text}"
        );
    }
}
