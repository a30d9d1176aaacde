//! The tables of a `compress` run.

use super::numbers::{
    bytes, change, count, grouped, milliseconds, percent, points, seconds, share, small, times,
};
use super::table::Table;
use super::{CompressReport, CutKind, LayerKind, LayerResult, TargetResult, Way};

/// Said once wherever multiply-accumulates are shown.
pub const MACS_NOTE: &str = "MACs: multiply-accumulates of one image; 1 MAC = 2 FLOPs";

impl CompressReport {
    /// Size and accuracy, before and after.
    #[must_use]
    pub fn summary_table(&self) -> Table {
        let (before, after) = (&self.before, &self.after);
        let mut table = Table::new("Before => after", &["", "#before", "#after", "#change"]);
        let sizes = [
            (
                "parameters",
                before.params,
                after.params,
                count as fn(u64) -> String,
            ),
            ("MACs", before.macs, after.macs, count),
            ("file size", before.bytes, after.bytes, bytes),
        ];
        for (name, before, after, show) in sizes {
            table.push([
                name.to_owned(),
                show(before),
                show(after),
                change(before, after),
            ]);
        }
        if let [before, after] = &self.latency.models[..] {
            table.push([
                "latency, p50".to_owned(),
                milliseconds(before.p50_ms),
                milliseconds(after.p50_ms),
                format!("{} as fast", times(after.speedup)),
            ]);
        }
        let n = grouped(self.n_test as u64);
        if let (Some(top1), Some(top1_after), Some(drop)) =
            (before.top1, after.top1, self.acc_drop_pp)
        {
            table.push([
                format!("test top-1 (n = {n})"),
                percent(top1),
                percent(top1_after),
                points(-drop),
            ]);
        }
        if let Some(error) = self.output_error {
            table.push([
                format!("error of the outputs (n = {n})"),
                "-".to_owned(),
                percent(error),
                "-".to_owned(),
            ]);
        }
        table
    }

    /// What was wanted and what became of it.
    #[must_use]
    pub fn target_table(&self) -> Table {
        let mut table = Table::new("Targets", &["target", "#at most", "#reached", "met"]);
        for target in &self.targets {
            let met = if target.met { "yes" } else { "no" };
            table.push([
                target.name.clone(),
                target_amount(target, target.want),
                target_amount(target, target.got),
                met.to_owned(),
            ]);
        }
        table
    }

    /// What became of each layer.
    #[must_use]
    pub fn layer_table(&self) -> Table {
        let columns = [
            "layer",
            "exported as",
            "#rank",
            "#of",
            "#of inputs",
            "#weights before",
            "#after",
            "#change",
            "why",
        ];
        let mut table = Table::new("Layers", &columns);
        for layer in &self.layers {
            let kind = match layer.kind {
                LayerKind::Factored => "factored",
                LayerKind::Dense => "dense",
                LayerKind::Excluded if layer.params_after != layer.params_before => {
                    "channels alone"
                }
                LayerKind::Excluded => "unchanged",
            };
            table.push([
                layer.name.clone(),
                kind.to_owned(),
                layer.rank.to_string(),
                layer.full_rank.to_string(),
                layer
                    .input_rank
                    .map_or_else(|| "all".to_owned(), |rank| rank.to_string()),
                grouped(layer.params_before),
                grouped(layer.params_after),
                change(layer.params_before, layer.params_after),
                layer.why.clone(),
            ]);
        }
        table
    }

    /// The cuts, in order.
    #[must_use]
    pub fn round_table(&self) -> Table {
        let is_timed = self.rounds.iter().any(|round| round.size.nanos > 0);
        let is_labelled = self.rounds.iter().all(|round| round.output_error.is_none());
        let mut columns = vec!["#round", "cut", "#step", "#parameters", "#MACs"];
        columns.extend(is_timed.then_some("#time"));
        columns.extend_from_slice(if is_labelled {
            &[
                "#val top-1 after the cut",
                "#after training",
                "#drop, points",
            ]
        } else {
            &["#error of the outputs"]
        });
        columns.push("outcome");
        let mut table = Table::new("Rounds", &columns);
        let mut fastest = u64::MAX;
        for round in &self.rounds {
            let is_slower = round.size.nanos > 0 && round.size.nanos >= fastest;
            let outcome = match (round.round, round.accepted, round.recovered) {
                (0, _, _) => "start",
                (_, true, false) => "kept",
                (_, true, true) => "kept after more training",
                (_, false, _) if is_slower => "taken back: not faster",
                (_, false, _) => "taken back",
            };
            if round.accepted {
                fastest = round.size.nanos;
            }
            let mut cells = vec![
                round.round.to_string(),
                round.kind.map_or("-", CutKind::name).to_owned(),
                if round.round == 0 {
                    "-".to_owned()
                } else {
                    format!("{:.1} %", 100.0 * round.step)
                },
                share(round.size.params, self.before.params),
                share(round.size.macs, self.before.macs),
            ];
            cells.extend(is_timed.then(|| milliseconds(1e-6 * round.size.nanos as f64)));
            match round.output_error {
                Some(error) => cells.push(percent(error)),
                None => cells.extend([
                    percent(round.val_top1_cut),
                    percent(round.val_top1),
                    format!(
                        "{:.2} ± {:.2}",
                        round.drop.points, round.drop.standard_error
                    ),
                ]),
            }
            cells.push(outcome.to_owned());
            table.push(cells);
        }
        table
    }

    /// Where each way ended; without rows where there was one.
    #[must_use]
    pub fn way_table(&self) -> Table {
        let is_labelled = self.ways.iter().all(|way| way.end.output_error.is_none());
        let quality = match is_labelled {
            true => "#val top-1",
            false => "#error of the outputs",
        };
        let columns = [
            "removed",
            "#last round kept",
            "#parameters",
            "#MACs",
            quality,
            "outcome",
        ];
        let mut table = Table::new("Ways", &columns);
        for Way {
            removes,
            end,
            taken,
        } in &self.ways
        {
            table.push([
                removes.clone(),
                end.round.to_string(),
                share(end.size.params, self.before.params),
                share(end.size.macs, self.before.macs),
                percent(end.output_error.unwrap_or(end.val_top1)),
                if *taken { "taken" } else { "-" }.to_owned(),
            ]);
        }
        table
    }

    /// Wall-clock seconds of each stage.
    #[must_use]
    pub fn time_table(&self) -> Table {
        let mut table = Table::new("Time", &["stage", "#wall clock"]);
        for (stage, s) in &self.seconds {
            table.push([stage.clone(), seconds(*s)]);
        }
        table.push(["total".to_owned(), seconds(self.seconds.values().sum())]);
        table
    }

    /// All tables, the most important first.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            self.summary_table(),
            self.target_table(),
            self.layer_table(),
            self.round_table(),
        ];
        tables.extend((!self.ways.is_empty()).then(|| self.way_table()));
        tables.push(self.time_table());
        tables
    }

    /// What belongs beside the summary: precision of the accuracy, validation, and the check of the
    /// file. One sentence each, without a final period.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let verify = &self.verify;
        let mut remarks: Vec<String> = self.head.clone().into_iter().collect();
        if let Some(error) = self.standard_error_pp {
            remarks.push(format!(
                "binomial standard error of the top-1 accuracy after: {error:.2} pp"
            ));
        }
        if let Some(top1) = self.val_top1_before {
            remarks.push(format!(
                "validation top-1 of the transferred network: {} (n = {})",
                percent(top1),
                grouped(self.n_val as u64)
            ));
        }
        if self.output_error.is_some() {
            remarks.push(
                "error of the outputs: root mean square of their change, as a share of their own spread"
                    .to_owned(),
            );
        }
        let agreement = match self.output_error {
            Some(_) => String::new(),
            None => format!(
                "same top-1 class for {} of ",
                percent(verify.top1_agreement)
            ),
        };
        remarks.extend([
            format!(
                "the file agrees with the network in memory: largest difference of an output {}, {agreement}{} \
                 images, run by {}",
                small(verify.max_abs_diff),
                grouped(verify.n as u64),
                verify.runtime
            ),
            format!("latency: {}", self.latency.conditions()),
            MACS_NOTE.to_owned(),
        ]);
        if self
            .latency
            .models
            .get(1)
            .is_some_and(|after| after.speedup < 0.97)
        {
            let is_factored = |layer: &LayerResult| layer.kind == LayerKind::Factored;
            let is_timed = self.rounds.iter().any(|round| round.size.nanos > 0);
            let why = match (self.layers.iter().any(is_factored), is_timed) {
                (true, false) => {
                    ": small layers as two factors take longer than one kernel; `--per time` removes only what \
                     saves time"
                }
                (false, false) => "; `--per time` removes only what saves time",
                (_, true) => "",
            };
            remarks.push(format!("the smaller network is slower here{why}"));
        }
        remarks
    }

    /// The targets that were missed, as one sentence; `None` where all hold.
    #[must_use]
    pub fn missed(&self) -> Option<String> {
        let missed: Vec<String> = self
            .targets
            .iter()
            .filter(|target| !target.met)
            .map(|target| {
                format!(
                    "`{}` is {}, wanted at most {}",
                    target.name,
                    target_amount(target, target.got),
                    target_amount(target, target.want)
                )
            })
            .collect();
        (!missed.is_empty()).then(|| missed.join("; "))
    }
}

/// A target's number in the target's unit.
fn target_amount(target: &TargetResult, x: f64) -> String {
    match target.name.as_str() {
        "acc-drop" => format!("{x:.2} pp"),
        "output-error" => percent(x),
        "size" => bytes(x.max(0.0) as u64),
        "latency" => milliseconds(x),
        _ => count(x.max(0.0) as u64),
    }
}
