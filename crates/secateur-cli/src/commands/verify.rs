//! `secateur verify`.

use crate::args::VerifyArgs;
use crate::progress::{Terminal, line};
use crate::{Outcome, failure, output};
use anyhow::Result;
use secateur::data::DataKind;
use secateur::pipeline::{self, Images};

pub fn run(args: &VerifyArgs, progress: &Terminal) -> Result<Outcome> {
    let settings = args.settings.resolve(|settings| {
        args.data.apply(settings);
        args.runtime.apply(settings);
        settings.verify.images = args.images.unwrap_or(settings.verify.images);
    })?;
    let has_data = settings.data.path.is_some() || settings.data.kind == Some(DataKind::Digits);
    let images = if has_data {
        Images::Test
    } else {
        Images::Random(args.random_images)
    };
    let report = pipeline::verify_files(
        &args.a,
        &args.b,
        images,
        &settings,
        &args.global.runtime_options(),
        progress,
    )
    .map_err(failure::about(&args.a))?;
    output::emit(args.global.format, &report, &[report.table()], &[])?;
    match &report.problem {
        None => Ok(Outcome::Done),
        Some(problem) => {
            line(&format!("the files differ beyond the tolerance: {problem}"));
            Ok(Outcome::Missed)
        }
    }
}
