//! Settings files, the run's folder, and how flags override a file.

use super::stated;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use secateur::files::{check_writable, write_atomic};
use secateur::pipeline::{Resume, RunKey, Settings};
use std::path::{Path, PathBuf};

/// The library's defaults.
pub fn defaults() -> Settings {
    Settings::default()
}

/// Settings as a whole.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    #[arg(
        long,
        value_name = "N",
        help = stated("Seed of everything random", defaults().seed)
    )]
    pub seed: Option<u64>,
    /// Settings as TOML, such as the `config.toml` of a run, or what `--save-config` writes, which names them all; flags
    /// override them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the settings of this command, flags included, as TOML
    #[arg(long, value_name = "FILE")]
    pub save_config: Option<PathBuf>,
}

impl SettingsArgs {
    /// The settings of the file, or the defaults, as `flags` change them; written where asked.
    pub fn resolve(&self, flags: impl FnOnce(&mut Settings)) -> Result<Settings> {
        let mut settings = match &self.config {
            Some(path) => read(path)?,
            None => defaults(),
        };
        settings.seed = self.seed.unwrap_or(settings.seed);
        flags(&mut settings);
        if let Some(path) = &self.save_config {
            check_writable(path)?;
            let text = toml::to_string(&settings).context("cannot write the settings as TOML")?;
            write_atomic(path, text.as_bytes())?;
        }
        Ok(settings)
    }
}

/// Reads settings, either by themselves or inside the `config.toml` of a run.
fn read(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let read = || -> Result<Settings, toml::de::Error> {
        let table: toml::Table = text.parse()?;
        if table.contains_key("settings") {
            Ok(toml::from_str::<RunKey>(&text)?.settings)
        } else {
            toml::from_str(&text)
        }
    };
    read().map_err(|error| {
        anyhow!(
            "`{}` holds no settings: {}",
            path.display(),
            error.message()
        )
    })
}

/// The folder in which a run keeps what it needs to go on.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Run options")]
pub struct RunArgs {
    /// Folder of the run: settings, history, plan, checkpoints, reports; of a study its runs and results [default: `runs/` and
    /// the name of the output, of a study that of its file, without its extension]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Go on with a run that was cut off; it ends with the same bytes. What is finished stays; to a study new runs are added
    #[arg(long, conflicts_with = "anew")]
    pub resume: bool,
    /// Begin anew where the folder holds a run that was cut off, or a study, which is removed
    #[arg(long)]
    pub anew: bool,
}

impl RunArgs {
    /// The folder, given the output's path.
    pub fn folder(&self, output: &Path) -> Result<PathBuf> {
        match &self.run {
            Some(folder) => Ok(folder.clone()),
            None => Ok(Path::new("runs").join(output_stem(output)?)),
        }
    }

    pub fn resume(&self) -> Resume {
        match (self.resume, self.anew) {
            (true, _) => Resume::Yes,
            (false, true) => Resume::Anew,
            (false, false) => Resume::No,
        }
    }
}

/// The name of an output without its extension.
pub fn output_stem(output: &Path) -> Result<&std::ffi::OsStr> {
    match output.file_stem() {
        Some(stem) => Ok(stem),
        None => bail!("`--output` is `{}`, which names no file", output.display()),
    }
}
