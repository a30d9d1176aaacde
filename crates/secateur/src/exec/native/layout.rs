//! Which nodes compute on bundles of images, and values with the order they are in.

use super::arithmetic::{Spread, spread};
use super::buffers::Buffers;
use super::convolution::dense_shape;
use crate::exec::ExecError;
use crate::graph::{Arithmetic, Op, Operands};
use crate::tensor::Floats;
use secateur_kernels::Layout;
use secateur_kernels::layout::{to_bundles, to_planes};

/// A value, in the shape that the graph gives it, and the order that its elements are in.
#[derive(Clone, Debug)]
pub(super) struct Laid {
    pub(super) array: Floats,
    pub(super) layout: Layout,
}

impl Laid {
    /// A value in the order of the graph.
    pub(super) fn planes(array: Floats) -> Self {
        let layout = Layout::Planes;
        Self { array, layout }
    }

    /// The value in another order.
    pub(super) fn to(&self, layout: Layout, buffers: &Buffers) -> Result<Self, ExecError> {
        if self.layout == layout {
            return Ok(self.clone());
        }
        let shape = self.array.shape();
        let (channels, positions) = (shape[1], shape[2..].iter().product());
        let (turn, images): (Turn, usize) = match (self.layout, layout) {
            (Layout::Planes, Layout::Bundles(images)) => (to_bundles, images),
            (Layout::Bundles(images), _) => (to_planes, images),
            (Layout::Planes, Layout::Planes) => return Ok(self.clone()),
        };
        let Some(from) = self.array.as_slice() else {
            return Err(ExecError::Device(
                "a value is not in memory order".to_owned(),
            ));
        };
        let mut turned = buffers.take(from.len());
        turn(images, channels, positions, from, &mut turned);
        let array = buffers.array(shape, turned)?;
        Ok(Self { array, layout })
    }
}

/// Brings images, as many as a bundle has, of so many channels and positions into another order.
type Turn = fn(usize, usize, usize, &[f32], &mut [f32]);

/// The order of an input of a node that computes in `layout`.
pub(super) fn layout_of_input(
    operands: Operands<'_>,
    slot: usize,
    out_shape: &[usize],
    layout: Layout,
) -> Layout {
    let has_images = match operands.node.op {
        Op::Arithmetic(_) => operands
            .shape(slot)
            .is_ok_and(|shape| matches!(spread(shape, out_shape), Spread::Same)),
        Op::Concat { .. } => true,
        _ => slot == 0,
    };
    if has_images { layout } else { Layout::Planes }
}

/// The order in which a node computes a batch of `images`, given whether any of its inputs comes in bundles.
pub(super) fn layout_of(
    operands: Operands<'_>,
    out_shape: &[usize],
    images: usize,
    comes_in_bundles: bool,
) -> Layout {
    let is_batch = |shape: &[usize]| shape.len() >= 2 && shape[0] == images;
    let Ok(shape) = operands.shape(0) else {
        return Layout::Planes;
    };
    let best = Layout::best(images);
    if best == Layout::Planes || !is_batch(out_shape) || !is_batch(shape) {
        return Layout::Planes;
    }
    let can = match &operands.node.op {
        // Worth turning their input for.
        Op::Conv(_) => true,
        Op::MaxPool(attrs) => attrs.kernel[0].saturating_mul(attrs.kernel[1]) <= LARGEST_WINDOW,
        Op::GlobalAveragePool => true,
        Op::Gemm { .. } => dense_shape(operands).is_some(),
        _ if !comes_in_bundles => false,
        Op::BatchNormalization { .. }
        | Op::Activation(_)
        | Op::Clip { .. }
        | Op::Dropout { .. }
        | Op::Identity => true,
        Op::Arithmetic(operation) => can_combine(operands, *operation, out_shape),
        Op::Concat { axis } => operands
            .axis(*axis, out_shape.len())
            .is_ok_and(|axis| axis == 1),
        // One place for each channel stays one place.
        Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } => {
            shape[1] == out_shape[1] && shape[2..].iter().product::<usize>() == 1
        }
        _ => false,
    };
    if can { best } else { Layout::Planes }
}

/// Taps of a pooling window that are told apart as `f32` numbers.
const LARGEST_WINDOW: usize = 1 << 20;

/// Whether two operands meet element by element, or channel by channel in a way that kernels have.
fn can_combine(operands: Operands<'_>, operation: Arithmetic, out_shape: &[usize]) -> bool {
    let (Ok(a), Ok(b)) = (operands.shape(0), operands.shape(1)) else {
        return false;
    };
    match (spread(a, out_shape), spread(b, out_shape)) {
        (Spread::Same, Spread::Same) => true,
        (Spread::Same, Spread::Channel { .. }) => {
            matches!(operation, Arithmetic::Add | Arithmetic::Mul)
        }
        (Spread::Channel { .. }, Spread::Same) => operation == Arithmetic::Mul,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::{infer, samples};
    use std::collections::BTreeMap;

    /// The orders of all nodes of VGG-16, by name of the operator.
    fn layouts(images: usize) -> Vec<(&'static str, Layout)> {
        let graph = samples::vgg16_features();
        let shape = vec![images, 3, 32, 32];
        let input = BTreeMap::from([(graph.inputs[0].name.clone(), shape)]);
        let inferred = infer(&graph, &input).unwrap();
        let layout = |node| {
            let operands = Operands::new(&graph, &inferred, node);
            let out_shape = &inferred.shapes[&node.outputs[0]];
            let layout = layout_of(operands, out_shape, images, true);
            (node.op.name(), layout)
        };
        graph.nodes.iter().map(layout).collect()
    }

    #[test]
    fn whole_bundles_are_computed_as_such() {
        for (images, bundle) in [(64, 32), (48, 16), (24, 8)] {
            for (op, layout) in layouts(images) {
                assert_eq!(layout, Layout::Bundles(bundle), "{op}");
            }
        }
        for (op, layout) in layouts(33) {
            assert_eq!(layout, Layout::Planes, "{op}");
        }
    }
}
