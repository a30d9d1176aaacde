//! The matrix shape of a layer, and what it costs at each rank (docs/method.md, section 2).

/// What a layer or a network costs: parameters, multiply-accumulates of one image and, where it was
/// measured, time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Weights; scaling factors and biases are not counted, as the former fold away and the latter
    /// stay whatever the rank.
    pub params: u64,
    /// Multiply-accumulates of one image.
    pub macs: u64,
    /// Nanoseconds of one run where they were measured, else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nanos: u64,
}

fn is_zero(nanos: &u64) -> bool {
    *nanos == 0
}

impl Size {
    /// The size of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            params: self.params.saturating_add(other.params),
            macs: self.macs.saturating_add(other.macs),
            nanos: self.nanos.saturating_add(other.nanos),
        }
    }

    /// What is left without `other`; nothing is less than nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            params: self.params.saturating_sub(other.params),
            macs: self.macs.saturating_sub(other.macs),
            nanos: self.nanos.saturating_sub(other.nanos),
        }
    }
}

/// The matrix shape of a convolution or dense layer: per group, `W` is `[n, co / groups]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerShape {
    /// Inputs of one output per group: input channels per group times kernel positions.
    pub n: usize,
    /// Output channels of all groups.
    pub co: usize,
    /// Number of groups; 1 for dense layers.
    pub groups: usize,
}

impl LayerShape {
    /// The largest number of directions a decomposition can have: `min(n, co / groups)`.
    #[must_use]
    pub fn full_rank(&self) -> usize {
        self.n.min(self.co / self.groups.max(1))
    }

    /// Weights of the dense kernel: `n * co`.
    #[must_use]
    pub fn dense_params(&self) -> u64 {
        (self.n as u64).saturating_mul(self.co as u64)
    }

    /// Weights that one direction costs in all groups together: `groups * n + co`.
    #[must_use]
    pub fn direction_params(&self) -> u64 {
        (self.groups as u64)
            .saturating_mul(self.n as u64)
            .saturating_add(self.co as u64)
    }

    /// The largest rank at which two factors are smaller than the dense kernel: the largest `r'`
    /// with `r' * (n + co / groups) < n * co / groups`; 0 where no rank pays.
    #[must_use]
    pub fn break_even_rank(&self) -> usize {
        let direction = self.direction_params().max(1);
        let rank = self.dense_params().saturating_sub(1) / direction;
        usize::try_from(rank).unwrap_or(usize::MAX)
    }

    /// Weights at `rank` under the size rule: two factors up to the break-even rank, else the dense
    /// kernel.
    #[must_use]
    pub fn params_at(&self, rank: usize) -> u64 {
        if rank <= self.break_even_rank() {
            self.direction_params().saturating_mul(rank as u64)
        } else {
            self.dense_params()
        }
    }

    /// [`Self::params_at`], and the multiply-accumulates of `positions` output positions.
    #[must_use]
    pub fn size_at(&self, rank: usize, positions: u64) -> Size {
        let params = self.params_at(rank);
        Size {
            params,
            macs: params.saturating_mul(positions),
            nanos: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_rank_is_the_largest_rank_that_pays() {
        for n in 1..30 {
            for group_co in 1..30 {
                for groups in [1, 2, 5] {
                    let shape = LayerShape {
                        n,
                        co: group_co * groups,
                        groups,
                    };
                    let expected = (0..=n * group_co)
                        .filter(|rank| rank * (n + group_co) < n * group_co)
                        .max()
                        .unwrap_or(0);
                    assert_eq!(shape.break_even_rank(), expected, "{shape:?}");
                }
            }
        }
    }

    #[test]
    fn a_layer_above_break_even_costs_its_dense_size() {
        let shape = LayerShape {
            n: 9,
            co: 4,
            groups: 1,
        };
        // 13 weights a direction against 36: two directions pay, three do not.
        assert_eq!(
            (0..5).map(|rank| shape.params_at(rank)).collect::<Vec<_>>(),
            [0, 13, 26, 36, 36]
        );
        assert_eq!(
            shape.size_at(2, 10),
            Size {
                params: 26,
                macs: 260,
                nanos: 0
            }
        );
    }
}
