//! Operands in the order in which the microkernel reads them.

use super::geometry::{Correlation, ranges, shares};
use super::stage::{Run, Stage};
use crate::tile::TileSize;
use crate::transpose::transpose;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a product that stay in the first-level cache.
const DEPTH: usize = 288;

/// The weights of a correlation: for each group, range of channels and panel of outputs, one row of
/// the panel's outputs for each channel and tap.
pub(super) struct Weights<'a> {
    pub packed: &'a [f32],
    pub plan: &'a WeightPlan,
}

/// Where the parts of packed weights are.
pub(super) struct WeightPlan {
    groups: usize,
    taps: usize,
    channels: usize,
    outputs: usize,
    /// Ranges of channels.
    pub depths: Vec<Range<usize>>,
    /// Ranges of outputs.
    pub panels: Vec<Range<usize>>,
}

/// How a kernel is stored.
pub(super) enum Kernel<'a> {
    /// `[output, channel, tap]`, all taps.
    Forward(&'a [f32]),
    /// `[channel, output, tap]`, with `n_taps` of which some take part.
    Backward {
        w: &'a [f32],
        n_taps: usize,
        taps: Vec<usize>,
    },
}

impl WeightPlan {
    pub(super) fn new(correlation: &Correlation, size: TileSize) -> Self {
        let taps = correlation.taps();
        Self {
            groups: correlation.groups,
            taps,
            channels: correlation.channels,
            outputs: correlation.outputs,
            depths: shares(correlation.channels, (DEPTH / taps.max(1)).max(1)).collect(),
            panels: shares(correlation.outputs, size.rows).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.groups * self.outputs * self.channels * self.taps
    }

    /// Rows of a product.
    pub(super) fn depth(&self, depth: usize) -> usize {
        self.depths[depth].len() * self.taps
    }

    /// Outputs of some panels.
    pub(super) fn outputs(&self, panels: &Range<usize>) -> Range<usize> {
        self.panels[panels.start].start..self.panels[panels.end - 1].end
    }

    fn panel(&self, group: usize, depth: usize, panel: usize) -> Range<usize> {
        let group = group * self.outputs * self.channels * self.taps;
        let before = group + self.outputs * self.depths[depth].start * self.taps;
        let rows = self.depth(depth);
        let Range { start, end } = self.panels[panel];
        before + start * rows..before + end * rows
    }

    /// Fills `packed`, which has [`WeightPlan::len`] floats.
    pub(super) fn pack(&self, kernel: &Kernel<'_>, packed: &mut [f32]) {
        let mut parts = Vec::with_capacity(self.groups * self.depths.len() * self.panels.len());
        let mut rest = packed;
        for group in 0..self.groups {
            for depth in 0..self.depths.len() {
                for panel in 0..self.panels.len() {
                    let (part, after) = rest.split_at_mut(self.panel(group, depth, panel).len());
                    parts.push((group, depth, panel, part));
                    rest = after;
                }
            }
        }
        parts
            .into_par_iter()
            .with_min_len(4)
            .for_each(|(group, depth, panel, part)| {
                let (channels, outputs) = (&self.depths[depth], &self.panels[panel]);
                self.pack_panel(kernel, group, channels.clone(), outputs.clone(), part);
            });
    }

    fn pack_panel(
        &self,
        kernel: &Kernel<'_>,
        group: usize,
        channels: Range<usize>,
        outputs: Range<usize>,
        part: &mut [f32],
    ) {
        match kernel {
            Kernel::Forward(w) => {
                let patch = self.channels * self.taps;
                let first = (group * self.outputs + outputs.start) * patch;
                let w = &w[first + channels.start * self.taps..];
                let len = channels.len() * self.taps;
                transpose(w, patch, outputs.len(), len, part, outputs.len());
            }
            Kernel::Backward { w, n_taps, taps } => {
                let mut rows = part.chunks_exact_mut(outputs.len());
                for channel in channels {
                    let first = (group * self.channels + channel) * self.outputs + outputs.start;
                    let w = &w[first * n_taps..][..outputs.len() * n_taps];
                    for (&tap, row) in taps.iter().zip(&mut rows) {
                        for (value, w) in row.iter_mut().zip(w[tap..].iter().step_by(*n_taps)) {
                            *value = *w;
                        }
                    }
                }
            }
        }
    }
}

impl<'a> Weights<'a> {
    pub(super) fn panel(&self, group: usize, depth: usize, panel: usize) -> &'a [f32] {
        &self.packed[self.plan.panel(group, depth, panel)]
    }
}

/// Floats by which copies may run over the end of a tile.
const SPILL: usize = 16;

/// Where the tiles of a block's patches are. A tile has a row for each channel and tap.
pub(super) struct Tiles {
    width: usize,
    /// Floats from tile to tile.
    stride: usize,
    /// Widths of the tiles, and their numbers of positions.
    list: Vec<(usize, usize)>,
}

impl Tiles {
    /// Tiles for `n` positions and at most `depth` rows.
    pub(super) fn new(n: usize, depth: usize, size: TileSize) -> Self {
        let widths = ranges(n, size.width).map(|tile| (size.width_for(tile.len()), tile.len()));
        Self {
            width: size.width,
            stride: depth * size.width + SPILL,
            list: widths.collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len() * self.stride
    }

    /// First float and width of each tile.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        let starts = (0..).step_by(self.stride);
        starts.zip(self.list.iter().map(|(width, _)| *width))
    }

    /// Divides runs of positions among the tiles. Places of neighbours are `step` apart.
    pub(super) fn pieces(&self, runs: &[Run], step: usize) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(runs.len() + self.list.len());
        for run in runs {
            let mut done = 0;
            while done < run.len {
                let position = run.position + done;
                let (tile, column) = (position / self.width, position % self.width);
                let (width, positions) = self.list[tile];
                let len = (positions - column).min(run.len - done);
                pieces.push(Piece {
                    tile,
                    column,
                    width,
                    place: run.place + done * step,
                    len,
                });
                done += len;
            }
        }
        pieces
    }
}

/// Positions of one tile that read consecutive places.
pub(super) struct Piece {
    pub tile: usize,
    pub column: usize,
    /// Width of the tile.
    pub width: usize,
    pub place: usize,
    pub len: usize,
}

/// Writes what positions read to their tiles. `planes` starts at the first of `channels` channels.
#[inline(always)]
pub(super) fn patches(
    stage: &Stage,
    planes: &[f32],
    channels: usize,
    tiles: &Tiles,
    pieces: &[Piece],
    patches: &mut [f32],
) {
    let longest = pieces.iter().map(|piece| piece.len).max().unwrap_or(0);
    match longest {
        0..=4 => copy::<4>(stage, planes, channels, tiles, pieces, patches),
        5..=8 => copy::<8>(stage, planes, channels, tiles, pieces, patches),
        _ => copy::<16>(stage, planes, channels, tiles, pieces, patches),
    }
}

/// Copies `N` floats at a time. What this writes beyond a piece, the next copies overwrite.
#[inline(always)]
fn copy<const N: usize>(
    stage: &Stage,
    planes: &[f32],
    channels: usize,
    tiles: &Tiles,
    pieces: &[Piece],
    patches: &mut [f32],
) {
    let mut row = 0;
    for channel in 0..channels {
        for tap in &stage.taps {
            let planes = &planes[channel * stage.channel + tap..];
            for piece in pieces {
                let start = piece.tile * tiles.stride + row * piece.width + piece.column;
                for done in (0..piece.len).step_by(N) {
                    let target = &mut patches[start + done..][..N];
                    let source = &planes[piece.place + done..];
                    match source.first_chunk::<N>() {
                        Some(source) => target.copy_from_slice(source),
                        None => copy_last(source, target),
                    }
                }
            }
            row += 1;
        }
    }
}

/// Copies less than a whole piece, at the end of the source.
#[cold]
#[inline(never)]
fn copy_last(source: &[f32], target: &mut [f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target = *source;
    }
}
