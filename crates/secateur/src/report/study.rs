//! The record of a study: the same cuts of networks that were made in different ways, over seeds.

use super::curves::{Curve, draw_curves};
use super::numbers::{count, grouped, percent, points};
use super::{CompressReport, Measure, ReportError, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// One run of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyPoint {
    /// The settings, by name.
    pub arm: String,
    /// The seed of everything random.
    pub seed: u64,
    /// What the cut had to reach.
    pub target: String,
    /// Whether it did.
    pub goal_met: bool,
    /// The network before the cut.
    pub before: Measure,
    /// The smaller network.
    pub after: Measure,
    /// Images of the test split.
    pub n_test: usize,
    /// Folder of the run, with its own report.
    pub run: String,
}

impl StudyPoint {
    /// The point that a run's report makes.
    #[must_use]
    pub fn of(arm: &str, seed: u64, target: &str, run: &str, report: &CompressReport) -> Self {
        Self {
            arm: arm.to_owned(),
            seed,
            target: target.to_owned(),
            goal_met: report.goal_met,
            before: report.before,
            after: report.after,
            n_test: report.n_test,
            run: run.to_owned(),
        }
    }

    fn is_of(&self, arm: &str, target: &str) -> bool {
        self.arm == arm && self.target == target
    }
}

/// A run of a study that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyFailure {
    /// The settings, by name.
    pub arm: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The target, or `transfer`, without which no target can be tried.
    pub what: String,
    /// Why.
    pub problem: String,
}

impl fmt::Display for StudyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            arm,
            seed,
            what,
            problem,
        } = self;
        write!(f, "arm `{arm}`, seed {seed}, {what} failed: {problem}")
    }
}

/// A number over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of `values`, of which there is at least one.
    fn of(values: &[f64]) -> Self {
        Self {
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// `mean (least to most)`, each as `show` has it; the mean alone where all are shown the same.
    fn text(&self, show: impl Fn(f64) -> String) -> String {
        let [mean, least, most] = [self.mean, self.least, self.most].map(show);
        match least == most {
            true => mean,
            false => format!("{mean} ({least} to {most})"),
        }
    }
}

/// What one arm came to at one target, over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRow {
    /// The settings, by name.
    pub arm: String,
    /// What the cuts had to reach.
    pub target: String,
    /// The number of seeds.
    pub seeds: usize,
    /// How many of them reached it.
    pub met: usize,
    /// Fraction of the test split that the networks before the cut get right.
    pub top1_before: Spread,
    /// The same after the cut.
    pub top1: Spread,
    /// Percentage points lost.
    pub acc_drop_pp: Spread,
    /// Share of the parameters that is kept.
    pub params_kept: Spread,
    /// Share of the multiply-accumulates that is kept.
    pub macs_kept: Spread,
}

/// The result of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyReport {
    /// The study's file.
    pub study: String,
    /// Each arm at each target, over the seeds.
    pub rows: Vec<StudyRow>,
    /// Each run.
    pub points: Vec<StudyPoint>,
    /// Runs that failed.
    pub failures: Vec<StudyFailure>,
}

impl StudyReport {
    /// The report of all runs of a study, in the order of arms and targets.
    #[must_use]
    pub fn of(study: &str, points: Vec<StudyPoint>, failures: Vec<StudyFailure>) -> Self {
        let mut seen = BTreeSet::new();
        let firsts = points
            .iter()
            .filter(|point| seen.insert((&point.arm, &point.target)));
        let rows = firsts.map(|first| {
            let same = points
                .iter()
                .filter(|point| point.is_of(&first.arm, &first.target));
            row(&same.collect::<Vec<_>>(), first)
        });
        Self {
            study: study.to_owned(),
            rows: rows.collect(),
            points,
            failures,
        }
    }

    /// The report as scripts read it.
    ///
    /// # Errors
    /// [`ReportError`] where it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, ReportError> {
        serde_json::to_string_pretty(self).map_err(|problem| ReportError::Json(problem.to_string()))
    }

    /// All tables, the most important first.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        vec![self.row_table(), self.point_table()]
    }

    /// Each arm at each target: the mean over the seeds, and the least and the most.
    #[must_use]
    pub fn row_table(&self) -> Table {
        let columns = [
            "arm",
            "target",
            "#reached",
            "#test top-1 before",
            "#after",
            "#points lost",
            "#parameters kept",
            "#MACs kept",
        ];
        let mut table = Table::new("Arms and targets", &columns);
        let share = |share: f64| format!("{:.1} %", 100.0 * share);
        for row in &self.rows {
            table.push([
                row.arm.clone(),
                row.target.clone(),
                format!("{} of {}", row.met, row.seeds),
                row.top1_before.text(percent),
                row.top1.text(percent),
                row.acc_drop_pp.text(|drop| format!("{drop:.2}")),
                row.params_kept.text(share),
                row.macs_kept.text(share),
            ]);
        }
        table
    }

    fn point_table(&self) -> Table {
        let columns = [
            "arm",
            "#seed",
            "target",
            "reached",
            "#test top-1 before",
            "#after",
            "#change",
            "#parameters before",
            "#after",
            "#MACs before",
            "#after",
            "run",
        ];
        let mut table = Table::new("Runs", &columns);
        for point in &self.points {
            let (before, after) = (&point.before, &point.after);
            let top1 = |measure: &Measure| measure.top1.map_or_else(|| "-".to_owned(), percent);
            table.push([
                point.arm.clone(),
                point.seed.to_string(),
                point.target.clone(),
                if point.goal_met { "yes" } else { "no" }.to_owned(),
                top1(before),
                top1(after),
                points(-lost(point)),
                count(before.params),
                count(after.params),
                count(before.macs),
                count(after.macs),
                point.run.clone(),
            ]);
        }
        table
    }

    /// What belongs beside the tables, a sentence each, without a final period.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.failures.iter().map(StudyFailure::to_string).collect();
        remarks.push(
            "each number is the mean over the seeds, with the least and the most in brackets"
                .to_owned(),
        );
        if let Some(point) = self.points.first() {
            let n = point.n_test;
            let p = point.before.top1.unwrap_or_default();
            remarks.push(format!(
                "top-1 on {} test images: a binomial standard error of {:.2} points at {}",
                grouped(n as u64),
                100.0 * (p * (1.0 - p) / n.max(1) as f64).sqrt(),
                percent(p)
            ));
        }
        remarks
    }

    /// Accuracy against parameters kept, a line for each arm, as one `<svg>` element; `None` where no run was done.
    ///
    /// # Errors
    /// [`ReportError`] where the drawing fails.
    pub fn chart(&self) -> Result<Option<String>, ReportError> {
        let curves = self.curves();
        match curves.is_empty() {
            true => Ok(None),
            false => draw_curves(&curves).map(Some),
        }
    }

    fn curves(&self) -> Vec<Curve> {
        let mut curves: Vec<Curve> = Vec::new();
        for row in &self.rows {
            if curves.last().is_none_or(|curve| curve.name != row.arm) {
                curves.push(Curve {
                    name: row.arm.clone(),
                    line: vec![(100.0, 100.0 * row.top1_before.mean)],
                    points: Vec::new(),
                });
            }
            let of_row = |point: &&StudyPoint| point.is_of(&row.arm, &row.target);
            let found = self.points.iter().filter(of_row);
            if let Some(curve) = curves.last_mut() {
                curve
                    .line
                    .push((100.0 * row.params_kept.mean, 100.0 * row.top1.mean));
                curve.points.extend(found.map(|point| {
                    (
                        100.0 * kept(point.after.params, point.before.params),
                        top1(&point.after) * 100.0,
                    )
                }));
            }
        }
        for curve in &mut curves {
            curve.line.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        curves
    }
}

fn row(points: &[&StudyPoint], first: &StudyPoint) -> StudyRow {
    let spread = |value: &dyn Fn(&StudyPoint) -> f64| {
        Spread::of(&points.iter().map(|point| value(point)).collect::<Vec<_>>())
    };
    StudyRow {
        arm: first.arm.clone(),
        target: first.target.clone(),
        seeds: points.len(),
        met: points.iter().filter(|point| point.goal_met).count(),
        top1_before: spread(&|point| top1(&point.before)),
        top1: spread(&|point| top1(&point.after)),
        acc_drop_pp: spread(&lost),
        params_kept: spread(&|point| kept(point.after.params, point.before.params)),
        macs_kept: spread(&|point| kept(point.after.macs, point.before.macs)),
    }
}

fn top1(measure: &Measure) -> f64 {
    measure.top1.unwrap_or_default()
}

fn lost(point: &StudyPoint) -> f64 {
    100.0 * (top1(&point.before) - top1(&point.after))
}

fn kept(after: u64, before: u64) -> f64 {
    after as f64 / before.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn point(arm: &str, seed: u64, target: &str, params: u64, top1: f64) -> StudyPoint {
        let measure = |params: u64, top1: f64| Measure {
            params,
            macs: 10 * params,
            bytes: 4 * params,
            top1: Some(top1),
        };
        StudyPoint {
            arm: arm.to_owned(),
            seed,
            target: target.to_owned(),
            goal_met: top1 > 0.5,
            before: measure(1000, 0.9),
            after: measure(params, top1),
            n_test: 100,
            run: String::new(),
        }
    }

    fn report() -> StudyReport {
        let points = vec![
            point("given", 0, "params=50%", 500, 0.9),
            point("given", 0, "params=10%", 100, 0.8),
            point("given", 1, "params=50%", 480, 0.88),
            point("given", 1, "params=10%", 90, 0.4),
            point("random", 0, "params=50%", 500, 0.7),
        ];
        StudyReport::of("study.toml", points, Vec::new())
    }

    #[test]
    fn each_arm_at_each_target_is_a_row_over_its_seeds() {
        let rows = report().rows;
        let names: Vec<_> = rows
            .iter()
            .map(|r| (&r.arm[..], &r.target[..], r.seeds, r.met))
            .collect();
        assert_eq!(
            names,
            [
                ("given", "params=50%", 2, 2),
                ("given", "params=10%", 2, 1),
                ("random", "params=50%", 1, 1)
            ]
        );
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let row = &rows[1];
        near(row.top1.mean, 0.6);
        near(row.top1.least, 0.4);
        near(row.top1.most, 0.8);
        near(row.acc_drop_pp.mean, 30.0);
        near(row.params_kept.most, 0.1);
        near(row.macs_kept.least, 0.09);
    }

    #[test]
    fn the_table_shows_the_spread_where_there_is_one() {
        let table = report().row_table();
        assert_eq!(table.rows[1][4], "60.00 % (40.00 % to 80.00 %)");
        assert_eq!(table.rows[1][2], "1 of 2");
        assert_eq!(table.rows[2][4], "70.00 %");
    }

    #[test]
    fn the_chart_has_a_line_for_each_arm_from_the_uncut_network_down() {
        let curves = report().curves();
        let lines: Vec<_> = curves
            .iter()
            .map(|c| (&c.name[..], c.line.len(), c.points.len()))
            .collect();
        assert_eq!(lines, [("given", 3, 4), ("random", 2, 1)]);
        assert_eq!(curves[0].line.last().unwrap().0, 100.0);
        let chart = report().chart().unwrap().unwrap();
        assert!(
            chart.contains("given") && chart.contains("random"),
            "{chart}"
        );
        let nothing = StudyReport::of("study.toml", Vec::new(), Vec::new());
        assert_eq!(nothing.chart().unwrap(), None);
    }
}
