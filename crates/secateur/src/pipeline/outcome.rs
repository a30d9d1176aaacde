//! The exported file at the end of a run: whether it is the network that was made, and what it is worth.

use super::judge::{counted, first_images};
use super::rounds::Context;
use super::stages::source;
use super::{Amount, Original, PipelineError, Target};
use crate::cost::Cost;
use crate::data::{Augment, Batch, DataError, Order, Split};
use crate::decompose::DecomposeSummary;
use crate::exec::Request;
use crate::fold::{FoldSummary, Form};
use crate::graph::{Graph, INPUT_FACTOR};
use crate::report::{BenchReport, LayerKind, LayerResult, Measure, TargetResult, VerifyResult};
use crate::verify::{self, OutputError, VerifyError};

/// Compares the network in memory (before folding) with the exported bytes in the runtime, output by
/// output: what is said is of the one that differs most.
fn compare(
    context: &Context<'_>,
    graph: &Graph,
    exported: &[u8],
) -> Result<VerifyResult, PipelineError> {
    let names: Vec<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
    let source = source(context.prepared, context.settings);
    let n = context.settings.verify.images.max(1);
    let mut loaded = context.runtime.load(exported, input_shape(context))?;
    let request = Request::evaluation(graph, names.clone());
    let mut session = context.engine.session(&request)?;
    let summary = verify::compare_outputs(
        names.len(),
        &mut |images| session.forward(images).map_err(VerifyError::network),
        &mut |images| loaded.run_all(images),
        || first_images(source.batches(Split::Test, Order::Stored, Augment::None), n),
        context.runtime.name(),
    )?;
    let mut tolerance = verify::Tolerance::default();
    if context.task.classes().is_err() {
        // The place of the highest value need not be a class.
        tolerance.top1_agreement = 0.0;
    }
    summary.check(tolerance)?;
    Ok(VerifyResult {
        max_abs_diff: summary.max_abs_diff,
        relative: summary.relative,
        top1_agreement: summary.top1_agreement,
        runtime: summary.runtime,
        n: summary.n,
    })
}

fn input_shape(context: &Context<'_>) -> [usize; 4] {
    let batch = context.settings.data.batch_size;
    context.prepared.input_shape(batch)
}

/// The images of the test split, each telling of its progress in `what`.
fn test_batches<'c>(
    context: &'c Context<'_>,
    what: &str,
) -> impl Iterator<Item = Result<Batch, DataError>> + 'c {
    let n = context.prepared.dataset.len(Split::Test);
    context.progress.begin(what, n as u64);
    let (prepared, settings) = (context.prepared, context.settings);
    counted(
        prepared,
        Split::Test,
        usize::MAX,
        settings,
        context.progress,
    )
}

fn test_accuracy(
    context: &Context<'_>,
    bytes: &[u8],
    what: &str,
) -> Result<verify::Accuracy, PipelineError> {
    let mut loaded = context.runtime.load(bytes, input_shape(context))?;
    let batches = test_batches(context, what);
    let found = verify::evaluate(&mut |images| loaded.run(images), batches)?;
    context.progress.end();
    Ok(found)
}

/// The error of the exported network's outputs beside those of the file before, on the test images.
fn test_outputs(
    context: &Context<'_>,
    before: &[u8],
    after: &[u8],
) -> Result<OutputError, PipelineError> {
    let shape = input_shape(context);
    let mut before = context.runtime.load(before, shape)?;
    let mut after = context.runtime.load(after, shape)?;
    let mut error = OutputError::default();
    for batch in test_batches(context, "compare the outputs") {
        let images = batch?.images;
        error.add(&before.run_all(&images)?, &after.run_all(&images)?)?;
    }
    context.progress.end();
    Ok(error)
}

/// What the exported file is found to be.
pub(super) struct Outcome {
    pub verified: VerifyResult,
    /// Accuracy before and after on the test images, where they have labels.
    pub accuracy: Option<(verify::Accuracy, verify::Accuracy)>,
    /// The error of the outputs on them, where they have none.
    pub output_error: Option<f64>,
    /// Test images.
    pub n_test: usize,
}

impl Outcome {
    /// Compares the file `after` with `graph` in memory, and both files with labels or with each other.
    pub fn of(
        context: &Context<'_>,
        graph: &Graph,
        before: &[u8],
        after: &[u8],
    ) -> Result<Self, PipelineError> {
        let verified = compare(context, graph, after)?;
        let mut outcome = Self {
            verified,
            accuracy: None,
            output_error: None,
            n_test: 0,
        };
        if context.task.classes().is_ok() {
            let before = test_accuracy(context, before, "test the transferred network")?;
            let after = test_accuracy(context, after, "test the exported network")?;
            outcome.n_test = after.n;
            outcome.accuracy = Some((before, after));
        } else {
            let error = test_outputs(context, before, after)?;
            outcome.n_test = error.images();
            outcome.output_error = Some(error.relative());
        }
        Ok(outcome)
    }
}

/// Percentage points of accuracy lost, where accuracy is known.
pub(super) fn drop(before: &Measure, after: &Measure) -> Option<f64> {
    Some(100.0 * (before.top1? - after.top1?))
}

/// What became of each target.
pub(super) fn target_results(
    targets: &[Target],
    before: &Measure,
    after: &Measure,
    output_error: Option<f64>,
    latency: &BenchReport,
) -> Vec<TargetResult> {
    let millis = |at: usize| latency.models.get(at).map_or(0.0, |model| model.p50_ms);
    let original = Original {
        params: before.params,
        macs: before.macs,
        bytes: before.bytes,
        millis: millis(0),
    };
    let result = |target: &Target| {
        let want = target.want(&original);
        let got = match target {
            Target::AccDrop(_) => drop(before, after).unwrap_or(f64::INFINITY),
            Target::OutputError(_) => output_error.unwrap_or(f64::INFINITY),
            Target::Params(_) => after.params as f64,
            Target::Macs(_) => after.macs as f64,
            Target::Size(_) => after.bytes as f64,
            // Turn by turn, so that a machine that was slow in a few turns was so for both.
            Target::Latency(Amount::Share(_)) => {
                let speedup = latency.models.get(1).map_or(1.0, |model| model.speedup);
                millis(0) / speedup.max(f64::MIN_POSITIVE)
            }
            Target::Latency(Amount::Absolute(_)) => millis(1),
        };
        TargetResult {
            name: target.name().to_owned(),
            want,
            got,
            // A drop is a difference of two quotients: allow for its rounding.
            met: got <= want + 1e-9,
        }
    };
    targets.iter().map(result).collect()
}

/// What became of each layer.
pub(super) fn layer_results(
    summary: &DecomposeSummary,
    folded: &FoldSummary,
    small: &Cost,
) -> Vec<LayerResult> {
    let result = |record: &crate::decompose::LayerRecord| {
        let params_before = record.shape.map_or(0, |shape| shape.dense_params());
        let found = folded.layers.iter().find(|layer| layer.name == record.name);
        let factor = format!("{}{INPUT_FACTOR}", record.name);
        let factor = small.layers.iter().find(|layer| layer.node == factor);
        let input = factor.map_or(0, |factor| factor.params);
        let input_rank = factor.and_then(|factor| factor.output_shape.get(1).copied());
        let (kind, params_after, why) = match (&record.kept, found) {
            (Some(why), _) => {
                let now = small.layers.iter().find(|layer| layer.node == record.name);
                let params = now.map_or(params_before, |layer| layer.params);
                (LayerKind::Excluded, params, why.to_string())
            }
            (None, Some(layer)) if layer.form == Form::Factored => {
                (LayerKind::Factored, layer.params + input, String::new())
            }
            (None, found) => (
                LayerKind::Dense,
                found.map_or(params_before, |layer| layer.params + input),
                "two factors of this rank are not smaller".to_owned(),
            ),
        };
        LayerResult {
            name: record.name.clone(),
            kind,
            rank: found.map_or(record.full_rank, |layer| layer.rank),
            full_rank: record.full_rank,
            input_rank,
            params_before,
            params_after,
            why,
        }
    };
    summary.layers.iter().map(result).collect()
}
