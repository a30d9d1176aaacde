//! `secateur transfer`.

use super::{check_data, check_output};
use crate::args::TransferCommand;
use crate::progress::Terminal;
use crate::{Outcome, failure, interrupt, output};
use anyhow::Result;
use secateur::pipeline::{self, TransferJob};

pub fn run(args: &TransferCommand, progress: &Terminal) -> Result<Outcome> {
    let settings = args.settings.resolve(|settings| {
        args.engine.apply(settings);
        args.data.apply(settings);
        args.augment.apply(settings);
        args.transfer.apply(settings);
    })?;
    check_data(&settings)?;
    check_output(&args.output, &[&args.model])?;
    let folder = args.run.folder(&args.output)?;
    interrupt::listen()?;
    let report = pipeline::transfer_file(&TransferJob {
        model: &args.model,
        output: &args.output,
        run: &folder,
        resume: args.run.resume(),
        settings: &settings,
        engine: &*settings.engine.open(),
        progress,
    })
    .map_err(failure::about(&args.model))?;
    output::emit(
        args.global.format,
        &report,
        &[report.table()],
        &report.remarks(),
    )?;
    Ok(Outcome::Done)
}
