//! What `compress --dry-run` foresees.

use super::inspect::InspectReport;
use super::numbers::{bytes, count, share};
use super::table::Table;
use serde::Serialize;

/// A target held against what is known before the long work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Feasibility {
    /// The target as the user wrote it.
    pub target: String,
    /// What is wanted: percentage points, a share of the outputs' spread, parameters, multiply-accumulates,
    /// bytes or milliseconds; 0 for a share of a latency, which only the run measures.
    pub want: f64,
    /// What remains with every layer at rank 1; `None` where only the run can tell.
    pub least: Option<u64>,
    /// Whether it can be reached; `None` where only the run can tell.
    pub possible: Option<bool>,
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// The network as it is.
    pub network: InspectReport,
    /// The data set's name and kind, and its images of training, validation and test.
    pub data: String,
    /// The number of classes.
    pub classes: usize,
    /// The preprocessing.
    pub preprocess: String,
    /// What becomes of the head, and what is trained.
    pub transfer: String,
    /// The targets.
    pub targets: Vec<Feasibility>,
    /// The stages, in order.
    pub stages: Vec<String>,
    /// The files and folders that would be written.
    pub writes: Vec<String>,
}

impl PlanReport {
    /// The decisions.
    #[must_use]
    pub fn decision_table(&self) -> Table {
        let mut table = Table::new("Plan", &["", ""]);
        table.push(["model", self.network.model.as_str()]);
        table.push(["data", self.data.as_str()]);
        table.push(["preprocessing", self.preprocess.as_str()]);
        table.push(["transfer", self.transfer.as_str()]);
        for (position, stage) in self.stages.iter().enumerate() {
            table.push([format!("stage {}", position + 1), stage.clone()]);
        }
        for path in &self.writes {
            table.push(["writes", path.as_str()]);
        }
        table
    }

    /// The targets, and whether they can be reached.
    #[must_use]
    pub fn target_table(&self) -> Table {
        let mut table = Table::new(
            "Targets",
            &["target", "#at most", "#least possible", "possible"],
        );
        for target in &self.targets {
            let is_size = target.target.starts_with("size");
            let amount = |x: u64| if is_size { bytes(x) } else { count(x) };
            // A share of what only the run measures is no number yet.
            let want = match target.least {
                None => target.target.split('=').nth(1).unwrap_or("-").to_owned(),
                Some(_) => amount(target.want as u64),
            };
            let least = match target.least {
                None => "-".to_owned(),
                Some(least) if target.target.starts_with("params") => {
                    format!("{} ({})", amount(least), share(least, self.network.params))
                }
                Some(least) => amount(least),
            };
            let possible = match target.possible {
                None => "the run will tell",
                Some(true) => "yes, with what accuracy the run will tell",
                Some(false) => "no",
            };
            table.push([target.target.clone(), want, least, possible.to_owned()]);
        }
        table
    }
}
