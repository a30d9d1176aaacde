//! What rules for shapes share.

use super::InferError;
use super::operands::Operands;
use crate::graph::window::WindowError;

/// The shape of an output.
pub(super) type Shape = Result<Vec<usize>, InferError>;

/// The shape that NumPy's broadcasting gives `a` and `b`, `None` where they do not fit.
#[must_use]
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let length = |shape: &[usize], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(index) => shape[index],
        None => 1,
    };
    (0..rank)
        .map(|axis| match (length(a, axis), length(b, axis)) {
            (m, n) if m == n => Some(m),
            (1, n) => Some(n),
            (m, 1) => Some(m),
            _ => None,
        })
        .collect()
}

pub(super) fn joined(n: &Operands<'_>, a: &[usize], b: &[usize]) -> Shape {
    broadcast(a, b).ok_or_else(|| n.error(format!("shapes {a:?} and {b:?} do not broadcast")))
}

/// `b` must broadcast to `a` without changing it.
pub(super) fn one_way(n: &Operands<'_>, a: &[usize], b: &[usize]) -> Shape {
    match broadcast(a, b) {
        Some(shape) if shape == a => Ok(shape),
        Some(_) | None => Err(n.error(format!("shape {b:?} does not broadcast to {a:?}"))),
    }
}

pub(super) fn image(n: &Operands<'_>) -> Result<[usize; 4], InferError> {
    let shape = n.shape(0)?;
    shape.try_into().map_err(|_| {
        n.error(format!(
            "the input has shape {shape:?}, wanted [n, c, h, w]"
        ))
    })
}

pub(super) fn window(
    n: &Operands<'_>,
    size: Result<[usize; 2], WindowError>,
) -> Result<[usize; 2], InferError> {
    size.map_err(|problem| n.error(problem.to_string()))
}
