//! The weights of a correlation of bundles: panels of outputs, tap by tap.

use super::geometry::Correlation;
use crate::conv::geometry::shares;
use crate::copy::copy;
use crate::packed::Slot;
use crate::scratch::{with_scratch, with_shared};
use crate::tile::TileSize;
use crate::transpose::transpose;
use rayon::prelude::*;
use std::ops::Range;

/// How a kernel is stored.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// `[output, channel, tap]`.
    Forward,
    /// `[channel, output, tap]`.
    Backward,
}

/// The weights as they are stored.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub values: &'a [f32],
    pub order: Order,
    /// Where they are kept packed.
    pub slot: Option<Slot<'a>>,
}

impl Kernel<'_> {
    /// Runs `work` with so many floats that `fill` has written, in this call or a former one.
    pub fn with_packed(&self, len: usize, fill: impl Fn(&mut [f32]), work: impl FnOnce(&[f32])) {
        match self.slot.and_then(|slot| slot.get(len, &fill)) {
            Some(packed) => work(packed),
            None => with_shared(len, |packed| {
                fill(packed);
                work(packed);
            }),
        }
    }
}

/// Some outputs of a group, whose weights stand together.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub group: usize,
    /// Outputs of the group.
    pub outputs: Range<usize>,
    /// Where the weights start.
    pub start: usize,
}

impl Panel {
    /// Its outputs among those of all groups.
    pub fn channels(&self, correlation: &Correlation) -> Range<usize> {
        let first = self.group * correlation.outputs;
        first + self.outputs.start..first + self.outputs.end
    }

    /// The floats of a position, in images of a bundle, between the first of these panels and this one.
    pub fn after(&self, panels: &[Self], correlation: &Correlation) -> usize {
        let start = |panel: &Self| panel.channels(correlation).start;
        let origin = panels.first().map_or(0, start);
        (start(self) - origin) * correlation.images
    }
}

/// Panels of all outputs, as few as tiles allow, where an output has so many weights for each channel.
pub(super) fn panels(correlation: &Correlation, size: TileSize, weights: usize) -> Vec<Panel> {
    let rows = correlation.channels * weights;
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

/// Calls `work`, on all threads, with each panel and its part of `packed`.
pub(super) fn fill(
    panels: &[Panel],
    packed: &mut [f32],
    work: impl Fn(&Panel, &mut [f32]) + Sync + Send,
) {
    let mut parts = Vec::with_capacity(panels.len());
    let mut rest = packed;
    let mut ends = panels.iter().skip(1).map(|panel| panel.start);
    for panel in panels {
        let len = ends.next().map_or(rest.len(), |end| end - panel.start);
        let (part, after) = rest.split_at_mut(len);
        parts.push((panel, part));
        rest = after;
    }
    parts
        .into_par_iter()
        .for_each(|(panel, part)| work(panel, part));
}

/// Weights of a panel become `[tap][channel][output]`. Those of taps that are not in use are left out.
pub(super) fn pack(
    correlation: &Correlation,
    used: &[bool],
    kernel: Kernel<'_>,
    panel: &Panel,
    part: &mut [f32],
) {
    let (channels, outputs, taps) = (correlation.channels, correlation.outputs, used.len());
    let depth = channels * taps;
    let w = kernel.values;
    match kernel.order {
        Order::Forward => {
            let w = &w[(panel.group * outputs + panel.outputs.start) * depth..];
            pack_forward(w, panel.outputs.len(), channels, used, part);
        }
        Order::Backward => {
            let of_channel = outputs * taps;
            let w = &w[panel.group * channels * of_channel..][..channels * of_channel];
            let own = panel.outputs.start * taps..panel.outputs.end * taps;
            let w = w.chunks_exact(of_channel).map(|w| &w[own.clone()]);
            match taps {
                1 => pack_backward(w, channels, 1, used, part),
                9 => pack_backward(w, channels, 9, used, part),
                n => pack_backward(w, channels, n, used, part),
            }
        }
    }
}

/// Weights `[output][channel][tap]` of so many outputs become `[tap][channel][output]`, those of taps in use.
fn pack_forward(w: &[f32], rows: usize, channels: usize, used: &[bool], part: &mut [f32]) {
    let taps = used.len();
    let depth = channels * taps;
    if taps == 1 {
        return transpose(w, depth, rows, depth, part, rows);
    }
    let few = 4 * used.iter().filter(|used| **used).count() <= taps;
    with_scratch(|scratch| {
        // `[channel][tap][output]`.
        let turned = scratch.a.floats(depth * rows);
        if few {
            for place in (0..depth).filter(|place| used[place % taps]) {
                let w = w[place..].iter().step_by(depth);
                for (turned, w) in turned[place * rows..][..rows].iter_mut().zip(w) {
                    *turned = *w;
                }
            }
        } else {
            transpose(w, depth, rows, depth, turned, rows);
        }
        let parts = part.chunks_exact_mut(channels * rows).enumerate();
        for (tap, part) in parts.filter(|(tap, _)| used[*tap]) {
            let turned = turned[tap * rows..].chunks(taps * rows);
            for (part, turned) in part.chunks_exact_mut(rows).zip(turned) {
                copy(&turned[..rows], part);
            }
        }
    });
}

/// Weights `[output][tap]` of each channel become `[tap][channel][output]`, those of taps in use. For a constant number
/// of taps it is compiled by itself, which is faster.
#[inline(always)]
fn pack_backward<'w>(
    w: impl Iterator<Item = &'w [f32]>,
    channels: usize,
    taps: usize,
    used: &[bool],
    part: &mut [f32],
) {
    for (channel, w) in w.enumerate() {
        let rows = w.len() / taps;
        let parts = part.chunks_exact_mut(channels * rows).take(taps);
        for (tap, part) in parts.enumerate().filter(|(tap, _)| used[*tap]) {
            let part = part[channel * rows..][..rows].iter_mut();
            for (part, w) in part.zip(w.chunks_exact(taps)) {
                *part = w[tap];
            }
        }
    }
}
