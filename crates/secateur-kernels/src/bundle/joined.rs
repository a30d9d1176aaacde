//! The microkernel of bundles that are smaller than a row of sums: positions stand side by side in it.

use super::SMALL;
use super::geometry::Correlation;
use crate::norm::Line;
use crate::tile::{InRegisters, add_products, finish_sums, start_sums};
use pulp::Simd;
use std::collections::BTreeMap;
use std::ops::Range;

/// Positions that are joined at most.
const POSITIONS: usize = 4;

/// A tap of the kernel, and the place where it reads for each of some positions: none where that is padding.
#[derive(Clone, Debug)]
pub(super) struct Joint {
    tap: usize,
    places: [Option<usize>; POSITIONS],
}

/// Groups of at most `count` positions, which read the source at the same taps as far as they can.
pub(super) fn groups(
    correlation: &Correlation,
    range: Range<usize>,
    count: usize,
) -> Vec<Vec<usize>> {
    let mut phases: BTreeMap<[usize; 2], Vec<usize>> = BTreeMap::new();
    for position in range {
        let phase = correlation.phase(position);
        phases.entry(phase).or_default().push(position);
    }
    let groups = phases.values().flat_map(|own| own.chunks(count));
    groups.map(<[usize]>::to_vec).collect()
}

/// Copies `depth` rows of each place side by side, `width` floats for all. Lanes of places that are none are zero.
/// Whether there are others.
#[inline(always)]
pub(super) fn gather<'a>(
    places: impl Iterator<Item = Option<&'a [f32]>>,
    depth: usize,
    width: usize,
    target: &mut [f32],
) -> bool {
    let lanes = width / SMALL;
    let (target, _) = target[..depth * width].as_chunks_mut::<SMALL>();
    let mut is_read = false;
    for (lane, place) in places.enumerate() {
        let target = target[lane..].iter_mut().step_by(lanes);
        if let Some(place) = place {
            is_read = true;
            for (target, place) in target.zip(place.as_chunks::<SMALL>().0) {
                *target = *place;
            }
        } else {
            target.for_each(|target| *target = [0.0; SMALL]);
        }
    }
    is_read
}

/// Copies the rows of a lane to where they stand together.
#[inline(always)]
pub(super) fn scatter(sums: &[f32], rows: usize, width: usize, lane: usize, target: &mut [f32]) {
    let sums = sums.as_chunks::<SMALL>().0[lane..].iter();
    let sums = sums.step_by(width / SMALL);
    let (target, _) = target[..rows * SMALL].as_chunks_mut::<SMALL>();
    for (target, sums) in target.iter_mut().zip(sums) {
        *target = *sums;
    }
}

/// What a group of positions reads. It is found anew for each group: kept for all of them, it would be more than what
/// they read where channels are few and taps many.
pub(super) struct Joints {
    /// For each tap its place among the joints.
    index: Vec<usize>,
    joints: Vec<Joint>,
}

impl Joints {
    pub(super) fn new(correlation: &Correlation) -> Self {
        Self {
            index: vec![0; correlation.taps()],
            joints: Vec::new(),
        }
    }

    /// Those of a group.
    pub(super) fn of(&mut self, correlation: &Correlation, positions: &[usize]) -> &[Joint] {
        self.joints.clear();
        for (lane, position) in positions.iter().enumerate() {
            for pair in correlation.pairs(*position) {
                let index = &mut self.index[pair.tap];
                match self.joints.get_mut(*index) {
                    Some(joint) if joint.tap == pair.tap => joint.places[lane] = Some(pair.place),
                    _ => {
                        *index = self.joints.len();
                        let mut places = [None; POSITIONS];
                        places[lane] = Some(pair.place);
                        let tap = pair.tap;
                        self.joints.push(Joint { tap, places });
                    }
                }
            }
        }
        &self.joints
    }
}

/// `target[position][i][j] = start[i] + sum over joints and k of a[tap][k][i] * b[place][k][j]` for some
/// positions.
pub(super) struct Joined<'a, 'b> {
    /// For each tap `depth` rows of as many floats as the tile has rows.
    pub a: &'a [f32],
    /// For each place, `place` floats apart, `depth` rows of a bundle's images.
    pub b: &'a [f32],
    pub place: usize,
    pub depth: usize,
    pub joints: &'a [Joint],
    /// What the sums start from, instead of zero.
    pub start: Option<&'a [f32]>,
    /// What is done to each row of sums before it is written.
    pub line: Option<Line<'a>>,
    /// As many zeros as a place has floats.
    pub zeros: &'a [f32],
    pub positions: &'a [usize],
    /// The targets of all positions from `origin` on, and where in them the tile starts.
    pub origin: usize,
    pub targets: &'a mut [&'b mut [f32]],
    pub first: usize,
}

impl InRegisters for Joined<'_, '_> {
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        match VECTORS * S::F32_LANES / SMALL {
            4 => self.side_by_side::<S, ROWS, VECTORS, 4>(simd),
            2 => self.side_by_side::<S, ROWS, VECTORS, 2>(simd),
            _ => self.side_by_side::<S, ROWS, VECTORS, 1>(simd),
        }
    }
}

impl Joined<'_, '_> {
    #[inline(always)]
    fn side_by_side<S: Simd, const ROWS: usize, const VECTORS: usize, const COUNT: usize>(
        self,
        simd: S,
    ) {
        let mut sums = start_sums::<S, ROWS, VECTORS>(simd, self.start);
        let (a, _) = self.a.as_chunks::<ROWS>();
        let len = self.depth * SMALL;
        for joint in self.joints {
            let a = &a[joint.tap * self.depth..][..self.depth];
            let b: [&[[f32; SMALL]]; COUNT] = std::array::from_fn(|lane| {
                let place = joint.places[lane];
                let rows = place.map_or(self.zeros, |place| &self.b[place * self.place..]);
                &rows[..len].as_chunks().0[..self.depth]
            });
            // Nothing in this loop may fail, or the sums would be kept in memory for whoever sees that.
            for (k, a) in a.iter().enumerate() {
                let row = b.map(|rows| rows.get(k).copied().unwrap_or_default());
                let (row, _) = S::as_simd_f32s(row.as_flattened());
                if let Some(row) = row.first_chunk::<VECTORS>() {
                    add_products(simd, &mut sums, a, row);
                }
            }
        }
        let sums = finish_sums(simd, sums, self.line);
        // Of a copy, so that the sums themselves need no place in memory.
        let mut floats = [[[0.0; SMALL]; COUNT]; ROWS];
        for (floats, sums) in floats.iter_mut().zip(sums) {
            let (vectors, _) = S::as_mut_simd_f32s(floats.as_flattened_mut());
            for (vector, sum) in vectors.iter_mut().zip(sums) {
                *vector = sum;
            }
        }
        for (lane, position) in (0..COUNT).zip(self.positions) {
            let target = &mut self.targets[*position - self.origin][self.first..];
            let target = target.as_chunks_mut::<SMALL>().0.first_chunk_mut::<ROWS>();
            for (target, floats) in target.into_iter().flatten().zip(&floats) {
                *target = floats[lane];
            }
        }
    }
}
