//! What scaling the channels of a value does to the loss of each image.

use ndarray::ArrayViewD;
use rayon::prelude::*;

/// Sums over images, per channel. With `a` the sum over the positions of an image of value times gradient, and `b` that
/// of the gradient:
#[derive(Clone, Debug, PartialEq)]
pub struct Gates {
    /// Images seen.
    pub images: u64,
    /// Of `a^2`.
    pub squares: Vec<f64>,
    /// Of `a b`.
    pub cross: Vec<f64>,
    /// Of `b^2`.
    pub gradients: Vec<f64>,
}

impl Gates {
    pub(super) fn new(channels: usize) -> Self {
        Self {
            images: 0,
            squares: vec![0.0; channels],
            cross: vec![0.0; channels],
            gradients: vec![0.0; channels],
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.squares.len()
    }

    /// By channel, the mean over images of the square of the sum over positions of `(value - mean) gradient`: the
    /// change of the loss to second order (Gauss-Newton) where the channel becomes its mean. `None` where there are not
    /// as many `means` as channels.
    pub(crate) fn costs(&self, means: &[f64]) -> Option<Vec<f64>> {
        let images = self.images.max(1) as f64;
        let cost = |(channel, mean): (usize, &f64)| {
            let sum = self.squares[channel] - 2.0 * mean * self.cross[channel]
                + mean * mean * self.gradients[channel];
            (sum / images).max(0.0)
        };
        (means.len() == self.channels()).then(|| means.iter().enumerate().map(cost).collect())
    }

    /// Adds the values and gradients of a batch, both `[images, channels, ...]` with as many channels.
    pub(super) fn fold(&mut self, values: ArrayViewD<'_, f32>, slopes: ArrayViewD<'_, f32>) {
        let [n_images, channels] = [values.shape()[0], values.shape()[1]];
        let positions: usize = values.shape()[2..].iter().product();
        let (values, slopes) = (values.as_standard_layout(), slopes.as_standard_layout());
        let (Some(values), Some(slopes)) = (values.as_slice(), slopes.as_slice()) else {
            return; // Cannot happen: the layout is standard.
        };
        if values.is_empty() || values.len() != slopes.len() {
            return;
        }
        self.images += n_images as u64;
        let row = |(value, slope): (&[f32], &[f32])| {
            let pairs = value.iter().zip(slope);
            pairs.fold((0.0_f64, 0.0_f64), |(a, b), (&v, &g)| {
                (a + f64::from(v) * f64::from(g), b + f64::from(g))
            })
        };
        let sums: Vec<(f64, f64)> = values
            .par_chunks(positions)
            .zip(slopes.par_chunks(positions))
            .map(row)
            .collect();
        for image in sums.chunks(channels) {
            for (channel, (a, b)) in image.iter().enumerate() {
                self.squares[channel] += a * a;
                self.cross[channel] += a * b;
                self.gradients[channel] += b * b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArrayD, IxDyn};

    /// Small integers, so that all sums are exact.
    fn batch(step: usize) -> ArrayD<f32> {
        let number =
            |at: IxDyn| (((at[0] * 8 + at[1] * 4 + at[2] * 2 + at[3]) * step + 3) % 11) as f32;
        ArrayD::from_shape_fn(IxDyn(&[3, 2, 2, 2]), |at| number(at) - 5.0)
    }

    #[test]
    fn gates_cost_what_their_centred_products_are() {
        let (values, slopes) = (batch(7), batch(5));
        let mut gates = Gates::new(2);
        gates.fold(values.view(), slopes.view());
        let means = [0.5, -1.0];
        let mut want = [0.0; 2];
        for n in 0..3 {
            for (c, want) in want.iter_mut().enumerate() {
                let mut change = 0.0;
                for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let at = [n, c, y, x];
                    change += (f64::from(values[at]) - means[c]) * f64::from(slopes[at]);
                }
                *want += change * change / 3.0;
            }
        }
        let got = gates.costs(&means).unwrap_or_default();
        assert_eq!(got.len(), 2);
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-9 * want, "{got}, not {want}");
        }
        assert_eq!(gates.costs(&[0.0]), None);
    }
}
