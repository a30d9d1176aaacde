//! The time of one layer at each rank, between the ranks at which it was measured.

use serde::{Deserialize, Serialize};

/// Measured time of one layer: as one kernel, and as two factors of some ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankTimes {
    /// Nanoseconds as one kernel.
    dense: u64,
    /// Rank and nanoseconds as two factors, ranks increasing.
    factored: Vec<(usize, u64)>,
}

impl RankTimes {
    /// The times measured: `dense` as one kernel, `factored` by rank, in any order. A smaller rank is
    /// taken to be no slower than a larger one, so that noise cannot make it so.
    #[must_use]
    pub fn new(dense: u64, mut factored: Vec<(usize, u64)>) -> Self {
        factored.sort_unstable();
        factored.dedup_by_key(|(rank, _)| *rank);
        let mut least = u64::MAX;
        for (_, nanos) in factored.iter_mut().rev() {
            least = least.min(*nanos);
            *nanos = least;
        }
        Self { dense, factored }
    }

    /// Nanoseconds at `rank`: of the kernel, or, where `as_factors`, of two factors, on the line between
    /// the measured ranks beside it. Beyond the measured ranks it is the nearest one's time.
    #[must_use]
    pub fn at(&self, rank: usize, as_factors: bool) -> u64 {
        if !as_factors {
            return self.dense;
        }
        let above = self.factored.partition_point(|(known, _)| *known < rank);
        let known = |index: usize| self.factored.get(index).copied();
        match (above.checked_sub(1).and_then(known), known(above)) {
            (Some((low, below)), Some((high, over))) => {
                let part = (rank - low) as f64 / (high - low) as f64;
                below + (part * over.saturating_sub(below) as f64) as u64
            }
            (Some((_, nanos)), None) | (None, Some((_, nanos))) => nanos,
            (None, None) => self.dense,
        }
    }

    /// All times multiplied by `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |nanos: u64| (factor * nanos as f64) as u64;
        let factored = self.factored.iter();
        Self {
            dense: scale(self.dense),
            factored: factored
                .map(|&(rank, nanos)| (rank, scale(nanos)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_measured_ranks_time_is_on_the_line() {
        let times = RankTimes::new(100, vec![(8, 40), (16, 80)]);
        let at = |rank| times.at(rank, true);
        assert_eq!([at(4), at(8), at(12), at(16), at(20)], [40, 40, 60, 80, 80]);
        assert_eq!(times.at(12, false), 100);
        assert_eq!(times.scaled(0.5).at(12, true), 30);
        assert_eq!(RankTimes::new(7, Vec::new()).at(3, true), 7);
    }

    #[test]
    fn noise_makes_no_smaller_rank_slower() {
        let times = RankTimes::new(100, vec![(24, 60), (8, 90), (16, 50)]);
        assert_eq!([8, 16, 24].map(|rank| times.at(rank, true)), [50, 50, 60]);
    }
}
