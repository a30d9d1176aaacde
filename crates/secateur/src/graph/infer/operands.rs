//! What a node reads, with constants looked up and optional forms resolved.
//!
//! Operators that took attributes in old operator sets take inputs in new ones; here both become
//! the same plain numbers, for shape inference and for engines.

use super::{InferError, Inferred};
use crate::graph::{Graph, Node, Op};
use crate::tensor::Tensor;

/// A node together with what is known of its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    graph: &'a Graph,
    inferred: &'a Inferred,
    /// The node.
    pub node: &'a Node,
    /// Which output is looked at.
    pub output: usize,
}

/// What a slice takes of one axis: `len` elements from `start` on, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisSlice {
    /// Index of the first element; inside the axis unless `len` is 0.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
    /// Distance between them, never 0; negative runs backwards.
    pub step: i64,
}

impl AxisSlice {
    /// The indices taken, in order.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        (0..self.len as i64).map(move |i| (self.start as i64 + i * self.step) as usize)
    }
}

impl<'a> Operands<'a> {
    /// Looks at `node`, whose inputs `inferred` already describes.
    #[must_use]
    pub fn new(graph: &'a Graph, inferred: &'a Inferred, node: &'a Node) -> Self {
        Self {
            graph,
            inferred,
            node,
            output: 0,
        }
    }

    /// The same node, with another output looked at.
    #[must_use]
    pub fn at_output(self, output: usize) -> Self {
        Self { output, ..self }
    }

    /// Version of the graph's operator set.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.graph.opset
    }

    /// An error that names this node.
    #[must_use]
    pub fn error(&self, problem: impl Into<String>) -> InferError {
        InferError::Node {
            node: self.node.name.clone(),
            op: self.node.op.name(),
            problem: problem.into(),
        }
    }

    /// The name of input `index`, `None` where it is left out.
    #[must_use]
    pub fn name(&self, index: usize) -> Option<&'a str> {
        self.node
            .inputs
            .get(index)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The shape of input `index`.
    ///
    /// # Errors
    /// [`InferError::Node`] where the input is left out or not defined before this node.
    pub fn shape(&self, index: usize) -> Result<&'a [usize], InferError> {
        self.optional_shape(index)?
            .ok_or_else(|| self.error(format!("input {index} is missing")))
    }

    /// The shape of input `index`, `None` where it is left out.
    ///
    /// # Errors
    /// [`InferError::Node`] where the input is named but not defined before this node.
    pub fn optional_shape(&self, index: usize) -> Result<Option<&'a [usize]>, InferError> {
        let Some(name) = self.name(index) else {
            return Ok(None);
        };
        let undefined = || self.error(format!("input `{name}` is not defined before this node"));
        Ok(Some(self.inferred.shape(name).ok_or_else(undefined)?))
    }

    /// The value of input `index`, where it is a constant.
    #[must_use]
    pub fn constant(&self, index: usize) -> Option<&'a Tensor> {
        let name = self.name(index)?;
        self.graph
            .initializers
            .get(name)
            .or_else(|| self.inferred.constants.get(name))
    }

    /// The integers in input `index`, `None` where it is left out.
    ///
    /// # Errors
    /// [`InferError::Node`] where the input is not a constant list (or scalar) of integers.
    pub fn integers(&self, index: usize) -> Result<Option<Vec<i64>>, InferError> {
        let Some(name) = self.name(index) else {
            return Ok(None);
        };
        let Some(tensor) = self.constant(index) else {
            return Err(self.error(format!("input `{name}` must be a constant")));
        };
        if tensor.shape().len() > 1 || tensor.len() > super::MAX_CONSTANT {
            return Err(self.error(format!(
                "input `{name}` of shape {:?} must be a list",
                tensor.shape()
            )));
        }
        match tensor {
            Tensor::I64(values) => Ok(Some(values.iter().copied().collect())),
            Tensor::I32(values) => Ok(Some(values.iter().map(|&v| i64::from(v)).collect())),
            Tensor::F32(_) | Tensor::F64(_) | Tensor::Bool(_) => {
                Err(self.error(format!("input `{name}` must hold integers")))
            }
        }
    }

    /// The one number in input `index`, `None` where it is left out.
    ///
    /// # Errors
    /// [`InferError::Node`] where the input is not a constant `f32` of one element.
    pub fn scalar(&self, index: usize) -> Result<Option<f32>, InferError> {
        let Some(name) = self.name(index) else {
            return Ok(None);
        };
        let values = self.constant(index).and_then(Tensor::as_floats);
        match values.map(|values| (values.len(), values.first())) {
            Some((1, Some(&value))) => Ok(Some(value)),
            Some(_) | None => Err(self.error(format!(
                "input `{name}` must be a constant f32 of one element"
            ))),
        }
    }

    /// The numbers in input `index`, `None` where it is left out or holds none.
    ///
    /// # Errors
    /// [`InferError::Node`] where the input is not a constant list of `f32`.
    pub fn floats(&self, index: usize) -> Result<Option<Vec<f32>>, InferError> {
        let Some(name) = self.name(index) else {
            return Ok(None);
        };
        match self.constant(index).and_then(Tensor::as_floats) {
            Some(values) if values.ndim() <= 1 && values.len() <= super::MAX_CONSTANT => {
                Ok(Some(values.iter().copied().collect()).filter(|v: &Vec<f32>| !v.is_empty()))
            }
            Some(_) | None => {
                Err(self.error(format!("input `{name}` must be a constant list of f32")))
            }
        }
    }

    /// The index of `axis`, which counts from the last where it is negative, among `rank` axes.
    ///
    /// # Errors
    /// [`InferError::Node`] where there is no such axis.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, InferError> {
        let counted = if axis < 0 {
            axis.checked_add(rank as i64)
        } else {
            Some(axis)
        };
        let index = counted
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < rank);
        index.ok_or_else(|| self.error(format!("axis {axis} is outside a value of rank {rank}")))
    }

    /// The indices of `axes`, in order and each once, among `rank` axes.
    ///
    /// # Errors
    /// [`InferError::Node`] where an axis does not exist or is named twice.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, InferError> {
        let mut indices = axes
            .iter()
            .map(|&axis| self.axis(axis, rank))
            .collect::<Result<Vec<_>, _>>()?;
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.error(format!("an axis is named twice in {axes:?}")));
        }
        Ok(indices)
    }

    /// The bounds of a `Clip`: `(lower, upper)`, in the attribute or the input form.
    ///
    /// # Errors
    /// [`InferError::Node`] where a bound is not a constant of one element.
    pub fn clip_bounds(&self) -> Result<(Option<f32>, Option<f32>), InferError> {
        let Op::Clip { min, max } = self.node.op else {
            return Err(self.error("is not a clip"));
        };
        Ok((self.scalar(1)?.or(min), self.scalar(2)?.or(max)))
    }

    /// The axes that a reduction runs over; empty where it does nothing.
    ///
    /// # Errors
    /// [`InferError::Node`] where the axes are not constant, do not exist, or repeat.
    pub fn reduced_axes(&self) -> Result<Vec<usize>, InferError> {
        let rank = self.shape(0)?.len();
        if let Op::ArgMax { axis, .. } = self.node.op {
            return self.axes(&[axis], rank);
        }
        let Op::Reduce {
            axes,
            noop_with_empty_axes,
            ..
        } = &self.node.op
        else {
            return Err(self.error("is not a reduction"));
        };
        match self.integers(1)?.or_else(|| axes.clone()) {
            Some(axes) if !axes.is_empty() => self.axes(&axes, rank),
            Some(_) | None if *noop_with_empty_axes => Ok(Vec::new()),
            Some(_) | None => Ok((0..rank).collect()),
        }
    }

    /// What a `Slice` takes, for every axis of its input.
    ///
    /// # Errors
    /// [`InferError::Node`] where the bounds are not constant, do not fit each other, or a step is 0.
    pub fn slices(&self) -> Result<Vec<AxisSlice>, InferError> {
        let shape = self.shape(0)?;
        let missing = || self.error("starts or ends are missing");
        let Op::Slice { bounds } = &self.node.op else {
            return Err(self.error("is not a slice"));
        };
        let (starts, ends, axes) = match bounds {
            Some(bounds) => (
                bounds.starts.clone(),
                bounds.ends.clone(),
                bounds.axes.clone(),
            ),
            None => {
                let starts = self.integers(1)?.ok_or_else(missing)?;
                (
                    starts,
                    self.integers(2)?.ok_or_else(missing)?,
                    self.integers(3)?,
                )
            }
        };
        let steps = self.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(self.error("starts, ends, axes and steps differ in length"));
        }
        self.axes(&axes, shape.len())?;
        let whole = |&len: &usize| AxisSlice {
            start: 0,
            len,
            step: 1,
        };
        let mut slices: Vec<AxisSlice> = shape.iter().map(whole).collect();
        for (((&axis, &start), &end), &step) in axes.iter().zip(&starts).zip(&ends).zip(&steps) {
            let axis = self.axis(axis, shape.len())?;
            slices[axis] = slice_axis(shape[axis], start, end, step)
                .ok_or_else(|| self.error("a step is 0"))?;
        }
        Ok(slices)
    }

    /// How many elements a `Pad` adds before and after each axis; negative numbers remove.
    ///
    /// # Errors
    /// [`InferError::Node`] where the pads are not constant or their number does not fit the input.
    pub fn pad_widths(&self) -> Result<Vec<[i64; 2]>, InferError> {
        let rank = self.shape(0)?.len();
        let Op::Pad { pads, .. } = &self.node.op else {
            return Err(self.error("is not a padding"));
        };
        let (pads, axes) = match pads {
            Some(pads) => (pads.clone(), None),
            None => (
                self.integers(1)?
                    .ok_or_else(|| self.error("pads are missing"))?,
                self.integers(3)?,
            ),
        };
        let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
        self.axes(&axes, rank)?;
        if pads.len() != 2 * axes.len() {
            return Err(self.error(format!(
                "{} pads are given for {} axes",
                pads.len(),
                axes.len()
            )));
        }
        let mut widths = vec![[0, 0]; rank];
        for (i, &axis) in axes.iter().enumerate() {
            widths[self.axis(axis, rank)?] = [pads[i], pads[i + axes.len()]];
        }
        Ok(widths)
    }

    /// What a `Pad` fills with, in the attribute or the input form; 0 where nothing is stated.
    ///
    /// # Errors
    /// [`InferError::Node`] where the value is not a constant of one element.
    pub fn pad_value(&self) -> Result<f32, InferError> {
        let Op::Pad { value, .. } = self.node.op else {
            return Err(self.error("is not a padding"));
        };
        Ok(self.scalar(2)?.or(value).unwrap_or(0.0))
    }
}

/// ONNX's rule for one axis: negative bounds count from the end, then both are clamped to what
/// exists. `None` where `step` is 0.
fn slice_axis(length: usize, start: i64, end: i64, step: i64) -> Option<AxisSlice> {
    let n = length as i64;
    let from_end = |bound: i64| if bound < 0 { bound + n } else { bound };
    let (start, distance) = match step {
        0 => return None,
        1.. => {
            let (start, end) = (from_end(start).clamp(0, n), from_end(end).clamp(0, n));
            (start, end - start)
        }
        _ => {
            let (start, end) = (
                from_end(start).min(n - 1).max(0),
                from_end(end).min(n - 1).max(-1),
            );
            (start, if n == 0 { 0 } else { start - end })
        }
    };
    let len = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    Some(AxisSlice {
        start: start as usize,
        len: len as usize,
        step,
    })
}
