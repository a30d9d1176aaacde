//! What is cut, and how far.

use super::{choice, settings, stated};
use clap::Args;
use secateur::pipeline::{Settings, Target};
use secateur::prune::Per;

const UNITS: &[&str] = &["parameter", "mac", "direction"];

/// Layers to leave alone.
#[derive(Clone, Debug, Args)]
pub struct ExcludeArgs {
    /// Layers to leave alone: a regular expression on layer names (`secateur inspect` lists them)
    #[arg(long, value_name = "REGEX")]
    pub exclude: Option<String>,
}

/// One cut.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct CutArgs {
    #[arg(
        long,
        value_name = "NAME=AMOUNT",
        help = stated(
            "What must hold at the end; may be given several times: `acc-drop=1.0pp` (test top-1 lost, \
             percentage points), `params=25%` or `params=1.5M`, `macs=50%`, `size=2MB` (what is kept)",
            shown_targets(),
        )
    )]
    pub target: Vec<Target>,
    #[command(flatten)]
    pub exclude: ExcludeArgs,
    #[arg(
        long,
        value_name = "STEPS",
        help = stated(
            "Training steps over which scores are gathered before a cut",
            settings::defaults().prune.window_steps,
        )
    )]
    pub window_steps: Option<u64>,
    #[arg(
        long,
        value_name = "X",
        value_parser = choice::positive,
        help = stated(
            "Peak learning rate of Adam for scaling factors, batch norm and head",
            settings::defaults().prune.lr,
        )
    )]
    pub prune_lr: Option<f32>,
    #[arg(
        long,
        value_name = "UNIT",
        value_parser = choice::of::<Per>(UNITS),
        help = stated(
            "What a direction's score is divided by before layers are compared",
            choice::name(&settings::defaults().prune.per),
        )
    )]
    pub per: Option<Per>,
    #[arg(
        long,
        value_name = "N",
        help = stated("Ranks are rounded up to a multiple of this", settings::defaults().prune.align)
    )]
    pub align: Option<usize>,
}

impl CutArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let prune = &mut settings.prune;
        if !self.target.is_empty() {
            prune.targets.clone_from(&self.target);
        }
        if self.exclude.exclude.is_some() {
            prune.exclude.clone_from(&self.exclude.exclude);
        }
        prune.window_steps = self.window_steps.unwrap_or(prune.window_steps);
        prune.lr = self.prune_lr.unwrap_or(prune.lr);
        prune.per = self.per.unwrap_or(prune.per);
        prune.align = self.align.unwrap_or(prune.align);
    }
}

/// Cut after cut.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct RoundArgs {
    #[arg(
        long,
        value_name = "X",
        help = stated(
            "Share of what remains that one round removes, above 0 and under 1",
            settings::defaults().prune.step,
        )
    )]
    pub step: Option<f64>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Passes over the training images to recover after a cut that loses too much",
            settings::defaults().prune.recovery_epochs,
        )
    )]
    pub recovery_epochs: Option<u64>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Passes over the training images at the chosen size",
            settings::defaults().prune.finetune_epochs,
        )
    )]
    pub finetune_epochs: Option<u64>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "The least step that is worth a round: the first one, halved this often",
            settings::defaults().prune.halvings,
        )
    )]
    pub halvings: Option<usize>,
    #[arg(
        long,
        value_name = "X",
        help = stated(
            "A cut is kept where the drop on validation and this many of its standard errors are within the \
             accuracy target",
            settings::defaults().prune.margin,
        )
    )]
    pub margin: Option<f64>,
}

impl RoundArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let prune = &mut settings.prune;
        prune.step = self.step.unwrap_or(prune.step);
        prune.recovery_epochs = self.recovery_epochs.unwrap_or(prune.recovery_epochs);
        prune.finetune_epochs = self.finetune_epochs.unwrap_or(prune.finetune_epochs);
        prune.halvings = self.halvings.unwrap_or(prune.halvings);
        prune.margin = self.margin.unwrap_or(prune.margin);
    }
}

fn shown_targets() -> String {
    let targets: Vec<String> = settings::defaults()
        .prune
        .targets
        .iter()
        .map(Target::to_string)
        .collect();
    targets.join(", ")
}
