//! How fast files run.

use super::judge::{noise, random_shape};
use super::rounds::Context;
use super::{PipelineError, Settings};
use crate::bench::{Turns, in_turns};
use crate::onnx;
use crate::progress::Progress;
use crate::report::{BenchReport, FileLatency};
use crate::tensor::Floats;
use crate::verify::{self, Loaded, Options, Runtime};
use std::path::Path;
use std::time::Duration;

/// The latency of files that take the same images, measured in turns on seeded noise; at least `batch`
/// images in a run, and as many as the file takes that fixes most.
///
/// # Errors
/// [`PipelineError`] where a file cannot be read or does not run, or nothing says how large images are.
pub fn bench_files(
    files: &[&Path],
    batch: usize,
    turns: &Turns,
    settings: &Settings,
    options: &Options,
    progress: &dyn Progress,
) -> Result<BenchReport, PipelineError> {
    let runtime = verify::open(settings.verify.runtime, options)?;
    let mut read_files = Vec::new();
    for file in files {
        read_files.push((file.display().to_string(), onnx::bytes_of(file)?));
    }
    let graph = match files.first() {
        Some(file) => onnx::read(file)?.graph,
        None => return Err(PipelineError::NoSize),
    };
    let shape = random_shape(&graph, batch, settings)?;
    let named: Vec<(&str, &[u8])> = read_files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let bench = Bench {
        runtime: &*runtime,
        threads: threads(options),
        shape,
        turns,
        seed: settings.seed,
    };
    bench.run(&named, progress)
}

/// The conditions of a measurement.
pub(super) struct Bench<'b> {
    pub runtime: &'b dyn Runtime,
    pub threads: usize,
    /// One run's images, `[n, c, h, w]`.
    pub shape: [usize; 4],
    pub turns: &'b Turns,
    pub seed: u64,
}

impl Bench<'_> {
    /// The latency of the named files.
    pub fn run(
        &self,
        files: &[(&str, &[u8])],
        progress: &dyn Progress,
    ) -> Result<BenchReport, PipelineError> {
        let mut loaded: Vec<Box<dyn Loaded>> = Vec::new();
        for (name, bytes) in files {
            let network = self.runtime.load(bytes, self.shape);
            loaded.push(network.map_err(|source| PipelineError::of_file(name, source))?);
        }
        // A file that fixes the number of images runs no fewer, and then the others run as many.
        let batches = loaded.iter().map(|network| network.batch());
        let mut shape = self.shape;
        shape[0] = batches.fold(shape[0], usize::max);
        let images = noise(shape, self.seed)?.images;
        let mut networks: Vec<(Box<dyn Loaded>, Floats)> = loaded
            .into_iter()
            .map(|network| (network, images.clone()))
            .collect();
        progress.begin("latency", self.turns.most as u64);
        let samples = in_turns(&mut networks, self.turns, progress)?;
        progress.end();
        let first = samples.first().cloned().unwrap_or_default();
        let latency = |((name, _), samples): (&(&str, &[u8]), _)| {
            let samples: &crate::bench::Samples = samples;
            FileLatency {
                model: (*name).to_owned(),
                p50_ms: samples.p50(),
                p95_ms: samples.p95(),
                speedup: samples.speedup_over(&first),
            }
        };
        Ok(BenchReport {
            runtime: self.runtime.name().to_owned(),
            threads: self.threads,
            input: shape,
            runs: first.0.len(),
            models: files.iter().zip(&samples).map(latency).collect(),
        })
    }
}

/// The number of threads that runtimes are opened with.
pub(super) fn threads(options: &Options) -> usize {
    match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// The latency of files for the batch of the settings, measured for `limit`.
pub(super) fn latency(
    context: &Context<'_>,
    files: &[(&str, &[u8])],
    limit: Duration,
) -> Result<BenchReport, PipelineError> {
    let bench = Bench {
        runtime: context.runtime,
        threads: context.threads,
        shape: latency_shape(context)?,
        // Fast networks many times: what disturbs them lasts longer than a hundred runs.
        turns: &Turns {
            most: 1000,
            limit,
            ..Turns::default()
        },
        seed: context.settings.seed,
    };
    bench.run(files, context.progress)
}

/// How long the networks before and after are timed.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// The input of a run whose latency is measured: as many images as the file fixes, else as the settings
/// say.
pub(super) fn latency_shape(context: &Context<'_>) -> Result<[usize; 4], PipelineError> {
    let fixed = context.uncut.image_input()?.batch;
    let batch = fixed.unwrap_or(context.settings.verify.latency_batch);
    Ok(context.prepared.input_shape(batch))
}

/// Milliseconds of the network before any cut, from the run's folder where it knows them.
pub(super) fn latency_before(context: &Context<'_>) -> Result<f64, PipelineError> {
    let name = "checkpoints/latency.json";
    if let Some(known) = context.run.read_json(name)? {
        return Ok(known);
    }
    let report = latency(context, &[("before", context.before_bytes)], LIMIT)?;
    let millis = report.models.first().map_or(0.0, |model| model.p50_ms);
    context.run.write_json(name, &millis)?;
    Ok(millis)
}
