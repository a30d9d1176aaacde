//! What `Resize`, `Upsample` and `Split` make of an axis.

use super::InferError;
use super::operands::{AxisSlice, Operands};
use crate::graph::{AspectRatio, AxisResize, Coordinates, Op, ResizeAttrs};

impl Operands<'_> {
    /// How a `Resize` or an `Upsample` interpolates, and the axes whose elements it changes.
    ///
    /// # Errors
    /// [`InferError::Node`] where neither scales nor sizes are given, or they do not fit the input.
    pub fn resize(&self) -> Result<(ResizeAttrs, Vec<AxisResize>), InferError> {
        let shape = self.shape(0)?;
        let (attrs, scales, sizes) = match &self.node.op {
            // Operator set 10 has `x, scales`; later sets `x, roi, scales, sizes`.
            Op::Resize(attrs) if self.node.inputs.len() == 2 => {
                (attrs.clone(), self.floats(1)?, None)
            }
            Op::Resize(attrs) => {
                let sizes = self.integers(3)?.filter(|sizes| !sizes.is_empty());
                (attrs.clone(), self.floats(2)?, sizes)
            }
            Op::Upsample {
                interpolation,
                scales,
            } => {
                let attrs = ResizeAttrs::upsample(*interpolation);
                (attrs, self.floats(1)?.or_else(|| scales.clone()), None)
            }
            _ => return Err(self.error("does not resize")),
        };
        let axes = match &attrs.axes {
            Some(axes) => axes.clone(),
            None => (0..shape.len() as i64).collect(),
        };
        self.axes(&axes, shape.len())?;
        let count = scales.as_ref().map_or(0, Vec::len) + sizes.as_ref().map_or(0, Vec::len);
        if count != axes.len() || (scales.is_some() && sizes.is_some()) {
            return Err(self.error(format!(
                "{count} scales and sizes are given for {} axes, wanted either",
                axes.len()
            )));
        }
        let mut resized = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = self.axis(axis, shape.len())?;
            let length = shape[axis];
            let found = match (&scales, &sizes) {
                (Some(scales), _) => self.scaled(&attrs, axis, length, scales[i])?,
                (None, Some(sizes)) => self.sized(&attrs, axis, length, &axes, sizes, i)?,
                (None, None) => return Err(self.error("neither scales nor sizes are given")),
            };
            if found.resized != length || found.scale != 1.0 {
                resized.push(found);
            }
        }
        Ok((attrs, resized))
    }

    /// One axis by its scale.
    fn scaled(
        &self,
        attrs: &ResizeAttrs,
        axis: usize,
        length: usize,
        scale: f32,
    ) -> Result<AxisResize, InferError> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(self.error(format!("{scale} is not a scale")));
        }
        // In `f32`, as runtimes compute it; `as` clamps what is too large, which is refused later.
        let exact = length as f32 * scale;
        let resized = exact.floor() as usize;
        if attrs.coordinates == Coordinates::AlignCorners && exact != exact.floor() {
            return Err(self.error(format!(
                "scale {scale} of an axis of length {length} aligns no corners, and runtimes disagree about it; \
                 give sizes"
            )));
        }
        Ok(AxisResize {
            axis,
            length,
            resized,
            scale: f64::from(scale),
        })
    }

    /// One axis by stated sizes, of which that at `index` is its own.
    fn sized(
        &self,
        attrs: &ResizeAttrs,
        axis: usize,
        length: usize,
        axes: &[i64],
        sizes: &[i64],
        index: usize,
    ) -> Result<AxisResize, InferError> {
        let shape = self.shape(0)?;
        let mut ratios = Vec::with_capacity(sizes.len());
        for (&axis, &size) in axes.iter().zip(sizes) {
            let length = shape[self.axis(axis, shape.len())?];
            if size < 0 || (length == 0 && size != 0) {
                return Err(self.error(format!("an axis of length {length} cannot become {size}")));
            }
            ratios.push(size as f64 / (length as f64).max(1.0));
        }
        let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        let proportional = |scale: f64| AxisResize {
            axis,
            length,
            resized: (scale * length as f64).round() as usize,
            scale,
        };
        Ok(match attrs.aspect_ratio {
            AspectRatio::Stretch => AxisResize {
                axis,
                length,
                resized: usize::try_from(sizes[index]).unwrap_or(0),
                scale: ratios[index],
            },
            AspectRatio::NotLarger => proportional(smallest),
            AspectRatio::NotSmaller => proportional(largest),
        })
    }

    /// What a `Split` gives to each of its outputs: the first index and the number of elements.
    ///
    /// # Errors
    /// [`InferError::Node`] where the lengths do not fit the axis or the outputs.
    pub fn parts(&self) -> Result<(usize, Vec<AxisSlice>), InferError> {
        let shape = self.shape(0)?;
        let Op::Split {
            axis,
            sizes,
            num_outputs,
        } = &self.node.op
        else {
            return Err(self.error("is not a split"));
        };
        let axis = self.axis(*axis, shape.len())?;
        let (length, count) = (shape[axis], self.node.outputs.len());
        let unfit = |sizes: &[i64]| {
            self.error(format!(
                "an axis of length {length} does not split into {sizes:?} for {count} outputs"
            ))
        };
        let sizes = match self.integers(1)?.or_else(|| sizes.clone()) {
            Some(sizes) => sizes,
            // From operator set 18 on the last part may be shorter.
            None if num_outputs.is_some_and(|stated| stated == count) => {
                let part = length.div_ceil(count);
                let starts = (0..count).map(|i| (i * part).min(length));
                starts
                    .map(|start| part.min(length - start) as i64)
                    .collect()
            }
            None if num_outputs.is_none() && length.is_multiple_of(count) => {
                vec![(length / count) as i64; count]
            }
            None => return Err(unfit(&[])),
        };
        let mut parts = Vec::with_capacity(count);
        let mut start = 0_usize;
        for &size in &sizes {
            let len = usize::try_from(size).map_err(|_| unfit(&sizes))?;
            parts.push(AxisSlice {
                start,
                len,
                step: 1,
            });
            start = start.checked_add(len).ok_or_else(|| unfit(&sizes))?;
        }
        if start != length || parts.len() != count {
            return Err(unfit(&sizes));
        }
        Ok((axis, parts))
    }
}
