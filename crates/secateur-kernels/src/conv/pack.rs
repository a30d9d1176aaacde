//! Operands in the order in which the microkernel reads them.

use super::geometry::{Correlation, ranges, shares};
use super::stage::{Run, Stage};
use crate::tile::TileSize;
use crate::transpose::transpose;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a product that stay in the first-level cache.
const DEPTH: usize = 384;

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

impl<'a> Kernel<'a> {
    /// The weights of a channel that has one output, at those `n` taps that take part.
    pub(super) fn of_channel(&self, channel: usize, n: usize) -> impl Iterator<Item = f32> {
        let (w, n_taps, taps) = match self {
            Self::Forward(w) => (w, n, None),
            Self::Backward { w, n_taps, taps } => (w, *n_taps, Some(taps)),
        };
        let w = &w[channel * n_taps..][..n_taps];
        (0..n).map(move |tap| w[taps.map_or(tap, |taps| taps[tap])])
    }
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
    list: Vec<TilePlace>,
    pieces: Vec<Piece>,
    len: usize,
    longest: usize,
}

/// Columns of one tile.
pub(super) struct TilePlace {
    /// First float.
    pub start: usize,
    pub width: usize,
    pieces: Range<usize>,
}

/// Positions of one tile that read consecutive places.
struct Piece {
    column: usize,
    place: usize,
    len: usize,
}

impl Tiles {
    /// Tiles of at most `depth` rows for the positions of `runs`.
    pub(super) fn new(runs: &[Run], depth: usize, size: TileSize) -> Self {
        let n = runs.last().map_or(0, |run| run.position + run.len);
        let stride = depth * size.width + SPILL;
        let mut pieces = Vec::with_capacity(runs.len() + n / size.width + 1);
        let mut runs = runs.iter().copied().peekable();
        let mut list = Vec::with_capacity(n / size.width + 1);
        for tile in ranges(n, size.width) {
            let first = pieces.len();
            while let Some(run) = runs.peek_mut() {
                if run.position >= tile.end {
                    break;
                }
                let len = run.len.min(tile.end - run.position);
                pieces.push(Piece {
                    column: run.position - tile.start,
                    place: run.place,
                    len,
                });
                if len == run.len {
                    runs.next();
                } else {
                    run.position += len;
                    run.place += len;
                    run.len -= len;
                }
            }
            list.push(TilePlace {
                start: list.len() * stride,
                width: size.width_for(tile.len()),
                pieces: first..pieces.len(),
            });
        }
        Self {
            len: list.len() * stride,
            longest: pieces.iter().map(|piece| piece.len).max().unwrap_or(0),
            list,
            pieces,
        }
    }

    /// Floats of all tiles.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn list(&self) -> &[TilePlace] {
        &self.list
    }

    /// Writes what positions read to their tiles. `planes` starts at the first of `channels`
    /// channels.
    #[inline(always)]
    pub(super) fn fill(&self, stage: &Stage, planes: &[f32], channels: usize, tiles: &mut [f32]) {
        match self.longest {
            0..=4 => self.copy(stage, planes, channels, tiles, copy_piece::<4>),
            5..=8 => self.copy(stage, planes, channels, tiles, copy_piece::<8>),
            9..=16 => self.copy(stage, planes, channels, tiles, copy_piece::<16>),
            _ => self.copy(stage, planes, channels, tiles, copy_long_piece),
        }
    }

    #[inline(always)]
    fn copy(
        &self,
        stage: &Stage,
        planes: &[f32],
        channels: usize,
        tiles: &mut [f32],
        copy_piece: impl Fn(&Piece, &[f32], &mut [f32]),
    ) {
        let taps = stage.taps.len();
        for channel in 0..channels {
            let planes = &planes[channel * stage.channel..];
            for tile in &self.list {
                let rows = &mut tiles[tile.start + channel * taps * tile.width..];
                let pieces = &self.pieces[tile.pieces.clone()];
                let mut row = 0;
                for tap in &stage.taps {
                    let (planes, rows) = (&planes[*tap..], &mut rows[row..]);
                    for piece in pieces {
                        copy_piece(piece, planes, rows);
                    }
                    row += tile.width;
                }
            }
        }
    }
}

/// Copies a piece of at most `N` floats. What this writes beyond it, the next copies overwrite.
#[inline(always)]
fn copy_piece<const N: usize>(piece: &Piece, planes: &[f32], row: &mut [f32]) {
    let source = planes.get(piece.place..piece.place + N);
    let target = row.get_mut(piece.column..piece.column + N);
    match (source, target) {
        (Some(source), Some(target)) => target.copy_from_slice(source),
        _ => copy_rest(piece, 0, planes, row),
    }
}

/// Copies 16 floats at a time.
#[inline(always)]
fn copy_long_piece(piece: &Piece, planes: &[f32], row: &mut [f32]) {
    let mut done = 0;
    while done < piece.len {
        let source = planes[piece.place + done..].first_chunk::<16>();
        let target = row[piece.column + done..].first_chunk_mut::<16>();
        match (source, target) {
            (Some(source), Some(target)) => *target = *source,
            _ => copy_rest(piece, done, planes, row),
        }
        done += 16;
    }
}

/// Copies from the end of the source.
#[cold]
#[inline(never)]
fn copy_rest(piece: &Piece, done: usize, planes: &[f32], row: &mut [f32]) {
    let source = &planes[piece.place + done..piece.place + piece.len];
    let target = &mut row[piece.column + done..];
    for (target, source) in target.iter_mut().zip(source) {
        *target = *source;
    }
}
