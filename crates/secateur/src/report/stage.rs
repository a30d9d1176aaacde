//! What a single stage did to a file.

use super::inspect::LayerInfo;
use super::numbers::{bytes, change, count, grouped, percent};
use super::table::Table;
use super::{InspectReport, MACS_NOTE};
use serde::{Deserialize, Serialize};

/// Size of a file's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// Weights and biases (batch norm as it is stored).
    pub params: u64,
    /// Multiply-accumulates of one image; `None` where the image size is not known.
    pub macs: Option<u64>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What a transfer came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferFacts {
    /// The head's node.
    pub head: String,
    /// What became of the head: `kept`, `replaced` or `attached`.
    pub fate: String,
    /// The number of batch norms inserted.
    pub inserted_batch_norms: usize,
    /// Training steps after which the network was best on the validation split.
    pub best_step: u64,
    /// Fraction of the validation split whose label has the highest score.
    pub val_top1: f64,
    /// Images of the validation split.
    pub n_val: usize,
}

/// What a single stage did to a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageReport {
    /// The file that was read.
    pub model: String,
    /// The file that was written.
    pub output: String,
    /// The network that was read.
    pub before: FileSize,
    /// The network that was written.
    pub after: FileSize,
    /// The layers that were written.
    pub layers: Vec<LayerInfo>,
    /// The transfer, where that is the stage.
    pub transfer: Option<TransferFacts>,
    /// Whether the targets hold, true where there are none.
    pub goal_met: bool,
    /// Size of the network as `fold` would write it, where the stage leaves factors.
    pub folded: Option<FileSize>,
}

impl FileSize {
    /// The size that an inspection found.
    #[must_use]
    pub fn of(report: &InspectReport) -> Self {
        Self {
            params: report.params,
            macs: report.macs,
            bytes: report.bytes,
        }
    }
}

impl StageReport {
    /// Size before and after.
    #[must_use]
    pub fn table(&self) -> Table {
        let (before, after) = (&self.before, &self.after);
        let mut table = Table::new("Before => after", &["", "#before", "#after", "#change"]);
        table.push([
            "parameters".to_owned(),
            count(before.params),
            count(after.params),
            change(before.params, after.params),
        ]);
        if let (Some(before), Some(after)) = (before.macs, after.macs) {
            table.push([
                "MACs".to_owned(),
                count(before),
                count(after),
                change(before, after),
            ]);
        }
        table.push([
            "file size".to_owned(),
            bytes(before.bytes),
            bytes(after.bytes),
            change(before.bytes, after.bytes),
        ]);
        table
    }

    /// One row a layer of the file that was written.
    #[must_use]
    pub fn layer_table(&self) -> Table {
        super::inspect::layer_table(&self.layers)
    }

    /// What belongs beside the tables, a sentence each, without a final period.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(transfer) = &self.transfer {
            remarks.push(format!(
                "head `{}` {}; validation top-1 {} (n = {}), best after {} steps",
                transfer.head,
                transfer.fate,
                percent(transfer.val_top1),
                grouped(transfer.n_val as u64),
                transfer.best_step
            ));
            if transfer.inserted_batch_norms > 0 {
                remarks.push(format!(
                    "{} batch norms inserted",
                    transfer.inserted_batch_norms
                ));
            }
        }
        if let Some(folded) = &self.folded {
            let macs = folded
                .macs
                .map_or_else(String::new, |macs| format!(", {} MACs", count(macs)));
            remarks.push(format!(
                "`secateur fold` makes {} parameters{macs} of it",
                count(folded.params)
            ));
        }
        if self.before.macs.is_some() {
            remarks.push(MACS_NOTE.to_owned());
        }
        remarks.push(format!("wrote `{}`", self.output));
        remarks
    }
}
