//! Latency of files.

use super::numbers::{grouped, milliseconds, times};
use super::table::Table;
use serde::{Deserialize, Serialize};

/// How fast one file runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileLatency {
    /// The file.
    pub model: String,
    /// The median, milliseconds.
    pub p50_ms: f64,
    /// What 95 of 100 runs stay within, milliseconds.
    pub p95_ms: f64,
    /// How many times as fast as the first file, turn by turn; 1 for the first.
    pub speedup: f64,
}

/// Latency of one file, or of several that ran in turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// The runtime.
    pub runtime: String,
    /// Threads it may use.
    pub threads: usize,
    /// Images in a run, `[n, c, h, w]`.
    pub input: [usize; 4],
    /// Measured runs of each file.
    pub runs: usize,
    /// The files, in the order given.
    pub models: Vec<FileLatency>,
}

impl BenchReport {
    /// One row a file.
    #[must_use]
    pub fn table(&self) -> Table {
        let columns = ["file", "#p50", "#p95", "#images/s", "#speed"];
        let mut table = Table::new("Latency", &columns);
        for model in &self.models {
            let images = 1e3 * self.input[0] as f64 / model.p50_ms.max(f64::MIN_POSITIVE);
            table.push([
                model.model.clone(),
                milliseconds(model.p50_ms),
                milliseconds(model.p95_ms),
                grouped(images as u64),
                times(model.speedup),
            ]);
        }
        table
    }

    /// Under which conditions that was measured.
    #[must_use]
    pub fn conditions(&self) -> String {
        let [n, c, h, w] = self.input;
        format!(
            "{}, {} threads, input {n}x{c}x{h}x{w}, {} runs of each, in turns",
            self.runtime, self.threads, self.runs
        )
    }
}
