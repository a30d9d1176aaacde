//! The sums from which the gradient of a weight is put together.

use crate::bundle::block::Turned;
use crate::bundle::geometry::Correlation;
use crate::conv::geometry::{ranges, shares};
use crate::elementwise;
use crate::tile::TileSize;
use rayon::prelude::*;
use std::ops::Range;

/// Parts into which the work is divided where there is enough of it.
const PARTS: usize = 8;
/// Floats of the sums of all shares of positions.
const SUMS: usize = 1 << 20;
/// Tiles of rows that a part has at least: each part turns an operand anew.
const TILES: usize = 4;

/// Images times positions of a block: few enough for a core's own cache, enough to be worth the sums' way to memory, and,
/// where a kernel reads beyond them, what it reads there.
pub(super) fn block_size(c: &Correlation) -> usize {
    if c.taps() == 1 { 512 } else { 1024 }
}

/// Sums of products, `[share of positions][group][some rows][panel of columns][tap][row][column]`. Columns are the channels
/// of a group in the operand that is turned, rows those in the other one; a panel fills registers.
#[derive(Clone, Debug)]
pub(in crate::bundle) struct Sums<'c> {
    c: &'c Correlation,
    turned: Turned,
    /// Sums of each weight, and blocks of positions.
    taps: usize,
    blocks: usize,
    rows: usize,
    panels: Vec<Range<usize>>,
    /// Floats of a row, over all panels.
    width: usize,
    /// Rows of a part.
    own_rows: usize,
    /// Shares into which the blocks of positions are divided.
    shares: usize,
}

/// Sums of some rows of a group over some blocks of positions.
pub(in crate::bundle) struct Part<'a> {
    pub group: usize,
    pub rows: Range<usize>,
    /// The rows of tiles, counted from the part's first one on.
    pub shares: Vec<Range<usize>>,
    pub blocks: Range<usize>,
    pub floats: &'a mut [f32],
}

impl<'c> Sums<'c> {
    pub fn new(c: &'c Correlation, turned: Turned, taps: usize, blocks: usize) -> Self {
        let (rows, columns) = match turned {
            Turned::Input => (c.outputs, c.channels),
            Turned::Output => (c.channels, c.outputs),
        };
        let size = TileSize::get();
        let panels: Vec<Range<usize>> = ranges(columns, size.width).collect();
        let widths = panels.iter().map(|panel| size.width_for(panel.len()));
        let width: usize = widths.sum();
        let len = c.groups * rows * taps * width;
        let most = (SUMS / len.max(1)).min(blocks);
        let count = most.clamp(1, PARTS);
        let tiles = rows.div_ceil(size.rows);
        let own_tiles = tiles.div_ceil(PARTS.div_ceil(count * c.groups)).max(TILES);
        Self {
            c,
            turned,
            taps,
            blocks,
            rows,
            panels,
            width,
            own_rows: own_tiles * size.rows,
            shares: count,
        }
    }

    /// Floats of all sums.
    pub fn len(&self) -> usize {
        self.shares * self.share_len()
    }

    fn share_len(&self) -> usize {
        self.c.groups * self.rows * self.row_len()
    }

    fn row_len(&self) -> usize {
        self.taps * self.width
    }

    /// Columns whose sums stand together.
    pub fn panels(&self) -> &[Range<usize>] {
        &self.panels
    }

    /// The parts of the work, and `floats` divided among them.
    pub fn parts<'a>(&self, floats: &'a mut [f32]) -> Vec<Part<'a>> {
        let blocks = self.blocks;
        let mut parts = Vec::new();
        let mut rest = floats;
        for share in 0..self.shares {
            let blocks = share * blocks / self.shares..(share + 1) * blocks / self.shares;
            for group in 0..self.c.groups {
                for rows in ranges(self.rows, self.own_rows) {
                    let (floats, after) = rest.split_at_mut(rows.len() * self.row_len());
                    rest = after;
                    parts.push(Part {
                        group,
                        shares: shares(rows.len(), TileSize::get().rows).collect(),
                        rows,
                        blocks: blocks.clone(),
                        floats,
                    });
                }
            }
        }
        parts
    }

    /// Those of all shares together.
    pub fn total<'a>(&self, floats: &'a mut [f32]) -> &'a mut [f32] {
        let (sums, others) = floats.split_at_mut(self.share_len());
        for other in others.chunks_exact(self.share_len()) {
            elementwise::accumulate(sums, other);
        }
        sums
    }

    /// The total divided into what is `[tap][number]`.
    pub fn by_taps<'a>(&self, total: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let mut all = Vec::new();
        let mut rest = total;
        for _ in 0..self.c.groups {
            for rows in ranges(self.rows, self.own_rows) {
                for panel in &self.panels {
                    let len = self.taps * rows.len() * TileSize::get().width_for(panel.len());
                    let (own, after) = rest.split_at_mut(len);
                    rest = after;
                    all.push(own);
                }
            }
        }
        all
    }

    /// Writes `dw`, `[output, channel, tap]`, from the total.
    pub fn write(&self, sums: &[f32], dw: &mut [f32]) {
        let c = self.c;
        let of_group = self.rows * self.row_len();
        dw.par_chunks_mut(c.channels * c.taps())
            .with_min_len(8)
            .enumerate()
            .for_each(|(output, dw)| {
                let (group, output) = (output / c.outputs, output % c.outputs);
                let sums = &sums[group * of_group..][..of_group];
                match self.turned {
                    Turned::Input => self.write_row(sums, output, dw),
                    Turned::Output => self.write_column(sums, output, dw),
                }
            });
    }

    /// The sums of the rows of a part, in `sums` of a group: from each panel's start on `[tap][row][column]`.
    fn rows<'s>(&self, sums: &'s [f32], part: usize) -> (Range<usize>, &'s [f32]) {
        let first = part * self.own_rows;
        let rows = first..(first + self.own_rows).min(self.rows);
        (
            rows.clone(),
            &sums[first * self.row_len()..][..rows.len() * self.row_len()],
        )
    }

    fn write_row(&self, sums: &[f32], row: usize, dw: &mut [f32]) {
        let taps = self.c.taps();
        let (rows, mut sums) = self.rows(sums, row / self.own_rows);
        for panel in &self.panels {
            let width = TileSize::get().width_for(panel.len());
            let (own, rest) = sums.split_at(self.taps * rows.len() * width);
            sums = rest;
            for tap in 0..taps {
                let own = &own[(tap * rows.len() + row - rows.start) * width..][..panel.len()];
                let dw = dw[panel.start * taps + tap..].iter_mut().step_by(taps);
                for (dw, sum) in dw.zip(own) {
                    *dw = *sum;
                }
            }
        }
    }

    fn write_column(&self, sums: &[f32], column: usize, dw: &mut [f32]) {
        let taps = self.c.taps();
        let size = TileSize::get();
        let Some(panel) = self.panels.iter().find(|panel| panel.contains(&column)) else {
            return; // Cannot happen: panels hold all columns.
        };
        let width = size.width_for(panel.len());
        // Panels before this one are as wide as their columns are many.
        for part in 0..self.rows.div_ceil(self.own_rows) {
            let (rows, sums) = self.rows(sums, part);
            let sums = &sums[self.taps * rows.len() * panel.start + column - panel.start..];
            for tap in 0..taps {
                let own = sums[tap * rows.len() * width..].iter().step_by(width);
                let dw = dw[rows.start * taps + tap..].iter_mut().step_by(taps);
                for (dw, sum) in dw.zip(own).take(rows.len()) {
                    *dw = *sum;
                }
            }
        }
    }
}
