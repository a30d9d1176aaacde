//! Seconds of each stage.

use std::collections::BTreeMap;
use std::time::Instant;

/// Adds up wall-clock seconds by stage.
#[derive(Debug, Default)]
pub(super) struct Clock {
    seconds: BTreeMap<String, f64>,
}

impl Clock {
    /// Runs `work` and adds its time to `stage`.
    pub(super) fn time<T>(&mut self, stage: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        *self.seconds.entry(stage.to_owned()).or_default() += start.elapsed().as_secs_f64();
        result
    }

    /// The sums, rounded to hundredths.
    pub(super) fn into_seconds(self) -> BTreeMap<String, f64> {
        self.seconds
            .into_iter()
            .map(|(stage, s)| (stage, (s * 100.0).round() / 100.0))
            .collect()
    }
}
