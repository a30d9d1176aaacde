//! Runs a graph on a device: the values at hand, the leaves that gradients are kept for, the taps.

use super::apply::{Args, apply};
use super::plan::{Plan, Schedule, Wanted};
use super::value::{Value, with_tensor};
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
    taps: Vec<Tap>,
    batch_norm: BatchNormMode,
    wanted: Wanted,
    /// `f32` initializers on the device, trainable ones included.
    parameters: BTreeMap<String, Value>,
    trainable: Vec<String>,
    plan: Option<Plan>,
    statistics: BTreeMap<Tap, Statistic>,
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
        let graph = request.graph.clone();
        let [input] = graph.inputs.as_slice() else {
            return Err(ExecError::Inputs(graph.inputs.len()));
        };
        let input = input.name.clone();
        let is_computed = |name: &str| {
            graph
                .nodes
                .iter()
                .any(|node| node.outputs.iter().any(|o| o == name))
        };
        for name in request
            .outputs
            .iter()
            .chain(request.taps.iter().map(|tap| &tap.value))
        {
            let is_known =
                *name == input || is_computed(name) || graph.initializers.contains_key(name);
            if name.is_empty() || !is_known {
                return Err(ExecError::UnknownValue(name.clone()));
            }
        }
        for name in &request.trainable {
            match graph.initializers.get(name) {
                None => return Err(ExecError::UnknownValue(name.clone())),
                Some(Tensor::F32(_)) => {}
                Some(other) => {
                    let problem = format!("trainable, but of type {:?}", other.element_type());
                    return Err(ExecError::Parameter {
                        name: name.clone(),
                        problem,
                    });
                }
            }
        }
        let mut parameters = BTreeMap::new();
        for (name, tensor) in &graph.initializers {
            if let Tensor::F32(array) = tensor
                && array.ndim() <= super::value::MAX_RANK
                && !array.is_empty()
            {
                parameters.insert(name.clone(), Value::from_host(array, &device));
            }
        }
        let mut wanted = Wanted::default();
        wanted.forward.extend(request.outputs.iter().cloned());
        for tap in &request.taps {
            wanted.step.insert(tap.value.clone());
            if tap.of == Of::Activation {
                wanted.forward.insert(tap.value.clone());
            }
        }
        wanted.step.extend(wanted.forward.iter().cloned());
        wanted.trainable.extend(request.trainable.iter().cloned());
        Ok(Self {
            device,
            input,
            outputs: request.outputs.clone(),
            taps: request.taps.clone(),
            batch_norm: request.batch_norm,
            wanted,
            parameters,
            trainable: request.trainable.clone(),
            plan: None,
            statistics: BTreeMap::new(),
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
            let (name, value) = self.run_node(&mut running, plan, schedule, position, index)?;
            self.keep(&mut running, plan, pass, &name, value)?;
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
    ) -> Result<(String, Value), ExecError> {
        let node = &self.graph.nodes[index];
        let mut fetch = |slot: usize| -> Option<Value> {
            let name = &node.inputs[slot];
            let is_last = schedule.last_use.get(name) == Some(&position)
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
        let name = node.outputs.first().cloned().unwrap_or_default();
        let value = apply(&mut Args {
            operands: Operands::new(&self.graph, &plan.inferred, node),
            out_shape: plan.shape(&name),
            batch_norm: self.batch_norm,
            fetch: &mut fetch,
        })?;
        for name in &node.inputs {
            if schedule.last_use.get(name) == Some(&position) {
                running.values.remove(name);
            }
        }
        Ok((name, value))
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
        if self
            .taps
            .iter()
            .any(|tap| tap.value == name && tap.of == Of::Activation)
        {
            let array = value.clone().into_host(plan.shape(name))?;
            self.fold(name, Of::Activation, &array)?;
        }
        let has_gradient_tap = self
            .taps
            .iter()
            .any(|tap| tap.value == name && tap.of == Of::Gradient);
        if pass == Pass::Step && has_gradient_tap {
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

    /// Adds a batch to the statistics of every tap on this side of a value.
    fn fold(&mut self, name: &str, of: Of, array: &Floats) -> Result<(), ExecError> {
        for tap in self
            .taps
            .iter()
            .filter(|tap| tap.value == name && tap.of == of)
        {
            if array.ndim() < 2 {
                let rank = array.ndim();
                return Err(ExecError::Tap {
                    value: name.to_owned(),
                    problem: format!("rank {rank}, but images and channels are two axes"),
                });
            }
            let channels = array.shape()[1];
            let statistic = self
                .statistics
                .entry(tap.clone())
                .or_insert_with(|| Statistic::new(tap.keep, channels));
            if statistic.channels() != channels {
                return Err(ExecError::Tap {
                    value: name.to_owned(),
                    problem: format!("{channels} channels after {}", statistic.channels()),
                });
            }
            statistic.fold(array);
        }
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
        if gradients.len() != outputs.len() {
            return Err(ExecError::OutputGradient {
                output: self.outputs.first().cloned().unwrap_or_default(),
                problem: format!(
                    "{} gradients for {} outputs",
                    gradients.len(),
                    outputs.len()
                ),
            });
        }
        let mut total: Option<DeviceTensor<1>> = None;
        for ((name, output), gradient) in self.outputs.iter().zip(outputs).zip(gradients) {
            if gradient.shape() != plan.shape(name) {
                return Err(ExecError::OutputGradient {
                    output: name.clone(),
                    problem: format!("shape {:?}, not {:?}", gradient.shape(), plan.shape(name)),
                });
            }
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
fn gradient_of(
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
            self.fold(name, Of::Gradient, &array)?;
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
        let problem = |problem: String| ExecError::Parameter {
            name: name.to_owned(),
            problem,
        };
        if !self.wanted.trainable.contains(name) {
            return Err(problem(
                "not among the trainable ones of this session".to_owned(),
            ));
        }
        let shape = self
            .graph
            .initializers
            .get(name)
            .map_or(&[][..], Tensor::shape);
        if value.shape() != shape {
            return Err(problem(format!(
                "new shape {:?}, not {shape:?}",
                value.shape()
            )));
        }
        self.parameters
            .insert(name.to_owned(), Value::from_host(value, &self.device));
        Ok(())
    }

    fn statistics(&self) -> &BTreeMap<Tap, Statistic> {
        &self.statistics
    }

    fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic> {
        std::mem::take(&mut self.statistics)
    }
}
