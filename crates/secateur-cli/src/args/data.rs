//! Where images come from and how they become input.

use super::{choice, settings, stated};
use clap::Args;
use secateur::data::{Augment, DataKind};
use secateur::pipeline::Settings;
use std::path::PathBuf;

const KINDS: &[&str] = &[
    "image-folder",
    "images",
    "cifar10",
    "cifar100",
    "idx",
    "digits",
];
const AUGMENTS: &[&str] = &["none", "crop", "crop-flip"];

/// Where images come from and how they become input.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data options")]
pub struct DataArgs {
    /// Folder of images: class folders (also below `train`, `val`, `test`), CIFAR-10/100 binary files, or
    /// IDX files (`.gz` too); images that lie in the folder itself have no labels
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What the folder holds, where it is not recognised; `images` takes all images below it without labels,
    /// `digits` are embedded and need no folder
    #[arg(long, value_name = "KIND", value_parser = choice::of::<DataKind>(KINDS))]
    pub data_kind: Option<DataKind>,
    /// How pixels of 0 to 255 become input, `(pixel * scale - mean) / std`: `imagenet` (RGB / 255, mean 0.485, 0.456, 0.406,
    /// std 0.229, 0.224, 0.225), `caffe` (BGR minus 103.939, 116.779, 123.68), `unit` (RGB / 255), `pm1` (RGB / 127.5 - 1), or
    /// numbers such as `scale=1/255;mean=0.5,0.5,0.5;std=0.5,0.5,0.5;order=rgb` (or `bgr`, `gray`), of which `scale` is needed;
    /// read from the model's metadata where not given
    #[arg(long, value_name = "NAME|NUMBERS")]
    pub preprocess: Option<String>,
    /// Image height and width in pixels, where the model does not fix them; else those of its metadata,
    /// else the data's own
    #[arg(long, value_name = "HxW", value_parser = choice::size)]
    pub size: Option<[usize; 2]>,
    #[arg(
        long,
        value_name = "X",
        value_parser = choice::fraction,
        help = stated(
            "Share of the training images that validation takes where the data have no such split, 0 to 1",
            settings::defaults().data.val_fraction,
        )
    )]
    pub val_fraction: Option<f64>,
    #[arg(
        long,
        value_name = "X",
        value_parser = choice::fraction,
        help = stated(
            "Share of the images that are tested on where the data have no such split, 0 to 1",
            settings::defaults().data.test_fraction,
        )
    )]
    pub test_fraction: Option<f64>,
    /// Most training images, validation images included; all where not given
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Most image files that may be left out because they cannot be decoded [default: 1 % of the images, and at least 1]
    #[arg(long, value_name = "N")]
    pub max_corrupt: Option<usize>,
    #[arg(
        long,
        value_name = "N",
        help = stated("Images in a batch", settings::defaults().data.batch_size)
    )]
    pub batch_size: Option<usize>,
}

impl DataArgs {
    pub fn apply(&self, settings: &mut Settings) {
        let data = &mut settings.data;
        if self.data.is_some() {
            data.path.clone_from(&self.data);
        }
        data.kind = self.data_kind.or(data.kind);
        if self.preprocess.is_some() {
            data.preprocess.clone_from(&self.preprocess);
        }
        data.size = self.size.or(data.size);
        data.val_fraction = self.val_fraction.unwrap_or(data.val_fraction);
        data.test_fraction = self.test_fraction.unwrap_or(data.test_fraction);
        data.limit = self.limit.or(data.limit);
        data.max_corrupt = self.max_corrupt.or(data.max_corrupt);
        data.batch_size = self.batch_size.unwrap_or(data.batch_size);
    }
}

/// How training images are changed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data options")]
pub struct AugmentArgs {
    #[arg(
        long,
        value_name = "HOW",
        value_parser = choice::of::<Augment>(AUGMENTS),
        help = stated(
            "Random changes of training images: shifts of up to an eighth, and left-right flips",
            choice::name(&settings::defaults().data.augment),
        )
    )]
    pub augment: Option<Augment>,
}

impl AugmentArgs {
    pub fn apply(&self, settings: &mut Settings) {
        settings.data.augment = self.augment.unwrap_or(settings.data.augment);
    }
}
