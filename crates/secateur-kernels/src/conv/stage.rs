//! The part of a source that a block of positions reads, with its padding, in an order in which
//! neighbouring positions read neighbouring places.

use super::geometry::{Block, Correlation, Phases};
use crate::copy::copy_stepped;
use std::ops::Range;

/// Consecutive positions that read consecutive places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First position in the block.
    pub position: usize,
    /// Place of a tap at distance zero, at that position.
    pub place: usize,
    pub len: usize,
}

/// How the planes of a block are laid out.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    phases: [Phases; 2],
    /// Rows and columns of a phase.
    rows: usize,
    columns: usize,
    /// Floats from image to image, from channel to channel.
    pub image: usize,
    pub channel: usize,
    /// Place at which the block starts.
    start: usize,
    /// Whether the source itself is read.
    pub is_source: bool,
    /// Distance of each tap.
    pub taps: Vec<usize>,
    /// Images of the block, rows and columns of its positions.
    images: usize,
    positions: [usize; 2],
}

impl Stage {
    pub(super) fn new(correlation: &Correlation, block: &Block) -> Self {
        let [row_axis, column_axis] = &correlation.axes;
        let phases = [row_axis.phases(), column_axis.phases()];
        let rows = block.rows.len() + phases[0].reach;
        let columns = column_axis.positions + phases[1].reach;
        let is_source = correlation.is_whole();
        let image = phases[0].starts.len() * phases[1].starts.len() * rows * columns;
        let mut taps = Vec::with_capacity(correlation.taps());
        for &(phase_y, y) in &phases[0].taps {
            for &(phase_x, x) in &phases[1].taps {
                let phase = phase_y * phases[1].starts.len() + phase_x;
                taps.push((phase * rows + y) * columns + x);
            }
        }
        let (image, channel, start) = if is_source {
            let plane = correlation.source_plane();
            let image = correlation.image_lens()[0];
            let start = block.images.start * image + block.rows.start * columns;
            (image, plane, start)
        } else {
            (image, image * block.images.len(), 0)
        };
        Self {
            phases,
            rows,
            columns,
            image,
            channel,
            start,
            is_source,
            taps,
            images: block.images.len(),
            positions: [block.rows.len(), column_axis.positions],
        }
    }

    /// The place of each channel and tap at position zero.
    pub(super) fn starts(&self, channels: usize) -> Vec<u32> {
        let taps = |channel| {
            let taps = self.taps.iter();
            taps.map(move |tap| (channel * self.channel + tap) as u32)
        };
        (0..channels).flat_map(taps).collect()
    }

    /// Places from one row of positions to the next.
    pub(super) fn row(&self) -> usize {
        self.columns
    }

    /// The runs of all positions of the block.
    pub(super) fn runs(&self) -> Vec<Run> {
        let [rows, width] = self.positions;
        let (rows, width) = if self.columns == width {
            (1, rows * width)
        } else {
            (rows, width)
        };
        let mut runs: Vec<Run> = Vec::with_capacity(self.images * rows);
        for image in 0..self.images {
            for row in 0..rows {
                let place = self.start + image * self.image + row * self.columns;
                match runs.last_mut() {
                    Some(last) if last.place + last.len == place => last.len += width,
                    _ => runs.push(Run {
                        position: (image * rows + row) * width,
                        place,
                        len: width,
                    }),
                }
            }
        }
        runs
    }

    /// Pixels of all images of the block: places of one channel, without what lies between images
    /// of the source.
    pub(super) fn pixels(&self) -> usize {
        self.images * self.image_pixels()
    }

    pub(super) fn image_pixels(&self) -> usize {
        if self.is_source {
            self.rows * self.columns
        } else {
            self.image
        }
    }

    /// Place of the first pixel, and number of pixels, of each range of consecutive places.
    pub(super) fn pixel_ranges(&self) -> Vec<(usize, usize)> {
        if self.is_source {
            (0..self.images)
                .map(|image| (self.start + image * self.image, self.image_pixels()))
                .collect()
        } else {
            vec![(0, self.pixels())]
        }
    }

    /// The runs of all positions of the block, by pixel instead of place.
    pub(super) fn pixel_runs(&self) -> Vec<Run> {
        let by_pixel = Self {
            image: self.image_pixels(),
            start: 0,
            ..self.clone()
        };
        by_pixel.runs()
    }

    /// Copies `channels` of the source to `planes`: `[channel][image][phase][row][column]`. What lies
    /// outside of the source is left as it is: zero, if `planes` was cleared for this stage.
    #[inline(always)]
    pub(super) fn fill(
        &self,
        correlation: &Correlation,
        block: &Block,
        channels: Range<usize>,
        x: &[f32],
        planes: &mut [f32],
    ) {
        let [row_axis, column_axis] = &correlation.axes;
        let width = column_axis.source;
        let step = row_axis.step;
        let ahead = (block.rows.start * step) as isize;
        let rows = self.phases[0].starts.iter();
        let rows = rows.map(|start| Inside::new(start + ahead, step, self.rows, row_axis.source));
        let columns = self.phases[1].starts.iter();
        let columns =
            columns.map(|&start| Inside::new(start, column_axis.step, self.columns, width));
        let columns: Vec<Inside> = columns.collect();
        let phases: Vec<(Inside, Inside)> = rows
            .flat_map(|rows| columns.iter().map(move |columns| (rows, *columns)))
            .collect();
        let [image_len, _] = correlation.image_lens();
        let plane = correlation.source_plane();
        let mut targets = planes.chunks_exact_mut(self.rows * self.columns);
        for channel in channels {
            for image in block.images.clone() {
                let x = &x[image * image_len + channel * plane..][..plane];
                for ((rows, columns), target) in phases.iter().zip(&mut targets) {
                    let target = &mut target[rows.first * self.columns..];
                    let target = target.chunks_exact_mut(self.columns);
                    let mut place = rows.place * width + columns.place;
                    for target in target.take(rows.last - rows.first) {
                        let target = &mut target[columns.first..columns.last];
                        copy_stepped(&x[place..], columns.step, target);
                        place += step * width;
                    }
                }
            }
        }
    }

    /// Floats that [`Stage::fill`] writes for so many channels.
    pub(super) fn len(&self, channels: usize) -> usize {
        channels * self.channel
    }
}

/// The rows or columns of a phase that lie inside the source.
#[derive(Clone, Copy)]
struct Inside {
    first: usize,
    last: usize,
    /// The source's place of `first`.
    place: usize,
    step: usize,
}

impl Inside {
    fn new(start: isize, step: usize, len: usize, source: usize) -> Self {
        let ahead = usize::try_from(-start).unwrap_or(0);
        let first = ahead.div_ceil(step).min(len);
        let place = start + (first * step) as isize;
        let place = usize::try_from(place).unwrap_or(0).min(source);
        let last = (first + (source - place).div_ceil(step)).min(len);
        Self {
            first,
            last,
            place,
            step,
        }
    }
}
