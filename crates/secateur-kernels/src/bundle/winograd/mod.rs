//! 3x3 kernels by Winograd's minimal filtering: patches of 2x2 outputs are 16 products in the place of 36.

mod correlate;
mod gradient;
mod transforms;

use super::geometry::Correlation;
pub(super) use correlate::correlate;
pub(super) use gradient::gradient;
use transforms::{CORNERS, ELEMENTS};

/// Channels and outputs for which the products outweigh the transforms.
const CHANNELS: usize = 32;

/// Transformed weights at most.
const LARGEST: usize = 1 << 24;
/// So many times fewer products outweigh the transforms, in tenths.
const FEWER: usize = 15;
/// The same for the gradient of the weight, whose sums and inputs do not stay in the cache as long.
const FEWER_OF_GRADIENT: usize = 17;

/// Whether fewer products outweigh the transforms.
pub(super) fn is_faster(correlation: &Correlation) -> bool {
    saves(correlation, FEWER)
}

/// Whether they do for the gradient of the weight.
pub(super) fn gradient_is_faster(correlation: &Correlation) -> bool {
    saves(correlation, FEWER_OF_GRADIENT)
}

fn saves(correlation: &Correlation, tenths: usize) -> bool {
    let products = ELEMENTS * Patches::rows(correlation) * Patches::columns(correlation);
    let weights = correlation.groups * correlation.channels * correlation.outputs * ELEMENTS;
    correlation.starts_of_3x3().is_some()
        && weights <= LARGEST
        && correlation.taps_in_use().iter().all(|used| *used)
        && correlation.channels.min(correlation.outputs) >= CHANNELS
        && 10 * correlation.reads() >= tenths * products
}

/// The patches of a bundle, row by row.
struct Patches {
    /// Where the inputs of the first one start.
    starts: [isize; 2],
    /// Patches of a row.
    columns: usize,
    count: usize,
}

impl Patches {
    fn rows(correlation: &Correlation) -> usize {
        correlation.target[0].div_ceil(2)
    }

    fn columns(correlation: &Correlation) -> usize {
        correlation.target[1].div_ceil(2)
    }

    fn new(correlation: &Correlation) -> Self {
        let columns = Self::columns(correlation);
        Self {
            starts: correlation.starts_of_3x3().unwrap_or_default(),
            columns,
            count: Self::rows(correlation) * columns,
        }
    }

    /// The positions that a patch is made of: none beyond the target.
    fn positions(&self, correlation: &Correlation, patch: usize) -> [Option<usize>; CORNERS] {
        let [y, x] = [patch / self.columns, patch % self.columns];
        let [rows, columns] = correlation.target;
        std::array::from_fn(|corner| {
            let [y, x] = [2 * y + corner / 2, 2 * x + corner % 2];
            (y < rows && x < columns).then_some(y * columns + x)
        })
    }

    /// The patch that a position belongs to, and which of its outputs it is.
    fn of(&self, correlation: &Correlation, position: usize) -> (usize, usize) {
        let [y, x] = [
            position / correlation.target[1],
            position % correlation.target[1],
        ];
        (y / 2 * self.columns + x / 2, y % 2 * 2 + x % 2)
    }

    /// The places that a patch reads: none where that is padding.
    fn places(&self, correlation: &Correlation, patch: usize) -> [Option<usize>; ELEMENTS] {
        let [y, x] = [patch / self.columns, patch % self.columns];
        let place = |axis: usize, first: usize, step: usize| {
            let place = self.starts[axis].checked_add_unsigned(2 * first + step)?;
            usize::try_from(place)
                .ok()
                .filter(|place| *place < correlation.source[axis])
        };
        std::array::from_fn(|element| {
            Some(place(0, y, element / 4)? * correlation.source[1] + place(1, x, element % 4)?)
        })
    }
}
