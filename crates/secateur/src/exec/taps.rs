//! The taps of a session and what they have gathered.

use super::{ExecError, Keep, Of, Statistic, Tap};
use crate::tensor::Floats;
use ndarray::ArrayViewD;
use std::collections::{BTreeMap, BTreeSet};

/// The taps of a session.
#[derive(Debug, Default)]
pub(super) struct Taps {
    taps: Vec<Tap>,
    /// Values whose gradient is still to come.
    held: BTreeMap<String, Floats>,
    /// Values whose gradient has not come in this step.
    waiting: BTreeSet<String>,
    statistics: BTreeMap<Tap, Statistic>,
}

impl Taps {
    pub(super) fn new(taps: &[Tap]) -> Self {
        Self {
            taps: taps.to_vec(),
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            statistics: BTreeMap::new(),
        }
    }

    /// Whether a tap looks at this side of a value.
    pub(super) fn look_at(&self, name: &str, of: Of) -> bool {
        self.that_look_at(name, of).next().is_some()
    }

    fn that_look_at<'t>(&'t self, name: &'t str, of: Of) -> impl Iterator<Item = &'t Tap> {
        let looks = move |tap: &&Tap| tap.value == name && (tap.of == of || tap.keep.is_gates());
        self.taps.iter().filter(looks)
    }

    /// The values whose gradient is looked at.
    pub(super) fn gradients(&self) -> impl Iterator<Item = &String> {
        let looks = self.taps.iter().filter(|tap| tap.of == Of::Gradient);
        looks.map(|tap| &tap.value)
    }

    /// Before a step: all gradients that are looked at are to come.
    pub(super) fn wait_for_gradients(&mut self) {
        self.waiting = self.gradients().cloned().collect();
    }

    /// That of a value has come.
    pub(super) fn gradient_has_come(&mut self, name: &str) {
        self.waiting.remove(name);
    }

    /// Those that have not.
    pub(super) fn take_waiting(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.waiting)
    }

    /// Adds a batch to the statistics of every tap on this side of a value.
    pub(super) fn fold(&mut self, name: &str, of: Of, array: &Floats) -> Result<(), ExecError> {
        let held = match of {
            Of::Gradient => self.held.remove(name),
            Of::Activation => {
                if self.wants_gates(name) {
                    self.held.insert(name.to_owned(), array.clone());
                }
                None
            }
        };
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
            let view = by_channel(array, tap.keep);
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
            match (statistic, &held) {
                (Statistic::Gates(gates), Some(values)) if values.shape() == array.shape() => {
                    gates.fold(by_channel(values, tap.keep), view);
                }
                (statistic, _) if !tap.keep.is_gates() => statistic.fold(view),
                _ => {
                    return Err(ExecError::Tap {
                        value: name.to_owned(),
                        problem: "gates are of the gradient of a value that was computed"
                            .to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Adds a batch of images in bundles of so many, all of whose taps on this side keep second moments. `false` where one
    /// keeps something else, or the batch is not of the kind that was added before: [`Taps::fold`] is for those.
    pub(super) fn fold_bundles(
        &mut self,
        name: &str,
        of: Of,
        array: &Floats,
        bundle: usize,
    ) -> bool {
        let own: Vec<Tap> = self.that_look_at(name, of).cloned().collect();
        let (shape, Some(values)) = (array.shape(), array.as_slice()) else {
            return false;
        };
        let is_second = |tap: &Tap| tap.keep == Keep::SecondMoment;
        if shape.len() < 2 || values.is_empty() || !own.iter().all(is_second) {
            return false;
        }
        own.into_iter().all(|tap| {
            let new = || Statistic::new(tap.keep, shape[1]);
            let statistic = self.statistics.entry(tap.clone()).or_insert_with(new);
            statistic.channels() == shape[1] && statistic.fold_bundles(bundle, shape[0], values)
        })
    }

    fn wants_gates(&self, name: &str) -> bool {
        self.taps
            .iter()
            .any(|tap| tap.value == name && tap.keep.is_gates())
    }

    pub(super) fn statistics(&self) -> &BTreeMap<Tap, Statistic> {
        &self.statistics
    }

    pub(super) fn take_statistics(&mut self) -> BTreeMap<Tap, Statistic> {
        std::mem::take(&mut self.statistics)
    }
}

/// `array` with its channels on axis 1.
fn by_channel(array: &Floats, keep: Keep) -> ArrayViewD<'_, f32> {
    let mut view = array.view();
    if keep.has_channels_last() {
        view.swap_axes(1, array.ndim() - 1);
    }
    view
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::{ArcArray, IxDyn};

    fn tap(of: Of, keep: Keep) -> Tap {
        let value = "x".to_owned();
        Tap { value, of, keep }
    }

    #[test]
    fn channels_on_the_last_axis_are_moved_to_the_second() {
        let last: Floats =
            ArcArray::from_shape_fn(IxDyn(&[2, 5, 3]), |i| (i[0] + 2 * i[1] * i[2]) as f32);
        let mut second = last.clone();
        second.swap_axes(1, 2);
        let moments = |array: &Floats, keep| {
            let tap = tap(Of::Activation, keep);
            let mut taps = Taps::new(std::slice::from_ref(&tap));
            taps.fold("x", Of::Activation, array).unwrap();
            taps.statistics()[&tap].clone()
        };
        let found = moments(&last, Keep::LastSecondMoment);
        assert_eq!(found.channels(), 3);
        assert_eq!(found, moments(&second, Keep::SecondMoment));
        let gates = |array: &Floats, keep| {
            let tap = tap(Of::Gradient, keep);
            let mut taps = Taps::new(std::slice::from_ref(&tap));
            assert!(taps.look_at("x", Of::Activation));
            taps.fold("x", Of::Activation, &array.mapv(|v| v + 1.0).into_shared())
                .unwrap();
            taps.fold("x", Of::Gradient, array).unwrap();
            // A gradient without its value is none.
            assert!(taps.fold("x", Of::Gradient, array).is_err());
            taps.statistics()[&tap].clone()
        };
        let found = gates(&last, Keep::LastGates);
        assert_eq!(found.channels(), 3);
        assert_eq!(found, gates(&second, Keep::Gates));
    }
}
