//! Which positions are computed together, and where they read.

use crate::amx::{DEPTH, PARTS as OF_FLOAT, SIDE};
use crate::bundle::SMALL;
use crate::bundle::geometry::Correlation;
use crate::conv::geometry::{PARTS, ranges};
use std::cmp::Reverse;
use std::ops::Range;

/// Numbers of 4 bytes of the source that stay in a core's own cache.
const SOURCE: usize = 192 << 10;
/// Steps of a block that are worth the sums' way to memory.
const STEPS: usize = 8;
/// Images times positions of a region at least: all weights meet each region.
const LEAST: usize = 256;

/// Columns of the target that meet the same taps, but for padding: every so many, from the first on.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    first: usize,
    count: usize,
    taps: Vec<Tap>,
}

/// A tap along a row of the kernel, and the column that the first position reads with it. Columns of the source are told by
/// their remainder of the step from position to position, and their index among those of that remainder.
#[derive(Clone, Copy, Debug)]
struct Tap {
    tap: usize,
    remainder: usize,
    index: isize,
}

/// How a correlation is divided.
#[derive(Clone, Debug)]
pub(super) struct Plan<'c> {
    pub c: &'c Correlation,
    phases: Vec<Phase>,
    remainders: Vec<usize>,
    /// Columns from a position of a phase to the next one, in the target and in the source.
    steps: [usize; 2],
    pub regions: Vec<Region>,
    /// Groups of channels that are made ready at a time.
    pub depths: usize,
}

/// Rows of the target, and positions of each phase in them.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// Positions of a row whose images fill a row of a register together, or 16 images of a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub y: usize,
    pub phase: usize,
    /// Positions of the phase: the first one, the end of those of the region, and from one to the next.
    position: usize,
    end: usize,
    beside: usize,
    /// The first image.
    pub image: usize,
}

impl<'c> Plan<'c> {
    pub fn new(c: &'c Correlation) -> Self {
        let steps = [c.phases[1], c.strides[1]];
        let phases: Vec<Phase> = (0..c.phases[1].min(c.target[1]))
            .map(|first| Phase::new(c, first, steps))
            .collect();
        let mut remainders: Vec<usize> = phases
            .iter()
            .flat_map(|phase| &phase.taps)
            .map(|tap| tap.remainder)
            .collect();
        remainders.sort_unstable();
        remainders.dedup();
        let mut plan = Self {
            c,
            phases,
            remainders,
            steps,
            regions: Vec::new(),
            depths: 1,
        };
        plan.divide();
        plan
    }

    /// Positions of a unit.
    pub fn joined(&self) -> usize {
        if self.c.images == SMALL { 2 } else { 1 }
    }

    /// Divides the target into regions that read the least for what they compute, of those that are small enough.
    fn divide(&mut self) {
        let c = self.c;
        let depths = c.channels.div_ceil(DEPTH);
        let counts = self.phases.iter().map(|phase| phase.count);
        let width = counts.max().unwrap_or(1);
        let least = 2 * self.joined();
        let halves = std::iter::successors(Some(width), |columns| {
            let half = columns.div_ceil(2).next_multiple_of(least);
            (half < *columns).then_some(half)
        });
        // Rows of all phases are divided alike.
        let step = c.phases[0];
        let plan = &*self;
        let sizes = halves.flat_map(|columns| {
            let rows = (1..=c.target[0].div_ceil(step)).map(move |count| count * step);
            rows.map_while(move |rows| Some((plan.cost(rows, columns)?, [rows, columns])))
        });
        let best = sizes.min_by_key(|(cost, _)| *cost);
        let [rows, columns] = best.map_or([step, width.min(least)], |(_, size)| size);
        let regions: Vec<Region> = ranges(c.target[0], rows)
            .flat_map(|rows| {
                ranges(width, columns).map(move |columns| Region {
                    rows: rows.clone(),
                    columns,
                })
            })
            .collect();
        let of_depth = regions
            .first()
            .map_or(1, |region| Staged::new(self, region).depth_len());
        self.regions = regions;
        let at_once = (SOURCE / of_depth.max(1)).clamp(1, depths);
        // As many each time.
        self.depths = depths.div_ceil(depths.div_ceil(at_once));
    }

    /// What a region of so many rows, and positions of each phase in them, reads for each position, and how few those are:
    /// `None` where it is too large.
    fn cost(&self, rows: usize, columns: usize) -> Option<(usize, Reverse<usize>)> {
        let c = self.c;
        let region = Region {
            rows: 0..rows.min(c.target[0]),
            columns: 0..columns,
        };
        let used = region.rows.len() * columns * self.phases.len();
        let most = (c.bundles * c.positions()).div_ceil(PARTS);
        let len = Staged::new(self, &region).depth_len();
        let least = STEPS.div_ceil(c.taps()).min(c.channels.div_ceil(DEPTH));
        let is_small = len * least <= SOURCE && used <= most.max(LEAST / c.images);
        is_small.then_some((len * 1000 / used.max(1), Reverse(used)))
    }

    /// Columns of the target that belong to a region.
    pub fn columns(&self, region: &Region) -> Range<usize> {
        let end = (region.columns.end * self.steps[0]).min(self.c.target[1]);
        (region.columns.start * self.steps[0]).min(end)..end
    }

    /// From a position to the one whose images stand beside its own: where they are few, the halves of a region's row stand
    /// side by side, so that rows of registers start at lines of the cache with every tap.
    fn beside(&self, region: &Region) -> usize {
        region.columns.len().div_ceil(self.joined())
    }

    /// The positions of a unit, by their index in the phase.
    fn indices(&self, unit: &Unit) -> impl Iterator<Item = usize> + Clone + use<> {
        (unit.position..unit.end).step_by(unit.beside)
    }

    /// The place in the target of each position of a unit.
    pub fn places(&self, unit: &Unit) -> impl Iterator<Item = [usize; 2]> + Clone + use<> {
        let (step, first, y) = (self.steps[0], self.phases[unit.phase].first, unit.y);
        self.indices(unit)
            .map(move |index| [y, first + index * step])
    }

    /// The units of a region, neighbours one after the other.
    pub fn units(&self, region: &Region) -> Vec<Unit> {
        let c = self.c;
        let beside = self.beside(region);
        let mut units = Vec::new();
        for row in 0..c.phases[0] {
            for phase in 0..self.phases.len() {
                let end = self.phases[phase].count.min(region.columns.end);
                for y in region.rows.clone().filter(|y| y % c.phases[0] == row) {
                    for position in region.columns.start..end.min(region.columns.start + beside) {
                        for image in (0..c.images).step_by(SIDE) {
                            units.push(Unit {
                                y,
                                phase,
                                position,
                                end,
                                beside,
                                image,
                            });
                        }
                    }
                }
            }
        }
        units
    }
}

impl Phase {
    fn new(c: &Correlation, first: usize, [step, of_source]: [usize; 2]) -> Self {
        let positions = (first..c.target[1]).step_by(step);
        let mut taps: Vec<Tap> = Vec::new();
        for (position, x) in positions.clone().enumerate() {
            for (tap, place) in &c.axes[1][x] {
                if taps.iter().all(|known| known.tap != *tap) {
                    let first = place.cast_signed() - (position * of_source).cast_signed();
                    taps.push(Tap {
                        tap: *tap,
                        remainder: first.rem_euclid(of_source.cast_signed()).unsigned_abs(),
                        index: first.div_euclid(of_source.cast_signed()),
                    });
                }
            }
        }
        taps.sort_unstable_by_key(|tap| tap.tap);
        Self {
            first,
            count: positions.len(),
            taps,
        }
    }
}

/// Where the values that a region reads stand: `[channels][row][remainder of the column][part][pair of channels][column][image]`,
/// a number of 4 bytes for each pair of channels. Images of columns that stand beside each other follow each other.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    /// Rows of the source.
    pub rows: Vec<usize>,
    /// For each row of the source its index among those.
    index: Vec<usize>,
    pub remainders: usize,
    /// The index of the first column of each remainder, and how many there are.
    pub first: isize,
    pub columns: usize,
    /// From a column to the one that stands beside it.
    pub beside: usize,
    /// Numbers from a pair of channels to the next one.
    pub row: usize,
    /// Numbers of a column and what stands beside it.
    pub lanes: usize,
}

impl Staged {
    pub fn new(plan: &Plan<'_>, region: &Region) -> Self {
        let c = plan.c;
        let mut rows: Vec<usize> = c.axes[0][region.rows.clone()]
            .iter()
            .flatten()
            .map(|(_, row)| *row)
            .collect();
        rows.sort_unstable();
        rows.dedup();
        let mut index = vec![usize::MAX; c.source[0]];
        for (at, row) in rows.iter().enumerate() {
            index[*row] = at;
        }
        let taps = || plan.phases.iter().flat_map(|phase| &phase.taps);
        let first = taps().map(|tap| tap.index).min().unwrap_or(0);
        let last = taps().map(|tap| tap.index).max().unwrap_or(0);
        let beside = plan.beside(region);
        let columns = beside + (last - first).unsigned_abs();
        let lanes = c.images * plan.joined();
        // Rows stand an odd number of cache lines apart, so that those of a register are in different sets of the cache.
        let lines = (columns * lanes).div_ceil(SIDE) | 1;
        Self {
            rows,
            index,
            remainders: plan.remainders.len(),
            first: first + region.columns.start.cast_signed(),
            columns,
            beside,
            row: lines * SIDE,
            lanes,
        }
    }

    /// Numbers of a row of places and 32 channels.
    pub fn row_len(&self) -> usize {
        OF_FLOAT * SIDE * self.row
    }

    /// Numbers of 32 channels.
    pub fn depth_len(&self) -> usize {
        self.rows.len() * self.remainders * self.row_len()
    }

    /// Numbers of a row of padding and of so many groups of 32 channels.
    pub fn len(&self, depths: usize) -> usize {
        self.row_len() + depths * self.depth_len()
    }

    /// How many times 16 columns of operands a column of the source and what stands beside it make.
    pub fn halves(&self) -> usize {
        self.lanes / SIDE
    }

    /// Sixteen columns of operands, so many times.
    pub fn slots(&self) -> usize {
        self.rows.len() * self.remainders * self.columns * self.halves()
    }

    /// The taps that positions of a unit read, and where.
    pub fn taps<'a>(
        &'a self,
        plan: &'a Plan<'_>,
        unit: &'a Unit,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let c = plan.c;
        let phase = &plan.phases[unit.phase];
        let rows = &c.axes[0][unit.y];
        let positions = plan.indices(unit);
        let reads = move |tap: &&Tap| {
            positions.clone().any(|position| {
                let x = phase.first + position * plan.steps[0];
                c.axes[1][x].iter().any(|(own, _)| *own == tap.tap)
            })
        };
        let columns: Vec<Tap> = phase.taps.iter().filter(reads).copied().collect();
        rows.iter().flat_map(move |(row, place)| {
            let first = self.index[*place] * self.remainders;
            let of_row = *row;
            columns.clone().into_iter().map(move |tap| {
                let remainder = plan.remainders.binary_search(&tap.remainder).unwrap_or(0);
                let slot = tap.index + unit.position.cast_signed() - self.first;
                let at = (first + remainder) * self.row_len()
                    + slot.unsigned_abs() * self.lanes
                    + unit.image;
                (of_row * c.kernel[1] + tap.tap, at)
            })
        })
    }

    /// The column of the source at a slot of a remainder, if it is none of padding.
    pub fn column(&self, plan: &Plan<'_>, remainder: usize, slot: usize) -> Option<usize> {
        let index = self.first.checked_add_unsigned(slot)?;
        let column = usize::try_from(index).ok()? * plan.steps[1] + plan.remainders[remainder];
        (column < plan.c.source[1]).then_some(column)
    }
}
