//! The runs of a study, one after another: each network is made once, then cut to each target.

use super::{Arm, Study, StudyError};
use crate::files::write_atomic;
use crate::pipeline::{
    Job, PipelineError, PruneSettings, Resume, Settings, Target, TransferJob, TransferSettings,
    compress, foresee, transfer_file,
};
use crate::progress::Progress;
use crate::report::{StudyPoint, StudyReport};
use crate::verify;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// There while a study has not come to its end.
const UNFINISHED: &str = "unfinished";
/// The network before any cut, in the folder of its arm and seed.
const START: &str = "network.onnx";

/// What [`run_study`] works on.
pub struct StudyJob<'j> {
    /// The name of the study's file, for the report.
    pub name: &'j str,
    /// The grid.
    pub study: &'j Study,
    /// The study's folder: a folder for each arm, in it one for each seed, in it one for each run.
    pub folder: &'j Path,
    /// Whether a study that was cut off goes on.
    pub resume: Resume,
    /// Threads and library of the runtime that verifies.
    pub runtime_options: &'j verify::Options,
    /// Who hears of the progress.
    pub progress: &'j dyn Progress,
}

/// What an arm would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmPlan {
    /// Its name.
    pub arm: String,
    /// The network's file.
    pub model: String,
    /// The data, with the sizes of the splits.
    pub data: String,
    /// How the network before the cuts is made.
    pub transfer: String,
    /// The arm whose networks are used, as they are made in the same way.
    pub shares: Option<String>,
    /// Runs: seeds times targets.
    pub runs: usize,
}

/// What the study would do, arm by arm, said before the long work.
///
/// # Errors
/// [`StudyError`] where an arm could not begin, or cannot reach a target on size.
pub fn foresee_study(
    study: &Study,
    options: &verify::Options,
    progress: &dyn Progress,
) -> Result<Vec<ArmPlan>, StudyError> {
    let foreseen = |arm: &Arm| {
        let mut settings = arm.settings.clone();
        settings.seed = study.seeds.first().copied().unwrap_or_default();
        settings.prune.targets.clone_from(&study.targets);
        let plan = foresee(&arm.model, None, None, &settings, options, progress);
        let plan = plan.map_err(|problem| StudyError::Arm {
            arm: arm.name.clone(),
            model: arm.model.clone(),
            problem: Box::new(problem),
        })?;
        if let Some(target) = plan.targets.iter().find(|t| t.possible == Some(false)) {
            return Err(StudyError::Infeasible {
                arm: arm.name.clone(),
                target: target.target.clone(),
            });
        }
        let maker = maker(study, arm);
        Ok(ArmPlan {
            arm: arm.name.clone(),
            model: arm.model.display().to_string(),
            data: plan.data,
            transfer: plan.transfer,
            shares: (maker.name != arm.name).then(|| maker.name.clone()),
            runs: study.seeds.len() * study.targets.len(),
        })
    };
    study.arms.iter().map(foreseen).collect()
}

/// Does all runs, and writes `study.json`, `study.md` and `study.html` beside their folders. Runs that are finished stay
/// where the study goes on.
///
/// # Errors
/// [`StudyError`] names the run that failed, and why.
pub fn run_study(job: &StudyJob<'_>) -> Result<StudyReport, StudyError> {
    let unfinished = job.folder.join(UNFINISHED);
    if job.resume == Resume::No && unfinished.exists() {
        return Err(StudyError::Unfinished(job.folder.to_owned()));
    }
    foresee_study(job.study, job.runtime_options, job.progress)?;
    make_folder(job.folder)?;
    write_atomic(&unfinished, b"")?;
    let (study, start) = (job.study, Instant::now());
    let total = study.arms.len() * study.seeds.len() * study.targets.len();
    let mut points = Vec::with_capacity(total);
    // Runs that were finished before say nothing of the time that is left.
    let mut computed = 0;
    for arm in &study.arms {
        for &seed in &study.seeds {
            let network = network(job, arm, seed)?;
            for target in &study.targets {
                let left = remaining(start, computed, total - points.len());
                job.progress.note(&format!(
                    "study: run {} of {total}: arm `{}`, seed {seed}, `{target}`{left}",
                    points.len() + 1,
                    arm.name
                ));
                let (point, is_new) = cut(job, arm, seed, target, &network)?;
                computed += usize::from(is_new);
                points.push(point);
            }
        }
    }
    let report = StudyReport::of(job.name, points);
    let json = serde_json::to_string_pretty(&report).unwrap_or_default();
    for (name, text) in [
        ("study.json", json),
        ("study.md", report.to_markdown()),
        ("study.html", report.to_html()?),
    ] {
        write_atomic(&job.folder.join(name), text.as_bytes())?;
    }
    std::fs::remove_file(&unfinished).map_err(|problem| StudyError::Folder {
        path: unfinished,
        problem,
    })?;
    Ok(report)
}

/// Nothing before the first run is at its end.
fn remaining(start: Instant, computed: usize, left: usize) -> String {
    if computed == 0 {
        return String::new();
    }
    let seconds = start.elapsed().as_secs_f64() / computed as f64 * left as f64;
    format!(", about {:.0} min left", (seconds / 60.0).ceil())
}

/// The first arm whose networks before the cuts are made as those of `arm`.
fn maker<'s>(study: &'s Study, arm: &'s Arm) -> &'s Arm {
    let is_same = |other: &&Arm| {
        other.model == arm.model && start_settings(other, 0) == start_settings(arm, 0)
    };
    study.arms.iter().find(is_same).unwrap_or(arm)
}

/// What the network before the cuts depends on.
fn start_settings(arm: &Arm, seed: u64) -> Settings {
    let settings = &arm.settings;
    Settings {
        seed,
        engine: settings.engine,
        data: settings.data.clone(),
        transfer: settings.transfer.clone(),
        prune: PruneSettings {
            batch_norm_images: settings.prune.batch_norm_images,
            ..PruneSettings::default()
        },
        ..Settings::default()
    }
}

/// What the cut of a network that is made already depends on.
fn cut_settings(arm: &Arm, seed: u64, target: &Target) -> Settings {
    let mut settings = arm.settings.clone();
    settings.seed = seed;
    settings.prune.targets = vec![*target];
    settings.transfer = TransferSettings {
        epochs: Some(0),
        ..TransferSettings::default()
    };
    settings
}

/// The network before the cuts, made where it is not there yet.
fn network(job: &StudyJob<'_>, arm: &Arm, seed: u64) -> Result<PathBuf, StudyError> {
    let maker = maker(job.study, arm);
    let folder = folder_of(job, maker, seed)?;
    let network = folder.join(START);
    if maker.name != arm.name {
        return Ok(network);
    }
    job.progress.note(&format!(
        "study: the network of arm `{}`, seed {seed}",
        arm.name
    ));
    let settings = start_settings(arm, seed);
    let run = folder.join("transfer");
    let made = transfer_file(&TransferJob {
        model: &arm.model,
        output: &network,
        run: &run,
        resume: resume(job, &run),
        settings: &settings,
        engine: &*settings.engine.open(),
        progress: job.progress,
    });
    made.map_err(failed(arm, seed, "transfer"))?;
    Ok(network)
}

/// One run, and whether it was computed now.
fn cut(
    job: &StudyJob<'_>,
    arm: &Arm,
    seed: u64,
    target: &Target,
    network: &Path,
) -> Result<(StudyPoint, bool), StudyError> {
    let folder = folder_of(job, arm, seed)?;
    let name = target.to_string();
    let (run, output) = (folder.join(&name), folder.join(format!("{name}.onnx")));
    let settings = cut_settings(arm, seed, target);
    let resume = resume(job, &run);
    let is_new = resume != Resume::Yes || run.join(UNFINISHED).exists();
    let report = compress(&Job {
        model: network,
        output: &output,
        run: &run,
        resume,
        settings: &settings,
        runtime_options: job.runtime_options,
        engine: &*settings.engine.open(),
        progress: job.progress,
    })
    .map_err(failed(arm, seed, &name))?;
    let run = run.display().to_string();
    Ok((
        StudyPoint::of(&arm.name, seed, &name, &run, &report),
        is_new,
    ))
}

/// A run goes on where there is one, if the study does.
fn resume(job: &StudyJob<'_>, run: &Path) -> Resume {
    match job.resume {
        Resume::Yes if run.join("config.toml").exists() => Resume::Yes,
        Resume::Yes | Resume::No | Resume::Anew => Resume::Anew,
    }
}

fn failed<'f>(
    arm: &'f Arm,
    seed: u64,
    what: &'f str,
) -> impl FnOnce(PipelineError) -> StudyError + 'f {
    move |problem| StudyError::Run {
        arm: arm.name.clone(),
        seed,
        what: what.to_owned(),
        problem: Box::new(problem),
    }
}

fn folder_of(job: &StudyJob<'_>, arm: &Arm, seed: u64) -> Result<PathBuf, StudyError> {
    let folder = job.folder.join(&arm.name).join(format!("seed-{seed}"));
    make_folder(&folder)?;
    Ok(folder)
}

fn make_folder(folder: &Path) -> Result<(), StudyError> {
    std::fs::create_dir_all(folder).map_err(|problem| StudyError::Folder {
        path: folder.to_owned(),
        problem,
    })
}
