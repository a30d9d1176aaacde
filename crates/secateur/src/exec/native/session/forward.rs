//! The forward pass.

use super::{NativeSession, Pass, Record, in_order, look};
use crate::exec::native::layout::Laid;
use crate::exec::native::node::{Call, forward};
use crate::exec::plan::Plan;
use crate::exec::{ExecError, Of};
use crate::tensor::Floats;

impl NativeSession {
    /// Computes everything that the pass wants. Activation taps see their values.
    pub(super) fn run(
        &mut self,
        plan: &Plan,
        input: &Floats,
        pass: Pass,
    ) -> Result<Record, ExecError> {
        let schedule = match pass {
            Pass::Forward => &plan.forward,
            Pass::Step => &plan.step,
        };
        self.buffers.begin();
        let mut record = Record::default();
        let name = self.input.clone();
        let input = Laid::planes(in_order(input));
        look(&mut self.taps, &self.buffers, &name, Of::Activation, &input)?;
        record.values.insert(name, input);
        for (position, &index) in schedule.nodes.iter().enumerate() {
            if self.fused.is_follower(index) {
                continue;
            }
            let node = &self.graph.nodes[index];
            let layout = self.layout(plan, &record.values, node);
            self.lay(plan, &mut record.values, node, layout)?;
            let inputs = self.inputs(plan, &record.values, node, layout)?;
            let is_recorded = pass == Pass::Step && self.is_recorded(node);
            let normalised = self.normalised(plan, index)?;
            let mut computed = Vec::new();
            for (output, name) in self.fused.outputs(index, node) {
                let call = Call {
                    normalised: normalised.as_ref(),
                    ..self.call(plan, index, output, &inputs, layout)
                };
                let (array, saved) = forward(&call)?;
                if is_recorded {
                    record
                        .saved
                        .extend(saved.map(|saved| (name.clone(), saved)));
                    record.layouts.insert(name.clone(), layout);
                }
                computed.push((name.clone(), Laid { array, layout }));
            }
            drop(inputs);
            for input in &node.inputs {
                if schedule.last_use.get(input) == Some(&position)
                    && (pass == Pass::Forward || !self.kept.has(input))
                    && let Some(value) = record.values.remove(input)
                {
                    self.buffers.give(value.array);
                }
            }
            for (name, value) in computed {
                look(&mut self.taps, &self.buffers, &name, Of::Activation, &value)?;
                record.values.insert(name, value);
            }
        }
        Ok(record)
    }
}
