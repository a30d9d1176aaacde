//! Which taps of a convolution meet which place at each position.

use crate::Window;
use crate::conv::ConvShape;

/// For each place of the target along an axis, the taps that read the source there, and where.
pub(super) type Axis = Vec<Vec<(usize, usize)>>;

/// A correlation of a source with a kernel: `target[position][output] = sum of
/// weight[output][channel][tap] * source[place][channel]` over channels and over the pairs of tap and place
/// of the position. What would read padding is left out.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    /// Images of a bundle.
    pub images: usize,
    pub bundles: usize,
    pub groups: usize,
    /// Channels of a group in the source.
    pub channels: usize,
    /// Channels of a group in the target.
    pub outputs: usize,
    /// Height and width.
    pub source: [usize; 2],
    pub target: [usize; 2],
    pub axes: [Axis; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Along each axis, the distance of positions that meet the same taps, but for padding.
    pub phases: [usize; 2],
    /// Places of the source from a position to the next one that meets the same taps.
    pub strides: [usize; 2],
    /// Where the taps of a position start to read, from it on, if they stand without gaps and positions are neighbours.
    starts: Option<[isize; 2]>,
    /// Whether the last tap is the first to read.
    pub is_turned: bool,
}

/// A tap of the kernel at a place of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub tap: usize,
    pub place: usize,
}

impl Correlation {
    /// The output from the input, in bundles of so many images.
    pub(super) fn forward(bundle: usize, shape: &ConvShape) -> Self {
        let [channels, outputs] = shape.group();
        let [_, input @ ..] = shape.input;
        let [_, output @ ..] = shape.output;
        Self {
            bundles: shape.images / bundle,
            groups: shape.groups,
            channels,
            outputs,
            ..Self::of_window(bundle, &shape.window, input, output)
        }
    }

    /// A window that slides over one channel of one bundle.
    pub(super) fn of_window(
        bundle: usize,
        window: &Window,
        source: [usize; 2],
        target: [usize; 2],
    ) -> Self {
        let axis = |axis: usize| {
            let read = |position: usize, tap: usize| {
                let place = position * window.strides[axis] + tap * window.dilations[axis];
                let place = place.checked_sub(window.before[axis])?;
                (place < source[axis]).then_some((tap, place))
            };
            (0..target[axis])
                .map(|position| {
                    (0..window.kernel[axis])
                        .filter_map(|tap| read(position, tap))
                        .collect()
                })
                .collect()
        };
        Self {
            images: bundle,
            bundles: 1,
            groups: 1,
            channels: 1,
            outputs: 1,
            source,
            target,
            axes: [axis(0), axis(1)],
            kernel: window.kernel,
            phases: [1; 2],
            strides: window.strides,
            starts: (window.strides == [1; 2] && window.dilations == [1; 2])
                .then(|| window.before.map(|before| -before.cast_signed())),
            is_turned: false,
        }
    }

    /// The gradient of the input from the gradient of the output.
    pub(super) fn turned(self) -> Self {
        let axes = [0, 1].map(|axis| {
            let mut turned: Axis = vec![Vec::new(); self.source[axis]];
            for (position, pairs) in self.axes[axis].iter().enumerate() {
                for (tap, place) in pairs {
                    turned[*place].push((*tap, position));
                }
            }
            turned
        });
        Self {
            channels: self.outputs,
            outputs: self.channels,
            source: self.target,
            target: self.source,
            axes,
            phases: self.strides,
            strides: [1; 2],
            starts: self.starts.map(|starts| {
                [0, 1].map(|axis| 1 - self.kernel[axis].cast_signed() - starts[axis])
            }),
            is_turned: true,
            ..self
        }
    }

    /// Where the taps of the first position start to read, if those are 3x3 without gaps and positions are neighbours.
    pub(super) fn starts_of_3x3(&self) -> Option<[isize; 2]> {
        self.starts.filter(|_| self.kernel == [3; 2])
    }

    /// Taps that read no padding, of all positions together.
    pub(super) fn reads(&self) -> usize {
        let [rows, columns] = self
            .axes
            .each_ref()
            .map(|axis| axis.iter().map(Vec::len).sum::<usize>());
        rows * columns
    }

    /// Taps of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Which taps read the source at any position.
    pub(super) fn taps_in_use(&self) -> Vec<bool> {
        let [rows, columns] = [0, 1].map(|axis| {
            let mut used = vec![false; self.kernel[axis]];
            for (tap, _) in self.axes[axis].iter().flatten() {
                used[*tap] = true;
            }
            used
        });
        let row = |row: bool| columns.iter().map(move |column| row && *column);
        rows.iter().flat_map(|used| row(*used)).collect()
    }

    /// Places of the target.
    pub(super) fn positions(&self) -> usize {
        self.target[0] * self.target[1]
    }

    /// Places of the source.
    pub(super) fn places(&self) -> usize {
        self.source[0] * self.source[1]
    }

    /// Which of the positions that meet the same taps, but for padding, a position belongs to.
    pub(super) fn phase(&self, position: usize) -> [usize; 2] {
        let [y, x] = [position / self.target[1], position % self.target[1]];
        [y % self.phases[0], x % self.phases[1]]
    }

    /// What a position of the target reads.
    pub(super) fn pairs(&self, position: usize) -> Pairs<'_> {
        let [y, x] = [position / self.target[1], position % self.target[1]];
        Pairs {
            rows: &self.axes[0][y],
            columns: &self.axes[1][x],
            next: (0, 0),
            taps: self.kernel[1],
            places: self.source[1],
        }
    }
}

/// The taps at a position and the places where they read, which are not kept for all positions: a window may be as
/// large as the plane.
#[derive(Clone, Debug)]
pub(super) struct Pairs<'a> {
    rows: &'a [(usize, usize)],
    columns: &'a [(usize, usize)],
    next: (usize, usize),
    /// Taps, and places of the source, of a row.
    taps: usize,
    places: usize,
}

impl Iterator for Pairs<'_> {
    type Item = Pair;

    #[inline(always)]
    fn next(&mut self) -> Option<Pair> {
        let (row, column) = self.next;
        let (tap_x, x) = *self.columns.get(column)?;
        let (tap_y, y) = *self.rows.get(row)?;
        self.next = if column + 1 < self.columns.len() {
            (row, column + 1)
        } else {
            (row + 1, 0)
        };
        Some(Pair {
            tap: tap_y * self.taps + tap_x,
            place: y * self.places + x,
        })
    }
}
