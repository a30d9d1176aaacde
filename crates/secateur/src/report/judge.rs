//! Accuracy of a file, and the difference of two.

use super::numbers::{grouped, percent, seconds, small};
use super::table::Table;
use serde::Serialize;

/// Accuracy of a file on a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluateReport {
    /// The file.
    pub model: String,
    /// `train`, `val`, `test` or `all`.
    pub split: String,
    /// Images judged.
    pub n: usize,
    /// Images whose highest score is their label's.
    pub correct: usize,
    /// `correct / n`.
    pub top1: f64,
    /// The share of images whose label is among the five highest scores; `None` with five classes or
    /// fewer.
    pub top5: Option<f64>,
    /// Binomial standard error of `top1`, a fraction.
    pub standard_error: f64,
    /// Images with a score that is not finite; they count as wrong.
    pub non_finite: usize,
    /// The runtime.
    pub runtime: String,
    /// Wall-clock seconds, decoding of images included.
    pub seconds: f64,
}

impl EvaluateReport {
    /// The result.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new("Accuracy", &["", "#"]);
        let mut push = |name: &str, text: String| table.push([name.to_owned(), text]);
        let points = |fraction: f64| format!("{:.2} pp", 100.0 * fraction);
        push("top-1", percent(self.top1));
        if let Some(top5) = self.top5 {
            push("top-5", percent(top5));
        }
        push("standard error of top-1", points(self.standard_error));
        push(&format!("images ({})", self.split), grouped(self.n as u64));
        push("correct", grouped(self.correct as u64));
        if self.non_finite > 0 {
            push("not finite", grouped(self.non_finite as u64));
        }
        push("runtime", self.runtime.clone());
        push("wall clock", seconds(self.seconds));
        table
    }
}

/// The difference of two files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The file that is right.
    pub a: String,
    /// The file compared with it.
    pub b: String,
    /// What the images were.
    pub images: String,
    /// Images compared.
    pub n: usize,
    /// Largest absolute difference of two outputs.
    pub max_abs_diff: f64,
    /// `max_abs_diff` over the largest absolute output.
    pub relative: f64,
    /// Fraction of images with the same best class.
    pub top1_agreement: f64,
    /// Images with an output that is not finite.
    pub non_finite: usize,
    /// The runtime.
    pub runtime: String,
    /// Whether the difference is within the tolerance.
    pub within_tolerance: bool,
    /// Which limit is exceeded.
    pub problem: Option<String>,
}

impl VerifyReport {
    /// The result.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new("Difference", &["", "#"]);
        let mut push = |name: &str, text: String| table.push([name.to_owned(), text]);
        push("largest difference of an output", small(self.max_abs_diff));
        push("the same, of the largest output", small(self.relative));
        push("same top-1 class", percent(self.top1_agreement));
        push(
            "images",
            format!("{} ({})", grouped(self.n as u64), self.images),
        );
        if self.non_finite > 0 {
            push("not finite", grouped(self.non_finite as u64));
        }
        push("runtime", self.runtime.clone());
        push(
            "within tolerance",
            if self.within_tolerance { "yes" } else { "no" }.to_owned(),
        );
        table
    }
}
