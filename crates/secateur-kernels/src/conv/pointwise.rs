//! Kernels of one tap: each image's planes are a matrix already, and so are the results.

use super::ConvShape;
use crate::matrix::{As, Rows, product};
use rayon::prelude::*;

/// With fewer positions the rows of a product are too short to be worth one product for each image.
const POSITIONS: usize = 49;
/// With fewer images each one's outputs are divided, so that all threads have work.
const IMAGES: usize = 8;

/// Whether a convolution is one product for each image.
pub(super) fn fits(shape: &ConvShape) -> bool {
    let window = &shape.window;
    shape.groups == 1
        && window.kernel == [1, 1]
        && window.strides == [1, 1]
        && window.before == [0, 0]
        && shape.input[1..] == shape.output[1..]
        && shape.input[1] * shape.input[2] >= POSITIONS
}

/// `y = w x` for every image.
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let channels = [shape.input[0], shape.output[0]];
    each_product(shape, channels, x, y, |outputs| {
        let [depth, _] = channels;
        let rows = Rows::new(&w[outputs.start * depth..], outputs.len(), depth);
        (rows, As::Is)
    });
    if let Some(bias) = bias {
        crate::channel::add(bias, shape.output[1] * shape.output[2], y);
    }
}

/// `dx = w^T dy` for every image.
pub(super) fn backward_data(shape: &ConvShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let channels = [shape.output[0], shape.input[0]];
    each_product(shape, channels, dy, dx, |inputs| {
        let rows = Rows {
            values: &w[inputs.start..],
            rows: shape.output[0],
            columns: inputs.len(),
            stride: shape.input[0],
        };
        (rows, As::Transposed)
    });
}

/// Multiplies the planes of every image by rows of the weight; `weight` gives those of a range.
fn each_product<'w>(
    shape: &ConvShape,
    [from, to]: [usize; 2],
    source: &[f32],
    target: &mut [f32],
    weight: impl Fn(std::ops::Range<usize>) -> (Rows<'w>, As) + Sync,
) {
    let positions = shape.output[1] * shape.output[2];
    let parts = if shape.images < IMAGES { IMAGES } else { 1 };
    let rows = to.div_ceil(parts);
    target
        .par_chunks_mut(to * positions)
        .zip(source.par_chunks(from * positions))
        .for_each(|(target, source)| {
            let planes = (Rows::new(source, from, positions), As::Is);
            let parts = target.par_chunks_mut(rows * positions).enumerate();
            parts.for_each(|(part, target)| {
                let first = part * rows;
                let range = first..first + target.len() / positions;
                product(target, positions, weight(range), planes);
            });
        });
}
