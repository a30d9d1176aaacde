//! What a block of positions reads for the gradient of a weight, and copies of it.

use super::SMALL;
use super::geometry::{Correlation, Pair};
use crate::copy::copy;
use std::ops::Range;

/// Positions whose images stand side by side in a register that those of one do not fill.
const JOINED: usize = 2;
/// As many channels of padding as are copied at a time.
const PADDING: [[f32; SMALL]; 8] = [[0.0; SMALL]; 8];

/// Which operand is turned, so that its channels stand side by side in registers; the other one stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Input,
    Output,
}

/// A row of the block, and the places that its positions read at some tap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    pub row: usize,
    pub places: [usize; JOINED],
}

/// Positions whose values meet those of the input before the next ones' turn. The images of a position are a row;
/// where they fill half a register, those of two positions are.
pub(super) struct Block {
    /// Whether rows are those of two positions.
    is_joined: bool,
    /// Images of a position.
    images: usize,
    /// Positions of a block.
    len: usize,
    /// Positions, counted over all bundles.
    points: Range<usize>,
    /// What they read.
    places: Vec<usize>,
    /// For each tap its rows, and the indices of the places that they meet. Padding has the index after the last one.
    pub meetings: Vec<Vec<Meeting>>,
    /// For each place the block that read it last, and its index there.
    seen: Vec<(usize, usize)>,
}

impl Block {
    /// No positions yet, of blocks of so many images times positions, for registers of so many floats.
    pub(super) fn new(correlation: &Correlation, size: usize, lanes: usize) -> Self {
        Self {
            is_joined: correlation.images == SMALL && lanes == JOINED * SMALL,
            images: correlation.images,
            len: Self::len(correlation, size),
            points: 0..0,
            places: Vec::new(),
            meetings: vec![Vec::new(); correlation.taps()],
            seen: vec![(usize::MAX, 0); correlation.bundles * correlation.places()],
        }
    }

    /// Blocks of all positions, where each has so many images times positions.
    pub(super) fn count(correlation: &Correlation, size: usize) -> usize {
        let points = correlation.bundles * correlation.positions();
        points.div_ceil(Self::len(correlation, size))
    }

    fn len(correlation: &Correlation, size: usize) -> usize {
        (size / correlation.images).max(1)
    }

    /// Whether rows are those of two positions.
    pub(super) fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// Floats of a channel in all rows.
    pub(super) fn rows_len(&self) -> usize {
        self.points.len().next_multiple_of(self.joined()) * self.images
    }

    /// Places of the input, and one of padding.
    pub(super) fn places(&self) -> usize {
        self.places.len() + 1
    }

    /// Positions of a row.
    fn joined(&self) -> usize {
        if self.is_joined { JOINED } else { 1 }
    }

    pub(super) fn become_next(&mut self, correlation: &Correlation, index: usize) {
        self.places.clear();
        self.meetings.iter_mut().for_each(Vec::clear);
        let (positions, places) = (correlation.positions(), correlation.places());
        let len = self.len;
        self.points = index * len..((index + 1) * len).min(correlation.bundles * positions);
        let joined = self.joined();
        for (position, point) in self.points.clone().enumerate() {
            let (row, lane) = (position / joined, position % joined);
            let first = point / positions * places;
            for Pair { tap, place } in correlation.pairs(point % positions) {
                let seen = &mut self.seen[first + place];
                if seen.0 != index {
                    *seen = (index, self.places.len());
                    self.places.push(first + place);
                }
                let meetings = &mut self.meetings[tap];
                if meetings.last().is_none_or(|last| last.row != row) {
                    let places = [usize::MAX; JOINED];
                    meetings.push(Meeting { row, places });
                }
                if let Some(last) = meetings.last_mut() {
                    last.places[lane] = seen.1;
                }
            }
        }
        if self.is_joined {
            let padding = self.places.len();
            let meetings = self.meetings.iter_mut().flatten();
            for place in meetings.flat_map(|meeting| &mut meeting.places) {
                *place = padding.min(*place);
            }
        }
    }

    /// The places of the operand that stays.
    pub(super) fn still(&self, turned: Turned) -> impl Iterator<Item = usize> {
        let (points, places) = match turned {
            Turned::Input => (self.points.clone(), &[][..]),
            Turned::Output => (0..0, &self.places[..]),
        };
        points.chain(places.iter().copied())
    }

    /// What meets at each tap, where rows are those of one position: the place of the operand that stays, and the index in
    /// `places` of that of the other one, which is turned.
    pub(super) fn meet(
        &self,
        turned: Turned,
        places: &mut Vec<usize>,
        meetings: &mut [Vec<[usize; 2]>],
    ) {
        places.clear();
        if turned == Turned::Input {
            places.extend(&self.places);
        } else {
            places.extend(self.points.clone());
        }
        for (meetings, own) in meetings.iter_mut().zip(&self.meetings) {
            meetings.clear();
            meetings.extend(own.iter().map(|meeting| {
                let place = meeting.places[0];
                if turned == Turned::Input {
                    [self.points.start + meeting.row, place]
                } else {
                    [self.places[place], meeting.row]
                }
            }));
        }
    }

    /// Copies channels of the input, `channels` being all of a place: `[share][place][channel][image]`, shares
    /// counted from `first` on.
    #[inline(always)]
    pub(super) fn gather_places(
        &self,
        x: &[f32],
        channels: usize,
        first: usize,
        shares: &[Range<usize>],
        target: &mut [f32],
    ) {
        let (images, places) = (self.images, self.places());
        let part = |share: &Range<usize>, place: usize| {
            let start = (share.start * places + place * share.len()) * images;
            start..start + share.len() * images
        };
        for (index, place) in self.places.iter().enumerate() {
            let x = &x[(place * channels + first) * images..];
            for share in shares {
                let source = &x[share.start * images..share.end * images];
                copy(source, &mut target[part(share, index)]);
            }
        }
        for share in shares {
            target[part(share, places - 1)].fill(0.0);
        }
    }

    /// Copies some channels of the positions, `channels` being all of one: `[row][channel][position][image]`.
    #[inline(always)]
    pub(super) fn gather_points(
        &self,
        dy: &[f32],
        channels: usize,
        own: Range<usize>,
        target: &mut [f32],
    ) {
        let len = own.len() * self.images;
        let at = |point: usize| &dy[(point * channels + own.start) * self.images..][..len];
        let rows = target.chunks_exact_mut(len * self.joined());
        for (row, target) in rows.enumerate() {
            let first = self.points.start + row * self.joined();
            if !self.is_joined {
                copy(at(first), target);
                continue;
            }
            let target = target.as_chunks_mut::<SMALL>().0.as_chunks_mut().0;
            for lane in 0..JOINED {
                let source = if self.points.contains(&(first + lane)) {
                    at(first + lane).as_chunks().0
                } else {
                    &PADDING[..own.len()]
                };
                // Written like this, values go through registers, not through the stack.
                let target: &mut [[[f32; SMALL]; JOINED]] = target;
                for (target, source) in target.iter_mut().zip(source) {
                    target[lane] = *source;
                }
            }
        }
    }
}
