//! Which channels go, in order: the loss that each costs once the channels that stay stand in for it
//! (docs/method.md, section 6).

use crate::decompose::solve_positive;
use crate::groups::ChannelId;
use ndarray::{Array1, Array2, ArrayView1};
use std::collections::BTreeMap;

/// A value that layers read, with what is known of its channels.
///
/// `1 / S^-1_cc`, of the channels that are left, is what the others cannot predict of channel `c`, in the
/// least-squares sense. Channel `p` that goes takes `r r^T / r_p` off `S^-1`, with `r` its row as it is by
/// then. Costs want the diagonal alone, so that is what is kept up to date; a row is computed when its
/// channel goes, from the rows of those that went before it (Cholesky decomposition, looking left).
#[derive(Clone, Debug)]
pub struct Reader {
    channels: Vec<Option<ChannelId>>,
    /// Second moment of the loss gradient, per channel.
    curvature: Array1<f64>,
    /// The inverse second moment of all channels; `None` where none stands in for another one.
    inverse: Option<Array2<f64>>,
    /// The diagonal of the inverse second moment of the channels that are left.
    diagonal: Vec<f64>,
    /// What each channel that went took off.
    taken: Vec<Taken>,
}

/// A channel that went.
#[derive(Clone, Debug)]
struct Taken {
    /// Its row of the inverse second moment, as it was then.
    row: Vec<f64>,
    /// Its entry on the diagonal.
    pivot: f64,
}

impl Reader {
    /// A reader of `channels`, by index along the axis, whose `second` moment `[c, c]` is summed over
    /// positions and `curvature` `[c]` is the mean over them. `ridge` is the part of the mean diagonal
    /// that is added before the moment is inverted.
    ///
    /// Returns `None` where the shapes do not fit or the moment has no inverse.
    #[must_use]
    pub fn new(
        channels: &[Option<ChannelId>],
        second: &Array2<f64>,
        curvature: ArrayView1<'_, f64>,
        ridge: f64,
    ) -> Option<Self> {
        let n = channels.len();
        if n == 0 || second.dim() != (n, n) || curvature.len() != n {
            return None;
        }
        let ridge = ridge * second.diag().sum() / n as f64;
        let eye = |row, column| if row == column { 1.0 } else { 0.0 };
        let matrix = |row, column| second[[row, column]] + ridge * eye(row, column);
        let inverse = solve_positive([n, n], matrix, eye)?;
        let mut curvature = curvature.to_owned();
        for indices in together(channels) {
            // What no other channel predicts: the indices of this one go with it.
            let block = |row: usize, column: usize| inverse[[indices[row], indices[column]]];
            let k = indices.len();
            let alone = solve_positive([k, k], block, eye)?;
            for (at, &index) in indices.iter().enumerate() {
                curvature[index] *= alone[[at, at]] * inverse[[index, index]];
            }
        }
        Some(Self {
            channels: channels.to_vec(),
            curvature,
            diagonal: inverse.diag().to_vec(),
            inverse: Some(inverse),
            taken: Vec::new(),
        })
    }

    /// Channels of which each costs what it costs, whatever else goes.
    #[must_use]
    pub fn of_costs(channels: Vec<Option<ChannelId>>, costs: Vec<f64>) -> Self {
        Self {
            diagonal: vec![1.0; channels.len()],
            channels,
            curvature: costs.into(),
            inverse: None,
            taken: Vec::new(),
        }
    }

    /// Whether any of its channels is of that group.
    #[must_use]
    pub fn is_of(&self, group: usize) -> bool {
        let channels = self.channels.iter().flatten();
        channels.into_iter().any(|id| id.group == group)
    }

    /// What removing each channel costs now.
    #[must_use]
    pub fn costs(&self) -> Vec<f64> {
        (0..self.channels.len())
            .map(|index| self.cost(index))
            .collect()
    }

    /// Loss that removing the index costs.
    fn cost(&self, index: usize) -> f64 {
        self.curvature[index] / self.diagonal[index].max(f64::MIN_POSITIVE)
    }

    /// Takes an index out of those that stand in for others.
    fn remove(&mut self, index: usize) {
        let pivot = self.diagonal[index];
        let Some(inverse) = self.inverse.as_ref().filter(|_| pivot > 0.0) else {
            return;
        };
        let mut row = inverse.row(index).to_vec();
        for before in &self.taken {
            let factor = -before.row[index] / before.pivot;
            for (value, other) in row.iter_mut().zip(&before.row) {
                *value += factor * other;
            }
        }
        for (left, value) in self.diagonal.iter_mut().zip(&row) {
            *left += -value / pivot * value;
        }
        self.diagonal[index] = 1.0;
        self.taken.push(Taken { row, pivot });
    }
}

/// The indices of each channel that has more than one.
fn together(channels: &[Option<ChannelId>]) -> impl Iterator<Item = Vec<usize>> {
    let mut indices: BTreeMap<ChannelId, Vec<usize>> = BTreeMap::new();
    for (index, id) in channels.iter().enumerate() {
        if let Some(id) = id {
            indices.entry(*id).or_default().push(index);
        }
    }
    indices.into_values().filter(|indices| indices.len() > 1)
}

/// The channels in the order in which they go, each computed when it is asked for: each time the one that
/// costs least for what it saves. One channel of every group stays.
#[derive(Clone, Debug)]
pub struct RemovalOrder {
    readers: Vec<Reader>,
    /// Where each channel of each group is read: reader and index.
    places: Vec<Vec<Vec<(usize, usize)>>>,
    /// By group and channel, whether it has not gone.
    left: Vec<Vec<bool>>,
    /// What one channel of each group saves.
    saved: Vec<f64>,
    /// Of each group, the channel that costs least for what it saves and that quotient, as far as known: it may
    /// have grown since.
    best: Vec<Option<(f64, usize)>>,
}

impl RemovalOrder {
    /// `sizes` holds the number of channels of each group, `saved` what one channel of it saves: those of
    /// groups that save nothing stay.
    #[must_use]
    pub fn new(readers: Vec<Reader>, sizes: &[usize], saved: &[f64]) -> Self {
        let mut places: Vec<Vec<Vec<(usize, usize)>>> =
            sizes.iter().map(|&size| vec![Vec::new(); size]).collect();
        for (reader, found) in readers.iter().enumerate() {
            for (index, id) in found.channels.iter().enumerate() {
                let id = id.as_ref();
                let place = id.and_then(|id| places.get_mut(id.group)?.get_mut(id.channel));
                if let Some(place) = place {
                    place.push((reader, index));
                }
            }
        }
        let mut order = Self {
            readers,
            places,
            left: sizes.iter().map(|&size| vec![true; size]).collect(),
            saved: saved.to_vec(),
            best: Vec::new(),
        };
        order.best = (0..sizes.len())
            .map(|group| order.cheapest(group))
            .collect();
        order
    }

    /// The channel of a group that costs least for what it saves, and that quotient.
    fn cheapest(&self, group: usize) -> Option<(f64, usize)> {
        let (left, saved) = (&self.left[group], self.saved[group]);
        if left.iter().filter(|&&left| left).count() <= 1 || saved <= 0.0 {
            return None;
        }
        (0..left.len())
            .filter(|&channel| left[channel])
            .map(|channel| {
                let places = self.places[group][channel].iter();
                let cost: f64 = places
                    .map(|&(reader, index)| self.readers[reader].cost(index))
                    .sum();
                (cost / saved, channel)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    }
}

impl Iterator for RemovalOrder {
    type Item = ChannelId;

    fn next(&mut self) -> Option<ChannelId> {
        loop {
            let groups = self.best.iter().enumerate();
            let (cost, group, _) = groups
                .filter_map(|(group, best)| best.map(|(cost, channel)| (cost, group, channel)))
                .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
            // A removal in another group may have raised what is read together: costs only grow, so the
            // cheapest one is certain once its own is up to date.
            self.best[group] = self.cheapest(group);
            let Some((now, channel)) = self.best[group] else {
                continue;
            };
            if now > cost {
                continue;
            }
            self.left[group][channel] = false;
            for &(reader, index) in &self.places[group][channel] {
                self.readers[reader].remove(index);
            }
            self.best[group] = self.cheapest(group);
            return Some(ChannelId { group, channel });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn ids(n: usize) -> Vec<Option<ChannelId>> {
        (0..n)
            .map(|channel| Some(ChannelId { group: 0, channel }))
            .collect()
    }

    #[test]
    fn what_goes_with_a_channel_does_not_stand_in_for_it() {
        // Two channels, read at two positions each, which are nearly equal: each is worth its variance, about 4 and 1.
        let second = array![
            [4.0, 3.9, 0.0, 0.0],
            [3.9, 4.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.9],
            [0.0, 0.0, 0.9, 1.0],
        ];
        let channels: Vec<_> = [0, 0, 1, 1]
            .map(|channel| Some(ChannelId { group: 0, channel }))
            .into();
        let curvature = array![1.0, 1.0, 1.0, 1.0];
        let reader = Reader::new(&channels, &second, curvature.view(), 1e-12).unwrap();
        for (cost, wanted) in reader.costs().into_iter().zip([4.0, 4.0, 1.0, 1.0]) {
            assert!((cost - wanted).abs() < 1e-6, "{cost} {wanted}");
        }
    }

    fn order(second: &Array2<f64>, curvature: &Array1<f64>) -> Vec<usize> {
        let n = curvature.len();
        let reader = Reader::new(&ids(n), second, curvature.view(), 1e-9).unwrap();
        let order = RemovalOrder::new(vec![reader], &[n], &[1.0]);
        order.map(|id| id.channel).collect()
    }

    #[test]
    fn a_channel_that_others_predict_goes_first_but_not_all_of_them() {
        // Channels 0 and 1 are equal up to little noise, and loud; channel 2 is on its own, and faint.
        let second = array![[10.0, 9.99, 0.0], [9.99, 10.1, 0.0], [0.0, 0.0, 1.0]];
        let flat = array![1.0, 1.0, 1.0];
        assert_eq!(order(&second, &flat), [0, 2]);
        // Where the loss does not care for channel 2, it goes first.
        assert_eq!(order(&second, &array![1.0, 1.0, 1e-6])[0], 2);
    }

    #[test]
    fn the_cost_is_the_residual_of_the_regression_on_the_others() {
        // E[x0^2] - E[x0 x1]^2 / E[x1^2] = 4 - 1 / 2.
        let second = array![[4.0, 1.0], [1.0, 2.0]];
        let curvature = array![3.0, 1.0];
        let mut reader = Reader::new(&ids(2), &second, curvature.view(), 0.0).unwrap();
        assert!((reader.cost(0) - 3.0 * 3.5).abs() < 1e-12);
        // Alone, it is all there is.
        reader.remove(1);
        assert!((reader.cost(0) - 3.0 * 4.0).abs() < 1e-12);
    }

    #[test]
    fn of_two_equal_channels_in_two_groups_one_stays() {
        // Both groups are read together: a0 and b0 are nearly equal, a1 and b1 are on their own.
        let channels = [(0, 0), (0, 1), (1, 0), (1, 1)]
            .map(|(group, channel)| Some(ChannelId { group, channel }));
        let mut second = Array2::eye(4);
        (second[[0, 2]], second[[2, 0]]) = (0.999, 0.999);
        let curvature = array![0.9, 0.5, 1.0, 0.5];
        let reader = Reader::new(&channels, &second, curvature.view(), 0.0).unwrap();
        let order = RemovalOrder::new(vec![reader], &[2, 2], &[1.0, 1.0]);
        let order: Vec<_> = order.map(|id| (id.group, id.channel)).collect();
        assert_eq!(order, [(0, 0), (1, 1)]);
    }

    #[test]
    fn channels_of_the_group_that_saves_more_go_first() {
        let channels = [(0, 0), (0, 1), (1, 0), (1, 1)]
            .map(|(group, channel)| Some(ChannelId { group, channel }));
        let second = Array2::eye(4);
        let curvature = Array1::ones(4);
        let reader = Reader::new(&channels, &second, curvature.view(), 0.0).unwrap();
        let order = RemovalOrder::new(vec![reader], &[2, 2], &[1.0, 5.0]);
        assert_eq!(order.map(|id| id.group).collect::<Vec<_>>(), [1, 0]);
    }

    /// Second moments of `n` channels over more images than there are channels.
    fn second_moment(n: usize, seed: u64) -> Array2<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let images = Array2::from_shape_fn((2 * n, n), |_| random.random_range(-1.0..1.0));
        images.t().dot(&images)
    }

    /// Dense blocks: each reader reads all channels that were made before it.
    fn dense_readers(groups: usize, size: usize) -> Vec<Reader> {
        let reader = |groups: usize| {
            let ids = (0..groups * size).map(|index| {
                let (group, channel) = (index / size, index % size);
                Some(ChannelId { group, channel })
            });
            let ids: Vec<_> = ids.collect();
            let curvature = Array1::from_shape_fn(ids.len(), |index| 1.0 + (index % 5) as f64);
            let second = second_moment(ids.len(), groups as u64);
            Reader::new(&ids, &second, curvature.view(), 1e-4).unwrap()
        };
        (1..=groups).map(reader).collect()
    }

    /// The order by the definition: whole inverses, downdated whole, all costs computed anew each time.
    fn obvious_order(readers: &[Reader], sizes: &[usize], saved: &[f64]) -> Vec<ChannelId> {
        let mut inverses: Vec<Array2<f64>> =
            readers.iter().filter_map(|r| r.inverse.clone()).collect();
        let mut left: Vec<ChannelId> = sizes
            .iter()
            .enumerate()
            .flat_map(|(group, &size)| (0..size).map(move |channel| ChannelId { group, channel }))
            .collect();
        let places = |id: ChannelId| {
            let reads = readers.iter().enumerate();
            reads.filter_map(move |(reader, found)| {
                let index = found.channels.iter().position(|&c| c == Some(id))?;
                Some((reader, index))
            })
        };
        let mut order = Vec::new();
        loop {
            let cost = |&id: &ChannelId| {
                let costs = places(id).map(|(r, i)| readers[r].curvature[i] / inverses[r][[i, i]]);
                costs.sum::<f64>() / saved[id.group]
            };
            let is_last = |id: &ChannelId| left.iter().filter(|l| l.group == id.group).count() == 1;
            let candidates = left.iter().filter(|id| !is_last(id));
            let Some(&next) = candidates.min_by(|a, b| cost(a).total_cmp(&cost(b))) else {
                return order;
            };
            for (reader, index) in places(next) {
                let inverse = &mut inverses[reader];
                let row = inverse.row(index).to_owned();
                for (mut other, &factor) in inverse.outer_iter_mut().zip(&row) {
                    other.scaled_add(-factor / row[index], &row);
                }
            }
            left.retain(|&id| id != next);
            order.push(next);
        }
    }

    #[test]
    fn rows_that_are_computed_late_give_the_order_of_whole_matrices() {
        let readers = dense_readers(6, 7);
        let (sizes, saved) = ([7; 6], [3.0, 1.0, 2.0, 1.0, 5.0, 4.0]);
        let order = RemovalOrder::new(readers.clone(), &sizes, &saved);
        let order: Vec<ChannelId> = order.collect();
        assert_eq!(order.len(), 6 * 6);
        assert_eq!(order, obvious_order(&readers, &sizes, &saved));
    }

    #[test]
    fn what_is_left_has_the_inverse_of_its_own_moment() {
        let (n, second) = (9, second_moment(9, 1));
        let curvature = Array1::ones(n);
        let mut reader = Reader::new(&ids(n), &second, curvature.view(), 0.0).unwrap();
        [4, 0, 7].into_iter().for_each(|index| reader.remove(index));
        let left = [1, 2, 3, 5, 6, 8];
        let part = second.select(ndarray::Axis(0), &left);
        let part = part.select(ndarray::Axis(1), &left);
        let alone = Reader::new(
            &ids(left.len()),
            &part,
            Array1::ones(left.len()).view(),
            0.0,
        );
        let alone = alone.unwrap();
        for (at, &index) in left.iter().enumerate() {
            // Three downdates of well conditioned matrices in f64.
            let (got, want) = (reader.cost(index), alone.cost(at));
            assert!(
                (got - want).abs() < 1e-10 * want,
                "{index}: {got}, not {want}"
            );
        }
    }
}
