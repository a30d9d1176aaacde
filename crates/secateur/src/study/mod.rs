//! Grids of runs: networks made and cut under several settings, each with several seeds, to several targets.
//!
//! What pre-training is worth to a network that is pruned afterwards is such a grid (Hubens et al., arXiv 2112.08227;
//! docs/method.md, section 8); so is any comparison of settings.

mod plan;
mod run;

pub use plan::{Arm, Study};
pub use run::{ArmPlan, StudyJob, foresee_study, run_study};

use crate::pipeline::PipelineError;
use std::path::PathBuf;

/// A study that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The file is no study.
    #[error("`{}` is no study: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An arm cannot begin.
    #[error("arm `{arm}`, `{}`: {problem}", model.display())]
    Arm {
        /// Its name.
        arm: String,
        /// The network's file.
        model: PathBuf,
        /// What stands in the way.
        problem: Box<PipelineError>,
    },
    /// A run failed.
    #[error("arm `{arm}`, seed {seed}, {what}: {problem}")]
    Run {
        /// Name of the arm.
        arm: String,
        /// The seed.
        seed: u64,
        /// Transfer, or the target.
        what: String,
        /// What stands in the way.
        problem: Box<PipelineError>,
    },
    /// An arm cannot reach a target.
    #[error("arm `{arm}`: target `{target}` cannot be reached")]
    Infeasible {
        /// Its name.
        arm: String,
        /// The target.
        target: String,
    },
    /// The folder holds a study that is not finished.
    #[error(
        "folder `{}` holds a study that is not finished: go on with `--resume`, begin anew with `--anew`, or choose another \
         `--run` folder",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// A file of the folder cannot be written.
    #[error(transparent)]
    Write(#[from] crate::files::WriteError),
    /// A file of the folder cannot be removed, or the folder not be made.
    #[error("`{}`: {problem}", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The report cannot be rendered.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
}
