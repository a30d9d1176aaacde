//! What is cut, and how far.

use super::{choice, settings, stated};
use clap::{Args, ValueEnum};
use secateur::decompose::Basis;
use secateur::importance::{ChannelScore, Score};
use secateur::pipeline::{Refit, Removal, Settings, Sides, Target};
use secateur::prune::Per;
use secateur::train::Curvature;

const UNITS: &[&str] = &["parameter", "mac", "time", "direction"];
const REMOVALS: &[&str] = &["basis", "channels", "double"];
const SIDES: &[&str] = &["outputs", "both"];
const REFITS: &[&str] = &["projections", "kernels"];
const BASES: &[&str] = &["svd", "white", "fisher"];
const SCORES: &[&str] = &["taylor", "fisher", "energy", "magnitude", "lamp"];
const CHANNEL_SCORES: &[&str] = &[
    "measured",
    "fisher",
    "taylor",
    "l1",
    "l2",
    "batch-norm",
    "lamp",
];
const CURVATURES: &[&str] = &["labels", "model", "output"];

/// A published method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Singular vectors of the weights, Taylor importance, scaling factors trained between cuts
    BasisScaling,
}

/// Layers to leave alone.
#[derive(Clone, Debug, Args)]
pub struct ExcludeArgs {
    /// Layers to leave alone: a regular expression on layer names (`secateur inspect` lists them)
    #[arg(long, value_name = "REGEX")]
    pub exclude: Option<String>,
}

/// What a run must reach.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct TargetArgs {
    #[arg(
        long,
        value_name = "NAME=AMOUNT",
        help = stated(
            "What must hold at the end; may be given several times: `acc-drop=1.0pp` (test top-1 lost, \
             percentage points), `params=25%` or `params=1.5M`, `macs=50%`, `size=2MB`, `latency=50%` or \
             `latency=8ms` (what is kept; the median of one run in the runtime), and without labels \
             `output-error=5%` (root mean square of the outputs' change, as a share of their standard deviation). \
             Numbers may end in k, M, G (parameters, MACs), kB, KiB, MB, MiB, GB (bytes), us, ms, s (time)",
            shown_targets(),
        )
    )]
    pub target: Vec<Target>,
}

impl TargetArgs {
    pub fn apply(&self, settings: &mut Settings) {
        set_targets(&self.target, settings);
    }
}

/// The sizes that one cut must reach.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct SizeArgs {
    /// The size to reach, wanted where there is no `--plan`; may be given several times: `params=25%` or
    /// `params=1.5M`, `macs=50%`, `size=2MB` (what is kept)
    #[arg(long, value_name = "NAME=AMOUNT")]
    pub target: Vec<Target>,
}

impl SizeArgs {
    pub fn apply(&self, settings: &mut Settings) {
        set_targets(&self.target, settings);
    }
}

fn set_targets(targets: &[Target], settings: &mut Settings) {
    if !targets.is_empty() {
        settings.prune.targets = targets.to_vec();
    }
}

/// One cut.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct CutArgs {
    #[command(flatten)]
    pub exclude: ExcludeArgs,
    /// A method as published, in the place of `--basis` and `--score`: `basis-scaling` is
    /// `--basis svd --score taylor` (Wong et al., arXiv 2108.02893)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["basis", "score"])]
    pub method: Option<Method>,
    #[arg(
        long,
        value_name = "NAME",
        value_parser = choice::of::<Basis>(BASES),
        help = stated(
            "In which directions layers are cut: `svd` of the weights, `white` (principal components of \
             what the layer makes on the data) or `fisher` (those in the metric of the loss)",
            choice::name(&settings::defaults().prune.basis),
        )
    )]
    pub basis: Option<Basis>,
    #[arg(
        long,
        value_name = "NAME",
        value_parser = choice::of::<Score>(SCORES),
        help = stated(
            "What a direction is worth: the loss that `taylor` (importance measured in training, with `--basis svd`) or \
             `fisher` (second moments) expects without it, the `energy` of its outputs, or the `magnitude` of its weights, \
             which `lamp` compares within a layer. Channels have `--channel-score`",
            choice::name(&settings::defaults().prune.score),
        )
    )]
    pub score: Option<Score>,
    #[arg(
        long,
        value_name = "LOSS",
        value_parser = choice::of::<Curvature>(CURVATURES),
        help = stated(
            "Whose gradients bases and scores know: cross-entropy against the `labels`, in expectation over \
             the `model`'s own prediction (needs no labels), or the squared change of the `output`",
            choice::name(&settings::defaults().prune.curvature),
        )
    )]
    pub curvature: Option<Curvature>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Training images from which bases and scores are made",
            settings::defaults().prune.statistics_images,
        )
    )]
    pub statistics_images: Option<usize>,
    #[arg(
        long,
        value_name = "STEPS",
        help = stated(
            "Training steps between two cuts",
            "60 with `--score taylor`, else 0",
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
            "What a direction's score is divided by before layers are compared: the parameters, \
             multiply-accumulates or measured `time` that it costs",
            "time with a target on latency, else parameter",
        )
    )]
    pub per: Option<Per>,
    #[arg(
        long,
        value_name = "N",
        help = stated("Ranks, and channels that are left, are rounded up to a multiple of this", "8 with `--per time`, else 1")
    )]
    pub align: Option<usize>,
}

impl CutArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let prune = &mut settings.prune;
        if self.exclude.exclude.is_some() {
            prune.exclude.clone_from(&self.exclude.exclude);
        }
        if let Some(Method::BasisScaling) = self.method {
            (prune.basis, prune.score) = (Basis::Svd, Score::Taylor);
        }
        prune.basis = self.basis.unwrap_or(prune.basis);
        prune.score = self.score.unwrap_or(prune.score);
        prune.curvature = self.curvature.unwrap_or(prune.curvature);
        prune.statistics_images = self.statistics_images.unwrap_or(prune.statistics_images);
        prune.window_steps = self.window_steps.or(prune.window_steps);
        prune.lr = self.prune_lr.unwrap_or(prune.lr);
        prune.per = self.per.or(prune.per);
        prune.align = self.align.or(prune.align);
    }
}

/// Cut after cut.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pruning options")]
pub struct RoundArgs {
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice::of::<Removal>(REMOVALS),
        help = stated(
            "What is removed: directions of layers (`basis`), `channels`, or in each round whichever of them \
             loses least (`double`), which also tries either alone where accuracy or the outputs' error is a \
             target, and takes what goes furthest",
            choice::name(&settings::defaults().prune.removes),
        )
    )]
    pub remove: Option<Removal>,
    #[arg(
        long,
        value_name = "NAME",
        value_parser = choice::of::<ChannelScore>(CHANNEL_SCORES),
        help = stated(
            "What a channel is worth: `measured`, the loss without it as far as the others cannot stand in for it; `fisher`, \
             the same from second moments; `taylor`, the loss without it; by weights alone `l1`, `l2`, `batch-norm` (its scale) or `lamp`",
            choice::name(&settings::defaults().prune.channel_score),
        )
    )]
    pub channel_score: Option<ChannelScore>,
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = choice::of::<Sides>(SIDES),
        help = stated(
            "Of which spaces directions are removed: of what layers make (`outputs`), or in each round of that or of \
             what convolutions larger than 1x1 read, whichever loses less (`both`); outputs alone with `svd`, with \
             other scores than `fisher`, and where time counts",
            choice::name(&settings::defaults().prune.sides),
        )
    )]
    pub sides: Option<Sides>,
    /// Double pruning, short for `--remove double`
    #[arg(long, conflicts_with = "remove")]
    pub double: bool,
    #[arg(
        long,
        value_name = "X",
        help = stated(
            "Share of what remains that one round removes, above 0 and under 1",
            "0.15 with `--score taylor`, else 0.3",
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
        value_name = "X",
        value_parser = choice::share,
        help = stated(
            "Weight of the uncut network's class scores beside the labels in training after a cut, 0 to 1; \
             none with `--score taylor`",
            settings::defaults().prune.distillation,
        )
    )]
    pub distillation: Option<f64>,
    #[arg(
        long,
        value_name = "N",
        help = stated(
            "Training images to which the layers are fitted anew after a cut, so that they put out what those \
             of the uncut network do; no labels are used, 0 for no such fit",
            "0 with `--score taylor`, else 2048",
        )
    )]
    pub refit_images: Option<usize>,
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = choice::of::<Refit>(REFITS),
        help = stated(
            "What is fitted to them: the `projections` of layers, or whole `kernels` where the images tell enough",
            choice::name(&settings::defaults().prune.refit),
        )
    )]
    pub refit: Option<Refit>,
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
        prune.step = self.step.or(prune.step);
        prune.removes = self.remove.unwrap_or(prune.removes);
        prune.sides = self.sides.unwrap_or(prune.sides);
        prune.channel_score = self.channel_score.unwrap_or(prune.channel_score);
        if self.double {
            prune.removes = Removal::Double;
        }
        prune.recovery_epochs = self.recovery_epochs.unwrap_or(prune.recovery_epochs);
        prune.finetune_epochs = self.finetune_epochs.unwrap_or(prune.finetune_epochs);
        prune.distillation = self.distillation.unwrap_or(prune.distillation);
        prune.refit_images = self.refit_images.or(prune.refit_images);
        prune.refit = self.refit.unwrap_or(prune.refit);
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
