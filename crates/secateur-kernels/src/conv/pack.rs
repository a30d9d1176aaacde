//! Operands in the order in which the microkernel reads them.

use super::geometry::{Correlation, shares};
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

/// Floats by which copies may run over the end of a row.
pub(super) const SPILL: usize = 16;

/// Writes what positions read: for each of `channels` channels and tap, a row of `width` floats.
/// `planes` starts at the first channel; `patches` has [`SPILL`] floats beyond the last row.
#[inline(always)]
pub(super) fn patches(
    stage: &Stage,
    planes: &[f32],
    channels: usize,
    runs: &[Run],
    width: usize,
    patches: &mut [f32],
) {
    let longest = runs.iter().map(|run| run.len).max().unwrap_or(0);
    match longest {
        0..=4 => copy_runs::<4>(stage, planes, channels, runs, width, patches),
        5..=8 => copy_runs::<8>(stage, planes, channels, runs, width, patches),
        _ => copy_runs::<16>(stage, planes, channels, runs, width, patches),
    }
}

/// Copies in pieces of `PIECE` floats. What a piece writes beyond its run, the next one overwrites.
#[inline(always)]
fn copy_runs<const PIECE: usize>(
    stage: &Stage,
    planes: &[f32],
    channels: usize,
    runs: &[Run],
    width: usize,
    patches: &mut [f32],
) {
    let Some(first) = runs.first().map(|run| run.position) else {
        return;
    };
    let mut row = 0;
    for channel in 0..channels {
        let channel = channel * stage.channel;
        for tap in &stage.taps {
            let planes = &planes[channel + tap..];
            for run in runs {
                let start = row + run.position - first;
                for piece in (0..run.len).step_by(PIECE) {
                    let target = &mut patches[start + piece..][..PIECE];
                    let source = &planes[run.place + piece..];
                    if let Some(source) = source.first_chunk::<PIECE>() {
                        target.copy_from_slice(source);
                    } else {
                        let rest = source.len().min(PIECE);
                        target[..rest].copy_from_slice(&source[..rest]);
                    }
                }
            }
            row += width;
        }
    }
}
