//! Convolution of images: patches become columns of a matrix that is multiplied by the weight.

mod correlate;
mod geometry;
mod pack;
mod stage;

use crate::matrix::{As, Rows, product};
use crate::unfold::Planes;
use crate::{Window, depthwise};
use correlate::correlate;
use faer::Accum;
use geometry::Correlation;
use pack::Kernel;
use rayon::prelude::*;
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

/// One product works on at least this many columns where there are as many, and on not many more.
const COLUMNS: usize = 256;
/// Floats of a matrix of patches that stay in a core's own cache.
const CACHED: usize = 300_000;
/// Parts into which a batch is divided at most: enough for the threads of a workstation.
const PARTS: usize = 8;

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

    pub(crate) fn positions(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Input channels and output channels of a group.
    fn group(&self) -> [usize; 2] {
        [self.input[0] / self.groups, self.output[0] / self.groups]
    }

    /// Floats that one output reads.
    fn patch(&self) -> usize {
        self.group()[0] * self.window.kernel[0] * self.window.kernel[1]
    }

    fn is_depthwise(&self) -> bool {
        self.group() == [1, 1]
    }

    /// Whether a patch is one position, so that the input is its own matrix of patches.
    fn is_pointwise(&self) -> bool {
        let window = &self.window;
        window.kernel == [1, 1]
            && window.strides == [1, 1]
            && window.before == [0, 0]
            && self.input[1..] == self.output[1..]
    }

    pub(crate) fn planes(&self) -> Planes {
        Planes {
            window: self.window,
            height: self.input[1],
            width: self.input[2],
            out_width: self.output[2],
        }
    }

    /// Images of one part of the batch.
    fn images_per_part(&self) -> usize {
        let parts = (self.images * self.positions() / COLUMNS).clamp(2, PARTS);
        self.images.div_ceil(parts).max(1)
    }

    /// Columns of one product.
    fn columns(&self) -> usize {
        (CACHED / self.patch().max(1)).clamp(COLUMNS, 4 * COLUMNS)
    }

    /// Images that share one product.
    fn joined(&self) -> usize {
        (self.columns() / self.positions().max(1)).max(1)
    }

    /// The output rows of one product after another, for images that are not joined.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let height = self.output[1];
        let rows = (self.columns() / self.output[2].max(1)).max(1);
        (0..height)
            .step_by(rows)
            .map(move |first| first..(first + rows).min(height))
    }

    fn check(&self, x: usize, w: usize, y: usize) {
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

/// `y = w * x + bias`.
///
/// # Panics
/// Where a length is not that of the shape.
pub fn forward(shape: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    shape.check(x.len(), w.len(), y.len());
    if shape.is_empty() {
        return;
    }
    if shape.is_depthwise() {
        depthwise::forward(shape, x, w, y);
        if let Some(bias) = bias {
            crate::channel::add(bias, shape.positions(), y);
        }
        return;
    }
    let correlation = Correlation::forward(shape);
    correlate(&correlation, x, &Kernel::Forward(w), bias, y);
}

/// Matrices that are used again from product to product.
#[derive(Default)]
struct Scratch {
    patches: Vec<f32>,
    outputs: Vec<f32>,
}

/// The first `len` floats of `buffer`, grown where it is shorter. What they hold is left over.
fn floats(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Images `[image, channel, position]`, from `offset` on, to rows `[channel, image, position]`.
fn gather(
    y: &[f32],
    n_images: usize,
    positions: usize,
    image: usize,
    offset: usize,
    rows: &mut [f32],
) {
    for (channel, row) in rows.chunks_exact_mut(n_images * positions).enumerate() {
        for (index, values) in row.chunks_exact_mut(positions).enumerate() {
            let start = index * image + offset + channel * positions;
            values.copy_from_slice(&y[start..][..positions]);
        }
    }
}

/// `dx = dL/dx`, given `dy = dL/dy`.
///
/// # Panics
/// Where a length is not that of the shape.
pub fn backward_data(shape: &ConvShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), w.len(), dy.len());
    if shape.is_empty() {
        return dx.fill(0.0);
    }
    if shape.is_depthwise() {
        dx.fill(0.0);
        return depthwise::backward_data(shape, w, dy, dx);
    }
    let n_taps = shape.window.kernel[0] * shape.window.kernel[1];
    let phases: Vec<(Correlation, [Vec<usize>; 2])> = (0..shape.window.strides[0])
        .flat_map(|y| (0..shape.window.strides[1]).map(move |x| [y, x]))
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
        let kernel = Kernel::Backward { w, n_taps, taps };
        correlate(&phase, dy, &kernel, None, dx);
    }
}

/// `dw = dL/dw`, given `dy = dL/dy`.
///
/// # Panics
/// Where a length is not that of the shape.
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    shape.check(x.len(), dw.len(), dy.len());
    dw.fill(0.0);
    if shape.is_empty() {
        return;
    }
    if shape.is_depthwise() {
        return depthwise::backward_weight(shape, x, dy, dw);
    }
    let [group_in, group_out] = shape.group();
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    // Each part of the work owns some input channels of a group, and reads all images.
    let channels = group_in.div_ceil((2 * PARTS).div_ceil(shape.groups)).max(1);
    let blocks: Vec<(usize, Range<usize>)> = (0..shape.groups)
        .flat_map(|group| {
            (0..group_in)
                .step_by(channels)
                .map(move |first| (group, first..(first + channels).min(group_in)))
        })
        .collect();
    let gradients: Vec<Vec<f32>> = blocks
        .par_iter()
        .map_init(Scratch::default, |scratch, (group, channels)| {
            block_gradient(shape, x, dy, *group, channels.clone(), scratch)
        })
        .collect();
    for ((group, channels), gradient) in blocks.into_iter().zip(gradients) {
        let columns = channels.len() * taps;
        let rows = dw[group * group_out * shape.patch()..].chunks_mut(shape.patch());
        for (row, gradient) in rows.zip(gradient.chunks_exact(columns)) {
            row[channels.start * taps..][..columns].copy_from_slice(gradient);
        }
    }
}

/// The gradient of the weights that read `channels` of a group: `[output channels, channels, taps]`.
fn block_gradient(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    group: usize,
    channels: Range<usize>,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let [group_in, group_out] = shape.group();
    let positions = shape.positions();
    let plane = shape.input[1] * shape.input[2];
    let patch = channels.len() * shape.window.kernel[0] * shape.window.kernel[1];
    let joined = shape.joined();
    let planes = shape.planes();
    let from = (group * group_in + channels.start) * plane;
    let to = group * group_out * positions;
    let mut gradient = vec![0.0; group_out * patch];
    let images_y = dy.chunks(joined * shape.image_out());
    for (x, dy) in x.chunks(joined * shape.image_in()).zip(images_y) {
        let n_images = x.len() / shape.image_in();
        if n_images > 1 {
            let columns = n_images * positions;
            let patches = floats(&mut scratch.patches, patch * columns);
            for (image, x) in x.chunks_exact(shape.image_in()).enumerate() {
                let x = &x[from..][..channels.len() * plane];
                let rows = 0..shape.output[1];
                planes.unfold(x, rows, patches, columns, image * positions);
            }
            let outputs = floats(&mut scratch.outputs, group_out * columns);
            gather(dy, n_images, positions, shape.image_out(), to, outputs);
            let outputs = (Rows::new(outputs, group_out, columns), As::Is);
            let patches = (Rows::new(patches, patch, columns), As::Transposed);
            product(&mut gradient, patch, Accum::Add, outputs, patches);
            continue;
        }
        let (x, dy) = (&x[from..][..channels.len() * plane], &dy[to..]);
        if shape.is_pointwise() {
            let outputs = (Rows::new(dy, group_out, positions), As::Is);
            let patches = (Rows::new(x, patch, positions), As::Transposed);
            product(&mut gradient, patch, Accum::Add, outputs, patches);
            continue;
        }
        for rows in shape.tiles() {
            let columns = rows.len() * shape.output[2];
            let patches = floats(&mut scratch.patches, patch * columns);
            planes.unfold(x, rows.clone(), patches, columns, 0);
            let outputs = Rows {
                values: &dy[rows.start * shape.output[2]..],
                rows: group_out,
                columns,
                stride: positions,
            };
            let patches = (Rows::new(patches, patch, columns), As::Transposed);
            product(&mut gradient, patch, Accum::Add, (outputs, As::Is), patches);
        }
    }
    gradient
}
