//! The correlation itself.

use super::Patches;
use super::transforms::{self, CORNERS, ELEMENTS, Rows};
use crate::bundle::SMALL;
use crate::bundle::geometry::Correlation;
use crate::bundle::panels::{Kernel, Panel, fill, pack, panels};
use crate::conv::Finish;
use crate::conv::geometry::{PARTS, ranges};
use crate::copy::copy;
use crate::level;
use crate::scratch::{Scratch, with_scratch, with_shared};
use crate::tile::{Former, InRegisters, Rows as Order, Tile, TileSize, finish_sums};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of transformed inputs that stay in a core's own cache.
const INPUTS: usize = 256 << 10;
/// A part of the work has at least so many panels of outputs.
const PANELS: usize = 6;

/// Writes every value of `target`.
pub(in crate::bundle) fn correlate(
    correlation: &Correlation,
    x: &[f32],
    kernel: Kernel<'_>,
    finish: Finish<'_>,
    target: &mut [f32],
) {
    let panels = panels(correlation, TileSize::get(), ELEMENTS);
    let patches = Patches::new(correlation);
    let len = correlation.groups * correlation.outputs * correlation.channels;
    let transform_all = |weights: &mut [f32]| {
        let used = vec![true; correlation.taps()];
        fill(&panels, weights, |panel, part| {
            with_shared(part.len() / ELEMENTS * used.len(), |packed| {
                pack(correlation, &used, kernel, panel, packed);
                transforms::of_weights(packed, correlation.is_turned, part);
            });
        });
    };
    kernel.with_packed(len * ELEMENTS, transform_all, |weights| {
        divide(correlation, &patches, &panels, target)
            .into_par_iter()
            .for_each(|part| {
                // Outside of what is compiled for the instruction set, where no closure stands in between.
                with_scratch(|scratch| {
                    let work = Work {
                        correlation,
                        patches: &patches,
                        panels: &panels[part.panels.clone()],
                        weights,
                        x,
                        finish,
                        part,
                    };
                    level::dispatch(Compiled { work, scratch });
                });
            });
    });
}

/// Some panels of outputs of some patches of a bundle.
struct Part<'a> {
    bundle: usize,
    patches: Range<usize>,
    panels: Range<usize>,
    /// For each patch, and each of its outputs that there is, those of the panels.
    target: Vec<[Option<&'a mut [f32]>; CORNERS]>,
}

fn divide<'a>(
    correlation: &Correlation,
    patches: &Patches,
    panels: &[Panel],
    target: &'a mut [f32],
) -> Vec<Part<'a>> {
    let joined = (TileSize::get().width / correlation.images).max(1);
    let count = PARTS.div_ceil(correlation.bundles.max(1));
    let len = patches.count.div_ceil(count).next_multiple_of(joined);
    let blocks: Vec<Range<usize>> = ranges(patches.count, len).collect();
    let count = PARTS
        .div_ceil((blocks.len() * correlation.bundles).max(1))
        .clamp(1, panels.len().div_ceil(PANELS));
    let shares: Vec<Range<usize>> = ranges(panels.len(), panels.len().div_ceil(count)).collect();
    let width = correlation.groups * correlation.outputs * correlation.images;
    let mut parts = Vec::with_capacity(correlation.bundles * blocks.len() * shares.len());
    let bundles = target.chunks_exact_mut(correlation.positions() * width);
    for (bundle, target) in bundles.enumerate() {
        let first = parts.len();
        for patches in &blocks {
            parts.extend(shares.iter().map(|panels| Part {
                bundle,
                patches: patches.clone(),
                panels: panels.clone(),
                target: patches.clone().map(|_| Default::default()).collect(),
            }));
        }
        for (position, mut outputs) in target.chunks_exact_mut(width).enumerate() {
            let (patch, corner) = patches.of(correlation, position);
            let first = first + patch / len * shares.len();
            for part in &mut parts[first..][..shares.len()] {
                let panels = &panels[part.panels.clone()];
                let rows: usize = panels.iter().map(|panel| panel.outputs.len()).sum();
                let (own, after) = outputs.split_at_mut(rows * correlation.images);
                part.target[patch % len][corner] = Some(own);
                outputs = after;
            }
        }
    }
    parts
}

struct Work<'a> {
    correlation: &'a Correlation,
    patches: &'a Patches,
    panels: &'a [Panel],
    weights: &'a [f32],
    x: &'a [f32],
    finish: Finish<'a>,
    part: Part<'a>,
}

/// Patches that stand side by side in the rows of tiles, or some of the images of one.
#[derive(Clone, Debug)]
struct Column {
    patches: Range<usize>,
    /// The first image.
    image: usize,
    /// Floats of a row.
    width: usize,
}

struct Compiled<'a, 's> {
    work: Work<'a>,
    scratch: &'s mut Scratch,
}

impl WithSimd for Compiled<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.work.run(simd, self.scratch);
    }
}

impl Work<'_> {
    #[inline(always)]
    fn run<S: Simd>(&mut self, simd: S, scratch: &mut Scratch) {
        let correlation = self.correlation;
        let columns = self.columns(TileSize::of::<S>());
        let width = TileSize::of::<S>().width;
        // Elements do not start at the same place of a page.
        let element = correlation.channels * width + width;
        let at_once = (INPUTS / (ELEMENTS * element)).max(1);
        let zeros = vec![0.0; correlation.channels * correlation.images];
        let rows = self.panels.iter().map(|panel| panel.outputs.len()).max();
        let sums_element = rows.unwrap_or(0) * width;
        let Scratch { a, sums, .. } = scratch;
        let inputs = a.floats(at_once * ELEMENTS * element);
        let sums = sums.floats(ELEMENTS * sums_element);
        let panels = self.panels;
        for of_group in panels.chunk_by(|a, b| a.group == b.group) {
            for columns in columns.chunks(at_once) {
                let each = inputs.chunks_exact_mut(ELEMENTS * element);
                for (column, inputs) in columns.iter().zip(each) {
                    self.gather(simd, column, &of_group[0], &zeros, element, inputs);
                }
                for panel in of_group {
                    let each = inputs.chunks_exact(ELEMENTS * element);
                    for (column, inputs) in columns.iter().zip(each) {
                        let rows = panel.outputs.len();
                        let weights = &self.weights[panel.start..];
                        for index in 0..ELEMENTS {
                            Tile {
                                a: &weights[index * rows * correlation.channels..],
                                b: &inputs[index * element..],
                                order: Order::Consecutive(correlation.channels),
                                target: &mut sums[index * sums_element..],
                                stride: column.width,
                                former: Former::Dropped,
                            }
                            .run(simd, rows, column.width);
                        }
                        self.scatter(simd, column, panel, sums, sums_element);
                    }
                }
            }
        }
    }

    fn columns(&self, size: TileSize) -> Vec<Column> {
        let images = self.correlation.images;
        let joined = (size.width / images).max(1);
        let len = size.width.min(images);
        let patches = self.part.patches.clone();
        let groups = patches
            .clone()
            .step_by(joined)
            .map(|first| first..patches.end.min(first + joined));
        groups
            .flat_map(|patches| {
                (0..images).step_by(len).map(move |image| Column {
                    width: size.width_for(patches.len() * len),
                    patches: patches.clone(),
                    image,
                })
            })
            .collect()
    }

    /// Floats of a patch in a row of a column.
    fn len(&self, column: &Column) -> usize {
        self.correlation.images.min(column.width)
    }

    /// Transforms the inputs of a column.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        simd: S,
        column: &Column,
        panel: &Panel,
        zeros: &[f32],
        element: usize,
        target: &mut [f32],
    ) {
        let c = self.correlation;
        let place = c.groups * c.channels * c.images;
        let x = &self.x[self.part.bundle * c.places() * place..][..c.places() * place];
        let own = panel.group * c.channels * c.images + column.image;
        let rows = Rows {
            channels: c.channels,
            len: self.len(column),
            from: c.images,
            to: column.width,
            element,
        };
        for (slot, patch) in column.patches.clone().enumerate() {
            let places = self.patches.places(c, patch);
            let places = places.map(|at| at.map_or(zeros, |at| &x[at * place + own..]));
            transforms::inputs(simd, &rows, places, &mut target[slot * rows.len..]);
        }
    }

    /// Writes the outputs of a column.
    #[inline(always)]
    fn scatter<S: Simd>(
        &mut self,
        simd: S,
        column: &Column,
        panel: &Panel,
        sums: &[f32],
        element: usize,
    ) {
        let c = self.correlation;
        let first = panel.after(self.panels, c) + column.image;
        let finish = self.finish.of(panel.channels(c));
        for row in 0..panel.outputs.len() {
            let bias = finish.bias.map(|bias| bias[row]);
            let line = finish.line.map(|line| line.of(row..row + 1));
            let target = first + row * c.images;
            for lane in (0..column.width).step_by(S::F32_LANES) {
                let at = row * column.width + lane;
                let values = transforms::outputs(simd, sums, element, at);
                for (corner, mut value) in values.into_iter().enumerate() {
                    if let Some(bias) = bias {
                        value = simd.add_f32s(value, simd.splat_f32s(bias));
                    }
                    let [[value]] = finish_sums(simd, [[value]], line);
                    self.store::<S>(column, lane, corner, target, value);
                }
            }
        }
    }

    /// Writes a register of a row of outputs.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        column: &Column,
        lane: usize,
        corner: usize,
        first: usize,
        value: S::f32s,
    ) {
        let len = self.len(column);
        let mut floats = [0.0; 16];
        let floats = &mut floats[..S::F32_LANES];
        S::as_mut_simd_f32s(floats).0[0] = value;
        let patches = &mut self.part.target[column.patches.start - self.part.patches.start..];
        let patches = &mut patches[..column.patches.len()];
        if len >= S::F32_LANES {
            let patch = patches.get_mut(lane / len);
            if let Some(target) = patch.and_then(|patch| patch[corner].as_deref_mut()) {
                copy(floats, &mut target[first + lane % len..][..S::F32_LANES]);
            }
            return;
        }
        let patches = patches.iter_mut().skip(lane / len);
        for (patch, floats) in patches.zip(floats.as_chunks::<SMALL>().0) {
            if let Some(target) = patch[corner].as_deref_mut() {
                target[first..][..SMALL].copy_from_slice(floats);
            }
        }
    }
}
