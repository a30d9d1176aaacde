//! Runs a graph on a device: the values at hand, the leaves that gradients are kept for, the taps.

use super::apply::{Args, apply};
use super::value::{Value, with_tensor};
use crate::exec::plan::{
    MAX_RANK, Plan, Schedule, Wanted, check_output_gradients, computed_outputs,
};
use crate::exec::taps::Taps;
use crate::exec::{BatchNormMode, ExecError, LossGradient, Of, Request, Session, Statistic, Tap};
use crate::graph::{Graph, Operands};
use crate::tensor::{Floats, Tensor};
use ::burn::tensor::{Device, Gradients, Tensor as DeviceTensor};
use ndarray::{ArrayD, IxDyn};
use std::collections::BTreeMap;

/// A graph that is ready to run on Burn.
pub(super) struct BurnSession {
    device: Device,
    graph: Graph,
    input: String,
    outputs: Vec<String>,
    taps: Taps,
    batch_norm: BatchNormMode,
    wanted: Wanted,
    /// `f32` initializers on the device, trainable ones included.
    parameters: BTreeMap<String, Value>,
    trainable: Vec<String>,
    plan: Option<Plan>,
}

/// Whether a backward pass follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Step,
}

/// What is at hand while a graph runs.
struct Running {
    values: BTreeMap<String, Value>,
    /// Leaves whose gradient is wanted: trainable initializers, and one for each tapped value.
    parameters: BTreeMap<String, Value>,
    tapped: BTreeMap<String, Value>,
}

impl BurnSession {
    /// Checks `request` and copies its `f32` initializers to `device`.
    pub(super) fn new(device: Device, request: &Request<'_>) -> Result<Self, ExecError> {
        let (wanted, input) = Wanted::of(request)?;
        let graph = request.graph.clone();
        let mut parameters = BTreeMap::new();
        for (name, tensor) in &graph.initializers {
            if let Tensor::F32(array) = tensor
                && array.ndim() <= MAX_RANK
                && !array.is_empty()
            {
                parameters.insert(name.clone(), Value::from_host(array, &device));
            }
        }
        Ok(Self {
            device,
            input,
            outputs: request.outputs.clone(),
            taps: Taps::new(&request.taps),
            batch_norm: request.batch_norm,
            wanted,
            parameters,
            trainable: request.trainable.clone(),
            plan: None,
            graph,
        })
    }

    /// The plan for inputs of `shape`; the last one is kept.
    fn take_plan(&mut self, shape: &[usize]) -> Result<Plan, ExecError> {
        match self.plan.take() {
            Some(plan) if plan.input_shape == shape => Ok(plan),
            _ => Plan::new(&self.graph, &self.input, shape, &self.wanted),
        }
    }

    /// Computes everything that the pass wants. Activation taps see their values.
    fn run(&mut self, plan: &Plan, input: &Floats, pass: Pass) -> Result<Running, ExecError> {
        let schedule = match pass {
            Pass::Forward => &plan.forward,
            Pass::Step => &plan.step,
        };
        let mut running = Running {
            values: BTreeMap::new(),
            parameters: BTreeMap::new(),
            tapped: BTreeMap::new(),
        };
        if pass == Pass::Step {
            for name in &self.trainable {
                if let Some(value) = self.parameters.get(name) {
                    running
                        .parameters
                        .insert(name.clone(), value.clone().leaf());
                }
            }
        }
        let value = Value::from_host(input, &self.device);
        let name = self.input.clone();
        self.keep(&mut running, plan, pass, &name, value)?;
        for (position, &index) in schedule.nodes.iter().enumerate() {
            for (name, value) in self.run_node(&mut running, plan, schedule, position, index)? {
                self.keep(&mut running, plan, pass, &name, value)?;
            }
        }
        Ok(running)
    }

    /// Runs one node and drops the values that nothing reads any more.
    fn run_node(
        &self,
        running: &mut Running,
        plan: &Plan,
        schedule: &Schedule,
        position: usize,
        index: usize,
    ) -> Result<Vec<(String, Value)>, ExecError> {
        let node = &self.graph.nodes[index];
        let has_one_output = computed_outputs(node).count() == 1;
        let mut fetch = |slot: usize| -> Option<Value> {
            let name = &node.inputs[slot];
            let is_last = has_one_output
                && schedule.last_use.get(name) == Some(&position)
                && !node.inputs[slot + 1..].contains(name);
            let computed = if is_last {
                running.values.remove(name)
            } else {
                running.values.get(name).cloned()
            };
            computed
                .or_else(|| running.parameters.get(name).cloned())
                .or_else(|| self.parameters.get(name).cloned())
                .or_else(|| {
                    let array = plan.inferred.constants.get(name)?.as_floats()?;
                    Some(Value::from_host(array, &self.device))
                })
        };
        let mut computed = Vec::with_capacity(1);
        for (output, name) in computed_outputs(node) {
            let value = apply(&mut Args {
                operands: Operands::new(&self.graph, &plan.inferred, node).at_output(output),
                out_shape: plan.shape(name),
                batch_norm: self.batch_norm,
                fetch: &mut fetch,
            })?;
            computed.push((name.clone(), value));
        }
        for name in &node.inputs {
            if schedule.last_use.get(name) == Some(&position) {
                running.values.remove(name);
            }
        }
        Ok(computed)
    }

    /// Stores a computed value; taps look at it first.
    fn keep(
        &mut self,
        running: &mut Running,
        plan: &Plan,
        pass: Pass,
        name: &str,
        value: Value,
    ) -> Result<(), ExecError> {
        let mut value = value;
        if self.taps.look_at(name, Of::Activation) {
            let array = value.clone().into_host(plan.shape(name))?;
            self.taps.fold(name, Of::Activation, &array)?;
        }
        if pass == Pass::Step && self.taps.look_at(name, Of::Gradient) {
            // A value that is recorded cannot itself keep its gradient: a leaf of zeros added to
            // it receives the same one. Any other value becomes a leaf.
            let leaf;
            (value, leaf) = if value.is_tracked() {
                with_tensor!(value, tensor => {
                    let zeros = tensor.clone().without_autodiff().zeros_like();
                    let leaf = zeros.autodiff().require_grad();
                    (Value::from(tensor + leaf.clone()), Value::from(leaf))
                })
            } else {
                let leaf = value.leaf();
                (leaf.clone(), leaf)
            };
            running.tapped.insert(name.to_owned(), leaf);
        }
        running.values.insert(name.to_owned(), value);
        Ok(())
    }

    /// A wanted value of a finished run.
    fn finished(&self, running: &Running, plan: &Plan, name: &str) -> Result<Value, ExecError> {
        let constant = || {
            let array = plan.constant(&self.graph, name)?.as_floats()?;
            Some(Value::from_host(array, &self.device))
        };
        running
            .values
            .get(name)
            .or_else(|| running.parameters.get(name))
            .or_else(|| self.parameters.get(name))
            .cloned()
            .or_else(constant)
            .ok_or_else(|| ExecError::UnknownValue(name.to_owned()))
    }

    /// The outputs on the device, in the order of the request.
    fn outputs(&self, running: &Running, plan: &Plan) -> Result<Vec<Value>, ExecError> {
        self.outputs
            .iter()
            .map(|name| self.finished(running, plan, name))
            .collect()
    }

    fn outputs_to_host(&self, plan: &Plan, values: &[Value]) -> Result<Vec<Floats>, ExecError> {
        let named = self.outputs.iter().zip(values);
        named
            .map(|(name, value)| value.clone().into_host(plan.shape(name)))
            .collect()
    }

    /// Propagates the gradients of the outputs; `None` where no output is recorded.
    fn backward(
        &self,
        plan: &Plan,
        outputs: Vec<Value>,
        gradients: &[Floats],
    ) -> Result<Option<Gradients>, ExecError> {
        check_output_gradients(plan, &self.outputs, gradients)?;
        let mut total: Option<DeviceTensor<1>> = None;
        for (output, gradient) in outputs.into_iter().zip(gradients) {
            if output.is_tracked() {
                let len = gradient.len();
                let gradient = Value::from_host(gradient, &self.device).reshape([len]);
                let product = (output.reshape([len]) * gradient).sum();
                total = Some(match total {
                    Some(sum) => sum + product,
                    None => product,
                });
            }
        }
        Ok(total.map(|total| total.backward()))
    }
}

/// The gradient of a leaf, zeros where nothing flowed to it.
pub(super) fn gradient_of(
    leaf: &Value,
    gradients: Option<&mut Gradients>,
    shape: &[usize],
) -> Result<Floats, ExecError> {
    let found = gradients.and_then(
        |gradients| with_tensor!(leaf, tensor => tensor.grad_remove(gradients).map(Value::from)),
    );
    match found {
        Some(gradient) => gradient.into_host(shape),
        None => Ok(ArrayD::zeros(IxDyn(shape)).into_shared()),
    }
}

impl Session for BurnSession {
    fn forward(&mut self, input: &Floats) -> Result<Vec<Floats>, ExecError> {
        let plan = self.take_plan(input.shape())?;
        let running = self.run(&plan, input, Pass::Forward)?;
        let values = self.outputs(&running, &plan)?;
        let outputs = self.outputs_to_host(&plan, &values)?;
        self.plan = Some(plan);
        Ok(outputs)
    }

    fn step(
        &mut self,
        input: &Floats,
        loss_gradient: &mut LossGradient<'_>,
    ) -> Result<BTreeMap<String, Floats>, ExecError> {
        let plan = self.take_plan(input.shape())?;
        let running = self.run(&plan, input, Pass::Step)?;
        let outputs = self.outputs(&running, &plan)?;
        let Running {
            values,
            parameters,
            tapped,
        } = running;
        drop(values);
        let output_gradients = loss_gradient(&self.outputs_to_host(&plan, &outputs)?);
        let mut gradients = self.backward(&plan, outputs, &output_gradients)?;
        for (name, leaf) in &tapped {
            let array = gradient_of(leaf, gradients.as_mut(), plan.shape(name))?;
            self.taps.fold(name, Of::Gradient, &array)?;
        }
        let mut by_name = BTreeMap::new();
        for (name, leaf) in &parameters {
            let shape = self
                .graph
                .initializers
                .get(name)
                .map_or(&[][..], Tensor::shape);
            by_name.insert(name.clone(), gradient_of(leaf, gradients.as_mut(), shape)?);
        }
        self.plan = Some(plan);
        Ok(by_name)
    }

    fn set(&mut self, name: &str, value: &Floats) -> Result<(), ExecError> {
        self.wanted.check_set(&self.graph, name, value)?;
        self.parameters
            .insert(name.to_owned(), Value::from_host(value, &self.device));
        Ok(())
    }

    fn statistics(&self) -> &BTreeMap<Tap, Statistic> {
        self.taps.statistics()
    }

    fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic> {
        self.taps.take_statistics()
    }
}
