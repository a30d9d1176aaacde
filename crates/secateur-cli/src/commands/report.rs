//! `secateur report`.

use crate::args::ReportArgs;
use crate::{Outcome, output};
use anyhow::{Context, Result, anyhow};
use secateur::report::CompressReport;

pub fn run(args: &ReportArgs) -> Result<Outcome> {
    let path = args.run.join("report.json");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read `{}`, which a run of `compress` writes at its end",
            path.display()
        )
    })?;
    let report: CompressReport = serde_json::from_str(&text)
        .map_err(|error| anyhow!("`{}` is no report: {error}", path.display()))?;
    output::emit(
        args.global.format,
        &report,
        &report.tables(),
        &report.remarks(),
    )?;
    Ok(Outcome::of(report.goal_met))
}
