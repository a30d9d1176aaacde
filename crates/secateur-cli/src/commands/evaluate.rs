//! `secateur evaluate`.

use super::check_data;
use crate::args::EvaluateArgs;
use crate::progress::Terminal;
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::pipeline;

pub fn run(args: &EvaluateArgs, progress: &Terminal) -> Result<Outcome> {
    let settings = args.settings.resolve(|settings| {
        args.data.apply(settings);
        args.runtime.apply(settings);
    })?;
    check_data(&settings)?;
    let report = pipeline::evaluate_file(
        &args.model,
        args.split.split(),
        &settings,
        &args.global.runtime_options(),
        progress,
    )
    .map_err(failure::about(&args.model))?;
    output::emit(args.global.format, &report, &[report.table()], &[])?;
    Ok(Outcome::Done)
}
