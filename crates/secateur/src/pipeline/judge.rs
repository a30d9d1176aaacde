//! Accuracy of a file, and the difference of two, in an independent runtime.

use super::checks::check_scores;
use super::{PipelineError, Prepared, Settings, prepare};
use crate::data::{Augment, Batch, DataError, Order, Split, counted_batch};
use crate::graph::Graph;
use crate::onnx;
use crate::progress::Progress;
use crate::report::{EvaluateReport, VerifyReport};
use crate::verify::{self, Tolerance, VerifyError};
use ndarray::{ArcArray, IxDyn};
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

/// Top-1 and top-5 accuracy of a file on a split.
///
/// # Errors
/// [`PipelineError`] where the file or the data cannot be read, or the file does not run.
pub fn evaluate_file(
    model: &Path,
    split: Split,
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
    let shape = prepared.input_shape(settings.data.batch_size);
    let mut network = runtime.load(&bytes, shape)?;
    progress.begin("evaluate", prepared.dataset.len(split) as u64);
    let batches = counted(&prepared, split, settings, progress);
    let found = verify::evaluate(&mut |images| network.run(images), batches)?;
    progress.end();
    Ok(EvaluateReport {
        model: model.display().to_string(),
        split: split.name().to_owned(),
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
    let (mut network_a, mut network_b) = (
        runtime.load(&bytes_a, shape)?,
        runtime.load(&bytes_b, shape)?,
    );
    let n_outputs = graph.outputs.len();
    let mut run_a = |images: &_| network_a.run_all(images);
    let mut run_b = |images: &_| network_b.run_all(images);
    let name = runtime.name();
    let summary = match &prepared {
        Some(prepared) => {
            let n_batches = settings
                .verify
                .images
                .div_ceil(settings.data.batch_size.max(1))
                .max(1);
            let n = (n_batches * settings.data.batch_size).min(prepared.dataset.len(Split::Test));
            progress.begin("compare", (n * n_outputs) as u64);
            let batches = || counted(prepared, Split::Test, settings, progress).take(n_batches);
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

/// The batches of a split, each telling of its progress.
pub(super) fn counted<'p>(
    prepared: &'p Prepared,
    split: Split,
    settings: &Settings,
    progress: &'p dyn Progress,
) -> impl Iterator<Item = Result<Batch, DataError>> + 'p {
    prepared
        .dataset
        .batches(
            split,
            &prepared.preprocess,
            Order::Stored,
            Augment::None,
            settings.data.batch_size,
        )
        .map(|batch| counted_batch(batch, progress))
}

pub(super) fn random_shape(
    graph: &Graph,
    n: usize,
    settings: &Settings,
) -> Result<[usize; 4], PipelineError> {
    let found = super::inspect::image(graph, settings.data.size)?;
    match found {
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
