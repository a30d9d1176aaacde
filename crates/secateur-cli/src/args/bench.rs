//! `secateur bench`: what is measured and how often.

use super::{GlobalArgs, RuntimeArgs, choice};
use clap::Args;
use secateur::bench::Turns;
use std::path::PathBuf;
use std::time::Duration;

/// Measures the latency of files, in turns, in the runtime that will serve them
///
/// Each file runs once in every turn, on the same seeded random images, so that what else the machine does
/// falls on all of them alike. Shown are the median (p50), what 95 of 100 runs stay within (p95), and the
/// speed beside the first file: the median over turns of the quotient of both times.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    secateur bench model.onnx small.onnx --size 224x224\n  \
    secateur bench model.onnx small.onnx --runtime ort --threads 2 --batch-size 16 --format json")]
pub struct BenchArgs {
    /// The ONNX files; the first is the one that the others are compared with
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<PathBuf>,
    /// Image height and width in pixels, where the first file does not fix them
    #[arg(long, value_name = "HxW", value_parser = choice::size)]
    pub size: Option<[usize; 2]>,
    /// Images in a run; more where a file fixes their number to more
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
    /// Most runs of each file
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// No turn begins after so many seconds, once there were five
    #[arg(long, value_name = "S", default_value = "10", value_parser = choice::positive)]
    pub seconds: f32,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

impl BenchArgs {
    pub fn turns(&self) -> Turns {
        let most = self.runs as usize;
        let default = Turns::default();
        Turns {
            most,
            least: default.least.min(most),
            // A day is as good as for ever.
            limit: Duration::from_secs_f32(self.seconds.min(86_400.0)),
            ..default
        }
    }
}
