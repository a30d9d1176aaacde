//! How pixels become the network's input.
//!
//! An image is turned to grey where the network has one channel (ITU-R BT.601), resized bilinearly
//! with antialiasing, and then, for a pixel `p` from 0 to 255 and a channel `c` in the network's order,
//!
//! ```text
//! input[c] = (p[c] * scale - mean[c]) / std[c]
//! ```
//!
//! computed in f64 and rounded once. A grey image fills all three channels of a network in colour.
//! The whole is stored in the model's metadata, so that every later command reads it from there.

use ndarray::Array3;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::pixels::{Pixels, View};

/// The key of [`Preprocess::to_metadata`] in a model's metadata.
pub const METADATA_KEY: &str = "secateur.preprocess";

/// The key of [`classes_to_metadata`] in a model's metadata.
pub const CLASSES_METADATA_KEY: &str = "secateur.classes";

/// The longest side of a network's input, pixels.
pub(crate) const MAX_INPUT_SIDE: usize = 8192;

/// The order of colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel.
    Gray,
}

impl ChannelOrder {
    /// How many channels these are.
    #[must_use]
    pub fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// `(pixel * scale - mean[c]) / std[c]`, with `pixel` from 0 to 255 and `c` in channel order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Image height after resizing, pixels.
    pub height: usize,
    /// Image width after resizing, pixels.
    pub width: usize,
    /// Channels and their order.
    pub channels: ChannelOrder,
    /// Factor applied to 0..255 first.
    pub scale: f32,
    /// Subtracted after scaling, in channel order.
    pub mean: Vec<f32>,
    /// Divided by at last, in channel order.
    pub std: Vec<f32>,
}

/// A preprocessing that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreprocessError {
    /// Text that names no preset and does not parse.
    #[error(
        "`{0}` is no preprocessing: want `imagenet`, `caffe`, `unit`, `pm1` or `mean=r,g,b;std=r,g,b;scale=s;order=rgb`"
    )]
    Unknown(String),
    /// An explicit preprocessing with a part that does not parse.
    #[error("preprocessing `{part}`: {what}")]
    Part {
        /// The part of the text, such as `mean=a`.
        part: String,
        /// What was wanted.
        what: String,
    },
    /// A value out of its range.
    #[error("preprocessing: {what}")]
    Invalid {
        /// What was found and what was wanted.
        what: String,
    },
    /// Metadata of a model that does not parse.
    #[error("metadata `{key}` of the model cannot be used: {what}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
}

// The ImageNet statistics that torchvision's models are trained with.
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
// Mean blue, green, red of ImageNet, as the Caffe models of VGG subtract it.
const CAFFE_MEAN: [f64; 3] = [103.939, 116.779, 123.68];

impl Preprocess {
    /// Reads a preset or an explicit preprocessing for a network with an input of
    /// `[channels, height, width]`:
    ///
    /// - `imagenet`: red, green, blue over 255, minus .485, .456, .406, over .229, .224, .225;
    /// - `caffe`: blue, green, red in 0..255, minus 103.939, 116.779, 123.68;
    /// - `unit`: red, green, blue over 255;
    /// - `pm1`: red, green, blue over 127.5, minus 1;
    /// - `mean=..;std=..;scale=..;order=rgb|bgr|gray`: three numbers or one for all channels, in the
    ///   order of `order`. `scale` (also as `1/255`) must be given; `mean` is 0, `std` is 1 and `order`
    ///   is `rgb`, or `gray` for one channel, where they are not.
    ///
    /// A network with one channel gets grey, and the means of a preset's values over its channels.
    ///
    /// # Errors
    /// [`PreprocessError`] if the text does not parse, a value is out of range, `channels` is neither 1
    /// nor 3 or does not fit `order`, or a side is 0 or above 8192.
    pub fn parse(
        text: &str,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, PreprocessError> {
        if !matches!(channels, 1 | 3) {
            return Err(invalid(format!(
                "the network's input has {channels} channels, want 1 or 3"
            )));
        }
        let text = text.trim();
        let (order, scale, mean, std) = match text {
            "imagenet" => (
                ChannelOrder::Rgb,
                1.0 / 255.0,
                IMAGENET_MEAN.to_vec(),
                IMAGENET_STD.to_vec(),
            ),
            "caffe" => (ChannelOrder::Bgr, 1.0, CAFFE_MEAN.to_vec(), vec![1.0; 3]),
            "unit" => (ChannelOrder::Rgb, 1.0 / 255.0, vec![0.0; 3], vec![1.0; 3]),
            "pm1" => (ChannelOrder::Rgb, 1.0 / 127.5, vec![1.0; 3], vec![1.0; 3]),
            _ if text.contains('=') => return Self::explicit(text, height, width, channels),
            _ => return Err(PreprocessError::Unknown(text.to_owned())),
        };
        let reduce = |values: Vec<f64>| -> Vec<f32> {
            if channels == 1 {
                vec![(values.iter().sum::<f64>() / values.len() as f64) as f32]
            } else {
                values.into_iter().map(|value| value as f32).collect()
            }
        };
        let preprocess = Self {
            height,
            width,
            channels: if channels == 1 {
                ChannelOrder::Gray
            } else {
                order
            },
            scale: scale as f32,
            mean: reduce(mean),
            std: reduce(std),
        };
        preprocess.check()?;
        Ok(preprocess)
    }

    fn explicit(
        text: &str,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<Self, PreprocessError> {
        let mut order = if channels == 1 {
            ChannelOrder::Gray
        } else {
            ChannelOrder::Rgb
        };
        let (mut scale, mut mean, mut std) = (None, None, None);
        let mut seen = Vec::new();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let bad = |what: &str| PreprocessError::Part {
                part: part.to_owned(),
                what: what.to_owned(),
            };
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| bad("want `key=value`"))?;
            let (key, value) = (key.trim(), value.trim());
            if seen.contains(&key) {
                return Err(bad("given twice"));
            }
            seen.push(key);
            let list = || {
                let numbers = value
                    .split(',')
                    .map(|number| number.trim().parse().ok())
                    .collect::<Option<Vec<f32>>>();
                match numbers {
                    Some(numbers) if numbers.len() == 1 => Ok(vec![numbers[0]; channels]),
                    Some(numbers) if numbers.len() == channels => Ok(numbers),
                    _ => Err(bad(&format!(
                        "want {channels} numbers with commas between them, or one for all"
                    ))),
                }
            };
            match key {
                "mean" => mean = Some(list()?),
                "std" => std = Some(list()?),
                "scale" => {
                    let (over, under) = value.split_once('/').unwrap_or((value, "1"));
                    let number = |text: &str| text.trim().parse::<f64>().ok();
                    let (Some(over), Some(under)) = (number(over), number(under)) else {
                        return Err(bad("want a number or a fraction such as `1/255`"));
                    };
                    scale = Some((over / under) as f32);
                }
                "order" => {
                    order = match value {
                        "rgb" => ChannelOrder::Rgb,
                        "bgr" => ChannelOrder::Bgr,
                        "gray" | "grey" => ChannelOrder::Gray,
                        _ => return Err(bad("want `rgb`, `bgr` or `gray`")),
                    };
                }
                _ => return Err(bad("want `mean`, `std`, `scale` or `order`")),
            }
        }
        if order.channels() != channels {
            return Err(invalid(format!(
                "order has {} channels, the network's input {channels}",
                order.channels()
            )));
        }
        let scale = scale.ok_or_else(|| PreprocessError::Part {
            part: text.to_owned(),
            what: "`scale` is missing: `scale=1/255` for networks trained on 0..1, `scale=1` for 0..255".to_owned(),
        })?;
        let preprocess = Self {
            height,
            width,
            channels: order,
            scale,
            mean: mean.unwrap_or_else(|| vec![0.0; channels]),
            std: std.unwrap_or_else(|| vec![1.0; channels]),
        };
        preprocess.check()?;
        Ok(preprocess)
    }

    /// Checks that this can be applied.
    ///
    /// # Errors
    /// [`PreprocessError::Invalid`] if a side is 0 or above 8192, a list has not one number a channel, a
    /// number is not finite, or `scale` or an element of `std` is not positive.
    pub fn check(&self) -> Result<(), PreprocessError> {
        for (side, name) in [(self.height, "height"), (self.width, "width")] {
            if !(1..=MAX_INPUT_SIDE).contains(&side) {
                return Err(invalid(format!(
                    "{name} is {side}, want 1 to {MAX_INPUT_SIDE}"
                )));
            }
        }
        let channels = self.channels.channels();
        for (list, name) in [(&self.mean, "mean"), (&self.std, "std")] {
            if list.len() != channels {
                return Err(invalid(format!(
                    "{name} has {} numbers for {channels} channels",
                    list.len()
                )));
            }
            if let Some(number) = list.iter().find(|number| !number.is_finite()) {
                return Err(invalid(format!("{name} is {number}, want a finite number")));
            }
        }
        for (&number, name) in self
            .std
            .iter()
            .map(|number| (number, "std"))
            .chain([(&self.scale, "scale")])
        {
            if !(number.is_finite() && number > 0.0) {
                return Err(invalid(format!(
                    "{name} is {number}, want a positive number"
                )));
            }
        }
        // A tiny `std` can still carry a pixel out of the range of f32.
        if self
            .tables()
            .iter()
            .flatten()
            .any(|value| !value.is_finite())
        {
            return Err(invalid(
                "a pixel's value is beyond the range of 32-bit floats".to_owned(),
            ));
        }
        Ok(())
    }

    /// This as the JSON text that is stored under [`METADATA_KEY`].
    #[must_use]
    pub fn to_metadata(&self) -> String {
        // A struct of numbers and names cannot fail to serialise; JSON has no other number than finite.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads and checks what [`Preprocess::to_metadata`] wrote.
    ///
    /// # Errors
    /// [`PreprocessError::Metadata`] if the text does not parse or [`Preprocess::check`] fails.
    pub fn from_metadata(text: &str) -> Result<Self, PreprocessError> {
        let bad = |what: String| PreprocessError::Metadata {
            key: METADATA_KEY,
            what,
        };
        let read: Self = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        read.check().map_err(|error| bad(error.to_string()))?;
        Ok(read)
    }

    /// The network's input for one image, `[channels, height, width]`.
    ///
    /// # Errors
    /// Those of [`Preprocess::check`].
    pub fn apply(&self, image: &Pixels) -> Result<Array3<f32>, PreprocessError> {
        self.check()?;
        let shape = (self.channels.channels(), self.height, self.width);
        let fitted;
        let mut view = image.view();
        if !view.fits(self.height, self.width, shape.0) {
            fitted = view.fitted(self.height, self.width, shape.0)?;
            view = fitted.view();
        }
        let mut input = vec![0.0; shape.0 * shape.1 * shape.2];
        self.write(&self.tables(), view, Change::default(), &mut input);
        Array3::from_shape_vec(shape, input).map_err(|error| invalid(error.to_string()))
    }

    /// The network's value of each pixel value, one table a channel.
    pub(super) fn tables(&self) -> Vec<[f32; 256]> {
        self.mean
            .iter()
            .zip(&self.std)
            .map(|(&mean, &std)| {
                std::array::from_fn(|pixel| {
                    ((pixel as f64 * f64::from(self.scale) - f64::from(mean)) / f64::from(std))
                        as f32
                })
            })
            .collect()
    }

    /// Writes a fitted image, changed, to `input` `[channels, height, width]`. What a shift brings in
    /// from outside the image is 0: the mean colour.
    pub(super) fn write(
        &self,
        tables: &[[f32; 256]],
        image: View<'_>,
        change: Change,
        input: &mut [f32],
    ) {
        let (height, width, step) = (image.height, image.width, image.channels);
        // The columns of the image that are seen, and the zeros beside them before the flip.
        let seen =
            change.right.max(0).unsigned_abs()..width.saturating_add_signed(change.right.min(0));
        let before = change.right.min(0).unsigned_abs();
        for (c, (plane, table)) in input
            .chunks_exact_mut(height * width)
            .zip(tables)
            .enumerate()
        {
            let channel = match (self.channels, step) {
                (_, 1) | (ChannelOrder::Gray, _) => 0,
                (ChannelOrder::Rgb, _) => c,
                (ChannelOrder::Bgr, _) => 2 - c,
            };
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let Some(y) = y.checked_add_signed(change.down).filter(|&y| y < height) else {
                    row.fill(0.0);
                    continue;
                };
                let line = &image.samples[y * width * step..(y + 1) * width * step];
                let pixels = line[seen.start * step..seen.end * step]
                    .chunks_exact(step)
                    .map(|pixel| pixel[channel]);
                row[..before].fill(0.0);
                row[before + seen.len()..].fill(0.0);
                for (value, pixel) in row[before..].iter_mut().zip(pixels) {
                    *value = table[usize::from(pixel)];
                }
                if change.flip {
                    row.reverse();
                }
            }
        }
    }
}

/// How one image is changed: the pixel at `(y, x)` is read at `(y + down, x + right)`, then the image
/// is flipped left to right. Shifts are less than the sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub down: isize,
    pub right: isize,
    pub flip: bool,
}

fn invalid(what: String) -> PreprocessError {
    PreprocessError::Invalid { what }
}

/// Class names as the JSON text that is stored under [`CLASSES_METADATA_KEY`].
#[must_use]
pub fn classes_to_metadata(classes: &[String]) -> String {
    // A list of strings cannot fail to serialise.
    serde_json::to_string(classes).unwrap_or_default()
}

/// Whether two lists name the same classes in the same order. Names that only count the classes from 0, as data without
/// names have, are those of any list as long, unless that has the same names in another order.
#[must_use]
pub fn same_classes(a: &[String], b: &[String]) -> bool {
    let counts = |names: &[String]| {
        names
            .iter()
            .enumerate()
            .all(|(i, name)| *name == i.to_string())
    };
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    a == b || a.len() == b.len() && (counts(a) || counts(b)) && set(a) != set(b)
}

/// Reads and checks what [`classes_to_metadata`] wrote: at least one name, none twice.
///
/// # Errors
/// [`PreprocessError::Metadata`] if the text is no such list.
pub fn classes_from_metadata(text: &str) -> Result<Vec<String>, PreprocessError> {
    let bad = |what: String| PreprocessError::Metadata {
        key: CLASSES_METADATA_KEY,
        what,
    };
    let classes: Vec<String> =
        serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    if classes.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let mut sorted: Vec<&String> = classes.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(bad(format!("`{}` is named twice", pair[0])));
    }
    Ok(classes)
}
