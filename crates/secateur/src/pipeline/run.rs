//! A run's folder: settings, history, checkpoints of every stage.
//!
//! A stage's graph is always read back from its checkpoint, in a first run as in a resumed one, so
//! that both go on from the same bits.

use super::{PipelineError, Prepared, Settings};
use crate::files::{checksum, remove_leftovers_in, write_atomic};
use crate::graph::Graph;
use crate::onnx::{self, Model};
use crate::progress::Progress;
use crate::train::CheckpointFile;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// There while a run has not come to its end.
const UNFINISHED: &str = "unfinished";
/// The network that `compress` makes.
pub(super) const NETWORK: &str = "model.onnx";
/// What `compress` reports of it.
pub(super) const REPORT: &str = "report.json";
/// What a run writes beside its checkpoints.
const RESULTS: [&str; 9] = [
    "channels.json",
    "history.jsonl",
    NETWORK,
    "plan.json",
    "report.html",
    REPORT,
    "report.md",
    "splits.json",
    UNFINISHED,
];

/// Whether a run that was cut off goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// What the folder holds of a finished run is removed; one that is not finished is an error.
    No,
    /// What the folder holds is used, if the settings are the same.
    Yes,
    /// What the folder holds is removed.
    Anew,
}

/// An open run folder.
///
/// While one is open, no other process can open the same folder: the system holds the lock, and gives
/// it up with the process, however that ends.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
    /// What the names of its stages start with.
    branch: String,
    /// Whether the run that is to go on has come to its end already.
    is_finished: bool,
    /// The locked file.
    _lock: Arc<File>,
}

/// What identifies a run: the same key gives the same bytes, where no cut depends on measured time.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunKey {
    /// Version of secateur.
    pub secateur: String,
    /// The model's file name.
    pub model: String,
    /// Checksum of the model's bytes.
    pub model_crc32: u32,
    /// Checksum of the labels and sizes of the data.
    pub data_crc32: u32,
    /// All settings.
    pub settings: Settings,
}

impl RunKey {
    /// The key of a run on `model`, read from the file `path`.
    ///
    /// # Errors
    /// [`PipelineError`] where the model cannot be encoded.
    pub fn of(
        path: &Path,
        model: &Model,
        prepared: &Prepared,
        settings: &Settings,
    ) -> Result<Self, PipelineError> {
        Ok(Self {
            secateur: env!("CARGO_PKG_VERSION").to_owned(),
            model: path.display().to_string(),
            model_crc32: checksum([onnx::to_bytes_for(path, model)?]),
            data_crc32: prepared.fingerprint(),
            settings: settings.clone(),
        })
    }

    /// Whether `config.toml` of a run holds this key. Where the network's file lies says nothing: its checksum does.
    fn is_of(&self, text: &str) -> bool {
        let found = toml::from_str::<Self>(text).map(|found| Self {
            model: self.model.clone(),
            ..found
        });
        found.is_ok_and(|found| found == *self)
    }
}

impl Run {
    /// Opens, or creates, the run folder.
    ///
    /// # Errors
    /// [`PipelineError`] where the folder cannot be written, is open elsewhere, or holds a run with other
    /// settings that is to be resumed, or one that is not finished.
    pub fn open(
        folder: &Path,
        key: &RunKey,
        resume: Resume,
        progress: &dyn Progress,
    ) -> Result<Self, PipelineError> {
        let mut run = Self {
            folder: folder.to_owned(),
            branch: String::new(),
            is_finished: false,
            _lock: Arc::new(lock(folder)?),
        };
        let (ours, given) = (run.path(NETWORK), Path::new(&key.model));
        if let (Ok(ours), Ok(given)) = (ours.canonicalize(), given.canonicalize())
            && ours == given
        {
            return Err(run.problem(
                "its `model.onnx`, which a run writes, is the network to be read; choose another `--run` folder",
            ));
        }
        let text = toml::to_string(key).map_err(|e| run.problem(&e.to_string()))?;
        let config = run.path("config.toml");
        match (resume, std::fs::read_to_string(&config)) {
            (Resume::Yes, Ok(found)) if !key.is_of(&found) => {
                let what = difference(&found, &text);
                return Err(run.problem(&format!(
                    "it was started with other settings: {what}; choose another `--run` folder, or begin anew with `--anew`"
                )));
            }
            (Resume::Yes, Err(_)) if run.holds_checkpoints() => {
                return Err(run.problem(
                    "it holds checkpoints but no `config.toml` that says of which run; choose another `--run` folder",
                ));
            }
            (Resume::No, Ok(found)) if run.path(UNFINISHED).exists() => {
                let problem = match key.is_of(&found) {
                    true => {
                        "it holds a run of this command that is not finished; go on with `--resume`"
                            .to_owned()
                    }
                    false => format!(
                        "it holds a run with other settings that is not finished: {}; go on with those and `--resume`",
                        difference(&found, &text)
                    ),
                };
                return Err(run.problem(&format!(
                    "{problem}, remove it and begin anew with `--anew`, or choose another `--run` folder"
                )));
            }
            (Resume::Yes, Err(_)) => progress.note(&format!(
                "run folder `{}`: nothing there to go on with, so the run begins anew",
                folder.display()
            )),
            (Resume::Yes, Ok(_)) => {
                run.is_finished = is_finished(folder);
            }
            (Resume::No | Resume::Anew, _) => run.clear()?,
        }
        let checkpoints = run.path("checkpoints");
        std::fs::create_dir_all(&checkpoints)
            .map_err(|e| run.problem(&format!("cannot create it: {e}")))?;
        remove_leftovers_in(&run.folder);
        remove_leftovers_in(&checkpoints);
        if !run.is_finished {
            write_atomic(&config, text.as_bytes())?;
            write_atomic(&run.path(UNFINISHED), b"")?;
        }
        Ok(run)
    }

    /// The report of a run that was to go on and is at its end already.
    ///
    /// # Errors
    /// [`PipelineError`] where the report is damaged.
    pub fn finished<R: DeserializeOwned>(&self) -> Result<Option<R>, PipelineError> {
        match self.is_finished {
            true => self.read_json(REPORT),
            false => Ok(None),
        }
    }

    /// Tells that nothing is left to do: without being asked to go on, the same command may begin anew.
    ///
    /// # Errors
    /// [`PipelineError`] where the folder cannot be written.
    pub fn finish(&self) -> Result<(), PipelineError> {
        let path = self.path(UNFINISHED);
        if path.exists() {
            std::fs::remove_file(&path)
                .map_err(|e| self.problem(&format!("cannot remove `{UNFINISHED}`: {e}")))?;
        }
        Ok(())
    }

    fn holds_checkpoints(&self) -> bool {
        let entries = std::fs::read_dir(self.path("checkpoints"));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The path, inside the folder, of what a stage leaves.
    #[must_use]
    pub fn checkpoint(&self, file: &str) -> String {
        format!("checkpoints/{}{file}", self.branch)
    }

    /// The same run with stages of their own names, for another way from one of its rounds.
    #[must_use]
    pub fn branch(&self, name: &str) -> Self {
        Self {
            branch: format!("{name}-"),
            ..self.clone()
        }
    }

    /// A path inside the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The store for the training inside stage `name`.
    #[must_use]
    pub fn training(&self, name: &str) -> CheckpointFile {
        CheckpointFile {
            path: self.path(&self.checkpoint(&format!("{name}.safetensors"))),
        }
    }

    /// Runs a stage, or reads its result where the folder holds it. `model` carries what the graph
    /// does not (see [`Model`]).
    ///
    /// # Errors
    /// The stage's error, or [`PipelineError`] where the checkpoint cannot be written or read.
    pub fn stage<S: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        model: &Model,
        work: impl FnOnce() -> Result<(Graph, S), PipelineError>,
    ) -> Result<(Graph, S), PipelineError> {
        let graph_path = self.path(&self.checkpoint(&format!("{name}.onnx")));
        let summary = self.checkpoint(&format!("{name}.json"));
        let summary_path = self.path(&summary);
        // The summary is written last: where it stands, the graph is whole.
        if !summary_path.exists() {
            let (graph, state) = work()?;
            onnx::write(&model.with_graph(graph), &graph_path)?;
            self.write_json(&summary, &state)?;
        }
        let graph = onnx::read(&graph_path)?.graph;
        let text = std::fs::read_to_string(&summary_path)
            .map_err(|e| self.problem(&format!("cannot read `{summary}`: {e}")))?;
        let state = serde_json::from_str(&text)
            .map_err(|e| self.problem(&format!("`{summary}` is damaged: {e}")))?;
        Ok((graph, state))
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    /// [`PipelineError`] where it cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), PipelineError> {
        let text = serde_json::to_string_pretty(value).map_err(|e| self.problem(&e.to_string()))?;
        Ok(write_atomic(&self.path(name), text.as_bytes())?)
    }

    /// Reads a JSON file, if it is there.
    ///
    /// # Errors
    /// [`PipelineError`] where it is there and damaged.
    pub fn read_json<S: DeserializeOwned>(&self, name: &str) -> Result<Option<S>, PipelineError> {
        match std::fs::read_to_string(self.path(name)) {
            Err(_) => Ok(None),
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| self.problem(&format!("`{name}` is damaged: {e}"))),
        }
    }

    /// Removes what an earlier run left, and nothing else.
    fn clear(&self) -> Result<(), PipelineError> {
        let cannot =
            |name: &str, e: std::io::Error| self.problem(&format!("cannot clear `{name}`: {e}"));
        let checkpoints = self.path("checkpoints");
        if let Ok(found) = std::fs::read_to_string(self.path("config.toml")) {
            let is_run = |table: toml::Table| {
                table.contains_key("secateur") && table.contains_key("settings")
            };
            if !found.parse().is_ok_and(is_run) {
                return Err(self.problem(
                    "its `config.toml` is not that of a run, so nothing in it is removed; choose another `--run` folder",
                ));
            }
            for name in RESULTS {
                match std::fs::remove_file(self.path(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(cannot(name, e));
                    }
                    _ => {}
                }
            }
            if checkpoints.exists() {
                std::fs::remove_dir_all(&checkpoints).map_err(|e| cannot("checkpoints", e))?;
            }
        } else if self.holds_checkpoints() {
            return Err(self.problem(
                "it holds `checkpoints` but no `config.toml`, so they may not be a run's; choose another `--run` folder",
            ));
        }
        Ok(())
    }

    fn problem(&self, problem: &str) -> PipelineError {
        problem_in(&self.folder, problem)
    }
}

/// Whether `folder` holds a run of `compress` that has come to its end.
#[must_use]
pub fn is_finished(folder: &Path) -> bool {
    let is_there = |name: &str| folder.join(name).exists();
    is_there(NETWORK) && is_there(REPORT) && !is_there(UNFINISHED)
}

/// The first setting in which two records of a run differ, as `name: theirs there, ours here`.
fn difference(theirs: &str, ours: &str) -> String {
    let (Ok(theirs), Ok(ours)) = (theirs.parse(), ours.parse()) else {
        return "its `config.toml` cannot be read".to_owned();
    };
    first_difference("", &toml::Value::Table(theirs), &toml::Value::Table(ours))
        .unwrap_or_else(|| "`config.toml` was changed".to_owned())
}

fn first_difference(name: &str, theirs: &toml::Value, ours: &toml::Value) -> Option<String> {
    if theirs == ours {
        return None;
    }
    let (toml::Value::Table(a), toml::Value::Table(b)) = (theirs, ours) else {
        return Some(format!("`{name}` is {theirs} there and {ours} here"));
    };
    // What was chosen says more than the checksums of what follows from it.
    let keys = a.keys().chain(b.keys());
    let keys: BTreeSet<(bool, &String)> = keys.map(|key| (key.ends_with("crc32"), key)).collect();
    keys.into_iter().find_map(|(_, key)| {
        let name = match name {
            "" | "settings" => key.clone(),
            _ => format!("{name}.{key}"),
        };
        match (a.get(key), b.get(key)) {
            (Some(theirs), Some(ours)) => first_difference(&name, theirs, ours),
            (Some(theirs), None) => Some(format!("`{name}` is {theirs} there and not given here")),
            (None, Some(ours)) => Some(format!("`{name}` is not given there and {ours} here")),
            (None, None) => None,
        }
    })
}

/// Creates the folder and locks it, as long as the file lives. Where the file system knows no locks, none is held.
///
/// # Errors
/// [`PipelineError`] where the folder cannot be written, or is locked.
pub fn lock(folder: &Path) -> Result<File, PipelineError> {
    let create = || {
        std::fs::create_dir_all(folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.open(folder.join("lock"))
    };
    let file = create().map_err(|e| problem_in(folder, &format!("cannot write into it: {e}")))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(problem_in(
            folder,
            "another run is at work in it; wait for its end, or choose another `--run` folder",
        )),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn problem_in(folder: &Path, problem: &str) -> PipelineError {
    PipelineError::Run {
        folder: folder.to_owned(),
        problem: problem.to_owned(),
    }
}
