//! The gradient of the weight of a convolution: a matrix product over positions and images. Rows of a tile
//! are input channels, its columns are output channels, for which the gradient of the output is turned.

use super::geometry::{Correlation, Pair};
use super::product::Product;
use crate::conv::geometry::{ranges, shares};
use crate::elementwise;
use crate::layout::BUNDLE;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{InRegisters, TileSize};
use crate::transpose::transpose;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Positions of a block.
const POINTS: usize = 12;
/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Floats of all parts' sums where positions are divided.
const SUMS: usize = 1 << 20;
/// Outputs whose sums are brought into order together.
const OUTPUTS: usize = 16;

/// Writes all of `dw`, for a correlation from the input to the output.
pub(super) fn gradient(correlation: &Correlation, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let plan = Plan::new(correlation);
    let points = correlation.bundles * correlation.positions();
    with_shared(points * plan.point, |turned| {
        with_shared(plan.shares * plan.sums_len(), |sums| {
            plan.turn(dy, turned);
            plan.divide(sums).into_par_iter().for_each(|part| {
                with_scratch(|scratch| {
                    level::dispatch(Work {
                        plan: &plan,
                        x,
                        dy: turned,
                        part,
                        scratch,
                    });
                });
            });
            plan.collect(sums, dw);
        });
    });
}

struct Plan<'a> {
    correlation: &'a Correlation,
    size: TileSize,
    /// Input channels of a group that are the rows of a tile.
    panels: Vec<Range<usize>>,
    /// Outputs of a group, rounded up to whole tiles.
    columns: usize,
    /// Floats of a position of the turned gradient: `[groups, BUNDLE, columns]`.
    point: usize,
    /// Parts into which positions are divided. Each has sums of its own.
    shares: usize,
    /// Taps that read something else than padding; the others' sums are not gathered.
    taps: Vec<bool>,
}

/// Positions whose values meet a tile before the next ones' turn.
struct Block {
    /// What they read.
    places: Vec<usize>,
    /// For each tap the indices of such places, and the positions that they meet.
    taps: Vec<Vec<Pair>>,
    /// For each place the block that read it last, and its index there.
    seen: Vec<(usize, usize)>,
}

impl Block {
    fn new(correlation: &Correlation) -> Self {
        Self {
            places: Vec::new(),
            taps: vec![Vec::new(); correlation.taps()],
            seen: vec![(usize::MAX, 0); correlation.bundles * correlation.places()],
        }
    }

    /// Becomes block `index`, of those positions of all bundles.
    fn become_next(&mut self, correlation: &Correlation, index: usize, points: Range<usize>) {
        self.places.clear();
        self.taps.iter_mut().for_each(Vec::clear);
        let (positions, places) = (correlation.positions(), correlation.places());
        for place in points {
            let first = place / positions * places;
            for pair in correlation.pairs(place % positions) {
                let source = first + pair.place;
                if self.seen[source].0 != index {
                    self.seen[source] = (index, self.places.len());
                    self.places.push(source);
                }
                let tap = self.seen[source].1;
                self.taps[pair.tap].push(Pair { tap, place });
            }
        }
    }
}

/// Sums of some panels of a group.
struct Part<'a> {
    group: usize,
    panels: Range<usize>,
    /// Which share of the positions.
    share: usize,
    /// For each panel `[taps, rows, columns]`.
    sums: Vec<&'a mut [f32]>,
}

impl<'a> Plan<'a> {
    fn new(correlation: &'a Correlation) -> Self {
        let size = TileSize::get();
        let columns = correlation.outputs.next_multiple_of(size.width / 2);
        let points = correlation.bundles * correlation.positions();
        let sums = correlation.groups * correlation.channels * correlation.taps() * columns;
        Self {
            correlation,
            size,
            panels: shares(correlation.channels, size.rows).collect(),
            columns,
            point: correlation.groups * BUNDLE * columns,
            shares: (SUMS / sums.max(1)).min(points / POINTS).clamp(1, PARTS),
            taps: correlation.taps_in_use(),
        }
    }

    fn sums_len(&self) -> usize {
        let c = self.correlation;
        c.groups * c.channels * c.taps() * self.columns
    }

    /// `[bundle, position, output, image]` becomes `[bundle, position, group, image, column]`.
    fn turn(&self, dy: &[f32], turned: &mut [f32]) {
        let outputs = self.correlation.outputs;
        turned
            .par_chunks_mut(self.point)
            .zip(dy.par_chunks(self.correlation.groups * outputs * BUNDLE))
            .with_min_len(8)
            .for_each(|(turned, dy)| {
                for (turned, dy) in turned
                    .chunks_exact_mut(BUNDLE * self.columns)
                    .zip(dy.chunks_exact(outputs * BUNDLE))
                {
                    transpose(dy, BUNDLE, outputs, BUNDLE, turned, self.columns);
                    for row in turned.chunks_exact_mut(self.columns) {
                        row[outputs..].fill(0.0);
                    }
                }
            });
    }

    fn divide<'s>(&self, sums: &'s mut [f32]) -> Vec<Part<'s>> {
        let c = self.correlation;
        let n_panels = self.panels.len();
        let per_part = (self.shares * c.groups * n_panels / PARTS).clamp(1, n_panels);
        let mut parts = Vec::new();
        let mut rest = sums;
        for share in 0..self.shares {
            for group in 0..c.groups {
                for panels in ranges(n_panels, per_part) {
                    let mut sums = Vec::with_capacity(panels.len());
                    for panel in &self.panels[panels.clone()] {
                        let (own, after) = rest.split_at_mut(c.taps() * panel.len() * self.columns);
                        sums.push(own);
                        rest = after;
                    }
                    parts.push(Part {
                        group,
                        panels,
                        share,
                        sums,
                    });
                }
            }
        }
        parts
    }

    /// `[share, group, panel, tap, row, column]` becomes `[output, channel, tap]`, summed over the shares.
    fn collect(&self, sums: &mut [f32], dw: &mut [f32]) {
        let c = self.correlation;
        let taps = c.taps();
        let patch = c.channels * taps;
        let (first, others) = sums.split_at_mut(self.sums_len());
        for other in others.chunks_exact(self.sums_len()) {
            elementwise::update(first, other, |a, b| a + b);
        }
        for (dw, sums) in dw
            .chunks_exact_mut(c.outputs * patch)
            .zip(first.chunks_exact(patch * self.columns))
        {
            dw.par_chunks_mut(OUTPUTS * patch)
                .enumerate()
                .for_each(|(part, dw)| {
                    with_scratch(|scratch| self.collect_outputs(part * OUTPUTS, sums, dw, scratch));
                });
        }
    }

    /// A few outputs of a group, from `first` on.
    fn collect_outputs(&self, first: usize, sums: &[f32], dw: &mut [f32], scratch: &mut Scratch) {
        let taps = self.correlation.taps();
        let patch = self.correlation.channels * taps;
        let count = dw.len() / patch;
        for panel in &self.panels {
            let rows = panel.len();
            let turned = scratch.planes.floats(count * taps * rows);
            let sums = &sums[panel.start * taps * self.columns + first..];
            transpose(sums, self.columns, taps * rows, count, turned, taps * rows);
            for (dw, turned) in dw
                .chunks_exact_mut(patch)
                .zip(turned.chunks_exact(taps * rows))
            {
                let dw = &mut dw[panel.start * taps..];
                for (tap, turned) in turned.chunks_exact(rows).enumerate() {
                    for (dw, sum) in dw[tap..].iter_mut().step_by(taps).zip(turned) {
                        *dw = if self.taps[tap] { *sum } else { 0.0 };
                    }
                }
            }
        }
    }
}

struct Work<'a> {
    plan: &'a Plan<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let plan = self.plan;
        let c = plan.correlation;
        let dy = &self.dy[self.part.group * BUNDLE * plan.columns..];
        let points = c.bundles * c.positions();
        let share = self.part.share;
        let own = share * points / plan.shares..(share + 1) * points / plan.shares;
        let mut block = Block::new(c);
        for (index, first) in own.clone().step_by(POINTS).enumerate() {
            block.become_next(c, index, first..(first + POINTS).min(own.end));
            for (panel, sums) in plan.panels[self.part.panels.clone()]
                .iter()
                .zip(&mut self.part.sums)
            {
                let rows = panel.len();
                let first = (self.part.group * c.channels + panel.start) * BUNDLE;
                let a = self.scratch.a.floats(block.places.len() * BUNDLE * rows);
                for (a, place) in a.chunks_exact_mut(BUNDLE * rows).zip(&block.places) {
                    let x = &self.x[place * c.groups * c.channels * BUNDLE + first..];
                    transpose(x, BUNDLE, rows, BUNDLE, a, rows);
                }
                let mut column = 0;
                while column < plan.columns {
                    let width = plan.size.width_for(plan.columns - column);
                    let sums = sums.chunks_exact_mut(rows * plan.columns);
                    for ((pairs, sums), _) in block
                        .taps
                        .iter()
                        .zip(sums)
                        .zip(&plan.taps)
                        .filter(|(_, used)| **used)
                    {
                        Product {
                            a,
                            b: &dy[column..],
                            place: plan.point,
                            stride: plan.columns,
                            depth: BUNDLE,
                            pairs,
                            start: None,
                            is_added: index > 0,
                            target: &mut sums[column..],
                            target_stride: plan.columns,
                        }
                        .run(simd, rows, width);
                    }
                    column += width;
                }
            }
        }
    }
}
