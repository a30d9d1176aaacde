//! The arithmetic of sliding windows: padding and output size of convolution and pooling.
//!
//! Shape inference and every engine use these functions, so that they cannot disagree. They follow
//! the ONNX operator specification, and ONNX Runtime where the specification leaves a choice: a
//! pooling window of `ceil_mode` that would start in the padding below the image is dropped.

use super::op::{AutoPad, ConvAttrs, PoolAttrs, SpatialPads};

/// A window that does not fit its input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A kernel, stride or dilation is 0.
    #[error("the {0} is 0")]
    Zero(&'static str),
    /// The window is larger than the padded input.
    #[error("a window that spans {window} does not fit an input of {padded} with its padding")]
    TooLarge {
        /// Rows (or columns) from the first to the last tap.
        window: usize,
        /// Rows (or columns) of the input and its padding.
        padded: usize,
    },
    /// A size exceeds what can be counted.
    #[error("the size of the window is out of range")]
    Overflow,
}

impl ConvAttrs {
    /// The padding in rows and columns for an `input` and a `kernel` of `[height, width]`, with
    /// `auto_pad` resolved.
    ///
    /// # Errors
    /// [`WindowError`] where an attribute is 0 or a size is out of range.
    pub fn resolved_pads(
        &self,
        input: [usize; 2],
        kernel: [usize; 2],
    ) -> Result<SpatialPads, WindowError> {
        Ok(Window::of_conv(self, kernel).both(input)?.pads())
    }

    /// The output's `[height, width]` for an `input` and a `kernel` of `[height, width]`.
    ///
    /// # Errors
    /// [`WindowError`] where the window does not fit the padded input.
    pub fn output_size(
        &self,
        input: [usize; 2],
        kernel: [usize; 2],
    ) -> Result<[usize; 2], WindowError> {
        Window::of_conv(self, kernel).both(input)?.output_size()
    }
}

impl PoolAttrs {
    /// The padding in rows and columns for an `input` of `[height, width]`, with `auto_pad`
    /// resolved. What `ceil_mode` adds is not part of it: see [`PoolAttrs::overhang`].
    ///
    /// # Errors
    /// [`WindowError`] where an attribute is 0 or a size is out of range.
    pub fn resolved_pads(&self, input: [usize; 2]) -> Result<SpatialPads, WindowError> {
        Ok(Window::of_pool(self).both(input)?.pads())
    }

    /// The output's `[height, width]` for an `input` of `[height, width]`.
    ///
    /// # Errors
    /// [`WindowError`] where the window does not fit the padded input.
    pub fn output_size(&self, input: [usize; 2]) -> Result<[usize; 2], WindowError> {
        Window::of_pool(self).both(input)?.output_size()
    }

    /// How many rows and columns the last window of `ceil_mode` reaches beyond the padded input.
    /// They belong to neither the maximum nor, even with `count_include_pad`, the divisor.
    ///
    /// # Errors
    /// [`WindowError`] where the window does not fit the padded input.
    pub fn overhang(&self, input: [usize; 2]) -> Result<[usize; 2], WindowError> {
        let axes = Window::of_pool(self).both(input)?;
        Ok([axes.rows.overhang()?, axes.columns.overhang()?])
    }
}

/// The attributes that convolution and pooling share.
struct Window {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: SpatialPads,
    auto_pad: AutoPad,
    rounding: Rounding,
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Down,
    Up,
}

/// One spatial axis with its padding resolved.
struct Axis {
    input: usize,
    span: usize,
    stride: usize,
    before: usize,
    after: usize,
    rounding: Rounding,
}

struct Axes {
    rows: Axis,
    columns: Axis,
}

impl Window {
    fn of_conv(attrs: &ConvAttrs, kernel: [usize; 2]) -> Self {
        Self {
            kernel,
            strides: attrs.strides,
            dilations: attrs.dilations,
            pads: attrs.pads,
            auto_pad: attrs.auto_pad,
            rounding: Rounding::Down,
        }
    }

    fn of_pool(attrs: &PoolAttrs) -> Self {
        Self {
            kernel: attrs.kernel,
            strides: attrs.strides,
            dilations: attrs.dilations,
            pads: attrs.pads,
            auto_pad: attrs.auto_pad,
            rounding: if attrs.ceil_mode {
                Rounding::Up
            } else {
                Rounding::Down
            },
        }
    }

    fn both(&self, input: [usize; 2]) -> Result<Axes, WindowError> {
        Ok(Axes {
            rows: self.axis(0, input[0], [self.pads.top, self.pads.bottom])?,
            columns: self.axis(1, input[1], [self.pads.left, self.pads.right])?,
        })
    }

    fn axis(&self, axis: usize, input: usize, stated: [usize; 2]) -> Result<Axis, WindowError> {
        let stride = nonzero(self.strides[axis], "stride")?;
        let dilation = nonzero(self.dilations[axis], "dilation")?;
        let taps = nonzero(self.kernel[axis], "kernel")? - 1;
        let span = taps
            .checked_mul(dilation)
            .and_then(|s| s.checked_add(1))
            .ok_or(WindowError::Overflow)?;
        let [before, after] = match self.auto_pad {
            AutoPad::NotSet => stated,
            AutoPad::Valid => [0, 0],
            AutoPad::SameUpper => {
                let needed = same_padding(input, span, stride)?;
                [needed / 2, needed - needed / 2]
            }
            AutoPad::SameLower => {
                let needed = same_padding(input, span, stride)?;
                [needed - needed / 2, needed / 2]
            }
        };
        Ok(Axis {
            input,
            span,
            stride,
            before,
            after,
            rounding: self.rounding,
        })
    }
}

impl Axes {
    fn pads(&self) -> SpatialPads {
        SpatialPads {
            top: self.rows.before,
            left: self.columns.before,
            bottom: self.rows.after,
            right: self.columns.after,
        }
    }

    fn output_size(&self) -> Result<[usize; 2], WindowError> {
        Ok([self.rows.output()?, self.columns.output()?])
    }
}

impl Axis {
    fn padded(&self) -> Result<usize, WindowError> {
        self.input
            .checked_add(self.before)
            .and_then(|size| size.checked_add(self.after))
            .ok_or(WindowError::Overflow)
    }

    fn output(&self) -> Result<usize, WindowError> {
        let padded = self.padded()?;
        if self.input == 0 || self.span > padded {
            return Err(WindowError::TooLarge {
                window: self.span,
                padded,
            });
        }
        let room = padded - self.span;
        let mut last = room / self.stride;
        // The last window of `ceil_mode` must start inside the image or the padding before it.
        if self.rounding == Rounding::Up && !room.is_multiple_of(self.stride) {
            let start = (last + 1)
                .checked_mul(self.stride)
                .ok_or(WindowError::Overflow)?;
            if start < self.input + self.before {
                last += 1;
            }
        }
        last.checked_add(1).ok_or(WindowError::Overflow)
    }

    fn overhang(&self) -> Result<usize, WindowError> {
        let last = (self.output()? - 1)
            .checked_mul(self.stride)
            .ok_or(WindowError::Overflow)?;
        let reached = last.checked_add(self.span).ok_or(WindowError::Overflow)?;
        Ok(reached.saturating_sub(self.padded()?))
    }
}

/// The padding with which the output is the input divided by the stride, rounded up.
fn same_padding(input: usize, span: usize, stride: usize) -> Result<usize, WindowError> {
    let last = input.div_ceil(stride).saturating_sub(1) * stride;
    Ok(last
        .checked_add(span)
        .ok_or(WindowError::Overflow)?
        .saturating_sub(input))
}

fn nonzero(value: usize, what: &'static str) -> Result<usize, WindowError> {
    if value == 0 {
        Err(WindowError::Zero(what))
    } else {
        Ok(value)
    }
}
