//! `secateur bench`.

use crate::args::{BenchArgs, defaults};
use crate::progress::Terminal;
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::pipeline;
use std::path::Path;

pub fn run(args: &BenchArgs, progress: &Terminal) -> Result<Outcome> {
    let mut settings = defaults();
    args.runtime.apply(&mut settings);
    settings.data.size = args.size;
    let files: Vec<&Path> = args.models.iter().map(|path| path.as_path()).collect();
    let report = pipeline::bench_files(
        &files,
        usize::from(args.batch_size),
        &args.turns(),
        &settings,
        &args.global.runtime_options(),
        progress,
    )
    .map_err(failure::about(
        files.first().copied().unwrap_or(Path::new("")),
    ))?;
    output::emit(
        args.global.format,
        &report,
        &[report.table()],
        &[report.conditions()],
    )?;
    Ok(Outcome::Done)
}
