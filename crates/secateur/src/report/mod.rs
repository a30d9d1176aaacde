//! Records of what a command did, as scripts read them, and their rendering for people.
//!
//! A record becomes a few [`Table`]s; the terminal, Markdown and HTML draw the same ones.

mod chart;
mod curves;
mod html;
mod inspect;
mod judge;
mod latency;
mod markdown;
pub mod numbers;
mod plan;
mod stage;
mod study;
mod table;
mod tables;

pub use inspect::{InspectReport, LayerInfo, ValueInfo};
pub use judge::{EvaluateReport, VerifyReport};
pub use latency::{BenchReport, FileLatency};
pub use plan::{Feasibility, PlanReport};
pub use stage::{FileSize, StageReport, TransferFacts};
pub use study::{Spread, StudyFailure, StudyPoint, StudyReport, StudyRow};
pub use table::{Align, Table};
pub use tables::MACS_NOTE;

use crate::graph::Size;
use crate::train::AccuracyDrop;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A report that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The chart cannot be drawn.
    #[error("cannot draw the chart: {0}")]
    Chart(String),
    /// The report cannot be written as JSON.
    #[error("cannot write the report as JSON: {0}")]
    Json(String),
}

/// Size and accuracy of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Weights and biases of the exported file (batch norm as it is stored).
    pub params: u64,
    /// Multiply-accumulates of one image.
    pub macs: u64,
    /// Bytes of the exported file.
    pub bytes: u64,
    /// Fraction of the test split whose label has the highest score; none where there are no labels.
    pub top1: Option<f64>,
}

/// One target and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetResult {
    /// `acc-drop`, `output-error`, `params`, `macs`, `size` or `latency`.
    pub name: String,
    /// What was wanted: percentage points, a share of the outputs' spread, parameters, multiply-accumulates, bytes or milliseconds.
    pub want: f64,
    /// What the exported file has.
    pub got: f64,
    /// Whether it holds.
    pub met: bool,
}

/// What became of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// Exported as basis and projection.
    Factored,
    /// Exported as one kernel.
    Dense,
    /// Left alone.
    Excluded,
}

/// One convolution or dense layer of a compressed network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerResult {
    /// The node's name in the file that was read.
    pub name: String,
    /// What became of it.
    pub kind: LayerKind,
    /// Directions kept.
    pub rank: usize,
    /// Directions it had.
    pub full_rank: usize,
    /// Directions kept of what it reads, where those were cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_rank: Option<usize>,
    /// Weights before.
    pub params_before: u64,
    /// Weights after.
    pub params_after: u64,
    /// Why it is dense or excluded; empty where it is factored.
    pub why: String,
}

/// Equality of the network in memory and the exported file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// Largest difference of any class score.
    pub max_abs_diff: f64,
    /// The same over the largest absolute output.
    pub relative: f64,
    /// Fraction of images with the same best class.
    pub top1_agreement: f64,
    /// Runtime of the exported file.
    pub runtime: String,
    /// Images compared.
    pub n: usize,
}

/// One cut, or the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// 0 is the network before the first cut.
    pub round: usize,
    /// What went; nothing in round 0.
    pub kind: Option<CutKind>,
    /// Fraction of the remaining size of the layers that was to go.
    pub step: f64,
    /// Size as it would be exported.
    pub size: Size,
    /// Validation accuracy right after the cut, batch norm re-estimated, nothing trained.
    pub val_top1_cut: f64,
    /// Validation accuracy after training.
    pub val_top1: f64,
    /// What that is below the uncut network's, image by image.
    pub drop: AccuracyDrop,
    /// In the place of accuracies where there are no labels: the error of the outputs on validation, beside
    /// those of the uncut network, as a share of their spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// Whether the extra passes of training were needed.
    pub recovered: bool,
    /// Whether it was kept.
    pub accepted: bool,
}

impl Round {
    /// A round of which nothing but the size is known: it is still to be judged.
    #[must_use]
    pub fn unjudged(round: usize, kind: Option<CutKind>, step: f64, size: Size) -> Self {
        Self {
            round,
            kind,
            step,
            size,
            val_top1_cut: 0.0,
            val_top1: 0.0,
            drop: AccuracyDrop::default(),
            output_error: None,
            recovered: false,
            accepted: true,
        }
    }
}

/// A way that was tried to a small network, and where it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// As `--remove` names it: `basis` or `channels` alone, or `double`, in each round whichever lost less.
    pub removes: String,
    /// The last round that was kept.
    pub end: Round,
    /// Whether it is the one that was taken.
    pub taken: bool,
}

/// What a round takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutKind {
    /// Directions of what layers make.
    Directions,
    /// Directions of what convolutions read.
    Inputs,
    /// Channels, and all that goes with them.
    Channels,
}

impl CutKind {
    /// What goes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directions => "directions",
            Self::Inputs => "inputs",
            Self::Channels => "channels",
        }
    }
}

/// The result of `compress`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompressReport {
    /// What became of the head, in words; nothing where the images have no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Whether all targets hold.
    pub goal_met: bool,
    /// The transferred network.
    pub before: Measure,
    /// The exported network.
    pub after: Measure,
    /// Images of the test split.
    pub n_test: usize,
    /// Percentage points of top-1 accuracy lost on the test split, where it has labels.
    pub acc_drop_pp: Option<f64>,
    /// Binomial standard error of `after.top1`, percentage points.
    pub standard_error_pp: Option<f64>,
    /// Where there are no labels: the error of the exported network's outputs on the test split, beside
    /// those of the network before, as a share of their spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// Each target.
    pub targets: Vec<TargetResult>,
    /// Each convolution and dense layer.
    pub layers: Vec<LayerResult>,
    /// Validation accuracy of the transferred network, where there are labels.
    pub val_top1_before: Option<f64>,
    /// Images of the validation split.
    pub n_val: usize,
    /// The cuts of the way that was taken.
    pub rounds: Vec<Round>,
    /// All ways that were tried; empty where it was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Way>,
    /// The check of the exported file.
    pub verify: VerifyResult,
    /// Latency of the transferred network's file and of the exported one.
    pub latency: BenchReport,
    /// Wall-clock seconds of each stage.
    pub seconds: BTreeMap<String, f64>,
    /// The engine that trained.
    pub engine: String,
    /// The exported file.
    pub model: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
