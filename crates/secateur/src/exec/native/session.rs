//! Runs a graph on host arrays: the values at hand, the record for the backward pass, the taps.

mod backward;
mod forward;

use super::buffers::Buffers;
use super::fuse::Fused;
use super::keep::{Kept, wanted_gradients};
use super::layout::{Laid, layout_of, layout_of_input};
use super::node::{Call, Saved};
use super::norm::{Affine, affine};
use super::weights::Weights;
use crate::exec::plan::{Plan, Wanted, check_output_gradients, dependents};
use crate::exec::taps::Taps;
use crate::exec::{BatchNormMode, ExecError, LossGradient, Of, Request, Session, Statistic, Tap};
use crate::graph::{Graph, Node, Operands};
use crate::tensor::{Floats, Tensor};
use ::burn::tensor::Device;
use ndarray::{ArrayD, IxDyn};
use secateur_kernels::Layout;
use std::collections::{BTreeMap, BTreeSet};

/// A graph that is ready to run.
pub(super) struct NativeSession {
    graph: Graph,
    input: String,
    outputs: Vec<String>,
    trainable: Vec<String>,
    taps: Taps,
    batch_norm: BatchNormMode,
    buffers: Buffers,
    wanted: Wanted,
    /// Values through which gradients flow, trainable initializers and tapped values included.
    differentiated: BTreeSet<String>,
    /// For the operators that Burn runs.
    device: Device,
    plan: Option<Plan>,
    /// Floats up to which all values that the backward pass reads are kept.
    most: usize,
    /// Of the last plan.
    fused: Fused,
    /// Of a step by the last plan.
    kept: Kept,
    weights: Weights,
}

/// Whether a backward pass follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Step,
}

/// What a forward pass leaves behind.
#[derive(Default)]
struct Record {
    values: BTreeMap<String, Laid>,
    /// By the output's name.
    saved: BTreeMap<String, Saved>,
    /// By the output's name: the order in which it was computed. Readers may have turned it since.
    layouts: BTreeMap<String, Layout>,
}

impl NativeSession {
    /// Checks `request` and brings its initializers into memory order.
    pub(super) fn new(request: &Request<'_>, most: usize) -> Result<Self, ExecError> {
        let (wanted, input) = Wanted::of(request)?;
        let mut graph = request.graph.clone();
        for tensor in graph.initializers.values_mut() {
            if let Tensor::F32(array) = tensor
                && !array.is_standard_layout()
            {
                *array = in_order(array);
            }
        }
        let taps = Taps::new(&request.taps);
        let mut sources = wanted.trainable.clone();
        sources.extend(taps.gradients().cloned());
        let mut differentiated: BTreeSet<String> = dependents(&graph, &sources)
            .into_iter()
            .map(str::to_owned)
            .collect();
        differentiated.extend(sources);
        Ok(Self {
            input,
            outputs: request.outputs.clone(),
            trainable: request.trainable.clone(),
            taps,
            batch_norm: request.batch_norm,
            buffers: Buffers::default(),
            wanted,
            differentiated,
            device: Device::flex(),
            most,
            plan: None,
            fused: Fused::default(),
            kept: Kept::default(),
            weights: Weights::default(),
            graph,
        })
    }

    /// The plan for inputs of `shape`; the last one is kept.
    fn take_plan(&mut self, shape: &[usize]) -> Result<Plan, ExecError> {
        match self.plan.take() {
            Some(plan) if plan.input_shape == shape => Ok(plan),
            _ => {
                self.buffers.clear();
                let plan = Plan::new(&self.graph, &self.input, shape, &self.wanted)?;
                self.fused = Fused::new(&self.graph, &plan, &self.wanted);
                if self.batch_norm == BatchNormMode::Stored {
                    let differentiated = &self.differentiated;
                    self.fused
                        .add_norms(&self.graph, &plan, &self.wanted, differentiated);
                }
                let (fused, differentiated) = (&self.fused, &self.differentiated);
                self.kept = Kept::new(&self.graph, &plan, fused, differentiated, self.most);
                self.weights = Weights::new(&self.graph, &plan, &self.wanted, self.most);
                Ok(plan)
            }
        }
    }

    /// Whether a gradient goes through a node.
    fn is_recorded(&self, node: &Node) -> bool {
        wanted_gradients(node, &self.differentiated).contains(&true)
    }

    /// The order in which a node computes.
    fn layout(&self, plan: &Plan, values: &BTreeMap<String, Laid>, node: &Node) -> Layout {
        let Some(output) = node.outputs.first() else {
            return Layout::Planes;
        };
        let comes_in_bundles = node
            .inputs
            .iter()
            .filter_map(|name| values.get(name))
            .any(|value| value.layout != Layout::Planes);
        let images = plan.input_shape.first().copied().unwrap_or(0);
        let operands = Operands::new(&self.graph, &plan.inferred, node);
        layout_of(operands, plan.shape(output), images, comes_in_bundles)
    }

    /// Brings what a node reads of a batch into an order.
    fn lay(
        &self,
        plan: &Plan,
        values: &mut BTreeMap<String, Laid>,
        node: &Node,
        layout: Layout,
    ) -> Result<(), ExecError> {
        let output = node.outputs.first().map_or("", String::as_str);
        for (slot, name) in node.inputs.iter().enumerate() {
            let Some(value) = values.remove(name) else {
                continue;
            };
            let operands = Operands::new(&self.graph, &plan.inferred, node);
            let wanted = layout_of_input(operands, slot, plan.shape(output), layout);
            values.insert(name.clone(), self.turned(value, wanted)?);
        }
        Ok(())
    }

    /// The value in another order; its memory goes back.
    fn turned(&self, value: Laid, layout: Layout) -> Result<Laid, ExecError> {
        let turned = value.to(layout, &self.buffers)?;
        self.buffers.give(value.array);
        Ok(turned)
    }

    fn call<'c>(
        &'c self,
        plan: &'c Plan,
        index: usize,
        output: usize,
        inputs: &'c [Option<Floats>],
        layout: Layout,
    ) -> Call<'c> {
        let node = &self.graph.nodes[index];
        let name = node.outputs.get(output).map_or("", String::as_str);
        Call {
            operands: Operands::new(&self.graph, &plan.inferred, node).at_output(output),
            inputs,
            out_shape: plan.shape(name),
            layout,
            batch_norm: self.batch_norm,
            clamp: self.fused.clamp(index),
            normalised: None,
            packed: self.weights.packed(index),
            buffers: &self.buffers,
            device: &self.device,
        }
    }

    /// The normalisation that is computed with a node.
    fn normalised(&self, plan: &Plan, index: usize) -> Result<Option<Affine>, ExecError> {
        let Some((norm, epsilon)) = self.fused.norm(index) else {
            return Ok(None);
        };
        let node = &self.graph.nodes[norm];
        let inputs = self.inputs(plan, &BTreeMap::new(), node, Layout::Planes)?;
        let call = self.call(plan, norm, 0, &inputs, Layout::Planes);
        affine(&call, epsilon, None).map(Some)
    }

    /// A value by name, where it is an `f32` one.
    fn value(&self, plan: &Plan, values: &BTreeMap<String, Laid>, name: &str) -> Option<Laid> {
        let constant = || plan.inferred.constants.get(name)?.as_floats().map(in_order);
        let initializer = || self.graph.initializers.get(name)?.as_floats().cloned();
        let stored = || initializer().or_else(constant).map(Laid::planes);
        values.get(name).cloned().or_else(stored)
    }

    /// What a node reads, in the order in which it computes.
    fn inputs(
        &self,
        plan: &Plan,
        values: &BTreeMap<String, Laid>,
        node: &Node,
        layout: Layout,
    ) -> Result<Vec<Option<Floats>>, ExecError> {
        let output = node.outputs.first().map_or("", String::as_str);
        let operands = Operands::new(&self.graph, &plan.inferred, node);
        let input = |(slot, name): (usize, &String)| {
            let Some(value) = self.value(plan, values, name) else {
                return Ok(None);
            };
            let wanted = layout_of_input(operands, slot, plan.shape(output), layout);
            Ok(Some(value.to(wanted, &self.buffers)?.array))
        };
        node.inputs.iter().enumerate().map(input).collect()
    }

    fn outputs(&self, plan: &Plan, record: &Record) -> Result<Vec<Floats>, ExecError> {
        let output = |name: &String| {
            let value = self.value(plan, &record.values, name);
            let value = value.ok_or_else(|| ExecError::UnknownValue(name.clone()))?;
            Ok(value.to(Layout::Planes, &self.buffers)?.array)
        };
        self.outputs.iter().map(output).collect()
    }
}

/// Shows a value to the taps.
fn look(
    taps: &mut Taps,
    buffers: &Buffers,
    name: &str,
    of: Of,
    value: &Laid,
) -> Result<(), ExecError> {
    if taps.look_at(name, of) {
        if of == Of::Gradient {
            taps.gradient_has_come(name);
        }
        if let Layout::Bundles(bundle) = value.layout
            && taps.fold_bundles(name, of, &value.array, bundle)
        {
            return Ok(());
        }
        let value = value.to(Layout::Planes, buffers)?;
        taps.fold(name, of, &value.array)?;
        buffers.give(value.array);
    }
    Ok(())
}

/// The same array with its last axis fastest.
fn in_order(array: &Floats) -> Floats {
    if array.is_standard_layout() {
        array.clone()
    } else {
        array.as_standard_layout().into_owned().into_shared()
    }
}

/// Runs a pass on one of the threads among which its work is divided: from any other one, each operator would wait for those
/// to wake. While it waits for others, the thread may do any work of the pool, another session's pass, too: a pass holds no
/// lock while its work is divided.
fn among_threads<R: Send>(pass: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| pass())
}

impl Session for NativeSession {
    fn forward(&mut self, input: &Floats) -> Result<Vec<Floats>, ExecError> {
        let plan = self.take_plan(input.shape())?;
        let outputs = among_threads(|| {
            let record = self.run(&plan, input, Pass::Forward)?;
            self.outputs(&plan, &record)
        })?;
        self.plan = Some(plan);
        Ok(outputs)
    }

    fn step(
        &mut self,
        input: &Floats,
        loss_gradient: &mut LossGradient<'_>,
    ) -> Result<BTreeMap<String, Floats>, ExecError> {
        let plan = self.take_plan(input.shape())?;
        let (record, outputs) = among_threads(|| {
            let record = self.run(&plan, input, Pass::Step)?;
            let outputs = self.outputs(&plan, &record)?;
            Ok::<_, ExecError>((record, outputs))
        })?;
        let output_gradients = loss_gradient(&outputs);
        check_output_gradients(&plan, &self.outputs, &output_gradients)?;
        let mut taps = std::mem::take(&mut self.taps);
        taps.wait_for_gradients();
        let session = &mut *self;
        let found = among_threads({
            let (plan, taps) = (&plan, &mut taps);
            move || session.backward(plan, &plan.step, record, &output_gradients, taps)
        });
        self.taps = taps;
        let mut gradients = found?;
        let zeros = |shape: &[usize]| ArrayD::zeros(IxDyn(shape)).into_shared();
        // Those that no node has made, or none that a gradient goes through.
        for name in self.taps.take_waiting() {
            let gradient = gradients.get(&name).cloned();
            let gradient = gradient.unwrap_or_else(|| Laid::planes(zeros(plan.shape(&name))));
            look(
                &mut self.taps,
                &self.buffers,
                &name,
                Of::Gradient,
                &gradient,
            )?;
        }
        let mut by_name = BTreeMap::new();
        for name in &self.trainable {
            let shape = self.graph.initializers.get(name);
            let shape = shape.map_or(&[][..], Tensor::shape);
            let gradient = match gradients.remove(name) {
                Some(gradient) => self.turned(gradient, Layout::Planes)?.array,
                None => zeros(shape),
            };
            by_name.insert(name.clone(), gradient);
        }
        self.plan = Some(plan);
        Ok(by_name)
    }

    fn set(&mut self, name: &str, value: &Floats) -> Result<(), ExecError> {
        self.wanted.check_set(&self.graph, name, value)?;
        self.graph
            .initializers
            .insert(name.to_owned(), Tensor::F32(in_order(value)));
        Ok(())
    }

    fn statistics(&self) -> &BTreeMap<Tap, Statistic> {
        self.taps.statistics()
    }

    fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic> {
        self.taps.take_statistics()
    }
}
