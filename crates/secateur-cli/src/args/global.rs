//! Options of every command.

use super::{choice, settings, stated};
use clap::{Args, ValueEnum};
use secateur::exec::EngineKind;
use secateur::pipeline::Settings;
use secateur::verify::{Options, RuntimeKind};

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables to read
    Table,
    /// One JSON object
    Json,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct GlobalArgs {
    /// How the result is printed to stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Threads to compute with; all cores where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print no progress and no messages but errors
    #[arg(short, long)]
    pub quiet: bool,
}

impl GlobalArgs {
    /// How runtimes are opened: on as many threads as everything else.
    pub fn runtime_options(&self) -> Options {
        Options {
            threads: self.threads.map_or(0, usize::from),
            ..Options::default()
        }
    }
}

/// What runs and trains networks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct EngineArgs {
    #[arg(
        long,
        value_name = "NAME",
        value_parser = choice::of::<EngineKind>(ENGINES),
        help = stated(
            "What runs and trains networks: `native` is this program's own kernels, `burn` a second \
             implementation to compare with",
            choice::name(&settings::defaults().engine),
        )
    )]
    pub engine: Option<EngineKind>,
}

const ENGINES: &[&str] = &["native", "burn"];

impl EngineArgs {
    pub fn apply(&self, settings: &mut Settings) {
        settings.engine = self.engine.unwrap_or(settings.engine);
    }
}

/// The independent runtime.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Runtime options")]
pub struct RuntimeArgs {
    /// Runtime of exported files
    #[arg(
        long,
        value_name = "NAME",
        value_parser = choice::of::<RuntimeKind>(RUNTIMES),
        help = stated(
            "Runtime of exported files: `tract` is built in, `ort` is ONNX Runtime, loaded from the library \
             that ORT_DYLIB_PATH names",
            choice::name(&settings::defaults().verify.runtime),
        )
    )]
    pub runtime: Option<RuntimeKind>,
}

/// What is measured of exported files.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Runtime options")]
pub struct LatencyArgs {
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Images in a run whose latency is measured",
            settings::defaults().verify.latency_batch,
        )
    )]
    pub latency_batch: Option<usize>,
}

impl LatencyArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let verify = &mut settings.verify;
        verify.latency_batch = self.latency_batch.unwrap_or(verify.latency_batch);
    }
}

const RUNTIMES: &[&str] = &["tract", "ort"];

impl RuntimeArgs {
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(runtime) = self.runtime {
            settings.verify.runtime = runtime;
        }
    }
}
