//! Fit of a whole kernel: the basis of a layer is solved anew along with its projection
//! (reduced-rank regression; docs/method.md, section 5).

use super::target::MAX_VALUES;
use crate::decompose::{Basis, OutputMoments, directions};
use crate::graph::{ConvAttrs, FactoredKind, FactoredLayer, Graph, Inferred, Node, Op};
use crate::prune::{JointMoments, fit};
use crate::tensor::{Floats, Tensor};
use ndarray::{Array1, Array2, ArrayView2, Axis, IxDyn, concatenate, s};

// Patches of more values than this are not gathered: the work grows with the square of it.
const MAX_PATCH: usize = 2_304;
// Bytes of the patches of one batch.
const MAX_BYTES: u64 = 1 << 29;

/// A network in which the patches that a layer reads are a value of their own.
pub(super) struct Patches {
    pub graph: Graph,
    /// The value, `[images, n, height, width]`.
    pub value: String,
    /// Values of one patch.
    pub n: usize,
}

impl Patches {
    /// Those of `layer`; `None` for layers that are no convolutions without groups, and where they are too
    /// many for memory at `batch` images.
    pub fn of(
        cut: &Graph,
        layer: &FactoredLayer,
        inferred: &Inferred,
        batch: usize,
    ) -> Option<Self> {
        let n = layer.shape.n;
        let bytes = layer
            .positions(inferred)?
            .checked_mul(4 * (n * batch) as u64)?;
        let fits = layer.kind == FactoredKind::Convolution
            && layer.shape.groups == 1
            && n <= MAX_PATCH
            && n + layer.shape.co <= MAX_VALUES
            && bytes <= MAX_BYTES;
        if !fits {
            return None;
        }
        let basis = cut.node(&layer.basis)?;
        let read = basis.inputs.first()?.clone();
        let Op::Conv(attrs) = &basis.op else {
            return None;
        };
        let &[_, channels, kernel_h, kernel_w] = cut.float(&layer.basis_weight)?.shape() else {
            return None;
        };
        let mut graph = cut.clone();
        if kernel_h * kernel_w == 1 && attrs.is_plain() {
            let value = read;
            return Some(Self { graph, value, n });
        }
        // For each channel a filter for each value of the window, which picks it out.
        let mut weight = Floats::zeros(IxDyn(&[n, 1, kernel_h, kernel_w]));
        for filter in 0..n {
            let tap = filter % (kernel_h * kernel_w);
            weight[[filter, 0, tap / kernel_w, tap % kernel_w]] = 1.0;
        }
        let attrs = ConvAttrs {
            groups: channels,
            ..attrs.clone()
        };
        let name = graph.fresh_value(&format!("{}.taps", layer.name));
        let value = graph.fresh_value(&format!("{}.patches", layer.name));
        let node = Node {
            name: graph.fresh_node(&format!("{}.patches", layer.name)),
            op: Op::Conv(attrs),
            inputs: vec![read, name.clone()],
            outputs: vec![value.clone()],
        };
        let at = graph
            .nodes
            .iter()
            .position(|node| node.name == layer.basis)?;
        graph.nodes.insert(at, node);
        graph.initializers.insert(name, Tensor::F32(weight));
        Some(Self { graph, value, n })
    }
}

/// Solves the kernel of `layer` by least squares from the moments of its patches and of what it is to make,
/// writes the best basis of its rank in the metric `gradient` `[co, co]`, and gives the moments of the basis
/// activations and of what the layer is to make. `None` where the moments are of no use.
pub(super) fn fit_basis(
    cut: &mut Graph,
    layer: &FactoredLayer,
    joint: &JointMoments,
    gradient: &Array2<f64>,
) -> Option<JointMoments> {
    let start = layer.matrices(cut)?.product();
    let (_, n, co) = start.dim();
    let solved = fit(start.view(), joint)?.projection;
    let kernel = solved.index_axis(Axis(0), 0);
    let patches = joint.covariance.slice(s![..n, ..n]);
    let made = OutputMoments {
        mean: Array1::zeros(co),
        positions: 1.0,
        covariance: symmetric(kernel.t().dot(&patches.dot(&kernel)).view()),
        gradient: gradient.clone(),
    };
    let found = directions(Basis::Fisher, solved.view(), None, &made, layer.rank)?;
    let filters = found.matrices.basis.index_axis(Axis(0), 0).to_owned();
    // `[z; y]` is a linear map of `[patch; y]`.
    let cross = joint.covariance.slice(s![..n, n..]);
    let (of_z, of_zy) = (
        filters.t().dot(&patches.dot(&filters)),
        filters.t().dot(&cross),
    );
    let above = concatenate(Axis(1), &[of_z.view(), of_zy.view()]).ok()?;
    let wanted = joint.covariance.slice(s![n.., n..]);
    let below = concatenate(Axis(1), &[of_zy.t(), wanted]).ok()?;
    let mean = concatenate(
        Axis(0),
        &[
            filters.t().dot(&joint.mean.slice(s![..n])).view(),
            joint.mean.slice(s![n..]),
        ],
    );
    let moments = JointMoments {
        mean: mean.ok()?,
        covariance: concatenate(Axis(0), &[above.view(), below.view()]).ok()?,
    };
    found.matrices.store(cut, layer)?;
    Some(moments)
}

/// The mean of a matrix and its transpose, which rounding makes differ.
fn symmetric(matrix: ArrayView2<'_, f64>) -> Array2<f64> {
    (&matrix + &matrix.t()) / 2.0
}
