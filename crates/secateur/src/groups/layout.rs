//! Operators that move channels and leave them as they are: joining, cutting, padding, permuting.

use super::labels::{Channels, Labels, MAX_CHANNELS, unknown};
use super::{Fixed, Role};
use crate::graph::{Node, Op, Operands, PadMode, optional};

impl Labels<'_> {
    pub(super) fn concat(&mut self, node: &Node, axis: i64) -> Result<Channels, Fixed> {
        let output = self.output_shape(node)?;
        let axis = self.axis(node, axis, output.len())?;
        if output[axis] > MAX_CHANNELS {
            return Err(unknown(node));
        }
        let on_axis = node
            .inputs
            .iter()
            .filter_map(|name| self.values.get(name))
            .all(|channels| channels.axis == axis);
        if !on_axis {
            return self.side_by_side(node);
        }
        let mut ids = Vec::with_capacity(output[axis]);
        for (slot, name) in node.inputs.iter().enumerate() {
            let shape = self.shape(node, slot)?;
            let length = shape.get(axis).copied().ok_or_else(|| unknown(node))?;
            if let Some(channels) = self.values.get(name) {
                ids.extend_from_slice(&channels.ids);
            } else if let Some((name, shape)) = self.weight(node, slot) {
                ids.extend(self.stored_axis(node, &name, (axis, length), Role::Passes));
                self.keep_other_axes(node, &name, &shape, &[axis]);
            } else {
                let fixed = self.classes.fresh(length);
                self.classes.fix(&fixed, &unknown(node));
                ids.extend(fixed);
            }
        }
        Ok(Channels { axis, ids })
    }

    /// Values joined along another axis than that of their channels.
    fn side_by_side(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let first = self.input(node)?;
        for name in node.inputs.iter().skip(1) {
            match self.values.get(name) {
                Some(other) if other.axis == first.axis && other.ids.len() == first.ids.len() => {
                    self.classes.join_all(&first.ids, &other.ids);
                }
                Some(_) | None => return Err(unknown(node)),
            }
        }
        Ok(first)
    }

    pub(super) fn reduce(&mut self, node: &Node, keep_dims: bool) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let operands = Operands::new(self.graph, self.inferred, node);
        let reduced = operands.reduced_axes().map_err(|_| unknown(node))?;
        if reduced.contains(&channels.axis) {
            return Err(unknown(node));
        }
        let gone = reduced.iter().filter(|&&axis| axis < channels.axis).count();
        Ok(Channels {
            axis: channels.axis - if keep_dims { 0 } else { gone },
            ids: channels.ids,
        })
    }

    pub(super) fn transpose(
        &mut self,
        node: &Node,
        perm: Option<&[usize]>,
    ) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let rank = self.shape(node, 0)?.len();
        let axis = match perm {
            Some(perm) => perm.iter().position(|&axis| axis == channels.axis),
            None => rank.checked_sub(channels.axis + 1),
        };
        let axis = axis.ok_or_else(|| unknown(node))?;
        Ok(Channels { axis, ..channels })
    }

    /// A squeeze without a list of axes is not followed: the channel axis itself would go once a
    /// single channel is left.
    pub(super) fn squeeze(
        &mut self,
        node: &Node,
        attribute: Option<&[i64]>,
    ) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let rank = self.shape(node, 0)?.len();
        let axes = self.listed_axes(node, attribute, rank)?;
        if axes.contains(&channels.axis) {
            return Err(unknown(node));
        }
        let gone = axes.iter().filter(|&&axis| axis < channels.axis).count();
        Ok(Channels {
            axis: channels.axis - gone,
            ..channels
        })
    }

    pub(super) fn unsqueeze(
        &mut self,
        node: &Node,
        attribute: Option<&[i64]>,
    ) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let rank = self.output_shape(node)?.len();
        let axes = self.listed_axes(node, attribute, rank)?;
        let mut old = (0..rank).filter(|axis| !axes.contains(axis));
        let axis = old.nth(channels.axis).ok_or_else(|| unknown(node))?;
        Ok(Channels { axis, ..channels })
    }

    fn listed_axes(
        &self,
        node: &Node,
        attribute: Option<&[i64]>,
        rank: usize,
    ) -> Result<Vec<usize>, Fixed> {
        let operands = Operands::new(self.graph, self.inferred, node);
        let listed = operands.integers(1).map_err(|_| unknown(node))?;
        let axes = listed.or_else(|| attribute.map(<[i64]>::to_vec));
        let axes = axes.ok_or_else(|| unknown(node))?;
        operands.axes(&axes, rank).map_err(|_| unknown(node))
    }

    /// A piece of the channel axis; the bounds move with what goes before and inside of it.
    pub(super) fn slice(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let operands = Operands::new(self.graph, self.inferred, node);
        let slices = operands.slices().map_err(|_| unknown(node))?;
        let slice = slices.get(channels.axis).ok_or_else(|| unknown(node))?;
        if slice.start == 0 && slice.step == 1 && slice.len == channels.ids.len() {
            return Ok(channels);
        }
        let end = slice.start.saturating_add(slice.len);
        let piece = channels.ids.get(slice.start..end);
        let (Some(piece), 1) = (piece, slice.step) else {
            return Err(unknown(node));
        };
        if matches!(node.op, Op::Slice { bounds: None }) {
            self.needs_stored(node, &[1, 2, 3, 4])?;
        }
        Ok(Channels {
            axis: channels.axis,
            ids: piece.to_vec(),
        })
    }

    /// New channels of a constant before and after the old ones; they go like any other.
    pub(super) fn pad(&mut self, node: &Node, mode: PadMode) -> Result<Channels, Fixed> {
        let channels = self.input(node)?;
        let operands = Operands::new(self.graph, self.inferred, node);
        let widths = operands.pad_widths().map_err(|_| unknown(node))?;
        let &[before, after] = widths.get(channels.axis).ok_or_else(|| unknown(node))?;
        if (before, after) == (0, 0) {
            return Ok(channels);
        }
        let length = self
            .output_shape(node)?
            .get(channels.axis)
            .copied()
            .unwrap_or(0);
        let (Ok(before), Ok(after), PadMode::Constant) =
            (usize::try_from(before), usize::try_from(after), mode)
        else {
            return Err(unknown(node));
        };
        let sum = before
            .checked_add(after)
            .and_then(|n| n.checked_add(channels.ids.len()));
        if sum != Some(length) || length > MAX_CHANNELS {
            return Err(unknown(node));
        }
        if matches!(node.op, Op::Pad { pads: None, .. }) {
            self.needs_stored(node, &[1, 3])?;
        }
        let mut ids = self.classes.fresh(before);
        ids.extend(channels.ids);
        ids.extend(self.classes.fresh(after));
        Ok(Channels {
            axis: channels.axis,
            ids,
        })
    }

    /// The lists in `slots` will be written anew, so they must be stored.
    pub(super) fn needs_stored(&self, node: &Node, slots: &[usize]) -> Result<(), Fixed> {
        let stored = |slot: &usize| {
            optional(node, *slot).is_none_or(|name| self.graph.initializers.contains_key(name))
        };
        if slots.iter().all(stored) {
            Ok(())
        } else {
            Err(Fixed::ShapeComputed {
                node: node.name.clone(),
                op: node.op.name(),
            })
        }
    }
}
