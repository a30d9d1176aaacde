//! Correlation of bundles: rows of a tile are output channels, its columns are the images of a bundle. Nothing
//! is packed but the weights.

use super::geometry::{Correlation, Pair};
use super::product::Product;
use crate::conv::geometry::{PARTS, ranges, shares};
use crate::copy::copy;
use crate::level;
use crate::scratch::{with_scratch, with_shared};
use crate::tile::{InRegisters, TileSize};
use crate::transpose::transpose;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of weights, and of the source, that stay in a core's own cache.
const WEIGHTS: usize = 96 << 10;
const SOURCE: usize = 192 << 10;
/// A part of the work has at least so many panels of outputs.
const PANELS: usize = 3;

/// How a kernel is stored.
#[derive(Clone, Copy)]
pub(super) enum Kernel<'a> {
    /// `[output, channel, tap]`.
    Forward(&'a [f32]),
    /// `[channel, output, tap]`.
    Backward(&'a [f32]),
}

/// Some outputs of a group, whose weights stand together.
#[derive(Clone, Debug)]
struct Panel {
    group: usize,
    /// Outputs of the group.
    outputs: Range<usize>,
    /// Where the weights start.
    start: usize,
}

/// Writes every value of `target`.
pub(super) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    kernel: Kernel<'_>,
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    let panels = panels(correlation, TileSize::get());
    let len = correlation.groups * correlation.outputs * correlation.channels * correlation.taps();
    with_shared(len, |packed| {
        pack(correlation, &panels, kernel, packed);
        divide(correlation, &panels, target)
            .into_par_iter()
            .for_each(|part| {
                level::dispatch(Work {
                    correlation,
                    panels: &panels[part.panels.clone()],
                    packed,
                    x,
                    bias,
                    part,
                });
            });
    });
}

fn panels(correlation: &Correlation, size: TileSize) -> Vec<Panel> {
    let rows = correlation.channels * correlation.taps();
    let mut start = 0;
    let mut panels = Vec::new();
    for group in 0..correlation.groups {
        for outputs in shares(correlation.outputs, size.rows) {
            let len = outputs.len() * rows;
            panels.push(Panel {
                group,
                outputs,
                start,
            });
            start += len;
        }
    }
    panels
}

/// Weights of a panel become `[tap][channel][output]`. Those of a tap that reads nothing but padding are left
/// out.
fn pack(correlation: &Correlation, panels: &[Panel], kernel: Kernel<'_>, packed: &mut [f32]) {
    let depth = correlation.channels * correlation.taps();
    let taps = correlation.taps_in_use();
    let mut parts = Vec::with_capacity(panels.len());
    let mut rest = packed;
    for panel in panels {
        let (part, after) = rest.split_at_mut(panel.outputs.len() * depth);
        parts.push((panel, part));
        rest = after;
    }
    parts.into_par_iter().for_each(|(panel, part)| {
        with_scratch(|scratch| {
            let rows = panel.outputs.len();
            let turned = scratch.a.floats(depth * rows);
            turn(correlation, panel, kernel, &taps, turned);
            // `[channel][tap]` becomes `[tap][channel]`.
            let n_taps = correlation.taps();
            let parts = part.chunks_exact_mut(correlation.channels * rows);
            for (tap, part) in parts.enumerate().filter(|(tap, _)| taps[*tap]) {
                let turned = turned[tap * rows..].chunks(n_taps * rows);
                for (part, turned) in part.chunks_exact_mut(rows).zip(turned) {
                    copy(&turned[..rows], part);
                }
            }
        });
    });
}

/// Weights of a panel as `[channel][tap][output]`, of those taps that are in use.
fn turn(
    correlation: &Correlation,
    panel: &Panel,
    kernel: Kernel<'_>,
    used: &[bool],
    turned: &mut [f32],
) {
    let (channels, outputs) = (correlation.channels, correlation.outputs);
    let taps = correlation.taps();
    let few = 4 * used.iter().filter(|used| **used).count() <= taps;
    let rows = panel.outputs.len();
    match kernel {
        Kernel::Forward(w) => {
            let depth = channels * taps;
            let w = &w[(panel.group * outputs + panel.outputs.start) * depth..];
            if few {
                let in_use = (0..depth).filter(|place| used[place % taps]);
                for place in in_use {
                    let w = w[place..].iter().step_by(depth);
                    for (turned, w) in turned[place * rows..][..rows].iter_mut().zip(w) {
                        *turned = *w;
                    }
                }
            } else {
                transpose(w, depth, rows, depth, turned, rows);
            }
        }
        Kernel::Backward(w) => {
            let w = &w[panel.group * channels * outputs * taps..];
            let w = w.chunks_exact(outputs * taps);
            for (w, turned) in w.zip(turned.chunks_exact_mut(taps * rows)) {
                let w = &w[panel.outputs.start * taps..][..rows * taps];
                let in_use = turned.chunks_exact_mut(rows).enumerate();
                for (tap, turned) in in_use.filter(|(tap, _)| used[*tap]) {
                    for (turned, w) in turned.iter_mut().zip(w[tap..].iter().step_by(taps)) {
                        *turned = *w;
                    }
                }
            }
        }
    }
}

/// Some panels of outputs at some positions of a bundle.
struct Part<'a> {
    bundle: usize,
    positions: Range<usize>,
    panels: Range<usize>,
    /// For each position the outputs of the panels.
    target: Vec<&'a mut [f32]>,
}

fn divide<'a>(correlation: &Correlation, panels: &[Panel], target: &'a mut [f32]) -> Vec<Part<'a>> {
    let row = correlation.target[1];
    let source_row =
        correlation.source[1] * correlation.groups * correlation.channels * correlation.images;
    // Rows whose source stays in the cache, with those above and below that they read, too.
    let rows = (SOURCE / source_row.max(1)).max(1);
    let blocks: Vec<Range<usize>> = shares(correlation.target[0], rows)
        .map(|rows| rows.start * row..rows.end * row)
        .collect();
    let n_blocks = correlation.bundles * blocks.len();
    let count = PARTS
        .div_ceil(n_blocks.max(1))
        .clamp(1, panels.len().div_ceil(PANELS));
    let shares: Vec<Range<usize>> = ranges(panels.len(), panels.len().div_ceil(count)).collect();
    let width = correlation.groups * correlation.outputs * correlation.images;
    let mut parts = Vec::with_capacity(n_blocks * shares.len());
    for (bundle, target) in target
        .chunks_exact_mut(correlation.positions() * width)
        .enumerate()
    {
        let mut rest = target;
        for positions in &blocks {
            let (block, after) = rest.split_at_mut(positions.len() * width);
            rest = after;
            let first = parts.len();
            for panels in &shares {
                parts.push(Part {
                    bundle,
                    positions: positions.clone(),
                    panels: panels.clone(),
                    target: Vec::with_capacity(positions.len()),
                });
            }
            for mut outputs in block.chunks_exact_mut(width) {
                for part in &mut parts[first..] {
                    let len = panels[part.panels.clone()]
                        .iter()
                        .map(|panel| panel.outputs.len() * correlation.images)
                        .sum();
                    let (own, after) = outputs.split_at_mut(len);
                    part.target.push(own);
                    outputs = after;
                }
            }
        }
    }
    parts
}

struct Work<'a> {
    correlation: &'a Correlation,
    panels: &'a [Panel],
    packed: &'a [f32],
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    part: Part<'a>,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let correlation = self.correlation;
        let images = correlation.images;
        let place = correlation.groups * correlation.channels * images;
        let x = &self.x[self.part.bundle * correlation.places() * place..];
        let first = self.part.positions.start;
        let pairs: Vec<Vec<Pair>> = self
            .part
            .positions
            .clone()
            .map(|position| correlation.pairs(position).collect())
            .collect();
        let width = TileSize::of::<S>().width_for(images);
        let panel_len = TileSize::of::<S>().rows * correlation.channels * correlation.taps();
        let origin = self.panels.first().map_or(0, |panel| {
            panel.group * correlation.outputs + panel.outputs.start
        });
        // Weights that stay in the cache meet all positions of the part.
        for panels in self.panels.chunks((WEIGHTS / panel_len.max(1)).max(1)) {
            for position in self.part.positions.clone() {
                let target = &mut self.part.target[position - first];
                for panel in panels {
                    let output = panel.group * correlation.outputs + panel.outputs.start;
                    let rows = panel.outputs.len();
                    let target = &mut target[(output - origin) * images..][..rows * images];
                    let x = &x[panel.group * correlation.channels * images..];
                    for lane in (0..images).step_by(width) {
                        Product {
                            a: &self.packed[panel.start..],
                            b: &x[lane..],
                            place,
                            stride: images,
                            depth: correlation.channels,
                            pairs: &pairs[position - first],
                            start: self.bias.map(|bias| &bias[output..][..rows]),
                            target: &mut target[lane..],
                        }
                        .run(simd, rows, width);
                    }
                }
            }
        }
    }
}
