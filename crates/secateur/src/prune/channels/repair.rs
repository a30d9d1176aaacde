//! Repair without training: kept inputs of a layer stand in for the removed ones.
//!
//! Let `Om` `[n, n]` be the second moment of the patches that a layer reads, `S` the rows of its
//! weight `W` `[n, co]` that belong to removed channels and `K` the others. The kept inputs predict
//! the removed ones best, in the least-squares sense, by `(Om_KK + eps)^-1 Om_KS`; folded into the
//! layer that is `W_K <- W_K + (Om_KK + eps)^-1 Om_KS W_S`. What is lost of the layer's output has
//! the second moment `tr(W_S^T (Om_SS - Om_SK Om_KK^-1 Om_KS) W_S)` at `eps = 0`. With any `eps` it
//! is at most `tr(W_S^T Om_SS W_S)`, what a cut without repair loses.

use super::{ChannelError, ChannelPlan};
use crate::decompose::solve_positive;
use crate::graph::{Graph, Inferred, Node, Op, Uses, optional};
use crate::groups::discover;
use crate::tensor::{Floats, Tensor};
use ndarray::{Array2, ArrayView2, Axis, Ix2, IxDyn};
use std::collections::{BTreeMap, BTreeSet};

/// How a repair is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepairConfig {
    /// `eps` as a fraction of the mean of the diagonal of `Om_KK`; finite and not negative.
    pub ridge: f64,
}

impl Default for RepairConfig {
    /// 1e-6: rows that hardly vary, or repeat each other, leave `Om_KK` singular in `f64` below it.
    fn default() -> Self {
        Self { ridge: 1e-6 }
    }
}

/// A weight whose kept rows stand in for the removed ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstruction {
    /// The rows that stay, increasing.
    pub keep: Vec<usize>,
    /// Their weights, `[keep, co]`.
    pub weight: Array2<f64>,
    /// Second moment of the output error without repair, `tr(W_S^T Om_SS W_S)`.
    pub error_before: f64,
    /// Second moment of the output error with repair.
    pub error: f64,
}

/// What a repair did for one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRepair {
    /// The layer's node.
    pub layer: String,
    /// Rows of its weight that belong to removed channels.
    pub removed_rows: usize,
    /// As [`Reconstruction::error_before`].
    pub error_before: f64,
    /// As [`Reconstruction::error`].
    pub error: f64,
}

/// A repair that cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The ridge is no fraction.
    #[error("the ridge is {0}, wanted a finite number that is not negative")]
    Ridge(f64),
    /// Moments are given for something that is no layer that could be repaired.
    #[error(
        "second moments are given for `{0}`, which is no dense layer or ungrouped convolution with a stored weight of its own"
    )]
    NotALayer(String),
    /// The second moment does not fit the weight.
    #[error("layer `{layer}`: the second moment has shape {got:?}, wanted [{want}, {want}]")]
    Moment {
        /// The layer.
        layer: String,
        /// The shape found.
        got: Vec<usize>,
        /// Rows of the weight.
        want: usize,
    },
    /// A removed row does not exist.
    #[error("layer `{layer}`: row {row} is to go, but the weight has {rows} rows")]
    Row {
        /// The layer.
        layer: String,
        /// The row.
        row: usize,
        /// Rows of the weight.
        rows: usize,
    },
    /// The kept part of the second moment has no Cholesky decomposition.
    #[error(
        "layer `{layer}`: the second moment of the kept inputs is not positive definite (are all values finite? a larger ridge may help)"
    )]
    NotPositive {
        /// The layer.
        layer: String,
    },
    /// The plan does not fit the graph.
    #[error(transparent)]
    Plan(#[from] ChannelError),
}

/// Folds the least-squares prediction of the rows `removed` of `weight` `[n, co]` into the others.
/// `moment` `[n, n]` is the second moment of the inputs, in any unit. `layer` is for messages.
///
/// # Errors
/// [`RepairError`] where the shapes do not fit or the kept inputs have no positive definite moment.
pub fn reconstruct(
    layer: &str,
    weight: ArrayView2<'_, f64>,
    moment: ArrayView2<'_, f64>,
    removed: &[usize],
    config: RepairConfig,
) -> Result<Reconstruction, RepairError> {
    if !(config.ridge.is_finite() && config.ridge >= 0.0) {
        return Err(RepairError::Ridge(config.ridge));
    }
    let (rows, co) = weight.dim();
    if moment.dim() != (rows, rows) {
        return Err(RepairError::Moment {
            layer: layer.to_owned(),
            got: moment.shape().to_vec(),
            want: rows,
        });
    }
    let mut goes = vec![false; rows];
    for &row in removed {
        *goes.get_mut(row).ok_or_else(|| RepairError::Row {
            layer: layer.to_owned(),
            row,
            rows,
        })? = true;
    }
    let (gone, keep): (Vec<usize>, Vec<usize>) = (0..rows).partition(|&row| goes[row]);
    let part = |a: &[usize], b: &[usize]| moment.select(Axis(0), a).select(Axis(1), b);
    let weight_gone = weight.select(Axis(0), &gone);
    let lost = part(&gone, &gone).dot(&weight_gone);
    let error_before = (&weight_gone * &lost).sum();
    let mut result = Reconstruction {
        weight: weight.select(Axis(0), &keep),
        keep,
        error_before,
        error: error_before,
    };
    if gone.is_empty() || result.keep.is_empty() || co == 0 {
        return Ok(result);
    }
    let kept_moment = part(&result.keep, &result.keep);
    let size = result.keep.len();
    let trace = kept_moment.diag().sum();
    if trace == 0.0 {
        return Ok(result); // Inputs that are always 0 predict nothing.
    }
    let eps = config.ridge * trace / size as f64;
    let wanted = part(&result.keep, &gone).dot(&weight_gone);
    let not_positive = || RepairError::NotPositive {
        layer: layer.to_owned(),
    };
    let change = solve_positive(
        [size, co],
        |i, j| kept_moment[[i, j]] + if i == j { eps } else { 0.0 },
        |i, k| wanted[[i, k]],
    )
    .ok_or_else(not_positive)?;
    // E(A) = tr(W_S^T Om_SS W_S) - 2 tr(A^T Om_KS W_S) + tr(A^T Om_KK A), and never below 0.
    let error = error_before - 2.0 * (&change * &wanted).sum()
        + (&change * &kept_moment.dot(&change)).sum();
    if !error.is_finite() {
        return Err(not_positive());
    }
    result.weight += &change;
    result.error = error.max(0.0);
    Ok(result)
}

/// Changes the weights of the layers that lose input channels under `plan`, such that what is kept
/// stands in for what goes. No shape changes: [`apply`](super::apply) comes after it, and drops the
/// rows that are left as they were.
///
/// `moments` holds, by the name of a layer's node, the second moment `[n, n]` of its patches, rows
/// in the order of the weight's reshape to `[co, n]`, `n = ci * kh * kw`; for a dense layer those
/// of its input. Or `[ci, ci]`, that of its input channels alone: kept channels then stand in for the
/// removed ones at the same position of the image. [`repairable`] lists the layers that can use one. Layers without an entry stay.
///
/// # Errors
/// [`RepairError`] names the layer that does not fit.
pub fn repair(
    graph: &Graph,
    inferred: &Inferred,
    plan: &ChannelPlan,
    moments: &BTreeMap<String, Array2<f64>>,
    config: RepairConfig,
) -> Result<(Graph, Vec<LayerRepair>), RepairError> {
    let losses = losses(graph, inferred, plan)?;
    let uses = Uses::of(graph);
    let is_layer = |name: &str| {
        graph
            .node(name)
            .is_some_and(|n| layer(graph, &uses, n).is_some())
    };
    if let Some(name) = moments.keys().find(|name| !is_layer(name)) {
        return Err(RepairError::NotALayer(name.clone()));
    }
    let mut result = graph.clone();
    let mut repairs = Vec::new();
    for Loss {
        node,
        layer,
        channels,
        rows: removed,
    } in losses
    {
        let Some(moment) = moments.get(&node.name) else {
            continue;
        };
        let weight = layer.matrix();
        let shape = weight.dim();
        // With the moment of the channels every position of the kernel is a column.
        let by_channel = moment.nrows() == channels && channels > 0;
        let per_row = if by_channel { layer.rows / channels } else { 1 };
        let rows: BTreeSet<usize> = removed.iter().map(|row| row / per_row).collect();
        let rows: Vec<usize> = rows.into_iter().collect();
        let matrix = weight
            .to_shape((shape.0 / per_row, shape.1 * per_row))
            .map(|view| view.to_owned());
        let mut repaired = matrix.unwrap_or(weight);
        let fixed = reconstruct(&node.name, repaired.view(), moment.view(), &rows, config)?;
        for (row, values) in fixed.keep.iter().zip(fixed.weight.rows()) {
            repaired.row_mut(*row).assign(&values);
        }
        let repaired = repaired.to_shape(shape).map(|view| view.to_owned());
        let stored = repaired.ok().and_then(|repaired| layer.stored(&repaired));
        if let (Some(name), Some(stored)) = (optional(node, 1), stored) {
            result.initializers.insert(name.to_owned(), stored);
        }
        repairs.push(LayerRepair {
            layer: node.name.clone(),
            removed_rows: removed.len(),
            error_before: fixed.error_before,
            error: fixed.error,
        });
    }
    Ok((result, repairs))
}

/// The layers that [`repair`] can change under `plan`: the name of the node, and the number `n` of
/// rows of its weight, in node order.
///
/// # Errors
/// [`ChannelError`] where the plan does not fit the graph.
pub fn repairable(
    graph: &Graph,
    inferred: &Inferred,
    plan: &ChannelPlan,
) -> Result<Vec<(String, usize)>, ChannelError> {
    let losses = losses(graph, inferred, plan)?;
    let listed = losses.iter();
    Ok(listed
        .map(|loss| (loss.node.name.clone(), loss.layer.rows))
        .collect())
}

/// A repairable layer that loses inputs.
struct Loss<'g> {
    node: &'g Node,
    layer: Layer<'g>,
    /// Input channels.
    channels: usize,
    /// The rows of its weight that go.
    rows: Vec<usize>,
}

/// The repairable layers that lose inputs.
fn losses<'g>(
    graph: &'g Graph,
    inferred: &Inferred,
    plan: &ChannelPlan,
) -> Result<Vec<Loss<'g>>, ChannelError> {
    let groups = discover(graph, inferred);
    let removed = plan.removed(&groups)?;
    let stored: BTreeMap<&str, _> = groups.stored().collect();
    let uses = Uses::of(graph);
    let mut losses = Vec::new();
    for node in &graph.nodes {
        let Some(layer) = layer(graph, &uses, node) else {
            continue;
        };
        let axes = optional(node, 1).and_then(|name| stored.get(name));
        let inputs = axes.and_then(|axes| axes.iter().find(|axis| axis.axis == layer.axis));
        let Some(inputs) = inputs else { continue };
        let per_channel = layer.rows / inputs.channels.len().max(1);
        let goes = |channel: usize| {
            let id = inputs.channels.get(channel).copied().flatten();
            id.is_some_and(|id| removed.contains(id))
        };
        let rows: Vec<usize> = (0..layer.rows)
            .filter(|row| goes(row / per_channel.max(1)))
            .collect();
        if !rows.is_empty() {
            let channels = inputs.channels.len();
            losses.push(Loss {
                node,
                layer,
                channels,
                rows,
            });
        }
    }
    Ok(losses)
}

/// A layer whose weight is a matrix of its own.
struct Layer<'g> {
    weight: &'g Floats,
    /// The axis of the inputs: 1 where the weight is stored as `[co, n]`, 0 as `[n, co]`.
    axis: usize,
    rows: usize,
}

fn layer<'g>(graph: &'g Graph, uses: &Uses<'_>, node: &Node) -> Option<Layer<'g>> {
    let name = optional(node, 1)?;
    let weight = graph.float(name)?;
    let shape = weight.shape();
    let (axis, rows) = match (&node.op, shape) {
        (Op::Conv(attrs), [_, n @ ..]) if attrs.groups == 1 => (1, n.iter().product()),
        (
            Op::Gemm {
                trans_a: false,
                trans_b: true,
                ..
            },
            [_, n],
        ) => (1, *n),
        (
            Op::MatMul
            | Op::Gemm {
                trans_a: false,
                trans_b: false,
                ..
            },
            [n, _],
        ) => (0, *n),
        _ => return None,
    };
    uses.sole_reader(name)?;
    Some(Layer { weight, axis, rows })
}

impl Layer<'_> {
    /// The weight as `[n, co]`.
    fn matrix(&self) -> Array2<f64> {
        let values = self.weight.mapv(f64::from);
        let columns = self.weight.len() / self.rows.max(1);
        let shape = if self.axis == 1 {
            (columns, self.rows)
        } else {
            (self.rows, columns)
        };
        let matrix = values.to_shape(shape).map(|view| view.to_owned());
        let matrix = matrix.unwrap_or_else(|_| Array2::zeros(shape));
        if self.axis == 1 {
            matrix.reversed_axes()
        } else {
            matrix
        }
    }

    /// A matrix `[n, co]` in the shape of the weight.
    fn stored(&self, matrix: &Array2<f64>) -> Option<Tensor> {
        let matrix = matrix.mapv(|value| value as f32);
        let matrix = if self.axis == 1 {
            matrix.reversed_axes()
        } else {
            matrix
        };
        let matrix = matrix.as_standard_layout().into_dimensionality::<Ix2>();
        let shaped = matrix
            .ok()?
            .to_shape(IxDyn(self.weight.shape()))
            .ok()?
            .to_shared();
        Some(Tensor::F32(shaped))
    }
}
