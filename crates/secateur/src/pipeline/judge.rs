//! Accuracy of a file, and the difference of two, in an independent runtime.

use super::checks::check_scores;
use super::opening::in_order_of;
use super::{MAX_SIDE, PipelineError, Prepared, Settings, prepare};
use crate::data::{Augment, Batch, DataError, Order, Split, counted_batch};
use crate::graph::Graph;
use crate::onnx;
use crate::progress::Progress;
use crate::report::{EvaluateReport, VerifyReport};
use crate::verify::{self, Tolerance, VerifyError};
use ndarray::{ArcArray, Axis, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::time::Instant;

/// The images on which two files are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// The test split of the settings' data.
    Test,
    /// This many images of seeded uniform noise from -1 to 1.
    Random(usize),
}

/// Top-1 and top-5 accuracy of a file on a split, or on all images where `split` is `None`. Labels are put in the order of
/// the classes that the file names.
///
/// # Errors
/// [`PipelineError`] where the file or the data cannot be read, or the file does not run.
pub fn evaluate_file(
    model: &Path,
    split: Option<Split>,
    settings: &Settings,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<EvaluateReport, PipelineError> {
    let start = Instant::now();
    let runtime = verify::open(settings.verify.runtime, options)?;
    let bytes = onnx::bytes_of(model)?;
    let graph = onnx::read(model)?.graph;
    check_scores(&graph)?;
    let prepared = prepare(&graph, &settings.data, settings.seed, progress)?;
    prepared.check_labelled()?;
    let prepared = in_order_of(&graph, prepared)?;
    let shape = prepared.input_shape(settings.data.batch_size);
    let mut network = runtime.load(&bytes, shape)?;
    let splits = match split {
        Some(split) => vec![split],
        None => vec![Split::Train, Split::Val, Split::Test],
    };
    let n: usize = splits
        .iter()
        .map(|&split| prepared.dataset.len(split))
        .sum();
    progress.begin("evaluate", n as u64);
    let batches = |split| counted(&prepared, split, usize::MAX, settings, progress);
    let batches = splits.into_iter().flat_map(batches);
    let found = verify::evaluate(&mut |images| network.run(images), batches)?;
    progress.end();
    Ok(EvaluateReport {
        model: model.display().to_string(),
        split: split.map_or("all", Split::name).to_owned(),
        n: found.n,
        correct: found.correct,
        top1: found.top1,
        top5: found.top5,
        standard_error: found.standard_error,
        non_finite: found.non_finite,
        runtime: runtime.name().to_owned(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Runs two files on the same images and says how far their outputs are apart.
///
/// # Errors
/// [`PipelineError`] where a file or the data cannot be read, or a file does not run. A difference is
/// no error: see [`VerifyReport::within_tolerance`].
pub fn verify_files(
    a: &Path,
    b: &Path,
    images: Images,
    settings: &Settings,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<VerifyReport, PipelineError> {
    let runtime = verify::open(settings.verify.runtime, options)?;
    let (bytes_a, bytes_b) = (onnx::bytes_of(a)?, onnx::bytes_of(b)?);
    let graph = onnx::read(a)?.graph;
    let prepared = match images {
        Images::Test => Some(prepare(&graph, &settings.data, settings.seed, progress)?),
        Images::Random(_) => None,
    };
    let (shape, description) = match (&prepared, images) {
        (Some(prepared), _) => (
            prepared.input_shape(settings.data.batch_size),
            "test split".to_owned(),
        ),
        (None, Images::Random(n)) => (
            random_shape(&graph, n, settings)?,
            format!("uniform noise, seed {}", settings.seed),
        ),
        (None, Images::Test) => return Err(PipelineError::NoTestImages),
    };
    let load = |path: &Path, bytes: &[u8]| {
        let loaded = runtime.load(bytes, shape);
        loaded.map_err(|source| PipelineError::of_file(path, source))
    };
    let (mut network_a, mut network_b) = (load(a, &bytes_a)?, load(b, &bytes_b)?);
    let n_outputs = graph.outputs.len();
    let mut run_a = |images: &_| network_a.run_all(images);
    let mut run_b = |images: &_| network_b.run_all(images);
    let name = runtime.name();
    let summary = match &prepared {
        Some(prepared) => {
            let wanted = settings.verify.images.max(1);
            let n = wanted.min(prepared.dataset.len(Split::Test));
            progress.begin("compare", (n * n_outputs) as u64);
            let batches = || counted(prepared, Split::Test, n, settings, progress);
            verify::compare_outputs(n_outputs, &mut run_a, &mut run_b, batches, name)?
        }
        None => {
            let noise = noise(shape, settings.seed)?;
            let batches = || [Ok::<_, VerifyError>(noise.clone())];
            verify::compare_outputs(n_outputs, &mut run_a, &mut run_b, batches, name)?
        }
    };
    progress.end();
    let problem = match summary.check(Tolerance::default()) {
        Ok(()) => None,
        Err(VerifyError::Differs { problem, .. }) => Some(problem),
        Err(error) => return Err(error.into()),
    };
    Ok(VerifyReport {
        a: a.display().to_string(),
        b: b.display().to_string(),
        images: description,
        n: summary.n,
        max_abs_diff: summary.max_abs_diff,
        relative: summary.relative,
        top1_agreement: summary.top1_agreement,
        non_finite: summary.non_finite,
        runtime: summary.runtime,
        within_tolerance: problem.is_none(),
        problem,
    })
}

/// The first `n` images of a split, each batch telling of its progress.
pub(super) fn counted<'p>(
    prepared: &'p Prepared,
    split: Split,
    n: usize,
    settings: &Settings,
    progress: &'p dyn Progress,
) -> impl Iterator<Item = Result<Batch, DataError>> + 'p {
    let batches = prepared.dataset.batches(
        split,
        &prepared.preprocess,
        Order::Stored,
        Augment::None,
        settings.data.batch_size,
    );
    first_images(batches, n).map(|batch| counted_batch(batch, progress))
}

/// Batches up to the first `n` images, the last one cut short where it has more.
pub(super) fn first_images<E>(
    batches: impl Iterator<Item = Result<Batch, E>>,
    n: usize,
) -> impl Iterator<Item = Result<Batch, E>> {
    batches.scan(n, |left, batch| {
        if *left == 0 {
            return None;
        }
        Some(batch.map(|mut batch| {
            let images = batch.labels.len().min(*left);
            *left -= images;
            if images < batch.labels.len() {
                batch.labels.truncate(images);
                batch.images.slice_axis_inplace(Axis(0), (0..images).into());
            }
            batch
        }))
    })
}

/// The shape of `n` images of noise as the file takes them.
pub(super) fn random_shape(
    graph: &Graph,
    n: usize,
    settings: &Settings,
) -> Result<[usize; 4], PipelineError> {
    let found = super::inspect::image(graph, settings.data.size)?;
    match found {
        Some([_, height, width]) if height.max(width) > MAX_SIDE => {
            Err(PipelineError::ImageSize { height, width })
        }
        Some([channels, height, width]) => Ok([n.max(1), channels, height, width]),
        None => Err(PipelineError::NoSize),
    }
}

pub(super) fn noise(shape: [usize; 4], seed: u64) -> Result<Batch, PipelineError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let length = shape.iter().product();
    let values: Vec<f32> = (0..length)
        .map(|_| random.random_range(-1.0..=1.0))
        .collect();
    let images = ArcArray::from_shape_vec(IxDyn(&shape), values).map_err(VerifyError::network)?;
    Ok(Batch {
        images,
        labels: vec![0; shape[0]],
    })
}
