//! One module a command: arguments in, library call, result out.

pub mod bench;
pub mod compress;
pub mod decompose;
pub mod demo;
pub mod evaluate;
pub mod fold;
pub mod inspect;
pub mod prune;
pub mod report;
pub mod study;
pub mod transfer;
pub mod verify;

use anyhow::{Result, bail};
use secateur::files::check_writable;
use secateur::pipeline::Settings;
use std::path::Path;

/// Checks, before any work, that `output` can be written and is none of the files that are read.
fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    let real = output.canonicalize().ok();
    for input in inputs {
        if real.is_some() && input.canonicalize().ok() == real {
            bail!(
                "`{}` is read and would be overwritten; choose another output",
                input.display()
            );
        }
    }
    check_writable(output)?;
    Ok(())
}

/// Checks that the settings name data.
fn check_data(settings: &Settings) -> Result<()> {
    let is_digits = settings.data.kind == Some(secateur::data::DataKind::Digits);
    if settings.data.path.is_none() && !is_digits {
        bail!("no images are given: name their folder with `--data DIR`");
    }
    Ok(())
}
