//! `secateur inspect`.

use crate::args::InspectArgs;
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::pipeline;
use secateur::report::MACS_NOTE;

pub fn run(args: &InspectArgs) -> Result<Outcome> {
    let report = pipeline::inspect(&args.model, args.size).map_err(failure::about(&args.model))?;
    let mut remarks = vec![MACS_NOTE.to_owned()];
    if report.image.is_none() {
        remarks.push(
            "the file does not fix the image size: `--size HxW` gives shapes and MACs".to_owned(),
        );
    }
    let tables = [report.layer_table(), report.total_table()];
    output::emit(args.global.format, &report, &tables, &remarks)?;
    Ok(Outcome::Done)
}
