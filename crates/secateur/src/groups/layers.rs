//! Layers with weights: convolutions, matrix products, batch norm.

use super::labels::{Channels, Labels, unknown};
use super::{Fixed, Role};
use crate::graph::{Node, optional};

impl Labels<'_> {
    pub(super) fn conv(&mut self, node: &Node, groups: usize) -> Result<Channels, Fixed> {
        let input = self.input(node)?;
        let Some((weight, shape)) = self.weight(node, 1) else {
            return Err(computed(node));
        };
        let &[co, group_ci, ..] = &shape[..] else {
            return Err(unknown(node));
        };
        let fits = groups > 0
            && co % groups == 0
            && group_ci.checked_mul(groups) == Some(input.ids.len())
            && input.axis == 1;
        if !fits {
            return Err(unknown(node));
        }
        let group_co = co / groups;
        let is_projection = self.projections.contains(&node.name);
        let ids = if groups > 1 && group_ci == 1 && !is_projection {
            let ids = self.stored_axis(node, &weight, (0, co), Role::Passes);
            for (channel, &id) in ids.iter().enumerate() {
                self.classes.join(id, input.ids[channel / group_co]);
            }
            self.depthwise.insert(node.name.clone());
            self.keep_other_axes(node, &weight, &shape, &[0]);
            self.bias(node, 2, &ids, Role::Passes)?;
            ids
        } else {
            let inputs = self.stored_axis(node, &weight, (1, group_ci), Role::Consumes);
            for (channel, &id) in input.ids.iter().enumerate() {
                self.classes.join(id, inputs[channel % group_ci]);
            }
            let ids = self.stored_axis(node, &weight, (0, co), Role::Produces);
            for (channel, &id) in ids.iter().enumerate() {
                self.classes.join(id, ids[channel % group_co]);
            }
            self.producers.push((node.name.clone(), ids.clone()));
            self.keep_other_axes(node, &weight, &shape, &[0, 1]);
            self.bias(node, 2, &ids, Role::Bias)?;
            ids
        };
        self.keep_directions(node, &ids);
        Ok(Channels { axis: 1, ids })
    }

    pub(super) fn gemm(
        &mut self,
        node: &Node,
        trans_a: bool,
        trans_b: bool,
    ) -> Result<Channels, Fixed> {
        let input = self.input(node)?;
        let Some((weight, shape)) = self.weight(node, 1) else {
            return Err(computed(node));
        };
        let (&[rows, columns], false, 1) = (&shape[..], trans_a, input.axis) else {
            return Err(unknown(node));
        };
        let (inner, outer) = if trans_b {
            ((1, columns), (0, rows))
        } else {
            ((0, rows), (1, columns))
        };
        self.product(node, &weight, &input, inner, outer)
    }

    pub(super) fn mat_mul(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let input = self.input(node)?;
        let rank = self.shape(node, 0)?.len();
        let Some((weight, shape)) = self.weight(node, 1) else {
            return Err(if optional(node, 1).is_some_and(|w| self.is_constant(w)) {
                computed(node)
            } else {
                unknown(node)
            });
        };
        let &[rows, columns] = &shape[..] else {
            return Err(unknown(node));
        };
        if input.axis + 1 != rank {
            return Err(unknown(node));
        }
        self.product(node, &weight, &input, (0, rows), (1, columns))
    }

    /// `input` times a matrix whose axes are `(axis, length)`.
    fn product(
        &mut self,
        node: &Node,
        weight: &str,
        input: &Channels,
        inner: (usize, usize),
        outer: (usize, usize),
    ) -> Result<Channels, Fixed> {
        if inner.1 != input.ids.len() {
            return Err(unknown(node));
        }
        let inputs = self.stored_axis(node, weight, inner, Role::Consumes);
        self.classes.join_all(&input.ids, &inputs);
        let ids = self.stored_axis(node, weight, outer, Role::Produces);
        self.producers.push((node.name.clone(), ids.clone()));
        self.bias(node, 2, &ids, Role::Bias)?;
        self.keep_directions(node, &ids);
        Ok(Channels {
            axis: input.axis,
            ids,
        })
    }

    /// A vector of one number per channel (or one for all) along its last axis.
    fn bias(&mut self, node: &Node, slot: usize, ids: &[usize], role: Role) -> Result<(), Fixed> {
        let Some(name) = optional(node, slot) else {
            return Ok(());
        };
        let shape = self.shape(node, slot)?;
        let length = shape.last().copied().unwrap_or(1);
        if length == 1 && !self.values.contains_key(name) {
            return Ok(());
        }
        let Some((name, shape)) = self.weight(node, slot) else {
            self.classes.fix(ids, &computed(node));
            return Err(computed(node));
        };
        if length != ids.len() {
            return Err(unknown(node));
        }
        let axis = shape.len().saturating_sub(1);
        let stored = self.stored_axis(node, &name, (axis, length), role);
        self.classes.join_all(ids, &stored);
        self.keep_other_axes(node, &name, &shape, &[axis]);
        Ok(())
    }

    pub(super) fn batch_norm(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let input = self.input(node)?;
        if input.axis != 1 {
            return Err(unknown(node));
        }
        for slot in 1..5 {
            let Some((name, shape)) = self.weight(node, slot) else {
                return Err(computed(node));
            };
            if shape != [input.ids.len()] {
                return Err(unknown(node));
            }
            let stored = self.stored_axis(node, &name, (0, shape[0]), Role::Passes);
            self.classes.join_all(&input.ids, &stored);
        }
        Ok(input)
    }

    /// The outputs of a basis are directions, and no channels.
    fn keep_directions(&mut self, node: &Node, ids: &[usize]) {
        if let Some(layer) = self.bases.get(&node.name) {
            self.classes.fix(ids, &Fixed::Directions(layer.clone()));
        }
    }
}

fn computed(node: &Node) -> Fixed {
    Fixed::WeightComputed {
        node: node.name.clone(),
    }
}
