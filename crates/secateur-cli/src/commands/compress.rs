//! `secateur compress`.

use super::{check_data, check_output};
use crate::args::{CompressArgs, Format};
use crate::progress::Terminal;
use crate::{Outcome, failure, interrupt, output};
use anyhow::{Result, bail};
use secateur::pipeline::{self, Job, Settings};
use secateur::report::{CompressReport, MACS_NOTE};
use std::path::Path;

pub fn run(args: &CompressArgs, progress: &Terminal) -> Result<Outcome> {
    let settings = args.settings.resolve(|settings| {
        args.engine.apply(settings);
        args.data.apply(settings);
        args.augment.apply(settings);
        args.transfer.apply(settings);
        args.targets.apply(settings);
        args.cut.apply(settings);
        args.rounds.apply(settings);
        args.runtime.apply(settings);
        args.latency.apply(settings);
    })?;
    check_data(&settings)?;
    if args.dry_run {
        return dry_run(args, &settings, progress);
    }
    let Some(output) = &args.output else {
        bail!("no output is given: name the smaller network with `--output FILE`");
    };
    check_output(output, &[&args.model])?;
    let folder = args.run.folder(output)?;
    interrupt::listen()?;
    let report = pipeline::compress(&Job {
        model: &args.model,
        output,
        run: &folder,
        resume: args.run.resume(),
        settings: &settings,
        runtime_options: &args.global.runtime_options(),
        engine: &*settings.engine.open(),
        progress,
    })
    .map_err(failure::about(&args.model))?;
    finish(&report, &folder, args.global.format, &[])
}

/// Prints the result of a run; `more` are further lines for people.
pub fn finish(
    report: &CompressReport,
    folder: &Path,
    format: Format,
    more: &[String],
) -> Result<Outcome> {
    let mut remarks = report.remarks();
    if let Some(missed) = report.missed() {
        remarks.push(format!(
            "missed: {missed}; the best network found is written"
        ));
    }
    remarks.push(format!(
        "wrote `{}`; layers, rounds and times are in `{}`",
        report.model,
        folder.join("report.md").display()
    ));
    remarks.extend_from_slice(more);
    output::emit(
        format,
        report,
        &[report.summary_table(), report.target_table()],
        &remarks,
    )?;
    Ok(Outcome::of(report.goal_met))
}

fn dry_run(args: &CompressArgs, settings: &Settings, progress: &Terminal) -> Result<Outcome> {
    let folder = args
        .output
        .as_deref()
        .map(|output| args.run.folder(output))
        .transpose()?;
    if let Some(output) = &args.output {
        check_output(output, &[&args.model])?;
    }
    let plan = pipeline::foresee(
        &args.model,
        args.output.as_deref(),
        folder.as_deref(),
        settings,
        &args.global.runtime_options(),
        progress,
    )
    .map_err(failure::about(&args.model))?;
    let tables = [
        plan.decision_table(),
        plan.network.layer_table(),
        plan.target_table(),
    ];
    output::emit(args.global.format, &plan, &tables, &[MACS_NOTE.to_owned()])?;
    let is_possible = plan
        .targets
        .iter()
        .all(|target| target.possible != Some(false));
    Ok(Outcome::of(is_possible))
}
