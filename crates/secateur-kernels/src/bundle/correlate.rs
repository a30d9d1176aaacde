//! Correlation of bundles: rows of a tile are output channels, its columns are the images of a bundle. Nothing
//! is packed but the weights.

use super::SMALL;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx;
use super::geometry::{Correlation, Pair};
use super::joined::{self, Joined, Joints};
use super::panels::{Kernel, Panel, fill, pack, panels};
use super::product::Product;
use super::winograd;
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges, shares};
use crate::level;
use crate::norm::Line;
use crate::scratch::{Scratch, with_scratch};
use crate::tile::{InRegisters, TileSize};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of weights, and of the source, that stay in a core's own cache.
const WEIGHTS: usize = 96 << 10;
const SOURCE: usize = 192 << 10;
/// Of so many channels some positions side by side stay in a core's first cache.
const GATHERED: usize = 256;
/// A part of the work has at least so many panels of outputs.
const PANELS: usize = 3;

/// Writes every value of `target`.
pub(super) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    kernel: Kernel<'_>,
    finish: Finish<'_>,
    target: &mut [f32],
) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(amx) = amx::for_correlation(correlation, kernel.slot.is_some()) {
        return amx::correlate(amx, correlation, x, kernel, finish, target);
    }
    if winograd::is_faster(correlation) {
        return winograd::correlate(correlation, x, kernel, finish, target);
    }
    let panels = panels(correlation, TileSize::get(), correlation.taps());
    let len = correlation.groups * correlation.outputs * correlation.channels * correlation.taps();
    let pack_all = |packed: &mut [f32]| {
        let used = correlation.taps_in_use();
        fill(&panels, packed, |panel, part| {
            pack(correlation, &used, kernel, panel, part);
        });
    };
    kernel.with_packed(len, pack_all, |packed| {
        divide(correlation, &panels, target)
            .into_par_iter()
            .for_each(|part| {
                with_scratch(|scratch| {
                    let work = Work {
                        correlation,
                        panels: &panels[part.panels.clone()],
                        packed,
                        x,
                        finish,
                        part,
                    };
                    level::dispatch(Compiled { work, scratch });
                });
            });
    });
}

/// Whether copies of what positions read meet enough outputs to be worth it.
fn is_worth_gathering(correlation: &Correlation) -> bool {
    correlation.taps() == 1 && correlation.channels <= GATHERED.min(correlation.outputs)
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
    finish: Finish<'a>,
    part: Part<'a>,
}

struct Compiled<'a, 's> {
    work: Work<'a>,
    scratch: &'s mut Scratch,
}

impl WithSimd for Compiled<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let work = self.work;
        let joined = TileSize::of::<S>().width / work.correlation.images;
        if work.correlation.images != SMALL || joined < 2 {
            work.one_by_one(simd);
        } else if is_worth_gathering(work.correlation) {
            work.gathered(simd, joined, self.scratch);
        } else {
            work.side_by_side(simd, joined);
        }
    }
}

impl<'a> Work<'a> {
    /// Calls `work(self, panels)` with panels whose weights stay in the cache while they meet all positions.
    #[inline(always)]
    fn each_panels<S: Simd>(&mut self, _: S, mut work: impl FnMut(&mut Self, &[Panel])) {
        let depth = self.correlation.channels * self.correlation.taps();
        let len = (TileSize::of::<S>().rows * depth).max(1);
        let panels: &'a [Panel] = self.panels;
        for panels in panels.chunks((WEIGHTS / len).max(1)) {
            work(self, panels);
        }
    }

    /// The source of the part's bundle, and the floats of a place.
    fn source(&self) -> (&'a [f32], usize) {
        let c = self.correlation;
        let place = c.groups * c.channels * c.images;
        (&self.x[self.part.bundle * c.places() * place..], place)
    }

    /// The source of a panel's group.
    fn of_group(&self, x: &'a [f32], panel: &Panel) -> &'a [f32] {
        &x[panel.group * self.correlation.channels * self.correlation.images..]
    }

    /// What the sums of a panel start from, and what is done to them in the end.
    fn ends(&self, panel: &Panel) -> (Option<&'a [f32]>, Option<Line<'a>>) {
        let Finish { bias, line } = self.finish.of(panel.channels(self.correlation));
        (bias, line)
    }

    /// Where a panel's outputs are among those of the part.
    fn first(&self, panel: &Panel) -> usize {
        panel.after(self.panels, self.correlation)
    }

    /// A position fills the tiles.
    #[inline(always)]
    fn one_by_one<S: Simd>(mut self, simd: S) {
        let correlation = self.correlation;
        let images = correlation.images;
        let (x, place) = self.source();
        let positions = self.part.positions.clone();
        let pairs: Vec<Vec<Pair>> = positions
            .map(|position| correlation.pairs(position).collect())
            .collect();
        let width = TileSize::of::<S>().width_for(images);
        self.each_panels(
            simd,
            #[inline(always)]
            |work, panels| {
                for (position, pairs) in pairs.iter().enumerate() {
                    for panel in panels {
                        let rows = panel.outputs.len();
                        let (first, (start, line)) = (work.first(panel), work.ends(panel));
                        let x = work.of_group(x, panel);
                        let target = &mut work.part.target[position][first..][..rows * images];
                        for lane in (0..images).step_by(width) {
                            Product {
                                a: &work.packed[panel.start..],
                                b: &x[lane..],
                                place,
                                stride: images,
                                depth: correlation.channels,
                                pairs,
                                start,
                                line,
                                target: &mut target[lane..],
                            }
                            .run(simd, rows, width);
                        }
                    }
                }
            },
        );
    }

    /// So many positions together fill the tiles. What they read of the only tap is copied first, so that it stands side
    /// by side.
    #[inline(always)]
    fn gathered<S: Simd>(mut self, simd: S, count: usize, scratch: &mut Scratch) {
        let correlation = self.correlation;
        let depth = correlation.channels;
        let (x, place) = self.source();
        let groups = joined::groups(correlation, self.part.positions.clone(), count);
        let origin = self.part.positions.start;
        let Scratch { a, sums, .. } = scratch;
        let size = TileSize::of::<S>();
        let (gathered, sums) = (
            a.floats(depth * size.width),
            sums.floats(size.rows * size.width),
        );
        self.each_panels(
            simd,
            #[inline(always)]
            |work, panels| {
                for panels in panels.chunk_by(|a, b| a.group == b.group) {
                    let x = work.of_group(x, &panels[0]);
                    for positions in &groups {
                        let width = size.width_for(positions.len() * SMALL);
                        let places = positions
                            .iter()
                            .map(|position| correlation.pairs(*position).next());
                        let places = places.map(|pair| pair.map(|pair| &x[pair.place * place..]));
                        let is_read = joined::gather(places, depth, width, gathered);
                        let pairs = [Pair { tap: 0, place: 0 }];
                        let pairs = &pairs[..usize::from(is_read)];
                        for panel in panels {
                            let (first, (start, line)) = (work.first(panel), work.ends(panel));
                            Product {
                                a: &work.packed[panel.start..],
                                b: gathered,
                                place: 0,
                                stride: width,
                                depth,
                                pairs,
                                start,
                                line,
                                target: sums,
                            }
                            .run(simd, panel.outputs.len(), width);
                            for (lane, position) in positions.iter().enumerate() {
                                let target = &mut work.part.target[*position - origin][first..];
                                joined::scatter(sums, panel.outputs.len(), width, lane, target);
                            }
                        }
                    }
                }
            },
        );
    }

    /// So many positions together fill the tiles.
    #[inline(always)]
    fn side_by_side<S: Simd>(mut self, simd: S, count: usize) {
        let correlation = self.correlation;
        let (x, place) = self.source();
        let groups = joined::groups(correlation, self.part.positions.clone(), count);
        let origin = self.part.positions.start;
        let mut joints = Joints::new(correlation);
        let zeros = vec![0.0; correlation.channels * correlation.images];
        self.each_panels(
            simd,
            #[inline(always)]
            |work, panels| {
                for positions in &groups {
                    let joints = joints.of(correlation, positions);
                    let width = TileSize::of::<S>().width_for(positions.len() * SMALL);
                    for panel in panels {
                        let (first, (start, line)) = (work.first(panel), work.ends(panel));
                        Joined {
                            a: &work.packed[panel.start..],
                            b: work.of_group(x, panel),
                            place,
                            depth: correlation.channels,
                            joints,
                            start,
                            line,
                            zeros: &zeros,
                            positions,
                            origin,
                            targets: &mut work.part.target,
                            first,
                        }
                        .run(simd, panel.outputs.len(), width);
                    }
                }
            },
        );
    }
}
