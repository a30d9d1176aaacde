//! `secateur decompose`.

use super::check_output;
use crate::args::DecomposeArgs;
use crate::progress::Terminal;
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::pipeline;

pub fn run(args: &DecomposeArgs, progress: &Terminal) -> Result<Outcome> {
    check_output(&args.output, &[&args.model])?;
    let exclude = args.exclude.exclude.as_deref();
    let report = pipeline::decompose_file(&args.model, &args.output, exclude, progress)
        .map_err(failure::about(&args.model))?;
    output::emit(
        args.global.format,
        &report,
        &[report.table(), report.layer_table()],
        &report.remarks(),
    )?;
    Ok(Outcome::Done)
}
