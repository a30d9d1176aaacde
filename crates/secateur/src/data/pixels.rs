//! Images in memory: decoding, channels, resizing.
//!
//! Files are untrusted: sides and memory are bounded, and the content decides the format.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::PreprocessError;
use crate::files::open_regular;

/// The longest side that is decoded or resized to, pixels.
pub(super) const MAX_SIDE: usize = 20_000;
/// The most memory that one decoder may use, bytes.
const MAX_DECODER_BYTES: u64 = 1 << 30;

/// One image of 8-bit samples, rows from the top, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    height: usize,
    width: usize,
    channels: usize,
    samples: Vec<u8>,
}

impl Pixels {
    /// An image from its samples `[height, width, channels]`, `channels` being 1 (grey) or 3 (red,
    /// green, blue). `None` where the sizes do not fit, or a side is 0 or above 20,000.
    #[must_use]
    pub fn new(height: usize, width: usize, channels: usize, samples: Vec<u8>) -> Option<Self> {
        let side = 1..=MAX_SIDE;
        let fits = side.contains(&height)
            && side.contains(&width)
            && matches!(channels, 1 | 3)
            && samples.len() == height * width * channels;
        fits.then_some(Self {
            height,
            width,
            channels,
            samples,
        })
    }

    /// Decodes an image file. The content decides the format, not the name. The first frame of an
    /// animation is taken, Exif orientation is applied, 16 bits are scaled to 8, transparency is
    /// dropped as Pillow's `convert("RGB")` drops it, and grey stays one channel.
    ///
    /// # Errors
    /// The reason, where the file cannot be read or decoded, or is larger than 20,000 pixels a side
    /// or 1 GiB decoded.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = open_regular(path).map_err(|error| error.to_string())?;
        Self::decode(BufReader::new(file))
    }

    /// Decodes an image; see [`Pixels::open`].
    ///
    /// # Errors
    /// The reason, as for [`Pixels::open`].
    pub fn decode<R: BufRead + Seek>(reader: R) -> Result<Self, String> {
        let image = decode(reader).map_err(|error| error.to_string())?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (channels, samples) = if image.color().has_color() {
            (3, image.into_rgb8().into_raw())
        } else {
            (1, image.into_luma8().into_raw())
        };
        Self::new(height, width, channels, samples)
            .ok_or_else(|| "an image without pixels".to_owned())
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// 1 (grey) or 3 (red, green, blue).
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `[height, width, channels]`, row by row.
    #[must_use]
    pub fn samples(&self) -> &[u8] {
        &self.samples
    }

    /// The same image to be looked at.
    pub(super) fn view(&self) -> View<'_> {
        View {
            height: self.height,
            width: self.width,
            channels: self.channels,
            samples: &self.samples,
        }
    }
}

/// A borrowed image; the fields are those of [`Pixels`].
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub samples: &'a [u8],
}

impl View<'_> {
    /// Whether [`View::fitted`] would change nothing.
    pub(super) fn fits(&self, height: usize, width: usize, max_channels: usize) -> bool {
        self.height == height && self.width == width && self.channels <= max_channels
    }

    /// The image at `[height, width]` with at most `max_channels` channels: grey first, then resized
    /// bilinearly, with antialiasing where it becomes smaller.
    pub(super) fn fitted(
        &self,
        height: usize,
        width: usize,
        max_channels: usize,
    ) -> Result<Pixels, PreprocessError> {
        let (channels, samples) = if self.channels > max_channels {
            (1, Cow::Owned(gray(self.samples)))
        } else {
            (self.channels, Cow::Borrowed(self.samples))
        };
        let (from, to) = ((self.height, self.width), (height, width));
        let samples = match channels {
            _ if from == to => samples.into_owned(),
            1 => resize::<U8>(&samples, from, to)?,
            _ => resize::<U8x3>(&samples, from, to)?,
        };
        Ok(Pixels {
            height,
            width,
            channels,
            samples,
        })
    }
}

fn decode<R: BufRead + Seek>(reader: R) -> image::ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    let mut reader = ImageReader::new(reader).with_guessed_format()?;
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.check_dimensions(decoder.dimensions().0, decoder.dimensions().1)?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// ITU-R BT.601 luma in 16-bit fixed point, as Pillow's `convert("L")` computes it.
fn gray(rgb: &[u8]) -> Vec<u8> {
    rgb.chunks_exact(3)
        .map(|p| {
            let luma = u32::from(p[0]) * 19595 + u32::from(p[1]) * 38470 + u32::from(p[2]) * 7471;
            ((luma + 0x8000) >> 16) as u8
        })
        .collect()
}

/// Resizes in integers with Pillow's weights, so that networks see what they were trained on. The kind of
/// pixel is a type: a kind known at run time alone would compile the resizing of all kinds into this crate.
fn resize<P: PixelTrait>(
    samples: &[u8],
    (height, width): (usize, usize),
    (new_height, new_width): (usize, usize),
) -> Result<Vec<u8>, PreprocessError> {
    let fail = |what: String| PreprocessError::Invalid {
        what: format!("resizing failed: {what}"),
    };
    let source = TypedImageRef::<P>::from_buffer(width as u32, height as u32, samples)
        .map_err(|error| fail(error.to_string()))?;
    let mut resized = vec![0; new_height * new_width * P::size()];
    let (to_width, to_height) = (new_width as u32, new_height as u32);
    let mut target = TypedImage::<P>::from_buffer(to_width, to_height, &mut resized)
        .map_err(|error| fail(error.to_string()))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false);
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| fail(error.to_string()))?;
    Ok(resized)
}
