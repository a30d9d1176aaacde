//! A short run on the digits that come with the library, as a folder to start from.

use secateur::data::DataKind;
use secateur::pipeline::{self, Job, PipelineError, Resume, Settings, Target};
use secateur::progress::{Progress, Silent};
use secateur::report::CompressReport;
use secateur::transfer::HeadChoice;
use secateur::verify;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const NETWORK: &[u8] = include_bytes!("../../crates/secateur-cli/tests/fixtures/small.onnx");

/// A folder with a run that ended, and the files of it that a resumed run reads.
pub struct Place {
    folder: TempDir,
    /// Paths inside the folder.
    pub files: Vec<String>,
}

impl Place {
    /// Makes the run.
    ///
    /// # Errors
    /// Where it does not end, or the folder cannot be read.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("model.onnx"), NETWORK)?;
        work(folder.path(), Resume::No, &Silent).map_err(io::Error::other)?;
        let mut files = vec!["model.onnx".to_owned(), "run/config.toml".to_owned()];
        for entry in std::fs::read_dir(folder.path().join("run/checkpoints"))? {
            let name = entry?.file_name();
            files.push(format!("run/checkpoints/{}", name.to_string_lossy()));
        }
        files.sort_unstable();
        Ok(Self { folder, files })
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A copy in which `changed` may be changed. A training's state is read where its stage is not whole.
    ///
    /// # Errors
    /// Where a file cannot be copied.
    pub fn copy(&self, changed: &str) -> io::Result<TempDir> {
        let stage = changed.strip_suffix(".safetensors");
        let copy = tempfile::tempdir()?;
        std::fs::create_dir_all(copy.path().join("run/checkpoints"))?;
        for file in &self.files {
            if stage.is_some_and(|stage| *file == format!("{stage}.json")) {
                continue;
            }
            std::fs::copy(self.folder.path().join(file), copy.path().join(file))?;
        }
        Ok(copy)
    }
}

/// Goes on with the run in `folder`, up to the judgement of what it read, which takes most of the time.
///
/// # Errors
/// What the run says, or that it was stopped.
pub fn go_on(folder: &Path) -> Result<CompressReport, PipelineError> {
    work(folder, Resume::Yes, &UpToTheTest::default())
}

/// Stops a run when it comes to the test images.
#[derive(Default)]
struct UpToTheTest(AtomicBool);

impl Progress for UpToTheTest {
    fn begin(&self, what: &str, _total: u64) {
        self.0.fetch_or(what.starts_with("test"), Ordering::Relaxed);
    }
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn work(
    folder: &Path,
    resume: Resume,
    progress: &dyn Progress,
) -> Result<CompressReport, PipelineError> {
    let mut settings = Settings::default();
    settings.data.kind = Some(DataKind::Digits);
    settings.data.preprocess = Some("unit".to_owned());
    settings.data.limit = Some(40);
    settings.data.test_fraction = 0.02;
    settings.transfer.head = HeadChoice::New;
    settings.transfer.epochs = Some(1);
    settings.prune.targets = vec![Target::AccDrop(90.0)];
    settings.prune.halvings = 0;
    settings.prune.recovery_epochs = 0;
    settings.prune.finetune_epochs = 1;
    settings.verify.images = 1;
    pipeline::compress(&Job {
        model: &folder.join("model.onnx"),
        output: &folder.join("out.onnx"),
        run: &folder.join("run"),
        resume,
        settings: &settings,
        runtime_options: &verify::Options::default(),
        engine: &*settings.engine.open(),
        progress,
    })
}
