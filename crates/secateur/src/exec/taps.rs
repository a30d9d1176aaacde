//! The taps of a session and what they have gathered.

use super::{ExecError, Of, Statistic, Tap};
use crate::tensor::Floats;
use std::collections::BTreeMap;

/// The taps of a session.
#[derive(Debug)]
pub(super) struct Taps {
    taps: Vec<Tap>,
    statistics: BTreeMap<Tap, Statistic>,
}

impl Taps {
    pub(super) fn new(taps: &[Tap]) -> Self {
        Self {
            taps: taps.to_vec(),
            statistics: BTreeMap::new(),
        }
    }

    /// Whether a tap looks at this side of a value.
    pub(super) fn look_at(&self, name: &str, of: Of) -> bool {
        self.taps
            .iter()
            .any(|tap| tap.value == name && tap.of == of)
    }

    /// The values whose gradient is looked at.
    pub(super) fn gradients(&self) -> impl Iterator<Item = &String> {
        let looks = self.taps.iter().filter(|tap| tap.of == Of::Gradient);
        looks.map(|tap| &tap.value)
    }

    /// Adds a batch to the statistics of every tap on this side of a value.
    pub(super) fn fold(&mut self, name: &str, of: Of, array: &Floats) -> Result<(), ExecError> {
        for tap in self
            .taps
            .iter()
            .filter(|tap| tap.value == name && tap.of == of)
        {
            if array.ndim() < 2 {
                let rank = array.ndim();
                return Err(ExecError::Tap {
                    value: name.to_owned(),
                    problem: format!("rank {rank}, but images and channels are two axes"),
                });
            }
            let channels = array.shape()[1];
            let statistic = self
                .statistics
                .entry(tap.clone())
                .or_insert_with(|| Statistic::new(tap.keep, channels));
            if statistic.channels() != channels {
                return Err(ExecError::Tap {
                    value: name.to_owned(),
                    problem: format!("{channels} channels after {}", statistic.channels()),
                });
            }
            statistic.fold(array);
        }
        Ok(())
    }

    pub(super) fn statistics(&self) -> &BTreeMap<Tap, Statistic> {
        &self.statistics
    }

    pub(super) fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic> {
        std::mem::take(&mut self.statistics)
    }
}
