//! What has to be computed for one input shape, in which order, and when a value is last read.

use super::{ExecError, Of, Request};
use crate::graph::{Graph, Inferred, Node, Op, Operands, infer};
use crate::tensor::{ElementType, Floats, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// The largest rank that is run.
pub(super) const MAX_RANK: usize = 6;

/// The nodes to run for a set of wanted values.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// Indices into `Graph::nodes`, in order.
    pub(super) nodes: Vec<usize>,
    /// For each value, the position in `nodes` that reads it last; wanted values are not listed.
    pub(super) last_use: BTreeMap<String, usize>,
}

/// Shapes and schedules for one shape of the input.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) input_shape: Vec<usize>,
    pub(super) inferred: Inferred,
    /// For a forward pass.
    pub(super) forward: Schedule,
    /// For a forward pass that a backward pass follows.
    pub(super) step: Schedule,
}

/// The values that plans are made for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Needed by a forward pass.
    pub(super) forward: BTreeSet<String>,
    /// Needed by a step: those of the forward pass and the gradient taps.
    pub(super) step: BTreeSet<String>,
    /// Initializers that may change: what depends on them is never taken for a constant.
    pub(super) trainable: BTreeSet<String>,
}

impl Wanted {
    /// What `request` wants, and the name of the graph's one input.
    pub(super) fn of(request: &Request<'_>) -> Result<(Self, String), ExecError> {
        let graph = request.graph;
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
        let mut wanted = Self::default();
        wanted.forward.extend(request.outputs.iter().cloned());
        for tap in &request.taps {
            wanted.step.insert(tap.value.clone());
            if tap.of == Of::Activation {
                wanted.forward.insert(tap.value.clone());
            }
        }
        wanted.step.extend(wanted.forward.iter().cloned());
        wanted.trainable.extend(request.trainable.iter().cloned());
        Ok((wanted, input))
    }

    /// Refuses a new value of an initializer that is not trainable or has another shape.
    pub(super) fn check_set(
        &self,
        graph: &Graph,
        name: &str,
        value: &Floats,
    ) -> Result<(), ExecError> {
        let problem = |problem: String| ExecError::Parameter {
            name: name.to_owned(),
            problem,
        };
        if !self.trainable.contains(name) {
            return Err(problem(
                "not among the trainable ones of this session".to_owned(),
            ));
        }
        let shape = graph.initializers.get(name).map_or(&[][..], Tensor::shape);
        if value.shape() == shape {
            Ok(())
        } else {
            Err(problem(format!(
                "new shape {:?}, not {shape:?}",
                value.shape()
            )))
        }
    }
}

/// Refuses output gradients that do not fit the outputs.
pub(super) fn check_output_gradients(
    plan: &Plan,
    outputs: &[String],
    gradients: &[Floats],
) -> Result<(), ExecError> {
    if gradients.len() != outputs.len() {
        return Err(ExecError::OutputGradient {
            output: outputs.first().cloned().unwrap_or_default(),
            problem: format!(
                "{} gradients for {} outputs",
                gradients.len(),
                outputs.len()
            ),
        });
    }
    for (name, gradient) in outputs.iter().zip(gradients) {
        if gradient.shape() != plan.shape(name) {
            return Err(ExecError::OutputGradient {
                output: name.clone(),
                problem: format!("shape {:?}, not {:?}", gradient.shape(), plan.shape(name)),
            });
        }
    }
    Ok(())
}

impl Plan {
    /// Plans for an input `input` of shape `input_shape`.
    pub(super) fn new(
        graph: &Graph,
        input: &str,
        input_shape: &[usize],
        wanted: &Wanted,
    ) -> Result<Self, ExecError> {
        let shapes = BTreeMap::from([(input.to_owned(), input_shape.to_vec())]);
        let mut inferred = infer(graph, &shapes)?;
        let variable = dependents(graph, &wanted.trainable);
        inferred
            .constants
            .retain(|name, _| !variable.contains(name.as_str()));
        let plan = Self {
            input_shape: input_shape.to_vec(),
            forward: Schedule::new(graph, &inferred, &wanted.forward),
            step: Schedule::new(graph, &inferred, &wanted.step),
            inferred,
        };
        plan.check(graph, &plan.step)?;
        let indices = indices(graph, &plan.step, &plan.inferred)?;
        check_casts(graph, &plan.step, wanted, &indices)?;
        check_steering(graph, wanted)?;
        Ok(plan)
    }

    /// The shape of a value; empty where inference knows none.
    pub(super) fn shape(&self, value: &str) -> &[usize] {
        self.inferred.shapes.get(value).map_or(&[], Vec::as_slice)
    }

    /// A value that is known before anything runs: a stored or a computed constant.
    pub(super) fn constant<'p>(&'p self, graph: &'p Graph, value: &str) -> Option<&'p Tensor> {
        self.inferred
            .constants
            .get(value)
            .or_else(|| graph.initializers.get(value))
    }

    /// Refuses what the device cannot hold.
    fn check(&self, graph: &Graph, schedule: &Schedule) -> Result<(), ExecError> {
        for &index in &schedule.nodes {
            let node = &graph.nodes[index];
            let problem = |problem: String| ExecError::Node {
                node: node.name.clone(),
                op: node.op.name(),
                problem,
            };
            let outputs = computed_outputs(node).map(|(_, name)| name);
            for value in node.inputs.iter().chain(outputs) {
                let shape = self.shape(value);
                if shape.len() > MAX_RANK {
                    let rank = shape.len();
                    return Err(problem(format!(
                        "`{value}` has rank {rank}, more than {MAX_RANK}"
                    )));
                }
                let is_empty = shape.contains(&0);
                if is_empty && self.constant(graph, value).is_none() {
                    return Err(problem(format!(
                        "`{value}` has no elements (shape {shape:?})"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Schedule {
    fn new(graph: &Graph, inferred: &Inferred, wanted: &BTreeSet<String>) -> Self {
        let is_known = |name: &str| {
            inferred.constants.contains_key(name) || graph.initializers.contains_key(name)
        };
        let mut needed: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut nodes = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            let makes_needed = node
                .outputs
                .iter()
                .any(|name| !name.is_empty() && needed.contains(name.as_str()) && !is_known(name));
            if makes_needed {
                nodes.push(index);
                needed.extend(
                    node.inputs
                        .iter()
                        .map(String::as_str)
                        .filter(|n| !n.is_empty()),
                );
            }
        }
        nodes.reverse();
        let mut last_use = BTreeMap::new();
        for (position, &index) in nodes.iter().enumerate() {
            for name in graph.nodes[index]
                .inputs
                .iter()
                .filter(|n| !wanted.contains(*n))
            {
                last_use.insert(name.clone(), position);
            }
        }
        Self { nodes, last_use }
    }
}

/// The longest axis whose indices `f32` tells apart.
const MAX_INDEXED: usize = 1 << f32::MANTISSA_DIGITS;

/// The indices among the values that a schedule computes. They are whole numbers that `f32` holds exactly, so
/// they may be put out, moved, and cast to any type of numbers; nothing else may read them.
fn indices<'g>(
    graph: &'g Graph,
    schedule: &Schedule,
    inferred: &Inferred,
) -> Result<BTreeSet<&'g str>, ExecError> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for node in schedule.nodes.iter().map(|&index| &graph.nodes[index]) {
        let problem = |problem: String| ExecError::Node {
            node: node.name.clone(),
            op: node.op.name(),
            problem,
        };
        let read = node
            .inputs
            .iter()
            .find(|&name| found.contains(name.as_str()));
        if let (Op::ArgMax { axis, .. }, None) = (&node.op, read) {
            let operands = Operands::new(graph, inferred, node);
            let shape = operands.shape(0)?;
            let length = shape[operands.axis(*axis, shape.len())?];
            if length > MAX_INDEXED {
                return Err(problem(format!(
                    "indices of an axis of length {length} are not exact in `f32`, in which values are computed"
                )));
            }
            found.extend(node.outputs.iter().map(String::as_str));
        }
        let Some(read) = read else { continue };
        let is_moved = matches!(
            node.op,
            Op::Identity
                | Op::Flatten { .. }
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Squeeze { .. }
                | Op::Unsqueeze { .. }
                | Op::Cast {
                    to: ElementType::I32 | ElementType::I64 | ElementType::F64
                }
        );
        let to_f32 = Op::Cast {
            to: ElementType::F32,
        };
        if is_moved {
            found.extend(node.outputs.iter().map(String::as_str));
        } else if node.op != to_f32 {
            return Err(problem(format!(
                "reads the indices `{read}`; computed values are `f32`, so it cannot compute with integers"
            )));
        }
    }
    Ok(found)
}

/// Refuses to compute in another type than `f32`: a value that is cast to one must be cast back at
/// once. Indices are whole in any type.
fn check_casts(
    graph: &Graph,
    schedule: &Schedule,
    wanted: &Wanted,
    indices: &BTreeSet<&str>,
) -> Result<(), ExecError> {
    let to_f32 = Op::Cast {
        to: ElementType::F32,
    };
    for node in schedule.nodes.iter().map(|&index| &graph.nodes[index]) {
        let Op::Cast { to } = node.op else { continue };
        if node
            .inputs
            .iter()
            .any(|name| indices.contains(name.as_str()))
        {
            continue;
        }
        let reads = |reader: &Node| reader.inputs.iter().any(|name| node.outputs.contains(name));
        let is_wanted = node.outputs.iter().any(|name| wanted.step.contains(name));
        let is_read = || {
            graph
                .nodes
                .iter()
                .any(|other| reads(other) && other.op != to_f32)
        };
        if to != ElementType::F32 && (is_wanted || is_read()) {
            return Err(ExecError::Node {
                node: node.name.clone(),
                op: node.op.name(),
                problem: format!("computed values are `f32`; cannot compute in {to:?}"),
            });
        }
    }
    Ok(())
}

/// Refuses to train what is read on the host before the graph runs: bounds, fill values, scales.
fn check_steering(graph: &Graph, wanted: &Wanted) -> Result<(), ExecError> {
    for node in graph.nodes.iter().filter(|n| {
        matches!(
            n.op,
            Op::Clip { .. } | Op::Pad { .. } | Op::Resize(_) | Op::Upsample { .. }
        )
    }) {
        let trained = node
            .inputs
            .iter()
            .skip(1)
            .find(|name| wanted.trainable.contains(*name));
        if let Some(name) = trained {
            let (node, op) = (&node.name, node.op.name());
            let problem = format!("not differentiable: node `{node}` ({op}) is steered by it");
            return Err(ExecError::Parameter {
                name: name.clone(),
                problem,
            });
        }
    }
    Ok(())
}

/// The outputs of a node that engines compute, with their indices.
pub(super) fn computed_outputs(node: &Node) -> impl DoubleEndedIterator<Item = (usize, &String)> {
    let count = match node.op.computes_all_outputs() {
        true => node.outputs.len(),
        false => 1,
    };
    node.outputs.iter().enumerate().take(count)
}

/// The values whose content is computed from any of `sources`.
pub(super) fn dependents<'g>(graph: &'g Graph, sources: &BTreeSet<String>) -> BTreeSet<&'g str> {
    let mut found = BTreeSet::new();
    // A shape does not depend on the content.
    for node in graph
        .nodes
        .iter()
        .filter(|node| !matches!(node.op, Op::Shape { .. }))
    {
        let depends = node
            .inputs
            .iter()
            .any(|name| sources.contains(name) || found.contains(name.as_str()));
        if depends {
            found.extend(
                node.outputs
                    .iter()
                    .map(String::as_str)
                    .filter(|n| !n.is_empty()),
            );
        }
    }
    found
}
