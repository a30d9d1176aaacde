//! Runs of several networks, one after the other, over and over.

use crate::progress::Progress;
use crate::tensor::Floats;
use crate::verify::{Loaded, VerifyError};
use std::time::{Duration, Instant};

/// How often each network runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turns {
    /// Runs of each before the clock is looked at.
    pub warm_up: usize,
    /// Measured runs of each at least, whatever they take; at least 1.
    pub least: usize,
    /// Measured runs of each at most.
    pub most: usize,
    /// No further turn begins after this long.
    pub limit: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            warm_up: 3,
            least: 5,
            most: 100,
            limit: Duration::from_secs(10),
        }
    }
}

/// Milliseconds of the runs of one network, in the order of the turns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The median, milliseconds.
    #[must_use]
    pub fn p50(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// What 95 of 100 runs stay within, milliseconds.
    #[must_use]
    pub fn p95(&self) -> f64 {
        quantile(&self.0, 0.95)
    }

    /// How many times as fast as `other` this is: the median over turns of the quotient of both runs of
    /// a turn.
    #[must_use]
    pub fn speedup_over(&self, other: &Self) -> f64 {
        let quotients: Vec<f64> = self
            .0
            .iter()
            .zip(&other.0)
            .map(|(own, others)| others / own.max(f64::MIN_POSITIVE))
            .collect();
        quantile(&quotients, 0.5)
    }
}

/// The value that the share `q` of `values` does not exceed, interpolated between neighbours; 0 where
/// there are none.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = q.clamp(0.0, 1.0) * last as f64;
    let value = |index: f64| sorted.get(index as usize).copied().unwrap_or_default();
    let (below, above) = (value(at.floor()), value(at.ceil()));
    below + (above - below) * at.fract()
}

/// Runs each network on its images, in turns of which every second one goes backwards, and measures
/// each run. The images of one network are those of its `load`.
///
/// # Errors
/// The first error of a run.
pub fn in_turns(
    networks: &mut [(Box<dyn Loaded>, Floats)],
    turns: &Turns,
    progress: &dyn Progress,
) -> Result<Vec<Samples>, VerifyError> {
    for _ in 0..turns.warm_up {
        for (network, images) in networks.iter_mut() {
            network.run(images)?;
        }
    }
    let mut samples = vec![Samples::default(); networks.len()];
    let start = Instant::now();
    for turn in 0..turns.most {
        if turn >= turns.least && start.elapsed() >= turns.limit {
            break;
        }
        let mut order: Vec<usize> = (0..networks.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for index in order {
            if let (Some((network, images)), Some(samples)) =
                (networks.get_mut(index), samples.get_mut(index))
            {
                let start = Instant::now();
                network.run(images)?;
                samples.0.push(1e3 * start.elapsed().as_secs_f64());
            }
        }
        progress.advance(1);
    }
    Ok(samples)
}
