//! Operators with broadcasting: sums, products, slopes.

use super::labels::{Channels, Labels, unknown};
use super::{Fixed, Role};
use crate::graph::Node;

impl Labels<'_> {
    /// Joins the channels of all operands that have them on the same axis. An operand of length 1
    /// there serves all channels.
    pub(super) fn elementwise(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let fails = || unknown(node);
        let output = self.output_shape(node)?;
        let mut found: Option<Channels> = None;
        for (slot, name) in node.inputs.iter().enumerate() {
            let Some(channels) = self.values.get(name).cloned() else {
                continue;
            };
            let axis = aligned(channels.axis, self.shape(node, slot)?, output).ok_or_else(fails)?;
            let channels = Channels { axis, ..channels };
            found = match found {
                None => Some(channels),
                // One that is as wide as the output says where the channels are.
                Some(first) if first.ids.len() == 1 && channels.ids.len() > 1 => Some(channels),
                Some(first) if channels.ids.len() == 1 => Some(first),
                Some(first) if first.axis == axis && first.ids.len() == channels.ids.len() => {
                    self.classes.join_all(&first.ids, &channels.ids);
                    Some(first)
                }
                Some(_) => return Err(fails()),
            };
        }
        let channels = found.ok_or_else(fails)?;
        let length = channels.ids.len();
        if output.get(channels.axis) != Some(&length) {
            return Err(fails());
        }
        for slot in 0..node.inputs.len() {
            self.serve(node, slot, &channels, output)?;
        }
        Ok(channels)
    }

    /// Checks that operand `slot` fits `channels`, and joins what is stored.
    fn serve(
        &mut self,
        node: &Node,
        slot: usize,
        channels: &Channels,
        output: &[usize],
    ) -> Result<(), Fixed> {
        let shape = self.shape(node, slot)?;
        let own = (channels.axis + shape.len()).checked_sub(output.len());
        let length = own.and_then(|axis| shape.get(axis)).copied().unwrap_or(1);
        let name = node.inputs.get(slot).map_or("", String::as_str);
        if let Some(operand) = self.values.get(name) {
            let same = own == Some(operand.axis) && operand.ids.len() == channels.ids.len();
            return if same || length == 1 {
                Ok(())
            } else {
                Err(unknown(node))
            };
        }
        if length == 1 {
            self.keep_other_axes(node, name, shape, &[]);
            return Ok(());
        }
        let (Some(axis), Some((name, shape))) = (own, self.weight(node, slot)) else {
            return Err(Fixed::WeightComputed {
                node: node.name.clone(),
            });
        };
        let stored = self.stored_axis(node, &name, (axis, length), Role::Passes);
        self.classes.join_all(&channels.ids, &stored);
        self.keep_other_axes(node, &name, &shape, &[axis]);
        Ok(())
    }
}

/// The axis of the output with which `axis` of an operand of this shape lines up.
fn aligned(axis: usize, shape: &[usize], output: &[usize]) -> Option<usize> {
    (axis + output.len()).checked_sub(shape.len())
}
