//! `secateur prune`.

use super::{check_data, check_output};
use crate::args::PruneCommand;
use crate::progress::Terminal;
use crate::{Outcome, failure, output};
use anyhow::{Context, Result};
use secateur::files::{check_writable, write_atomic};
use secateur::pipeline::{self, CutJob};
use secateur::prune::PruningPlan;

pub fn run(args: &PruneCommand, progress: &Terminal) -> Result<Outcome> {
    check_output(&args.output, &[&args.model])?;
    let report = match &args.plan {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            let plan: PruningPlan = serde_json::from_str(&text)
                .with_context(|| format!("`{}` holds no plan", path.display()))?;
            pipeline::replay_file(&args.model, &args.output, &plan)
                .map_err(failure::about(&args.model))?
        }
        None => {
            let settings = args.settings.resolve(|settings| {
                args.engine.apply(settings);
                args.data.apply(settings);
                args.augment.apply(settings);
                args.sizes.apply(settings);
                args.cut.apply(settings);
            })?;
            check_data(&settings)?;
            if let Some(path) = &args.save_plan {
                check_writable(path)?;
            }
            let (report, plan) = pipeline::cut_file(&CutJob {
                model: &args.model,
                output: &args.output,
                settings: &settings,
                engine: &*settings.engine.open(),
                progress,
            })
            .map_err(failure::about(&args.model))?;
            if let Some(path) = &args.save_plan {
                write_atomic(path, serde_json::to_string_pretty(&plan)?.as_bytes())?;
            }
            report
        }
    };
    output::emit(
        args.global.format,
        &report,
        &[report.table(), report.layer_table()],
        &report.remarks(),
    )?;
    Ok(Outcome::of(report.goal_met))
}
