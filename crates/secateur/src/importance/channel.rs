//! Which channels go, in order: the loss that each costs once the channels that stay stand in for it
//! (docs/method.md, section 6).

use crate::groups::ChannelId;
use ndarray::{Array1, Array2, ArrayView1, Axis};

/// A value that layers read, with what is known of its channels.
#[derive(Clone, Debug)]
pub struct Reader {
    channels: Vec<Option<ChannelId>>,
    /// Second moment of the loss gradient, per channel.
    curvature: Array1<f64>,
    /// The inverse second moment of the channels that are left. `1 / inverse_cc` is what the others
    /// cannot predict of channel `c`, in the least-squares sense.
    inverse: Array2<f64>,
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
        let matrix = faer::Mat::from_fn(n, n, |row, column| {
            second[[row, column]] + if row == column { ridge } else { 0.0 }
        });
        let inverse =
            faer::linalg::solvers::DenseSolveCore::inverse(&matrix.llt(faer::Side::Lower).ok()?);
        Some(Self {
            channels: channels.to_vec(),
            curvature: curvature.to_owned(),
            inverse: Array2::from_shape_fn((n, n), |(row, column)| inverse[(row, column)]),
        })
    }

    /// Loss that removing the index costs.
    fn cost(&self, index: usize) -> f64 {
        self.curvature[index] / self.inverse[[index, index]].max(f64::MIN_POSITIVE)
    }

    /// Takes an index out of those that stand in for others.
    fn remove(&mut self, index: usize) {
        let pivot = self.inverse[[index, index]];
        if pivot <= 0.0 {
            return;
        }
        let row = self.inverse.row(index).to_owned();
        for (mut other, &factor) in self.inverse.axis_iter_mut(Axis(0)).zip(&row) {
            if factor != 0.0 {
                other.scaled_add(-factor / pivot, &row);
            }
        }
        self.inverse[[index, index]] = 1.0;
    }
}

/// The order in which channels go: each time the one that costs least for what it saves. `sizes`
/// holds the number of channels of each group, `saved` what one channel of it saves. One channel of
/// every group stays.
#[must_use]
pub fn removal_order(mut readers: Vec<Reader>, sizes: &[usize], saved: &[f64]) -> Vec<ChannelId> {
    // Where each channel of each group is read: reader and index.
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
    let mut left: Vec<Vec<bool>> = sizes.iter().map(|&size| vec![true; size]).collect();
    let cheapest = |group: usize, left: &[bool], readers: &[Reader]| {
        if left.iter().filter(|&&left| left).count() <= 1 || saved[group] <= 0.0 {
            return None;
        }
        (0..left.len())
            .filter(|&channel| left[channel])
            .map(|channel| {
                let places = places[group][channel].iter();
                let cost: f64 = places
                    .map(|&(reader, index)| readers[reader].cost(index))
                    .sum();
                (cost / saved[group], channel)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    };
    let mut best: Vec<Option<(f64, usize)>> = (0..sizes.len())
        .map(|group| cheapest(group, &left[group], &readers))
        .collect();
    let mut order = Vec::new();
    loop {
        let next = best
            .iter()
            .enumerate()
            .filter_map(|(group, best)| best.map(|(cost, channel)| (cost, group, channel)))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let Some((cost, group, _)) = next else {
            return order;
        };
        // A removal in another group may have raised what is read together: costs only grow, so the
        // cheapest one is certain once its own is up to date.
        best[group] = cheapest(group, &left[group], &readers);
        let Some((now, channel)) = best[group] else {
            continue;
        };
        if now > cost {
            continue;
        }
        left[group][channel] = false;
        for &(reader, index) in &places[group][channel] {
            readers[reader].remove(index);
        }
        order.push(ChannelId { group, channel });
        best[group] = cheapest(group, &left[group], &readers);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::array;

    fn ids(n: usize) -> Vec<Option<ChannelId>> {
        (0..n)
            .map(|channel| Some(ChannelId { group: 0, channel }))
            .collect()
    }

    fn order(second: &Array2<f64>, curvature: &Array1<f64>) -> Vec<usize> {
        let n = curvature.len();
        let reader = Reader::new(&ids(n), second, curvature.view(), 1e-9).unwrap();
        let order = removal_order(vec![reader], &[n], &[1.0]);
        order.iter().map(|id| id.channel).collect()
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
        let order = removal_order(vec![reader], &[2, 2], &[1.0, 1.0]);
        let order: Vec<_> = order.iter().map(|id| (id.group, id.channel)).collect();
        assert_eq!(order, [(0, 0), (1, 1)]);
    }

    #[test]
    fn channels_of_the_group_that_saves_more_go_first() {
        let channels = [(0, 0), (0, 1), (1, 0), (1, 1)]
            .map(|(group, channel)| Some(ChannelId { group, channel }));
        let second = Array2::eye(4);
        let curvature = Array1::ones(4);
        let reader = Reader::new(&channels, &second, curvature.view(), 0.0).unwrap();
        let order = removal_order(vec![reader], &[2, 2], &[1.0, 5.0]);
        assert_eq!(order.iter().map(|id| id.group).collect::<Vec<_>>(), [1, 0]);
    }
}
