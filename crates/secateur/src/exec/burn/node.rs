//! One node alone, forward and backward, from host to host.

use super::apply::{Args, apply};
use super::value::Value;
use crate::exec::{BatchNormMode, ExecError};
use crate::graph::Operands;
use crate::tensor::Floats;
use ::burn::tensor::Device;

/// Computes the first output of a node from its inputs; those that steer it on the host need none.
pub(in crate::exec) fn forward(
    operands: Operands<'_>,
    inputs: &[Option<Floats>],
    out_shape: &[usize],
    batch_norm: BatchNormMode,
    device: &Device,
) -> Result<Floats, ExecError> {
    let host = |slot: usize| inputs.get(slot).and_then(Option::as_ref);
    let mut fetch = |slot: usize| Some(Value::from_host(host(slot)?, device));
    let value = apply(&mut Args {
        operands,
        out_shape,
        batch_norm,
        fetch: &mut fetch,
    })?;
    value.into_host(out_shape)
}

/// The gradients of the inputs that are `wanted`, given that of the output. The node is computed
/// again with Burn's autodiff.
pub(in crate::exec) fn backward(
    operands: Operands<'_>,
    inputs: &[Option<Floats>],
    gradient: &Floats,
    wanted: &[bool],
    batch_norm: BatchNormMode,
    device: &Device,
) -> Result<Vec<Option<Floats>>, ExecError> {
    let leaf = |(input, &wanted): (&Option<Floats>, &bool)| {
        let value = Value::from_host(input.as_ref()?, device);
        Some(if wanted { value.leaf() } else { value })
    };
    let leaves: Vec<Option<Value>> = inputs.iter().zip(wanted).map(leaf).collect();
    let mut fetch = |slot: usize| leaves.get(slot).cloned().flatten();
    let output = apply(&mut Args {
        operands,
        out_shape: gradient.shape(),
        batch_norm,
        fetch: &mut fetch,
    })?;
    let mut gradients = None;
    if output.is_tracked() {
        let len = gradient.len();
        let gradient = Value::from_host(gradient, device).reshape([len]);
        gradients = Some((output.reshape([len]) * gradient).sum().backward());
    }
    let mut found = Vec::with_capacity(inputs.len());
    for ((leaf, input), &wanted) in leaves.iter().zip(inputs).zip(wanted) {
        found.push(match (leaf, input) {
            (Some(leaf), Some(input)) if wanted => {
                let shape = input.shape();
                Some(super::session::gradient_of(
                    leaf,
                    gradients.as_mut(),
                    shape,
                )?)
            }
            _ => None,
        });
    }
    Ok(found)
}
