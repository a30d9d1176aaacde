//! Where the taps of a convolution read, and how positions are divided into blocks.

use super::ConvShape;
use crate::tile::TileSize;
use std::ops::Range;

/// Parts into which the work is divided where it is large enough: for the threads of a workstation.
pub(crate) const PARTS: usize = 16;

/// Rows or columns of positions: tap `t` at `position` reads the source at
/// `position * step + offsets[t]`; outside of the source it reads zero.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Length of the source.
    pub source: usize,
    /// Number of positions.
    pub positions: usize,
    pub step: usize,
    pub offsets: Vec<isize>,
}

/// The places of an axis that taps read, divided by remainder of the step: within a phase, the next
/// position's place is the next one.
#[derive(Clone, Debug)]
pub(super) struct Phases {
    /// The source's place at which each phase starts.
    pub starts: Vec<isize>,
    /// Phase of each tap, and its distance from the phase's start.
    pub taps: Vec<(usize, usize)>,
    /// The largest such distance.
    pub reach: usize,
}

impl Axis {
    pub(super) fn phases(&self) -> Phases {
        let origin = self.offsets.iter().copied().min().unwrap_or(0);
        let mut phases = Phases {
            starts: Vec::new(),
            taps: Vec::new(),
            reach: 0,
        };
        for offset in &self.offsets {
            let distance = (offset - origin).unsigned_abs();
            let start = origin + (distance % self.step) as isize;
            let known = phases.starts.iter().position(|&known| known == start);
            let phase = known.unwrap_or_else(|| {
                phases.starts.push(start);
                phases.starts.len() - 1
            });
            phases.taps.push((phase, distance / self.step));
            phases.reach = phases.reach.max(distance / self.step);
        }
        phases
    }
}

/// A correlation of a source with a kernel: `target[m][position] = sum over channels and taps of
/// weight[m][channel][tap] * source[channel][place of the tap at the position]`.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    pub images: usize,
    pub groups: usize,
    /// Channels of a group in the source.
    pub channels: usize,
    /// Channels of a group in the target.
    pub outputs: usize,
    /// Rows, columns.
    pub axes: [Axis; 2],
    /// Height and width of the target.
    pub target: [usize; 2],
    /// The target's place at the first position, and the distance to the next, on both axes.
    pub target_starts: [usize; 2],
    pub target_steps: [usize; 2],
}

impl Correlation {
    pub(super) fn forward(shape: &ConvShape) -> Self {
        let window = &shape.window;
        let [channels, outputs] = shape.group();
        let axis = |axis: usize| Axis {
            source: shape.input[axis + 1],
            positions: shape.output[axis + 1],
            step: window.strides[axis],
            offsets: (0..window.kernel[axis])
                .map(|tap| (tap * window.dilations[axis]) as isize - window.before[axis] as isize)
                .collect(),
        };
        Self {
            images: shape.images,
            groups: shape.groups,
            channels,
            outputs,
            axes: [axis(0), axis(1)],
            target: [shape.output[1], shape.output[2]],
            target_starts: [0, 0],
            target_steps: [1, 1],
        }
    }

    /// The gradient of those inputs whose row and column have the remainders `phase` of the strides,
    /// with the kernel's rows and columns that reach them.
    pub(super) fn backward(shape: &ConvShape, phase: [usize; 2]) -> (Self, [Vec<usize>; 2]) {
        let window = &shape.window;
        let [outputs, channels] = shape.group();
        // Input `phase + stride * i` is read by tap `t` of output `i + (phase + before - t * dilation)
        // / stride`, where that is whole.
        let axis = |axis: usize| {
            let stride = window.strides[axis];
            let reach = (phase[axis] + window.before[axis]) as isize;
            let taps: Vec<(usize, isize)> = (0..window.kernel[axis])
                .map(|tap| (tap, reach - (tap * window.dilations[axis]) as isize))
                .filter(|(_, distance)| distance % stride as isize == 0)
                .map(|(tap, distance)| (tap, distance / stride as isize))
                .collect();
            let positions = shape.input[axis + 1].saturating_sub(phase[axis]);
            let result = Axis {
                source: shape.output[axis + 1],
                positions: positions.div_ceil(stride),
                step: 1,
                offsets: taps.iter().map(|(_, offset)| *offset).collect(),
            };
            (result, taps.into_iter().map(|(tap, _)| tap).collect())
        };
        let ((rows, row_taps), (columns, column_taps)) = (axis(0), axis(1));
        let correlation = Self {
            images: shape.images,
            groups: shape.groups,
            channels,
            outputs,
            axes: [rows, columns],
            target: [shape.input[1], shape.input[2]],
            target_starts: phase,
            target_steps: window.strides,
        };
        (correlation, [row_taps, column_taps])
    }

    /// Whether each channel of the target has a channel of the source to itself.
    pub(super) fn is_depthwise(&self) -> bool {
        [self.channels, self.outputs] == [1, 1]
    }

    /// Whether positions read the source itself: no padding, no step.
    pub(super) fn is_whole(&self) -> bool {
        self.axes.iter().all(|axis| {
            let phases = axis.phases();
            axis.step == 1
                && phases.starts.first() == Some(&0)
                && axis.positions + phases.reach == axis.source
        })
    }

    pub(super) fn taps(&self) -> usize {
        self.axes[0].offsets.len() * self.axes[1].offsets.len()
    }

    /// Positions of an image.
    pub(super) fn positions(&self) -> usize {
        self.axes[0].positions * self.axes[1].positions
    }

    pub(super) fn source_plane(&self) -> usize {
        self.axes[0].source * self.axes[1].source
    }

    pub(super) fn target_plane(&self) -> usize {
        self.target[0] * self.target[1]
    }

    /// Floats of a source image, of a target image.
    pub(super) fn image_lens(&self) -> [usize; 2] {
        [
            self.groups * self.channels * self.source_plane(),
            self.groups * self.outputs * self.target_plane(),
        ]
    }

    /// The division of the positions into blocks of at most about `most` of them, into `parts` blocks
    /// at least if those are not too small.
    pub(super) fn blocks(&self, most: usize, parts: usize, size: TileSize) -> Blocks {
        let (rows, columns) = (self.axes[0].positions, self.axes[1].positions);
        let total = self.images * self.positions();
        let most = most.min((total / parts).max(4 * size.width));
        // Time of a block in half tiles: a narrow tile takes half the time, a block has some cost.
        let half = (size.width / 2).max(1);
        let best = |unit: usize, n: usize| {
            let cost = |count: usize| match count {
                0 => 0,
                count => (count * unit).div_ceil(half) + 1,
            };
            let candidates = 1..=(most / unit.max(1)).clamp(1, n.max(1));
            candidates
                .rev()
                .min_by_key(|&count| n / count * cost(count) + cost(n % count))
                .unwrap_or(1)
        };
        if rows * columns > most {
            Blocks::Rows(best(columns, rows))
        } else {
            Blocks::Images(best(rows * columns, self.images))
        }
    }
}

/// How positions are divided: into ranges of images, or each image into ranges of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocks {
    Images(usize),
    Rows(usize),
}

/// Positions of some images in some rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub images: Range<usize>,
    pub rows: Range<usize>,
}

impl Blocks {
    pub(super) fn list(self, correlation: &Correlation) -> Vec<Block> {
        let (images, rows) = (correlation.images, correlation.axes[0].positions);
        match self {
            Self::Images(count) => ranges(images, count)
                .map(|images| Block {
                    images,
                    rows: 0..rows,
                })
                .collect(),
            Self::Rows(count) => (0..images)
                .flat_map(|image| {
                    ranges(rows, count).map(move |rows| Block {
                        images: image..image + 1,
                        rows,
                    })
                })
                .collect(),
        }
    }
}

/// Ranges of `count` that cover `0..n`; the last one may be shorter.
pub(crate) fn ranges(n: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n)
        .step_by(count.max(1))
        .map(move |first| first..(first + count).min(n))
}

/// As few ranges of at most `most` as cover `0..n`, of equal length but for one.
pub(crate) fn shares(n: usize, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = n.div_ceil(most.max(1));
    (0..count).map(move |share| share * n / count..(share + 1) * n / count)
}
