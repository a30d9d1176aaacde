//! Grids of runs: networks made and cut under several settings, each with several seeds, to several targets.
//!
//! What pre-training is worth to a network that is pruned afterwards is such a grid (Hubens et al., arXiv 2112.08227;
//! docs/method.md, section 8); so is any comparison of settings.

mod foresee;
mod plan;
mod run;

pub use foresee::{ArmPlan, foresee_study};
pub use plan::{Arm, Study};
pub use run::{REPORT, StudyJob, UNFINISHED, run_study};

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
        #[source]
        problem: Box<PipelineError>,
    },
    /// The study cannot go on.
    #[error("arm `{arm}`, seed {seed}, {what}: {problem}")]
    Run {
        /// Name of the arm.
        arm: String,
        /// The seed.
        seed: u64,
        /// Transfer, or the target.
        what: String,
        /// What stands in the way.
        #[source]
        problem: Box<PipelineError>,
    },
    /// An arm cannot reach a target.
    #[error("arm `{arm}`: target `{target}` cannot be reached: at least {least} remain")]
    Infeasible {
        /// Its name.
        arm: String,
        /// The target.
        target: String,
        /// Parameters, multiply-accumulates or bytes with every layer at rank 1.
        least: u64,
    },
    /// The folder holds a study already.
    #[error(
        "folder `{}` holds a study: `--resume` goes on with it, and adds what is new; `--anew` removes its runs; or choose another \
         `--run` folder",
        .0.display()
    )]
    Exists(PathBuf),
    /// The folder is that of a run.
    #[error("folder `{}` is that of a run of `compress` or `transfer`: choose another `--run` folder", .0.display())]
    IsRun(PathBuf),
    /// The folder is in use.
    #[error(transparent)]
    Locked(Box<PipelineError>),
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
