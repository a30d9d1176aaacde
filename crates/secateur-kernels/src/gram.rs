//! Sums of outer products of the columns of a matrix: second moments.

use crate::layout::to_bundles;
use crate::scratch::with_shared;
use crate::{Layout, bundle};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, MatMut, MatRef, Par};

/// Columns whose products are summed in `f32` before they are added in `f64`: the error of so short a sum is
/// below `1e-6` of the sum of its terms' sizes.
const COLUMNS: usize = 512;

/// Adds `sum v v^T` to the lower triangle of `sums` `[rows, rows]`, over all columns `v` of `values`
/// `[rows, columns]`. `block` is scratch memory.
///
/// # Panics
/// Where `values` or `sums` are shorter than that.
pub fn add_outer_products(
    values: &[f32],
    rows: usize,
    columns: usize,
    block: &mut Vec<f32>,
    sums: &mut [f64],
) {
    if rows == 0 || columns == 0 {
        return;
    }
    block.resize(rows * rows, 0.0);
    for first in (0..columns).step_by(COLUMNS) {
        let width = COLUMNS.min(columns - first);
        let from = &values[first..(rows - 1) * columns + first + width];
        let some = MatRef::from_column_major_slice_with_stride(from, width, rows, columns);
        // Row after row it is the upper triangle of the transpose that is asked for.
        let target = MatMut::from_column_major_slice_mut(&mut block[..rows * rows], rows, rows);
        matmul(
            target,
            BlockStructure::TriangularUpper,
            Accum::Replace,
            some.transpose(),
            BlockStructure::Rectangular,
            some,
            BlockStructure::Rectangular,
            1.0_f32,
            Par::Seq,
        );
        for row in 0..rows {
            let part = row * rows..row * rows + row + 1;
            let (sums, block) = (&mut sums[part.clone()], &block[part]);
            for (sum, &part) in sums.iter_mut().zip(block) {
                *sum += f64::from(part);
            }
        }
    }
}

/// Adds `sum v` to `totals` and `sum v v^T` to the lower triangle of `sums` `[channels, channels]`, over the channels `v`
/// of all images and places of `values` in [`Bundles`](crate::Layout::Bundles) of so many images. The error is that of [`add_outer_products`].
///
/// # Panics
/// Where `values` are no whole bundles, or `totals` or `sums` shorter than that.
pub fn add_outer_products_of_bundles(
    images: usize,
    channels: usize,
    values: &[f32],
    totals: &mut [f64],
    sums: &mut [f64],
) {
    let place = images * channels;
    assert!(
        Layout::Bundles(images).fits(images) && place > 0 && values.len().is_multiple_of(place),
        "{} values are no bundles of {images} images of {channels} channels",
        values.len()
    );
    let (totals, sums) = (&mut totals[..channels], &mut sums[..channels * channels]);
    bundle::gram::add(images, channels, values, totals, sums);
}

/// The same for planes `[images, channels, positions]`, which are brought into bundles of so many images.
///
/// # Panics
/// As [`add_outer_products_of_bundles`].
pub fn add_outer_products_of_planes(
    bundle: usize,
    [channels, positions]: [usize; 2],
    values: &[f32],
    totals: &mut [f64],
    sums: &mut [f64],
) {
    with_shared(values.len(), |turned| {
        to_bundles(bundle, channels, positions, values, turned);
        add_outer_products_of_bundles(bundle, channels, turned, totals, sums);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        let mut state = 7_u32;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn sums_are_those_in_double_precision() {
        for (rows, columns) in [(1, 1), (3, 7), (17, 511), (40, 513), (64, 2000), (5, 0)] {
            let values = values(rows * columns);
            let at = |row: usize, column: usize| f64::from(values[row * columns + column]);
            let mut sums = vec![1.0; rows * rows];
            add_outer_products(&values, rows, columns, &mut Vec::new(), &mut sums);
            for i in 0..rows {
                for j in 0..rows {
                    let wanted: f64 = (0..columns).map(|p| at(i, p) * at(j, p)).sum();
                    let wanted = 1.0 + if j <= i { wanted } else { 0.0 };
                    let scale = (columns as f64).max(1.0);
                    let got = sums[i * rows + j];
                    assert!(
                        (got - wanted).abs() < 1e-6 * scale,
                        "{rows} {columns}: {got} {wanted}"
                    );
                }
            }
        }
    }
}
