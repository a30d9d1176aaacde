//! The arithmetic of sliding windows: padding and output size of convolution and pooling.
//!
//! Shape inference and every engine use these functions, so that they cannot disagree. They follow
//! the ONNX operator specification, and ONNX Runtime where the specification leaves a choice: a
//! pooling window of `ceil_mode` that would start in the padding below the image is dropped. A
//! window larger than the padded image is an error.

use super::op::{AutoPad, ConvAttrs, PoolAttrs, SpatialPads};

/// Rows or columns of an input with its padding: work and memory grow with padding that is only a number in a file.
const MAX_PADDED: usize = 1 << 16;

/// A window that does not fit its input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A kernel, stride or dilation is 0.
    #[error("the {0} is 0")]
    Zero(&'static str),
    /// The input has no rows or no columns.
    #[error("the input has no rows or no columns")]
    NoInput,
    /// The window is larger than the padded input.
    #[error("a window that spans {window} does not fit an input of {padded} with its padding")]
    TooLarge {
        /// Rows (or columns) from the first to the last tap.
        window: usize,
        /// Rows (or columns) of the input and its padding.
        padded: usize,
    },
    /// The padded input is larger than any that can be run.
    #[error("an input of {0} with its padding is larger than {MAX_PADDED}")]
    Padded(usize),
    /// `SAME` padding of a dilated kernel, on which runtimes differ.
    #[error("`auto_pad` SAME with dilations has no agreed meaning")]
    DilatedSame,
    /// `SAME` padding of a pooling that skips rows and so would need less than none.
    #[error("`auto_pad` SAME of a pooling that skips rows or columns has no agreed meaning")]
    SkippingSame,
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
    skipping_same: SkippingSame,
}

/// What happens where `SAME` would need negative padding. ONNX Runtime takes it for none in
/// convolutions; in poolings it refuses or shifts the window, other runtimes do not.
#[derive(Clone, Copy, PartialEq)]
enum SkippingSame {
    NoPadding,
    Refused,
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
            skipping_same: SkippingSame::NoPadding,
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
            skipping_same: SkippingSame::Refused,
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
        let is_same = matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        if is_same && taps > 0 && dilation > 1 {
            return Err(WindowError::DilatedSame);
        }
        let [before, after] = match self.auto_pad {
            AutoPad::NotSet => stated,
            AutoPad::Valid => [0, 0],
            AutoPad::SameUpper => {
                let needed = self.same_padding(input, span, stride)?;
                [needed / 2, needed - needed / 2]
            }
            AutoPad::SameLower => {
                let needed = self.same_padding(input, span, stride)?;
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

    /// The padding with which the output is the input divided by the stride, rounded up.
    fn same_padding(&self, input: usize, span: usize, stride: usize) -> Result<usize, WindowError> {
        let last = input.div_ceil(stride).saturating_sub(1) * stride;
        let reached = last.checked_add(span).ok_or(WindowError::Overflow)?;
        if reached < input && self.skipping_same == SkippingSame::Refused {
            return Err(WindowError::SkippingSame);
        }
        Ok(reached.saturating_sub(input))
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
        if self.input == 0 {
            return Err(WindowError::NoInput);
        }
        if self.span > padded {
            return Err(WindowError::TooLarge {
                window: self.span,
                padded,
            });
        }
        if padded > MAX_PADDED {
            return Err(WindowError::Padded(padded));
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

fn nonzero(value: usize, what: &'static str) -> Result<usize, WindowError> {
    if value == 0 {
        Err(WindowError::Zero(what))
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    /// One row of `tests/fixtures/windows.json`, made by `make_windows.py` with ONNX Runtime.
    struct Case {
        op: String,
        pool: PoolAttrs,
        input: [usize; 2],
        output: Option<usize>,
        sum_of_averages: Option<f64>,
    }

    fn cases() -> Vec<Case> {
        let text = include_str!("../../tests/fixtures/windows.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let case = |row: &serde_json::Value| {
            let number = |column: usize| row[column].as_u64().map(|n| n as usize);
            let at = |column: usize| number(column).unwrap();
            let auto_pad = match row[1].as_str().unwrap() {
                "NOTSET" => AutoPad::NotSet,
                "VALID" => AutoPad::Valid,
                "SAME_UPPER" => AutoPad::SameUpper,
                "SAME_LOWER" => AutoPad::SameLower,
                other => unreachable!("{other}"),
            };
            Case {
                op: row[0].as_str().unwrap().to_owned(),
                pool: PoolAttrs {
                    kernel: [at(4), 1],
                    strides: [at(5), 1],
                    dilations: [at(6), 1],
                    pads: SpatialPads {
                        top: at(7),
                        bottom: at(8),
                        ..SpatialPads::default()
                    },
                    auto_pad,
                    ceil_mode: at(2) == 1,
                    count_include_pad: true,
                },
                input: [at(3), 1],
                output: number(9),
                sum_of_averages: row[10].as_f64(),
            }
        };
        file["rows"].as_array().unwrap().iter().map(case).collect()
    }

    fn conv_of(pool: &PoolAttrs) -> ConvAttrs {
        let PoolAttrs {
            strides,
            dilations,
            pads,
            auto_pad,
            ..
        } = pool.clone();
        ConvAttrs {
            strides,
            pads,
            dilations,
            groups: 1,
            auto_pad,
        }
    }

    #[test]
    fn output_sizes_are_those_of_onnx_runtime() {
        let cases = cases();
        assert!(cases.len() > 3000);
        for Case {
            op,
            pool,
            input,
            output,
            ..
        } in &cases
        {
            let ours = match op.as_str() {
                "Conv" => conv_of(pool).output_size(*input, pool.kernel),
                _ => pool.output_size(*input),
            };
            let context = format!("{op} {pool:?} on {input:?}");
            match (ours, output) {
                (Ok(size), Some(output)) => assert_eq!(size, [*output, 1], "{context}"),
                // ONNX Runtime divides a negative number here and rounds it to 0; the window does
                // not fit, and ONNX's own shape inference refuses it.
                (Err(WindowError::TooLarge { .. }), Some(1)) => assert_ne!(op, "Conv", "{context}"),
                (Err(WindowError::SkippingSame), Some(_)) => {
                    assert!(
                        pool.kernel[0] < pool.strides[0] && op != "Conv",
                        "{context}"
                    );
                }
                (Err(problem), Some(_)) => unreachable!("{context}: {problem}"),
                (Ok(_), None) => unreachable!("{context} is refused by ONNX Runtime"),
                (Err(_), None) => {}
            }
        }
    }

    /// The average of rows that hold 1, 2, 3, ... is the sum of those under the taps, divided by the
    /// number of taps inside the padded image: it fixes on which side the padding lies and that an
    /// overhang does not count.
    #[test]
    fn padding_lies_where_onnx_runtime_puts_it() {
        let mut compared = 0;
        for Case {
            pool,
            input,
            output,
            sum_of_averages,
            ..
        } in &cases()
        {
            let (Some(sum), Some(outputs), Ok(pads)) =
                (sum_of_averages, output, pool.resolved_pads(*input))
            else {
                continue;
            };
            if pool.output_size(*input).is_err() {
                continue;
            }
            let (top, rows) = (pads.top, input[0]);
            let taps = |row: usize| {
                (0..pool.kernel[0]).map(move |tap| row * pool.strides[0] + tap * pool.dilations[0])
            };
            let average = |row: usize| {
                let image: usize = taps(row)
                    .filter(|&tap| (top..top + rows).contains(&tap))
                    .map(|tap| tap - top + 1)
                    .sum();
                let padded = taps(row)
                    .filter(|&tap| tap < top + rows + pads.bottom)
                    .count();
                image as f64 / padded as f64
            };
            let ours: f64 = (0..*outputs).map(average).sum();
            assert!(
                (ours - sum).abs() < 1e-3,
                "{pool:?} on {input:?}: {ours} and {sum}"
            );
            compared += 1;
        }
        assert!(compared > 500);
    }

    #[test]
    fn attributes_that_make_no_window_are_errors() {
        let conv = ConvAttrs::default();
        assert_eq!(
            conv.output_size([5, 5], [0, 1]),
            Err(WindowError::Zero("kernel"))
        );
        let still = ConvAttrs {
            strides: [1, 0],
            ..conv.clone()
        };
        assert_eq!(
            still.output_size([5, 5], [1, 1]),
            Err(WindowError::Zero("stride"))
        );
        let huge = ConvAttrs {
            dilations: [usize::MAX, 1],
            ..conv.clone()
        };
        assert_eq!(huge.output_size([5, 5], [3, 1]), Err(WindowError::Overflow));
        let pads = SpatialPads {
            top: usize::MAX,
            bottom: 1,
            ..SpatialPads::default()
        };
        assert_eq!(
            ConvAttrs {
                pads,
                ..conv.clone()
            }
            .output_size([5, 5], [3, 1]),
            Err(WindowError::Overflow)
        );
        let same = ConvAttrs {
            auto_pad: AutoPad::SameUpper,
            dilations: [2, 2],
            ..conv
        };
        assert_eq!(
            same.output_size([5, 5], [3, 3]),
            Err(WindowError::DilatedSame)
        );
        assert_eq!(same.output_size([5, 5], [1, 1]), Ok([5, 5]));
        assert_eq!(same.output_size([0, 5], [1, 1]), Err(WindowError::NoInput));
    }

    proptest! {
        #[test]
        fn a_convolution_has_one_output_per_position_of_its_window(
            input in 1..20_usize, kernel in 1..5_usize, stride in 1..5_usize, dilation in 1..4_usize,
            before in 0..4_usize, after in 0..4_usize,
        ) {
            let conv = ConvAttrs {
                strides: [1, stride],
                dilations: [1, dilation],
                pads: SpatialPads { left: before, right: after, ..SpatialPads::default() },
                ..ConvAttrs::default()
            };
            let padded = input + before + after;
            let last_tap = |start: usize| start + (kernel - 1) * dilation;
            let positions = (0..padded).step_by(stride).filter(|&start| last_tap(start) < padded).count();
            match conv.output_size([1, input], [1, kernel]) {
                Ok(size) => prop_assert_eq!(size, [1, positions]),
                Err(_) => prop_assert_eq!(positions, 0),
            }
        }

        #[test]
        fn the_overhang_ends_with_the_last_window(
            input in 1..20_usize, kernel in 1..5_usize, stride in 1..5_usize, dilation in 1..3_usize,
            before in 0..3_usize, after in 0..3_usize,
        ) {
            let pool = PoolAttrs {
                kernel: [kernel, 1],
                strides: [stride, 1],
                dilations: [dilation, 1],
                pads: SpatialPads { top: before, bottom: after, ..SpatialPads::default() },
                auto_pad: AutoPad::NotSet,
                ceil_mode: true,
                count_include_pad: false,
            };
            let Ok([outputs, _]) = pool.output_size([input, 1]) else { return Ok(()) };
            let last_tap = (outputs - 1) * stride + (kernel - 1) * dilation;
            let beyond = (0..=last_tap).filter(|&row| row >= input + before + after).count();
            prop_assert_eq!(pool.overhang([input, 1]).unwrap(), [beyond, 0]);
        }

        #[test]
        fn no_window_of_any_numbers_panics(numbers: [usize; 6], ceil_mode: bool) {
            let [input, kernel, stride, dilation, top, bottom] = numbers;
            let modes = [AutoPad::NotSet, AutoPad::Valid, AutoPad::SameUpper, AutoPad::SameLower];
            for auto_pad in modes {
                let pool = PoolAttrs {
                    kernel: [kernel, 1],
                    strides: [stride, 1],
                    dilations: [dilation, 1],
                    pads: SpatialPads { top, bottom, ..SpatialPads::default() },
                    auto_pad,
                    ceil_mode,
                    count_include_pad: false,
                };
                let size = pool.output_size([input, 1]);
                prop_assert!(size.is_err() || pool.overhang([input, 1]).is_ok());
                prop_assert!(size.is_err() || pool.resolved_pads([input, 1]).is_ok());
            }
        }
    }

    #[test]
    fn padding_that_no_memory_holds_is_refused() {
        let conv = |pad: usize| {
            let attrs = ConvAttrs {
                pads: SpatialPads {
                    top: pad,
                    ..SpatialPads::default()
                },
                ..ConvAttrs::default()
            };
            attrs.output_size([32, 32], [1, 1])
        };
        assert_eq!(conv(MAX_PADDED - 32), Ok([MAX_PADDED, 32]));
        assert_eq!(conv(MAX_PADDED), Err(WindowError::Padded(MAX_PADDED + 32)));
    }
}
