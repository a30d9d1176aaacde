//! How pixels become the network's input.

use serde::{Deserialize, Serialize};

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

/// `(pixel * scale - mean[c]) / std[c]`, with `pixel` from 0 to 255 and `c` in channel order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// Text that names no preset and does not parse.
    #[error("`{0}` is no preprocessing: want `imagenet`, `caffe`, `unit`, `pm1` or `mean=r,g,b;std=r,g,b;scale=s;order=rgb`")]
    Unknown(String),
}
