//! `secateur report`.

use crate::args::ReportArgs;
use crate::{Outcome, output};
use anyhow::{Context, Result, anyhow, bail};
use secateur::report::{CompressReport, StudyReport};
use secateur::study;
use serde::de::DeserializeOwned;
use std::path::Path;

pub fn run(args: &ReportArgs) -> Result<Outcome> {
    if args.run.join(study::UNFINISHED).exists() {
        bail!(
            "the study in `{}` is not finished: `secateur study` with `--resume` goes on",
            args.run.display()
        );
    }
    let of_study = args.run.join(study::REPORT);
    if of_study.exists() {
        let report: StudyReport = read(&of_study)?;
        let remarks = report.remarks();
        output::emit(args.global.format, &report, &report.tables(), &remarks)?;
        return Ok(Outcome::of(report.failures.is_empty()));
    }
    let report: CompressReport = read(&args.run.join("report.json"))?;
    output::emit(
        args.global.format,
        &report,
        &report.tables(),
        &report.remarks(),
    )?;
    Ok(Outcome::of(report.goal_met))
}

fn read<R: DeserializeOwned>(path: &Path) -> Result<R> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read `{}`, which a run of `compress` writes at its end",
            path.display()
        )
    })?;
    serde_json::from_str(&text)
        .map_err(|error| anyhow!("`{}` is no report: {error}", path.display()))
}
