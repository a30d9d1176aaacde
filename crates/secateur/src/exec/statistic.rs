//! Running statistics of tapped values, folded on the host: products of some hundred positions in `f32`, all
//! sums beyond that in `f64`.
//!
//! Sums are taken over fixed chunks of images and added in order, so that a result does not depend
//! on the number of threads.

use super::{Gates, Keep};
use ndarray::{Array1, Array2, ArrayView3, ArrayViewD, Axis, s};
use rayon::prelude::*;
use secateur_kernels::gram::{
    add_outer_products, add_outer_products_of_bundles, add_outer_products_of_planes,
};
use secateur_kernels::layout::BUNDLES;
use secateur_kernels::{Layout, channel};

/// What a tap has gathered, in `f64`.
#[derive(Clone, Debug, PartialEq)]
pub enum Statistic {
    /// For [`Keep::Moments`].
    Moments {
        /// Images seen.
        images: u64,
        /// Values seen per channel (images times positions).
        count: u64,
        /// Sum per channel.
        sum: Vec<f64>,
        /// Sum of squares per channel.
        sum_of_squares: Vec<f64>,
    },
    /// For [`Keep::SecondMoment`] and [`Keep::LastSecondMoment`].
    SecondMoment {
        /// Images seen.
        images: u64,
        /// Positions seen (images times positions).
        count: u64,
        /// The sum of `v`.
        sum: Vec<f64>,
        /// The lower triangle of the sum of `v v^T`; the rest is zero. See [`Statistic::second_moment`].
        lower: Array2<f64>,
    },
    /// For [`Keep::Gates`] and [`Keep::LastGates`].
    Gates(Gates),
}

/// Fewer images are no bundle.
const LEAST_BUNDLE: usize = BUNDLES[BUNDLES.len() - 1];

/// Second moments are summed over this many chunks of a batch: enough for the threads of a
/// workstation, few enough that their `[channels, channels]` sums fit in memory.
const CHUNKS: usize = 8;

/// Columns of the matrices that are multiplied: images with fewer positions are joined.
const COLUMNS: usize = 256;

impl Statistic {
    /// A statistic of `channels` channels that has seen nothing.
    pub(crate) fn new(keep: Keep, channels: usize) -> Self {
        match keep {
            Keep::Moments => Self::Moments {
                images: 0,
                count: 0,
                sum: vec![0.0; channels],
                sum_of_squares: vec![0.0; channels],
            },
            Keep::SecondMoment | Keep::LastSecondMoment => {
                // Written at once: memory whose zeros are read first is found twice, page by page, and the second time all
                // threads wait.
                let mut lower = Array2::zeros((channels, channels));
                lower.fill(0.0);
                Self::SecondMoment {
                    images: 0,
                    count: 0,
                    sum: vec![0.0; channels],
                    lower,
                }
            }
            Keep::Gates | Keep::LastGates => Self::Gates(Gates::new(channels)),
        }
    }

    /// The mean of `v v^T` over images and positions; `None` where single channels are kept.
    #[must_use]
    pub fn second_moment(&self) -> Option<Array2<f64>> {
        let Self::SecondMoment { count, lower, .. } = self else {
            return None;
        };
        let mut moment = lower / (*count).max(1) as f64;
        for row in 0..moment.nrows() {
            for column in 0..row {
                moment[[column, row]] = moment[[row, column]];
            }
        }
        Some(moment)
    }

    /// The mean over images and positions, and the covariance; `None` where single channels are kept.
    pub(crate) fn mean_and_covariance(&self) -> Option<(Array1<f64>, Array2<f64>)> {
        let moment = self.second_moment()?;
        let Self::SecondMoment { count, sum, .. } = self else {
            return None;
        };
        let mean = Array1::from(sum.clone()) / (*count).max(1) as f64;
        let column = mean.view().insert_axis(Axis(1));
        let square = column.dot(&mean.view().insert_axis(Axis(0)));
        Some((mean, moment - square))
    }

    /// The number of channels.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Moments { sum, .. } | Self::SecondMoment { sum, .. } => sum.len(),
            Self::Gates(gates) => gates.channels(),
        }
    }

    /// Adds a batch `[images, channels, ...]` with as many channels as this statistic has.
    pub(crate) fn fold(&mut self, batch: ArrayViewD<'_, f32>) {
        let [n_images, n_channels] = [batch.shape()[0], batch.shape()[1]];
        let n_positions: usize = batch.shape()[2..].iter().product();
        let batch = batch.as_standard_layout();
        let Ok(batch) = batch
            .view()
            .into_shape_with_order((n_images, n_channels, n_positions))
        else {
            return; // Cannot happen: the layout is standard and the sizes agree.
        };
        let seen = (n_images * n_positions) as u64;
        match self {
            Self::Moments {
                images,
                count,
                sum,
                sum_of_squares,
            } => {
                *images += n_images as u64;
                *count += seen;
                for image in batch.outer_iter() {
                    for (channel, row) in image.outer_iter().enumerate() {
                        let (mut total, mut squares) = (0.0, 0.0);
                        for &value in row {
                            let value = f64::from(value);
                            total += value;
                            squares += value * value;
                        }
                        sum[channel] += total;
                        sum_of_squares[channel] += squares;
                    }
                }
            }
            Self::SecondMoment {
                images,
                count,
                sum,
                lower,
            } => {
                *images += n_images as u64;
                *count += seen;
                if let (Some(values), Some(lower)) = (batch.as_slice(), lower.as_slice_mut()) {
                    let whole = n_images - n_images % LEAST_BUNDLE;
                    let values = &values[..whole * n_channels * n_positions];
                    if let Layout::Bundles(bundle) = Layout::best(whole) {
                        let shape = [n_channels, n_positions];
                        add_outer_products_of_planes(bundle, shape, values, sum, lower);
                    }
                    let rest = batch.slice_move(s![whole.., .., ..]);
                    if let Some(values) = rest.as_slice() {
                        add_to(sum, &channel::totals(n_channels, n_positions, values));
                    }
                    add_second_moment(rest, lower);
                }
            }
            Self::Gates(_) => {} // Values and gradients are added to them together.
        }
    }

    /// The same for images in bundles of so many, as the native engine has them; `false` where those are not added so.
    pub(crate) fn fold_bundles(&mut self, bundle: usize, n_images: usize, values: &[f32]) -> bool {
        let Self::SecondMoment {
            images,
            count,
            sum,
            lower,
        } = self
        else {
            return false;
        };
        let (channels, Some(lower)) = (sum.len(), lower.as_slice_mut()) else {
            return false;
        };
        *images += n_images as u64;
        *count += (values.len() / channels.max(1)) as u64;
        add_outer_products_of_bundles(bundle, channels, values, sum, lower);
        true
    }
}

fn add_to(sums: &mut [f64], more: &[f64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Adds the sum over images and positions of `v v^T` to the lower triangle, for `batch` `[images, channels, positions]`,
/// whose layout is standard.
fn add_second_moment(batch: ArrayView3<'_, f32>, lower: &mut [f64]) {
    let (n_images, n_channels, n_positions) = batch.dim();
    let Some(values) = batch.as_slice().filter(|values| !values.is_empty()) else {
        return;
    };
    let image_len = n_channels * n_positions;
    // Sums of a chunk are not worth their memory for fewer columns.
    let chunks = (n_images * n_positions / COLUMNS).clamp(1, CHUNKS);
    let chunk = n_images.div_ceil(chunks).max(1);
    let joined = (COLUMNS / n_positions.max(1)).clamp(1, chunk);
    let chunks = n_images.div_ceil(chunk);
    let mut others = vec![0.0; (chunks - 1) * lower.len()];
    let parts =
        std::iter::once(&mut *lower).chain(others.chunks_exact_mut(n_channels * n_channels));
    let parts: Vec<(usize, &mut [f64])> = parts.enumerate().collect();
    parts.into_par_iter().for_each(|(index, sums)| {
        let first = index * chunk;
        let last = (first + chunk).min(n_images);
        let (mut columns, mut block) = (Vec::new(), Vec::new());
        for start in (first..last).step_by(joined) {
            let end = (start + joined).min(last);
            let images = &values[start * image_len..end * image_len];
            let width = (end - start) * n_positions;
            let columns = if end - start == 1 {
                images
            } else {
                join(images, n_channels, n_positions, &mut columns);
                &columns
            };
            add_outer_products(columns, n_channels, width, &mut block, sums);
        }
    });
    for other in others.chunks_exact(lower.len()) {
        add_to(lower, other);
    }
}

/// Puts the positions of several images side by side: `[images, channels, positions]` becomes
/// `[channels, images, positions]`.
fn join(images: &[f32], n_channels: usize, n_positions: usize, columns: &mut Vec<f32>) {
    columns.clear();
    for channel in 0..n_channels {
        for image in images.chunks(n_channels * n_positions) {
            let first = channel * n_positions;
            columns.extend_from_slice(&image[first..first + n_positions]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Floats;
    use ndarray::{Array, IxDyn};

    /// A batch whose values are known small integers, so that all sums are exact.
    fn batch(shape: &[usize]) -> Floats {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| ((i * 7 + 3) % 11) as f32 - 5.0).collect();
        Array::from_shape_vec(IxDyn(shape), values)
            .unwrap_or_default()
            .into_shared()
    }

    #[test]
    fn moments_are_sums_over_images_and_positions() {
        let batch = batch(&[3, 2, 2, 2]);
        let mut statistic = Statistic::new(Keep::Moments, 2);
        statistic.fold(batch.view());
        statistic.fold(batch.view());
        let (mut want_sum, mut want_squares) = (vec![0.0; 2], vec![0.0; 2]);
        for (index, &value) in batch.indexed_iter() {
            want_sum[index[1]] += 2.0 * f64::from(value);
            want_squares[index[1]] += 2.0 * f64::from(value * value);
        }
        assert_eq!(
            statistic,
            Statistic::Moments {
                images: 6,
                count: 24,
                sum: want_sum,
                sum_of_squares: want_squares
            }
        );
    }

    #[test]
    fn the_second_moment_is_the_sum_of_outer_products() {
        for shape in [vec![19, 3, 2, 2], vec![5, 4], vec![1, 2, 20, 20]] {
            let batch = batch(&shape);
            let channels = shape[1];
            let positions: usize = shape[2..].iter().product();
            let flat: Vec<f32> = batch.iter().copied().collect();
            let at =
                |n: usize, c: usize, p: usize| f64::from(flat[(n * channels + c) * positions + p]);
            let mut want = Array2::<f64>::zeros((channels, channels));
            let mut sum = vec![0.0; channels];
            for n in 0..shape[0] {
                for p in 0..positions {
                    for i in 0..channels {
                        sum[i] += at(n, i, p);
                        for j in 0..channels {
                            want[[i, j]] += at(n, i, p) * at(n, j, p);
                        }
                    }
                }
            }
            let mut statistic = Statistic::new(Keep::SecondMoment, channels);
            statistic.fold(batch.view());
            let count = (shape[0] * positions) as f64;
            assert_eq!(
                statistic.second_moment().unwrap(),
                want / count,
                "shape {shape:?}"
            );
            let Statistic::SecondMoment {
                images, sum: got, ..
            } = &statistic
            else {
                panic!("{statistic:?}");
            };
            assert_eq!((*images, got), (shape[0] as u64, &sum), "shape {shape:?}");
        }
    }
}
