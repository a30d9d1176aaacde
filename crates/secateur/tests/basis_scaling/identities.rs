//! The identities of section 3 in `f64` on small shapes. Derivatives of losses are checked against
//! central differences; nothing compares signs of singular vectors.

use crate::reference::{max_abs, naive_conv, random};
use ndarray::{Array1, Array2, Array3, Array4, Axis, Ix4};
use secateur::decompose::factorize;
use secateur::graph::{ConvAttrs, FactorMatrices, SpatialPads};
use secateur::importance::scaling_gradient;

/// A convolution, its patches and its factors.
struct Layer {
    attrs: ConvAttrs,
    x: Array4<f64>,
    kernel: Array4<f64>,
    /// `[groups, positions of all images, n]`.
    patches: Array3<f64>,
    factors: FactorMatrices,
}

const IMAGES: usize = 2;

fn layer(groups: usize, seed: u64) -> Layer {
    let attrs = ConvAttrs {
        strides: [2, 1],
        pads: SpatialPads {
            top: 1,
            left: 0,
            bottom: 2,
            right: 1,
        },
        dilations: [1, 2],
        groups,
        ..ConvAttrs::default()
    };
    let (group_ci, group_co) = (2, 5);
    let x = random(&[IMAGES, group_ci * groups, 6, 7], seed)
        .into_dimensionality::<Ix4>()
        .unwrap();
    let kernel = random(&[group_co * groups, group_ci, 3, 2], seed + 1)
        .into_dimensionality::<Ix4>()
        .unwrap();
    let n = group_ci * 3 * 2;
    let weight = kernel
        .to_shape((groups, group_co, n))
        .unwrap()
        .permuted_axes([0, 2, 1])
        .to_owned();
    let svd = factorize(weight.view()).unwrap();
    let projection = (&svd.right * &svd.singular.view().insert_axis(Axis(1)))
        .permuted_axes([0, 2, 1])
        .to_owned();
    let rank = n.min(group_co);
    let factors = FactorMatrices {
        basis: svd.left,
        factors: Array2::ones((groups, rank)),
        projection,
    };

    // A patch is what a convolution with one unit kernel per tap makes.
    let mut taps = Array4::zeros((n * groups, group_ci, 3, 2));
    for row in 0..n * groups {
        let tap = row % n;
        taps[[row, tap / 6, tap % 6 / 2, tap % 2]] = 1.0;
    }
    let columns = naive_conv(&x, &taps, &attrs);
    let positions = columns.len() / (n * groups);
    let patches = columns.permuted_axes([1, 0, 2, 3]);
    let patches = patches
        .to_shape((groups, n, positions))
        .unwrap()
        .permuted_axes([0, 2, 1])
        .to_owned();
    Layer {
        attrs,
        x,
        kernel,
        patches,
        factors,
    }
}

impl Layer {
    /// `z [groups, positions, r]`.
    fn z(&self) -> Array3<f64> {
        product(&self.patches, &self.factors.basis)
    }

    /// `y [groups, positions, co / groups]` for scaling factors `s`.
    fn y(&self, s: &Array2<f64>) -> Array3<f64> {
        let scaled = &self.z() * &s.view().insert_axis(Axis(1));
        product(&scaled, &self.factors.projection)
    }

    fn ones(&self) -> Array2<f64> {
        Array2::ones(self.factors.factors.raw_dim())
    }

    /// Factors that differ from each other, some negative.
    fn some(&self) -> Array2<f64> {
        let (groups, rank) = self.factors.factors.dim();
        Array2::from_shape_fn((groups, rank), |(k, j)| {
            0.4 + 0.3 * j as f64 - 0.9 * f64::from(u8::from(j == k + 1))
        })
    }

    /// `G = dL/dW` `[groups, n, co / groups]` for `d = dL/dy`.
    fn weight_gradient(&self, d: &Array3<f64>) -> Array3<f64> {
        let (groups, _, n) = self.patches.dim();
        let mut gradient = Array3::zeros((groups, n, d.dim().2));
        for k in 0..groups {
            let patches = self.patches.index_axis(Axis(0), k);
            gradient
                .index_axis_mut(Axis(0), k)
                .assign(&patches.t().dot(&d.index_axis(Axis(0), k)));
        }
        gradient
    }
}

fn product(a: &Array3<f64>, b: &Array3<f64>) -> Array3<f64> {
    let mut result = Array3::zeros((a.dim().0, a.dim().1, b.dim().2));
    for (k, mut part) in result.outer_iter_mut().enumerate() {
        part.assign(&a.index_axis(Axis(0), k).dot(&b.index_axis(Axis(0), k)));
    }
    result
}

/// Row `j` of the first group.
fn row_of(matrices: &Array3<f64>, j: usize) -> Array1<f64> {
    matrices.index_axis(Axis(0), 0).row(j).to_owned()
}

/// Column `j` of the first group.
fn column_of(matrices: &Array3<f64>, j: usize) -> Array1<f64> {
    matrices.index_axis(Axis(0), 0).column(j).to_owned()
}

/// A smooth loss without symmetries, and its derivative.
fn loss(y: &Array3<f64>) -> f64 {
    y.indexed_iter()
        .map(|((k, p, o), value)| (value * (1.0 + 0.1 * (k + p + 2 * o) as f64)).sin())
        .sum()
}

fn loss_gradient(y: &Array3<f64>) -> Array3<f64> {
    let mut gradient = y.clone();
    for ((k, p, o), value) in gradient.indexed_iter_mut() {
        let slope = 1.0 + 0.1 * (k + p + 2 * o) as f64;
        *value = slope * (*value * slope).cos();
    }
    gradient
}

/// `dL/ds` by differences of fourth order: with this step, truncation and rounding are both about
/// 1e-12 of the loss.
fn differences(s: &Array2<f64>, loss: impl Fn(&Array2<f64>) -> f64) -> Array2<f64> {
    let step = 1e-4;
    let mut gradient = s.clone();
    for (index, value) in gradient.indexed_iter_mut() {
        let at = |steps: f64| {
            let mut moved = s.clone();
            moved[index] += steps * step;
            loss(&moved)
        };
        *value = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step);
    }
    gradient
}

#[test]
fn ones_reproduce_the_convolution() {
    for groups in [1, 3] {
        let layer = layer(groups, 1);
        let y = layer.y(&layer.ones());
        let direct = naive_conv(&layer.x, &layer.kernel, &layer.attrs).permuted_axes([1, 0, 2, 3]);
        let direct = direct
            .to_shape((groups, y.dim().2, y.dim().1))
            .unwrap()
            .permuted_axes([0, 2, 1])
            .to_owned();
        assert!(max_abs(&direct) > 1.0);
        assert!(max_abs(&(y - direct)) < 1e-12);
    }
}

#[test]
fn the_gradient_of_a_factor_follows_from_that_of_the_weight() {
    for groups in [1, 2] {
        let layer = layer(groups, 3);
        for s in [layer.ones(), layer.some()] {
            let expected = differences(&s, |s| loss(&layer.y(s)));
            let weight_gradient = layer.weight_gradient(&loss_gradient(&layer.y(&s)));
            let found = scaling_gradient(&layer.factors, weight_gradient.view()).unwrap();
            assert!(max_abs(&expected) > 0.1);
            assert!(max_abs(&(found - expected)) < 1e-8);
        }
    }
}

#[test]
fn a_score_is_activation_times_gradient_summed_before_squaring() {
    let layer = layer(1, 5);
    let s = layer.some();
    let d = loss_gradient(&layer.y(&s));
    // a_jp = s_j z_jp, and h_jp = dL/da_jp = sigma_j v_j . d_p.
    let a = &layer.z() * &s.view().insert_axis(Axis(1));
    let h = product(
        &d,
        &layer
            .factors
            .projection
            .clone()
            .permuted_axes([0, 2, 1])
            .to_owned(),
    );
    let products = (&a * &h).sum_axis(Axis(1));
    let expected = &s * &differences(&s, |s| loss(&layer.y(s)));
    assert!(max_abs(&(&products - &expected)) < 1e-8);
    // Squaring before the sum is something else.
    let squared_first = (&a * &h).mapv(|value| value * value).sum_axis(Axis(1));
    assert!(max_abs(&(squared_first - products.mapv(|value| value * value))) > 1e-2);
}

#[test]
fn in_the_squared_error_a_direction_costs_its_energy() {
    let layer = layer(1, 7);
    let reference = layer.y(&layer.ones());
    let z = layer.z();
    for j in 0..5 {
        let mut s = layer.ones();
        s[[0, j]] = 0.0;
        let cost = 0.5
            * (&layer.y(&s) - &reference)
                .mapv(|value| value * value)
                .sum();
        let sigma2 = row_of(&layer.factors.projection, j)
            .mapv(|value| value * value)
            .sum();
        let energy = column_of(&z, j).mapv(|value| value * value).sum();
        let expected = 0.5 * sigma2 * energy;
        assert!(
            (cost - expected).abs() < 1e-12 * expected.max(1.0),
            "{j}: {cost} and {expected}"
        );
    }
}

#[test]
fn factor_gradients_sum_to_the_product_of_weight_and_gradient() {
    let layer = layer(2, 9);
    let s = layer.some();
    let weight_gradient = layer.weight_gradient(&loss_gradient(&layer.y(&s)));
    let gradient = scaling_gradient(&layer.factors, weight_gradient.view()).unwrap();
    let effective = FactorMatrices {
        factors: s.clone(),
        ..layer.factors.clone()
    }
    .product();
    let expected = (effective * weight_gradient).sum();
    assert!(expected.abs() > 0.1);
    assert!(((s * gradient).sum() - expected).abs() < 1e-10);
}

/// Batch normalisation with statistics of the batch and epsilon 0.
fn normalised(y: &Array3<f64>) -> Array3<f64> {
    let mean = y.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
    let deviation = y.std_axis(Axis(1), 0.0).insert_axis(Axis(1));
    (y - &mean) / &deviation
}

#[test]
fn under_batch_normalisation_scores_sum_to_nothing_and_do_not_see_the_scale() {
    let layer = layer(1, 11);
    let gradient = |s: &Array2<f64>| differences(s, |s| loss(&normalised(&layer.y(s))));
    let s = layer.some();
    let products = &s * &gradient(&s);
    assert!(max_abs(&products) > 0.1);
    assert!(products.sum().abs() < 1e-7);
    let larger = s.mapv(|value| 2.5 * value);
    let products_of_larger = &larger * &gradient(&larger);
    assert!(max_abs(&(products - products_of_larger)) < 1e-7);
}

#[test]
fn singular_values_of_the_effective_weight_are_the_scaled_ones() {
    let layer = layer(1, 13);
    let s = layer.some();
    let effective = FactorMatrices {
        factors: s.clone(),
        ..layer.factors.clone()
    }
    .product();
    let found = factorize(effective.view())
        .unwrap()
        .singular
        .row(0)
        .to_vec();
    let sigma: Vec<f64> = layer
        .factors
        .projection
        .index_axis(Axis(0), 0)
        .outer_iter()
        .map(|row| row.dot(&row).sqrt())
        .collect();
    let mut expected: Vec<f64> = sigma
        .iter()
        .zip(s.row(0))
        .map(|(sigma, s)| (sigma * s).abs())
        .collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    assert!(max_abs(&(Array1::from(found) - Array1::from(expected))) < 1e-12);

    let mut cut = s.clone();
    cut[[0, 0]] = 0.0;
    cut[[0, 3]] = 0.0;
    let change = FactorMatrices {
        factors: cut,
        ..layer.factors.clone()
    }
    .product()
        - &effective;
    let squared: f64 = change.iter().map(|value| value * value).sum();
    let expected = (s[[0, 0]] * sigma[0]).powi(2) + (s[[0, 3]] * sigma[3]).powi(2);
    assert!((squared - expected).abs() < 1e-12 * expected);
}

#[test]
fn output_energy_of_removed_directions_adds_and_a_mean_in_the_bias_leaves_the_variance() {
    let layer = layer(1, 15);
    let s = layer.some();
    let mut cut = s.clone();
    let removed = [1, 2, 4];
    for j in removed {
        cut[[0, j]] = 0.0;
    }
    let change = layer.y(&cut) - layer.y(&s);
    let positions = change.dim().1 as f64;
    let z = layer.z();
    let weight = |j: usize| {
        let row = row_of(&layer.factors.projection, j);
        s[[0, j]].powi(2) * row.dot(&row)
    };
    let second_moment: f64 = removed
        .iter()
        .map(|&j| weight(j) * column_of(&z, j).mapv(|value| value * value).mean().unwrap())
        .sum();
    let energy = change.mapv(|value| value * value).sum() / positions;
    assert!((energy - second_moment).abs() < 1e-12 * energy);

    let mut bias = Array1::<f64>::zeros(change.dim().2);
    for j in removed {
        let mean = column_of(&z, j).mean().unwrap();
        bias.scaled_add(s[[0, j]] * mean, &row_of(&layer.factors.projection, j));
    }
    let variance: f64 = removed
        .iter()
        .map(|&j| weight(j) * column_of(&z, j).var(0.0))
        .sum();
    let compensated = (&change + &bias).mapv(|value| value * value).sum() / positions;
    assert!((compensated - variance).abs() < 1e-12 * energy);
    assert!(compensated < energy);
}
