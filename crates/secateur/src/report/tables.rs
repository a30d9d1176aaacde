//! The tables of a `compress` run.

use super::numbers::{
    bytes, change, count, grouped, milliseconds, percent, points, seconds, share, small, times,
};
use super::table::Table;
use super::{CompressReport, CutKind, LayerKind, TargetResult};

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
        table.push([
            format!("test top-1 (n = {})", grouped(self.n_test as u64)),
            percent(before.top1),
            percent(after.top1),
            points(-self.acc_drop_pp),
        ]);
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
                LayerKind::Excluded => "unchanged",
            };
            table.push([
                layer.name.clone(),
                kind.to_owned(),
                layer.rank.to_string(),
                layer.full_rank.to_string(),
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
        let columns = [
            "#round",
            "cut",
            "#step",
            "#parameters",
            "#MACs",
            "#val top-1 after the cut",
            "#after training",
            "#drop, points",
            "outcome",
        ];
        let mut table = Table::new("Rounds", &columns);
        for round in &self.rounds {
            let outcome = match (round.round, round.accepted, round.recovered) {
                (0, _, _) => "start",
                (_, true, false) => "kept",
                (_, true, true) => "kept after more training",
                (_, false, _) => "taken back",
            };
            table.push([
                round.round.to_string(),
                round.kind.map_or("-", CutKind::name).to_owned(),
                if round.round == 0 {
                    "-".to_owned()
                } else {
                    format!("{:.1} %", 100.0 * round.step)
                },
                share(round.size.params, self.before.params),
                share(round.size.macs, self.before.macs),
                percent(round.val_top1_cut),
                percent(round.val_top1),
                format!(
                    "{:.2} ± {:.2}",
                    round.drop.points, round.drop.standard_error
                ),
                outcome.to_owned(),
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
        vec![
            self.summary_table(),
            self.target_table(),
            self.layer_table(),
            self.round_table(),
            self.time_table(),
        ]
    }

    /// What belongs beside the summary: precision of the accuracy, validation, and the check of the
    /// file. One sentence each, without a final period.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let verify = &self.verify;
        let mut remarks = vec![
            format!(
                "binomial standard error of the top-1 accuracy after: {:.2} pp",
                self.standard_error_pp
            ),
            format!(
                "validation top-1 of the transferred network: {} (n = {})",
                percent(self.val_top1_before),
                grouped(self.n_val as u64)
            ),
            format!(
                "the file agrees with the network in memory: largest difference of a class score {}, same top-1 \
                 class for {} of {} images, run by {}",
                small(verify.max_abs_diff),
                percent(verify.top1_agreement),
                grouped(verify.n as u64),
                verify.runtime
            ),
            format!("latency: {}", self.latency.conditions()),
            MACS_NOTE.to_owned(),
        ];
        if self
            .latency
            .models
            .get(1)
            .is_some_and(|after| after.speedup < 0.97)
        {
            remarks.push(
                "the smaller network is slower here: small layers as two factors take longer than one kernel; \
                 `--per time` removes only what saves time"
                    .to_owned(),
            );
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
        "size" => bytes(x.max(0.0) as u64),
        "latency" => milliseconds(x),
        _ => count(x.max(0.0) as u64),
    }
}
