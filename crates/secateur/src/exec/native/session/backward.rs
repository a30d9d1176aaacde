//! The backward pass, from what a forward pass left behind.

use super::{NativeSession, Record, in_order, look};
use crate::exec::native::keep::{reads_input, reads_output, wanted_gradients};
use crate::exec::native::layout::{Laid, layout_of_input};
use crate::exec::native::node::{again, backward};
use crate::exec::plan::{Plan, Schedule};
use crate::exec::taps::Taps;
use crate::exec::{ExecError, Of};
use crate::graph::{Node, Operands};
use crate::tensor::Floats;
use secateur_kernels::elementwise;
use std::collections::BTreeMap;

impl NativeSession {
    /// Propagates `gradients` of the outputs back to everything that is differentiated.
    pub(super) fn backward(
        &self,
        plan: &Plan,
        schedule: &Schedule,
        mut record: Record,
        output_gradients: &[Floats],
        taps: &mut Taps,
    ) -> Result<BTreeMap<String, Laid>, ExecError> {
        let mut gradients: BTreeMap<String, Laid> = BTreeMap::new();
        for (name, gradient) in self.outputs.iter().zip(output_gradients) {
            if self.differentiated.contains(name) {
                self.add(&mut gradients, name, Laid::planes(in_order(gradient)))?;
            }
        }
        for &index in schedule.nodes.iter().rev() {
            if self.fused.is_follower(index) {
                continue;
            }
            for (output, name) in self.fused.outputs(index, &self.graph.nodes[index]) {
                let output = (output, name);
                self.backward_through(plan, index, output, &mut record, &mut gradients, taps)?;
            }
        }
        Ok(gradients)
    }

    /// Propagates the gradient of one output of a node to the node's inputs.
    fn backward_through(
        &self,
        plan: &Plan,
        index: usize,
        (slot, output): (usize, &String),
        record: &mut Record,
        gradients: &mut BTreeMap<String, Laid>,
        taps: &mut Taps,
    ) -> Result<(), ExecError> {
        let node = &self.graph.nodes[index];
        // Nothing reads this value any more: its readers come later in the schedule.
        let value = record.values.remove(output);
        if !self.is_recorded(node) {
            value
                .into_iter()
                .for_each(|value| self.buffers.give(value.array));
            return Ok(());
        }
        let Some(gradient) = gradients.remove(output) else {
            return Ok(());
        };
        // All that reads the value has added to it.
        look(taps, &self.buffers, output, Of::Gradient, &gradient)?;
        let layout = record.layouts.remove(output).unwrap_or_default();
        let value = match value {
            Some(value) if reads_output(&node.op, self.fused.clamp(index)) => {
                Some(self.turned(value, layout)?)
            }
            other => other,
        };
        let wanted = wanted_gradients(node, &self.differentiated);
        self.compute_again(plan, record, node, &wanted)?;
        self.lay(plan, &mut record.values, node, layout)?;
        let inputs = self.inputs(plan, &record.values, node, layout)?;
        let call = self.call(plan, index, slot, &inputs, layout);
        let saved = record.saved.remove(output);
        let gradient = self.turned(gradient, layout)?;
        let array = value.as_ref().map(|value| &value.array);
        let found = backward(&call, array, saved, &gradient.array, &wanted)?;
        let operands = call.operands;
        for (slot, (name, found)) in node.inputs.iter().zip(found).enumerate() {
            if let Some(array) = found
                && self.differentiated.contains(name)
            {
                let layout = layout_of_input(operands, slot, call.out_shape, layout);
                self.add(gradients, name, Laid { array, layout })?;
            }
        }
        drop(inputs);
        let value = value.map(|value| value.array);
        for array in value.into_iter().chain([gradient.array]) {
            self.buffers.give(array);
        }
        Ok(())
    }

    /// Computes the normalised values again that the gradient of a node reads.
    fn compute_again(
        &self,
        plan: &Plan,
        record: &mut Record,
        node: &Node,
        wanted: &[bool],
    ) -> Result<(), ExecError> {
        let operands = Operands::new(&self.graph, &plan.inferred, node);
        for (slot, name) in node.inputs.iter().enumerate() {
            let Some(index) = self.kept.again(name) else {
                continue;
            };
            if record.values.contains_key(name) || !reads_input(operands, slot, wanted) {
                continue;
            }
            let layout = record.layouts.get(name).copied().unwrap_or_default();
            let source = &self.graph.nodes[index];
            self.lay(plan, &mut record.values, source, layout)?;
            let inputs = self.inputs(plan, &record.values, source, layout)?;
            let call = self.call(plan, index, 0, &inputs, layout);
            let array = again(&call, record.saved.get(name))?;
            record.values.insert(name.clone(), Laid { array, layout });
        }
        Ok(())
    }

    /// Adds a gradient to what has reached a value already.
    fn add(
        &self,
        gradients: &mut BTreeMap<String, Laid>,
        name: &str,
        gradient: Laid,
    ) -> Result<(), ExecError> {
        let Some(sum) = gradients.get_mut(name) else {
            gradients.insert(name.to_owned(), gradient);
            return Ok(());
        };
        let gradient = self.turned(gradient, sum.layout)?.array;
        match (sum.array.as_slice_mut(), gradient.as_slice()) {
            (Some(sum), Some(gradient)) => elementwise::accumulate(sum, gradient),
            _ => sum.array += &gradient,
        }
        self.buffers.give(gradient);
        Ok(())
    }
}
