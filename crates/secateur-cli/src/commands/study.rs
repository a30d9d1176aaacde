//! `secateur study`.

use crate::args::StudyArgs;
use crate::progress::Terminal;
use crate::{Outcome, interrupt, output};
use anyhow::Result;
use secateur::report::{MACS_NOTE, Table};
use secateur::study::{ArmPlan, Study, StudyJob, foresee_study, run_study};

pub fn run(args: &StudyArgs, progress: &Terminal) -> Result<Outcome> {
    let study = Study::read(&args.study)?;
    let options = args.global.runtime_options();
    if args.dry_run {
        let plans = foresee_study(&study, &options, progress)?;
        output::emit(args.global.format, &plans, &[plan_table(&plans)], &[])?;
        return Ok(Outcome::Done);
    }
    let folder = args.run.folder(&args.study)?;
    interrupt::listen()?;
    let report = run_study(&StudyJob {
        name: &args.study.display().to_string(),
        study: &study,
        folder: &folder,
        resume: args.run.resume(),
        runtime_options: &options,
        progress,
    })?;
    let mut remarks = report.remarks();
    remarks.push(MACS_NOTE.to_owned());
    remarks.push(format!(
        "each run and the chart are in `{}`",
        folder.join("study.html").display()
    ));
    output::emit(args.global.format, &report, &[report.row_table()], &remarks)?;
    Ok(Outcome::of(report.failures.is_empty()))
}

fn plan_table(plans: &[ArmPlan]) -> Table {
    let columns = ["arm", "network", "data", "before the cuts", "#runs"];
    let mut table = Table::new("Arms", &columns);
    for plan in plans {
        let made = match &plan.shares {
            Some(arm) => format!("the networks of arm `{arm}`"),
            None => plan.transfer.clone(),
        };
        table.push([
            plan.arm.clone(),
            plan.model.clone(),
            plan.data.clone(),
            made,
            plan.runs.to_string(),
        ]);
    }
    table
}
