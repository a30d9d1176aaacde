//! The runs of a study, one after another: each network is made once, then cut to each target.

use super::{Arm, Study, StudyError, foresee_study};
use crate::files::write_atomic;
use crate::pipeline::{
    Job, PipelineError, Resume, Target, TransferJob, compress, is_finished, lock, transfer_file,
};
use crate::progress::Progress;
use crate::report::{StudyFailure, StudyPoint, StudyReport};
use crate::verify;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// There while a study has not come to its end.
pub const UNFINISHED: &str = "study.unfinished";
/// What a study reports, there at its end.
pub const REPORT: &str = "study.json";
/// The results; names with a point in them are no arms'.
const RESULTS: [&str; 3] = [REPORT, "study.md", "study.html"];
/// The network before any cut, in the folder of its arm and seed.
const START: &str = "network.onnx";
/// The run that made it.
const TRANSFER: &str = "transfer";
/// There in the folder of a run.
const CONFIG: &str = "config.toml";

/// What [`run_study`] works on.
pub struct StudyJob<'j> {
    /// The name of the study's file, for the report.
    pub name: &'j str,
    /// The grid.
    pub study: &'j Study,
    /// The study's folder: a folder for each arm, in it one for each seed, in it one for each run.
    pub folder: &'j Path,
    /// Whether the study that the folder holds goes on.
    pub resume: Resume,
    /// Threads and library of the runtime that verifies.
    pub runtime_options: &'j verify::Options,
    /// Who hears of the progress.
    pub progress: &'j dyn Progress,
}

/// Does all runs, and writes `study.json`, `study.md` and `study.html` beside their folders. Runs that are finished stay
/// where the study goes on. One that fails is told of in the report, and the others are done.
///
/// # Errors
/// [`StudyError`] where no run can be done, or the user wanted the work to end.
pub fn run_study(job: &StudyJob<'_>) -> Result<StudyReport, StudyError> {
    let folder = job.folder;
    let is_there = |name: &str| folder.join(name).exists();
    let holds_study = is_there(UNFINISHED) || is_there(REPORT);
    if is_there(CONFIG) {
        return Err(StudyError::IsRun(folder.to_owned()));
    }
    if job.resume == Resume::No && holds_study {
        return Err(StudyError::Exists(folder.to_owned()));
    }
    foresee_study(job.study, job.runtime_options, job.progress)?;
    let _lock = lock(folder).map_err(|problem| StudyError::Locked(Box::new(problem)))?;
    write_atomic(&folder.join(UNFINISHED), b"")?;
    if job.resume != Resume::Yes && holds_study {
        clear(job)?;
    }
    let report = Runs::of(job).all()?;
    let texts = [report.to_json()?, report.to_markdown(), report.to_html()?];
    for (name, text) in RESULTS.iter().zip(texts) {
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    let unfinished = folder.join(UNFINISHED);
    removed(&unfinished, std::fs::remove_file(&unfinished))?;
    Ok(report)
}

/// Removes the results, and all runs of the grid.
fn clear(job: &StudyJob<'_>) -> Result<(), StudyError> {
    for name in RESULTS {
        let path = job.folder.join(name);
        removed(&path, std::fs::remove_file(&path))?;
    }
    for arm in &job.study.arms {
        for &seed in &job.study.seeds {
            let path = folder_of(job, arm, seed);
            removed(&path, std::fs::remove_dir_all(&path))?;
        }
    }
    Ok(())
}

/// What became of the removal of `path`, which may not have been there.
fn removed(path: &Path, found: std::io::Result<()>) -> Result<(), StudyError> {
    match found {
        Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(StudyError::Folder {
            path: path.to_owned(),
            problem,
        }),
        _ => Ok(()),
    }
}

/// The runs that are done.
struct Runs<'j> {
    job: &'j StudyJob<'j>,
    points: Vec<StudyPoint>,
    failures: Vec<StudyFailure>,
    /// The number of runs up to the one at hand.
    begun: usize,
    /// Runs that were finished before say nothing of the time that is left.
    computed: usize,
    start: Instant,
}

impl<'j> Runs<'j> {
    fn of(job: &'j StudyJob<'j>) -> Self {
        Self {
            job,
            points: Vec::new(),
            failures: Vec::new(),
            begun: 0,
            computed: 0,
            start: Instant::now(),
        }
    }

    fn all(mut self) -> Result<StudyReport, StudyError> {
        let study = self.job.study;
        for arm in &study.arms {
            for &seed in &study.seeds {
                match self.network(arm, seed) {
                    Ok(network) => {
                        for target in &study.targets {
                            self.cut(arm, seed, target, &network)?;
                        }
                    }
                    Err(problem) => {
                        self.begun += study.targets.len();
                        self.failed(arm, seed, TRANSFER, problem)?;
                    }
                }
            }
        }
        Ok(StudyReport::of(self.job.name, self.points, self.failures))
    }

    /// The network before the cuts, made where it is not there yet.
    fn network(&self, arm: &Arm, seed: u64) -> Result<PathBuf, PipelineError> {
        let job = self.job;
        let maker = maker(job, arm, seed);
        job.progress.note(&format!(
            "study: the network of arm `{}`, seed {seed}",
            maker.name
        ));
        let made = folder_of(job, maker, seed).join(START);
        let run = made.with_file_name(TRANSFER);
        make_folder(&run)?;
        let settings = maker.start_settings(seed);
        transfer_file(&TransferJob {
            model: &maker.model,
            output: &made,
            run: &run,
            resume: resume(&run),
            settings: &settings,
            engine: &*settings.engine.open(),
            progress: job.progress,
        })?;
        if maker.name == arm.name {
            return Ok(made);
        }
        let folder = folder_of(job, arm, seed);
        make_folder(&folder)?;
        let network = folder.join(START);
        let bytes = std::fs::read(&made).map_err(|e| unusable(&made, &e))?;
        write_atomic(&network, &bytes)?;
        Ok(network)
    }

    fn cut(
        &mut self,
        arm: &Arm,
        seed: u64,
        target: &Target,
        network: &Path,
    ) -> Result<(), StudyError> {
        let job = self.job;
        let total = job.study.runs();
        self.begun += 1;
        job.progress.note(&format!(
            "study: run {} of {total}: arm `{}`, seed {seed}, `{target}`{}",
            self.begun,
            arm.name,
            self.remaining(total)
        ));
        let (folder, name) = (folder_of(job, arm, seed), target.to_string());
        let (run, output) = (folder.join(&name), folder.join(format!("{name}.onnx")));
        let settings = arm.cut_settings(seed, target);
        let is_new = !is_finished(&run);
        let report = compress(&Job {
            model: network,
            output: &output,
            run: &run,
            resume: resume(&run),
            settings: &settings,
            runtime_options: job.runtime_options,
            engine: &*settings.engine.open(),
            progress: job.progress,
        });
        match report {
            Ok(report) => {
                let run = run.display().to_string();
                let point = StudyPoint::of(&arm.name, seed, &name, &run, &report);
                self.points.push(point);
            }
            Err(problem) => self.failed(arm, seed, &name, problem)?,
        }
        self.computed += usize::from(is_new);
        Ok(())
    }

    /// The time left, in words; nothing before a run is at its end.
    fn remaining(&self, total: usize) -> String {
        if self.computed == 0 {
            return String::new();
        }
        let each = self.start.elapsed().as_secs_f64() / self.computed as f64;
        let left = each * (total + 1 - self.begun) as f64;
        format!(", about {:.0} min left", (left / 60.0).ceil())
    }

    /// Notes a run that failed.
    ///
    /// # Errors
    /// [`StudyError::Run`] where the others would fail as well, or are not to be done.
    fn failed(
        &mut self,
        arm: &Arm,
        seed: u64,
        what: &str,
        problem: PipelineError,
    ) -> Result<(), StudyError> {
        let is_of_all = matches!(problem, PipelineError::Write(_) | PipelineError::Run { .. });
        if is_of_all || self.job.progress.is_stopped() {
            return Err(StudyError::Run {
                arm: arm.name.clone(),
                seed,
                what: what.to_owned(),
                problem: Box::new(problem),
            });
        }
        let failure = StudyFailure {
            arm: arm.name.clone(),
            seed,
            what: what.to_owned(),
            problem: problem.to_string(),
        };
        self.job.progress.note(&format!("study: {failure}"));
        self.failures.push(failure);
        Ok(())
    }
}

/// The arm in whose folder the network of `arm` is made: of those with the same network the first that has it, else the
/// first.
fn maker<'j>(job: &StudyJob<'j>, arm: &'j Arm, seed: u64) -> &'j Arm {
    let same: Vec<&Arm> = job
        .study
        .arms
        .iter()
        .filter(|other| other.starts_as(arm))
        .collect();
    let is_maker = |other: &&&Arm| {
        let folder = folder_of(job, other, seed);
        folder.join(START).exists() && folder.join(TRANSFER).join(CONFIG).exists()
    };
    let found = same.iter().find(is_maker).or(same.first());
    found.copied().unwrap_or(arm)
}

/// A run goes on where there is one.
fn resume(run: &Path) -> Resume {
    match run.join(CONFIG).exists() {
        true => Resume::Yes,
        false => Resume::Anew,
    }
}

fn folder_of(job: &StudyJob<'_>, arm: &Arm, seed: u64) -> PathBuf {
    job.folder.join(&arm.name).join(format!("seed-{seed}"))
}

fn make_folder(folder: &Path) -> Result<(), PipelineError> {
    std::fs::create_dir_all(folder).map_err(|problem| unusable(folder, &problem))
}

fn unusable(path: &Path, problem: &std::io::Error) -> PipelineError {
    PipelineError::Run {
        folder: path.to_owned(),
        problem: problem.to_string(),
    }
}
