//! Batch normalisation with its clamp against the definition, in `f64`.

use super::numbers;
use secateur_kernels::norm::{Line, backward, forward, sums};
use secateur_kernels::{Clamp, channel};

/// Whether a sum of terms of that size is right but for the rounding of `f32`.
fn assert_near(got: f64, want: f64, size: f64, what: &str) {
    assert!(
        (got - want).abs() <= 1e-6 * size.max(1.0),
        "{what}: {got}, not {want}"
    );
}

/// `[images, channels, positions]`; 8, 16 and 32 positions are the images of a bundle, and some numbers of channels
/// leave a part of a row of registers over.
#[test]
fn normalisation_and_its_gradient_are_those_of_the_definition() {
    let shapes = [
        (3, 5, 7),
        (9, 1, 16),
        (9, 3, 16),
        (300, 70, 16),
        (9, 3, 32),
        (9, 1, 8),
        (300, 71, 8),
        (5, 262, 8),
        (4, 6, 1),
    ];
    let clamps = [
        (Clamp::NONE, f64::NEG_INFINITY, f64::INFINITY),
        (Clamp::RELU, 0.0, f64::INFINITY),
        (Clamp::clip(-0.25, 0.5), -0.25, 0.5),
    ];
    for ((images, channels, positions), (clamp, low, high)) in
        shapes.into_iter().flat_map(|s| clamps.map(|c| (s, c)))
    {
        let what = format!("{images} x {channels} x {positions}, {clamp:?}");
        let len = images * channels * positions;
        let (x, dy) = (numbers(len, 1), numbers(len, 2));
        let parameters: [Vec<f32>; 7] = std::array::from_fn(|i| numbers(channels, 3 + i as u64));
        let [factor, offset, mean, steepness, a, b, c] = &parameters;
        let line = Line {
            factor,
            offset,
            clamp,
        };
        let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
        forward(line, positions, &x, &mut y);
        let [by_offset, by_factor] = sums(line, [mean, steepness], positions, &dy, &x);
        backward(line, [a, b, c], positions, &dy, &x, &mut dx);
        let mut want = vec![[0.0; 3]; channels];
        for index in 0..len {
            let k = index / positions % channels;
            let of = |values: &[f32]| f64::from(values[k]);
            // As the kernel has it: which side of a bound a value is on is decided in f32.
            let straight = f64::from(x[index] * factor[k] + offset[k]);
            let (x, dy) = (f64::from(x[index]), f64::from(dy[index]));
            assert_near(f64::from(y[index]), straight.clamp(low, high), 1.0, &what);
            let g = if straight > low && straight < high {
                dy
            } else {
                0.0
            };
            let slope = g * of(a) + x * of(b) + of(c);
            assert_near(f64::from(dx[index]), slope, 1.0, &what);
            want[k][0] += g;
            want[k][1] += g * (x - of(mean)) * of(steepness);
            want[k][2] += 1.0;
        }
        for (k, [sum, product, count]) in want.into_iter().enumerate() {
            assert_near(by_offset[k], sum, count, &what);
            assert_near(by_factor[k], product, count, &what);
        }
    }
}

#[test]
fn sums_of_channels_are_those_of_the_loop() {
    for (images, channels, positions) in [(3, 5, 7), (9, 3, 16), (300, 40, 32), (4, 6, 1)] {
        let len = images * channels * positions;
        let (x, y) = (numbers(len, 1), numbers(len, 2));
        let totals = channel::totals(channels, positions, &x);
        let products = channel::products(channels, positions, &x, &y);
        let mut want = [vec![0.0; channels], vec![0.0; channels]];
        for (index, (x, y)) in x.iter().zip(&y).enumerate() {
            let k = index / positions % channels;
            want[0][k] += f64::from(*x);
            want[1][k] += f64::from(*x) * f64::from(*y);
        }
        let count = (images * positions) as f64;
        for k in 0..channels {
            assert_near(totals[k], want[0][k], count, "totals");
            assert_near(products[k], want[1][k], count, "products");
        }
    }
}
