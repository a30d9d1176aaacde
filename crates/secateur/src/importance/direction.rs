//! Scores that follow from a layer's matrices and moments (docs/method.md, sections 3 and 4).

use crate::decompose::Directions;
use serde::{Deserialize, Serialize};

/// What a direction is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// The squared first-order change of the loss, over a window of training (Wong et al.,
    /// arXiv 2108.02893); see [`super::TaylorWindow`].
    Taylor,
    /// Variance of the basis activation times curvature of the loss along the projection row:
    /// an estimate of the loss increase, in one unit for all layers.
    #[default]
    Fisher,
    /// Variance that the direction adds to the layer's output.
    Energy,
    /// Squared singular value of the direction's part of the weight.
    Magnitude,
    /// That, divided by the sum over the directions of its layer that are at least as large (Lee et
    /// al., arXiv 2010.07611).
    Lamp,
}

/// The score of each direction of a layer, the groups of a direction summed; `None` for
/// [`Score::Taylor`], which needs training.
#[must_use]
pub fn score(score: Score, directions: &Directions) -> Option<Vec<f64>> {
    let matrices = &directions.matrices;
    let (groups, _, rank) = matrices.basis.dim();
    let over_groups = |cost: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..rank)
            .map(|j| (0..groups).map(|k| cost(k, j)).sum())
            .collect()
    };
    let squared_row = |k: usize, j: usize| {
        let factor = matrices.factors[[k, j]];
        let row = matrices.projection.slice(ndarray::s![k, j, ..]);
        factor * factor * row.dot(&row)
    };
    let squared_filter = |k: usize, j: usize| {
        let filter = matrices.basis.slice(ndarray::s![k, .., j]);
        filter.dot(&filter)
    };
    let magnitude = || over_groups(&|k, j| squared_row(k, j) * squared_filter(k, j));
    match score {
        Score::Taylor => None,
        Score::Fisher => Some(over_groups(&|k, j| {
            directions.variance[[k, j]] * directions.curvature[[k, j]]
        })),
        Score::Energy => Some(over_groups(&|k, j| {
            directions.variance[[k, j]] * squared_row(k, j)
        })),
        Score::Magnitude => Some(magnitude()),
        Score::Lamp => Some(lamp(&magnitude())),
    }
}

/// What each of `rank` directions costs, from what the channels of its basis activations do, `[groups * rank]`: a direction
/// goes in all groups at once.
#[must_use]
pub fn over_groups(costs: &[f64], rank: usize) -> Vec<f64> {
    let of_direction = |j| costs.iter().skip(j).step_by(rank.max(1)).sum();
    (0..rank).map(of_direction).collect()
}

/// Each value divided by the sum of all that are at least as large.
pub(super) fn lamp(magnitudes: &[f64]) -> Vec<f64> {
    let share = |value: f64| {
        let rest: f64 = magnitudes.iter().filter(|&&other| other >= value).sum();
        if rest > 0.0 { value / rest } else { 0.0 }
    };
    magnitudes.iter().map(|&value| share(value)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::graph::FactorMatrices;
    use ndarray::{Array2, array};

    #[test]
    fn scores_are_those_of_the_closed_forms() {
        // One group, filters (1, 0) and (0, 2), rows (3) and (1).
        let directions = Directions {
            matrices: FactorMatrices {
                basis: array![[[1.0, 0.0], [0.0, 2.0]]],
                factors: Array2::ones((1, 2)),
                projection: array![[[3.0], [1.0]]],
            },
            means: Array2::zeros((1, 2)),
            variance: array![[2.0, 5.0]],
            curvature: array![[0.5, 4.0]],
        };
        let of = |kind| score(kind, &directions).unwrap();
        assert_eq!(of(Score::Fisher), [1.0, 20.0]);
        assert_eq!(of(Score::Energy), [18.0, 5.0]);
        assert_eq!(of(Score::Magnitude), [9.0, 4.0]);
        assert_eq!(of(Score::Lamp), [1.0, 4.0 / 13.0]);
        assert_eq!(score(Score::Taylor, &directions), None);
    }

    #[test]
    fn a_direction_costs_what_it_does_in_all_groups() {
        assert_eq!(
            over_groups(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 3),
            [9.0, 18.0, 36.0]
        );
        assert_eq!(over_groups(&[], 0), [0.0; 0]);
    }

    #[test]
    fn a_layer_of_zeros_is_worth_nothing() {
        assert_eq!(lamp(&[0.0, 0.0]), [0.0, 0.0]);
    }
}
