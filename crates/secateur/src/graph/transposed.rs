//! The geometry of `ConvTranspose`.

use super::op::{AutoPad, SpatialPads};

/// Attributes of a two-dimensional transposed convolution. Pairs are `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTransposeAttrs {
    /// Distance between the places at which the kernel is added.
    pub strides: [usize; 2],
    /// What is cut off; ignored where `auto_pad` or `output_shape` says.
    pub pads: SpatialPads,
    /// Spacing of kernel taps.
    pub dilations: [usize; 2],
    /// Number of groups.
    pub groups: usize,
    /// How the cut is chosen.
    pub auto_pad: AutoPad,
    /// Rows and columns added at the end.
    pub output_padding: [usize; 2],
    /// The size of the output, which chooses the cut.
    pub output_shape: Option<[usize; 2]>,
}

/// One spatial axis of a transposed convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length of what the kernels cover together.
    pub full: usize,
    /// Elements of it cut off at the beginning.
    pub before: usize,
    /// Length of the output, which may end after `full`.
    pub output: usize,
}

/// Longer axes are taken for a damaged file.
const MAX_LENGTH: usize = 1 << 31;

impl ConvTransposeAttrs {
    /// Both axes for an input and a kernel of `[height, width]`.
    ///
    /// # Errors
    /// A phrase that says which axis is empty, too long or cut off whole.
    pub fn extents(&self, input: [usize; 2], kernel: [usize; 2]) -> Result<[Extent; 2], String> {
        Ok([
            self.extent(0, input[0], kernel[0])?,
            self.extent(1, input[1], kernel[1])?,
        ])
    }

    fn extent(&self, axis: usize, input: usize, kernel: usize) -> Result<Extent, String> {
        let (stride, dilation) = (self.strides[axis], self.dilations[axis]);
        if input == 0 || kernel == 0 || stride == 0 || dilation == 0 {
            return Err(format!(
                "an input of {input}, a kernel of {kernel}, stride {stride} and dilation {dilation} give no output"
            ));
        }
        let full = (input - 1)
            .checked_mul(stride)
            .zip((kernel - 1).checked_mul(dilation))
            .and_then(|(places, span)| places.checked_add(span)?.checked_add(1))
            .filter(|&full| full <= MAX_LENGTH)
            .ok_or_else(|| format!("an input of {input} becomes too long"))?;
        let added = full + self.output_padding[axis].min(MAX_LENGTH);
        let [before, after] = match axis {
            0 => [self.pads.top, self.pads.bottom],
            _ => [self.pads.left, self.pads.right],
        };
        let chosen = match (self.output_shape, self.auto_pad) {
            (Some(shape), _) => Some(shape[axis]),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => input.checked_mul(stride),
            (None, AutoPad::NotSet | AutoPad::Valid) => None,
        };
        let (before, output) = match chosen {
            Some(output) => {
                let cut = added.saturating_sub(output);
                let before = match self.auto_pad {
                    AutoPad::SameUpper => cut / 2,
                    AutoPad::SameLower | AutoPad::NotSet | AutoPad::Valid => cut - cut / 2,
                };
                (before, output)
            }
            None if self.auto_pad == AutoPad::Valid => (0, added),
            None => {
                let cut = before.saturating_add(after);
                (before, added.saturating_sub(cut))
            }
        };
        if output == 0 || output > MAX_LENGTH || before >= full {
            return Err(format!(
                "of {full} rows or columns {before} are cut off at the beginning and {output} are left"
            ));
        }
        Ok(Extent {
            full,
            before,
            output,
        })
    }
}
