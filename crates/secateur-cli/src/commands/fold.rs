//! `secateur fold`.

use super::check_output;
use crate::args::FoldArgs;
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::fold::{BatchNorm, FoldConfig};
use secateur::pipeline;

pub fn run(args: &FoldArgs) -> Result<Outcome> {
    check_output(&args.output, &[&args.model])?;
    let batch_norm = if args.batch_norm {
        BatchNorm::Fold
    } else {
        BatchNorm::Keep
    };
    let config = FoldConfig {
        batch_norm,
        ..FoldConfig::default()
    };
    let report = pipeline::fold_file(&args.model, &args.output, &config)
        .map_err(failure::about(&args.model))?;
    output::emit(
        args.global.format,
        &report,
        &[report.table(), report.layer_table()],
        &report.remarks(),
    )?;
    Ok(Outcome::Done)
}
