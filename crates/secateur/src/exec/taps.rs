//! The taps of a session and what they have gathered.

use super::{ExecError, Keep, Of, Statistic, Tap};
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
            let mut view = array.view();
            if tap.keep == Keep::LastSecondMoment {
                view.swap_axes(1, array.ndim() - 1);
            }
            let channels = view.shape()[1];
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
            statistic.fold(view);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Keep;
    use super::*;
    use ndarray::{ArcArray, IxDyn};

    #[test]
    fn channels_on_the_last_axis_are_moved_to_the_second() {
        let last: Floats =
            ArcArray::from_shape_fn(IxDyn(&[2, 5, 3]), |i| (i[0] + 2 * i[1] * i[2]) as f32);
        let mut second = last.clone();
        second.swap_axes(1, 2);
        let moments = |array: &Floats, keep| {
            let tap = Tap {
                value: "x".to_owned(),
                of: Of::Activation,
                keep,
            };
            let mut taps = Taps::new(std::slice::from_ref(&tap));
            taps.fold("x", Of::Activation, array).unwrap();
            taps.statistics()[&tap].clone()
        };
        let found = moments(&last, Keep::LastSecondMoment);
        assert_eq!(found.channels(), 3);
        assert_eq!(found, moments(&second, Keep::SecondMoment));
    }
}
