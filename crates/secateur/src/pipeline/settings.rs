//! Every choice of a run, as `config.toml` holds it.

use super::Target;
use crate::data::{Augment, DataKind};
use crate::decompose::Basis;
use crate::exec::EngineKind;
use crate::importance::{ChannelScore, Score};
use crate::prune::Per;
use crate::train::{Curvature, Trainable};
use crate::transfer::{HeadChoice, InsertBatchNorm, Weights};
use crate::verify::RuntimeKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All settings of a run. Defaults are documented at the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Seed of everything random (0).
    pub seed: u64,
    /// What runs and trains networks (native).
    pub engine: EngineKind,
    /// The data.
    pub data: DataSettings,
    /// From the pre-trained network to the user's classes.
    pub transfer: TransferSettings,
    /// Scaling factors and pruning.
    pub prune: PruneSettings,
    /// The check at the end.
    pub verify: VerifySettings,
}

/// Where images come from and how they become input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DataSettings {
    /// The folder; `None` is the embedded digits of the demo.
    pub path: Option<PathBuf>,
    /// The kind; recognised where absent.
    pub kind: Option<DataKind>,
    /// Preset or explicit numbers; read from the model's metadata where absent.
    pub preprocess: Option<String>,
    /// `[height, width]` where the model does not fix it; the data's own where absent.
    pub size: Option<[usize; 2]>,
    /// Fraction of the training images that validation takes (0.2).
    pub val_fraction: f64,
    /// Fraction that the test split takes where the data has none (0.2).
    pub test_fraction: f64,
    /// At most this many training images, validation included; all where absent.
    pub limit: Option<usize>,
    /// At most this many images that cannot be decoded; 1 % of all, and at least 1, where absent.
    pub max_corrupt: Option<usize>,
    /// Images in a batch (64).
    pub batch_size: usize,
    /// Random changes of training images (crop).
    pub augment: Augment,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            path: None,
            kind: None,
            preprocess: None,
            size: None,
            val_fraction: 0.2,
            test_fraction: 0.2,
            limit: None,
            max_corrupt: None,
            batch_size: 64,
            augment: Augment::Crop,
        }
    }
}

/// The transfer stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TransferSettings {
    /// Which weights the network starts from (given).
    pub weights: Weights,
    /// What is trained (scaling).
    pub trainable: Trainable,
    /// What becomes of the network's head (auto).
    pub head: HeadChoice,
    /// Whether batch norm is inserted (no).
    pub insert_batch_norm: InsertBatchNorm,
    /// Passes over the training images; where absent 0 for a head that fits and weights of the file, else 10.
    pub epochs: Option<u64>,
    /// Peak learning rate of Adam; where absent 0.0003 for all weights, 0.001 for random ones, else 0.002.
    pub lr: Option<f32>,
    /// Decoupled weight decay of weights (0.01).
    pub weight_decay: f32,
    /// Checks without a better one before training stops (4).
    pub patience: usize,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            weights: Weights::Given,
            trainable: Trainable::Scaling,
            head: HeadChoice::Auto,
            insert_batch_norm: InsertBatchNorm::No,
            epochs: None,
            lr: None,
            weight_decay: 0.01,
            patience: 4,
        }
    }
}

/// What pruning removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// Directions of factored layers.
    #[default]
    Basis,
    /// Channels.
    Channels,
    /// In each round whichever of them loses least (double pruning).
    Double,
}

/// Of which spaces of a layer directions are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sides {
    /// Of what it makes.
    Outputs,
    /// In each round of that, or of what convolutions larger than 1x1 read: whichever loses less.
    #[default]
    Both,
}

/// What of a layer is fitted anew after a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refit {
    /// The projection, of the basis as it was ranked.
    Projections,
    /// Basis and projection, where the images tell enough; else the projection.
    #[default]
    Kernels,
}

/// Basis scaling and pruning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PruneSettings {
    /// What must hold at the end (`acc-drop=1.0pp`).
    pub targets: Vec<Target>,
    /// Layers to leave alone: a regular expression on node names.
    pub exclude: Option<String>,
    /// What is removed (basis).
    pub removes: Removal,
    /// Of which spaces directions are removed (both); with `svd`, with other scores than `fisher` and where
    /// time counts of outputs alone.
    pub sides: Sides,
    /// In which directions layers are cut (fisher).
    pub basis: Basis,
    /// What a direction is worth (fisher); `taylor` goes with the basis `svd`.
    pub score: Score,
    /// What a channel is worth (measured).
    pub channel_score: ChannelScore,
    /// Of which loss the bases and scores know the gradients (output).
    pub curvature: Curvature,
    /// Training images from which bases and scores are made (2048).
    pub statistics_images: usize,
    /// Fraction of the remaining convolution parameters that one round removes; where absent 0.15
    /// with Taylor scores, else 0.3.
    pub step: Option<f64>,
    /// Training steps between two cuts; where absent 60 with Taylor scores, which are gathered on
    /// the way, else 0.
    pub window_steps: Option<u64>,
    /// Passes over the training images to recover after a cut that loses too much (1).
    pub recovery_epochs: u64,
    /// Passes over the training images at the chosen size (4).
    pub finetune_epochs: u64,
    /// Weight of the uncut network's class scores beside the labels in training after a cut, 0 to 1
    /// (0.5); without effect on Taylor scores, whose method knows labels alone.
    pub distillation: f64,
    /// Peak learning rate of Adam for scaling factors, batch norm and head (0.002).
    pub lr: f32,
    /// What a direction's score is divided by; where absent time with a target on latency, else parameter.
    pub per: Option<Per>,
    /// Ranks and numbers of channels are rounded up to a multiple of this; where absent 8 where time is what counts, as kernels
    /// are as fast for 8 as for fewer, else 1.
    pub align: Option<usize>,
    /// How often the first step is halved for the least step that is worth a round (2).
    pub halvings: usize,
    /// Reserve of an accuracy target, in standard errors of the drop on validation (1.5).
    pub margin: f64,
    /// Training images for batch-norm statistics after a cut (1024).
    pub batch_norm_images: usize,
    /// Training images to which the layers of a cut network are fitted anew, so that they put out what
    /// those of the uncut one do; where absent 0 (no refit) with Taylor scores, whose method trains
    /// scaling factors alone, else 2048. No labels are used.
    pub refit_images: Option<usize>,
    /// What is fitted to them (kernels).
    pub refit: Refit,
}

impl Default for PruneSettings {
    fn default() -> Self {
        Self {
            targets: vec![Target::AccDrop(1.0)],
            exclude: None,
            removes: Removal::Basis,
            sides: Sides::Both,
            basis: Basis::Fisher,
            score: Score::Fisher,
            channel_score: ChannelScore::Measured,
            curvature: Curvature::Output,
            statistics_images: 2048,
            step: None,
            window_steps: None,
            recovery_epochs: 1,
            finetune_epochs: 4,
            distillation: 0.5,
            lr: 0.002,
            per: None,
            align: None,
            halvings: 2,
            margin: 1.5,
            batch_norm_images: 1024,
            refit_images: None,
            refit: Refit::Kernels,
        }
    }
}

impl PruneSettings {
    /// [`Self::per`], resolved.
    #[must_use]
    pub fn per(&self) -> Per {
        self.per.unwrap_or(if self.has_latency_target() {
            Per::Time
        } else {
            Per::Parameter
        })
    }

    /// Whether a target says what the network must still do, so that sizes are what is found.
    pub(super) fn has_quality_target(&self) -> bool {
        let is_quality = |target: &Target| match target {
            Target::AccDrop(_) | Target::OutputError(_) => true,
            Target::Params(_) | Target::Macs(_) | Target::Size(_) | Target::Latency(_) => false,
        };
        self.targets.iter().any(is_quality)
    }

    fn has_latency_target(&self) -> bool {
        let is_latency = |target: &Target| matches!(target, Target::Latency(_));
        self.targets.iter().any(is_latency)
    }

    /// [`Self::align`], resolved.
    #[must_use]
    pub fn align(&self) -> usize {
        self.align
            .unwrap_or(if self.per() == Per::Time { 8 } else { 1 })
    }

    /// Whether cuts need to know how long layers take.
    #[must_use]
    pub fn wants_times(&self) -> bool {
        self.per() == Per::Time || self.has_latency_target()
    }

    /// Whether input spaces are cut.
    #[must_use]
    pub fn cuts_inputs(&self) -> bool {
        self.sides == Sides::Both
            && self.removes != Removal::Channels
            && self.basis != Basis::Svd
            && self.score == Score::Fisher
            && !self.wants_times()
    }

    /// [`Self::step`], resolved.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.step.unwrap_or(match self.score {
            Score::Taylor => 0.15,
            Score::Fisher | Score::Energy | Score::Magnitude | Score::Lamp => 0.3,
        })
    }

    /// [`Self::refit_images`], resolved.
    #[must_use]
    pub fn refit_images(&self) -> usize {
        self.refit_images.unwrap_or(match self.score {
            Score::Taylor => 0,
            Score::Fisher | Score::Energy | Score::Magnitude | Score::Lamp => 2048,
        })
    }

    /// Whether whole kernels are fitted anew.
    #[must_use]
    pub fn refits_kernels(&self) -> bool {
        self.refit == Refit::Kernels
            && self.refit_images() > 0
            && self.score != Score::Taylor
            && self.removes != Removal::Channels
    }

    /// [`Self::window_steps`], resolved.
    #[must_use]
    pub fn window_steps(&self) -> u64 {
        self.window_steps.unwrap_or(match self.score {
            Score::Taylor => 60,
            Score::Fisher | Score::Energy | Score::Magnitude | Score::Lamp => 0,
        })
    }
}

/// The check of the exported file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct VerifySettings {
    /// The runtime (tract).
    pub runtime: RuntimeKind,
    /// Test images compared between the network in memory and the file (500).
    pub images: usize,
    /// Images in a run whose latency is measured (1).
    pub latency_batch: usize,
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self {
            runtime: RuntimeKind::Tract,
            images: 500,
            latency_batch: 1,
        }
    }
}
