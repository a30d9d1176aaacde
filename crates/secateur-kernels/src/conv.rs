//! Convolution of images: patches become columns of a matrix that is multiplied by the weight.

mod correlate;
mod depthwise;
pub(crate) mod geometry;
mod pack;
mod pointwise;
mod stage;
mod weight;

use crate::norm::Line;
use crate::packed::Weight;
use crate::{Layout, Window, bundle};
use correlate::correlate;
use geometry::Correlation;
use pack::Kernel;
use std::ops::Range;

/// Shapes of a convolution. The weight is `[output channels, input channels / groups, kernel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Number of images.
    pub images: usize,
    /// Number of groups; it divides both numbers of channels.
    pub groups: usize,
    /// Input channels, height, width.
    pub input: [usize; 3],
    /// Output channels, height, width.
    pub output: [usize; 3],
    /// How the kernel slides.
    pub window: Window,
}

impl ConvShape {
    /// Number of floats in the input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.images * self.image_in()
    }

    /// Number of floats in the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.images * self.image_out()
    }

    /// Number of floats in the weight.
    #[must_use]
    pub fn weight_len(&self) -> usize {
        self.output[0] * self.patch()
    }

    fn image_in(&self) -> usize {
        self.input.iter().product()
    }

    fn image_out(&self) -> usize {
        self.output.iter().product()
    }

    /// Input channels and output channels of a group.
    pub(crate) fn group(&self) -> [usize; 2] {
        [self.input[0] / self.groups, self.output[0] / self.groups]
    }

    /// Floats that one output reads.
    fn patch(&self) -> usize {
        self.group()[0] * self.window.kernel[0] * self.window.kernel[1]
    }

    fn check(&self, layout: Layout, x: usize, w: usize, y: usize) {
        assert!(
            layout.fits(self.images) || self.is_empty(),
            "images must be whole bundles"
        );
        assert!(
            self.input[0].is_multiple_of(self.groups) && self.output[0].is_multiple_of(self.groups),
            "groups must divide the channels"
        );
        assert_eq!(x, self.input_len(), "length of the input");
        assert_eq!(w, self.weight_len(), "length of the weight");
        assert_eq!(y, self.output_len(), "length of the output");
    }

    fn is_empty(&self) -> bool {
        self.input_len() == 0 || self.output_len() == 0
    }
}

/// What is done to the sums of a convolution before they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finish<'a> {
    /// Added to each output channel.
    pub bias: Option<&'a [f32]>,
    /// The normalisation of each output channel, with the clamp after it.
    pub line: Option<Line<'a>>,
}

impl Finish<'_> {
    /// What is done to some of the channels.
    pub(crate) fn of(self, channels: Range<usize>) -> Self {
        Self {
            bias: self.bias.map(|bias| &bias[channels.clone()]),
            line: self.line.map(|line| line.of(channels)),
        }
    }

    fn fits(&self, channels: usize) -> bool {
        let lengths = self.line.map(|line| [line.factor.len(), line.offset.len()]);
        self.bias.is_none_or(|bias| bias.len() == channels)
            && lengths.is_none_or(|lengths| lengths == [channels; 2])
    }
}

/// `y = w * x`, finished. Where images are in bundles, a weight is packed first, unless it is kept so.
///
/// # Panics
/// Where a length is not that of the shape, groups do not divide the channels, or images do not fill the bundles
/// of [`Layout::Bundles`].
pub fn forward(
    layout: Layout,
    shape: &ConvShape,
    x: &[f32],
    w: Weight<'_>,
    finish: Finish<'_>,
    y: &mut [f32],
) {
    shape.check(layout, x.len(), w.values.len(), y.len());
    assert!(
        finish.fits(shape.output[0]),
        "one bias, factor and offset for each output channel"
    );
    if shape.is_empty() {
        return;
    }
    if let Layout::Bundles(images) = layout {
        return bundle::conv::forward(images, shape, x, w, finish, y);
    }
    if pointwise::fits(shape) {
        pointwise::forward(shape, x, w.values, finish.bias, y);
    } else {
        let correlation = Correlation::forward(shape);
        correlate(&correlation, x, &Kernel::Forward(w.values), finish.bias, y);
    }
    if let Some(line) = finish.line {
        line.apply(shape.output[1] * shape.output[2], y);
    }
}

/// `dx = dL/dx`, given `dy = dL/dy`. Where images are in bundles, a weight is packed first, unless it is kept so.
///
/// # Panics
/// Where a length is not that of the shape, groups do not divide the channels, or images do not fill the bundles
/// of [`Layout::Bundles`].
pub fn backward_data(layout: Layout, shape: &ConvShape, w: Weight<'_>, dy: &[f32], dx: &mut [f32]) {
    shape.check(layout, dx.len(), w.values.len(), dy.len());
    if shape.is_empty() {
        return dx.fill(0.0);
    }
    if let Layout::Bundles(images) = layout {
        return bundle::conv::backward_data(images, shape, w, dy, dx);
    }
    if pointwise::fits(shape) {
        return pointwise::backward_data(shape, w.values, dy, dx);
    }
    let n_taps = shape.window.kernel[0] * shape.window.kernel[1];
    // Those that any place of the input has.
    let [_, height, width] = shape.input;
    let [rows, columns] = shape.window.strides;
    let phases: Vec<(Correlation, [Vec<usize>; 2])> = (0..rows.min(height))
        .flat_map(|y| (0..columns.min(width)).map(move |x| [y, x]))
        .map(|phase| Correlation::backward(shape, phase))
        .collect();
    if phases.iter().any(|(phase, _)| phase.taps() == 0) {
        dx.fill(0.0);
    }
    for (phase, [rows, columns]) in phases {
        if phase.taps() == 0 {
            continue;
        }
        let taps = rows
            .iter()
            .flat_map(|row| {
                columns
                    .iter()
                    .map(move |column| row * shape.window.kernel[1] + column)
            })
            .collect();
        let w = w.values;
        let kernel = Kernel::Backward { w, n_taps, taps };
        correlate(&phase, dy, &kernel, None, dx);
    }
}

/// `dw = dL/dw`, given `dy = dL/dy`.
///
/// # Panics
/// Where a length is not that of the shape, groups do not divide the channels, or images do not fill the bundles
/// of [`Layout::Bundles`].
pub fn backward_weight(layout: Layout, shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    shape.check(layout, x.len(), dw.len(), dy.len());
    if shape.is_empty() {
        return dw.fill(0.0);
    }
    if let Layout::Bundles(images) = layout {
        bundle::conv::backward_weight(images, shape, x, dy, dw);
    } else if Correlation::forward(shape).is_depthwise() {
        depthwise::gradient(shape, x, dy, dw);
    } else {
        weight::gradient(shape, x, dy, dw);
    }
}
