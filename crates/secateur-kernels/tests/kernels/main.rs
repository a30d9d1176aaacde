//! Every kernel against loops over all indices, in `f64`.

mod norm;
mod packed;
mod same;

use proptest::prelude::*;
use secateur_kernels::conv::{ConvShape, Finish, backward_data, backward_weight, forward};
use secateur_kernels::gram::add_outer_products_of_bundles;
use secateur_kernels::layout::{BUNDLES, Batch, to_bundles, to_planes};
use secateur_kernels::norm::{Line, forward as normalise};
use secateur_kernels::packed::Weight;
use secateur_kernels::pool::{PoolShape, average, average_backward, max_backward, max_forward};
use secateur_kernels::{Clamp, Layout, Window, channel};

/// Planes of one channel each.
const PLANES: Batch = Batch {
    layout: Layout::Planes,
    channels: 1,
};

/// Numbers between -1 and 1 that repeat on every run.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Calls `work(x index, w index, y index)` for every product of a convolution.
fn each_product(shape: &ConvShape, mut work: impl FnMut(usize, usize, usize)) {
    let ConvShape {
        images,
        groups,
        input: [ci, h, w],
        output: [co, oh, ow],
        window,
    } = *shape;
    let [kh, kw] = window.kernel;
    let (group_in, group_out) = (ci / groups, co / groups);
    for n in 0..images {
        for o in 0..co {
            for c in 0..group_in {
                let channel = o / group_out * group_in + c;
                for oy in 0..oh {
                    for ox in 0..ow {
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let y = oy * window.strides[0] + ky * window.dilations[0];
                                let x = ox * window.strides[1] + kx * window.dilations[1];
                                let (top, left) = (window.before[0], window.before[1]);
                                if y < top || x < left || y - top >= h || x - left >= w {
                                    continue;
                                }
                                work(
                                    ((n * ci + channel) * h + y - top) * w + x - left,
                                    ((o * group_in + c) * kh + ky) * kw + kx,
                                    ((n * co + o) * oh + oy) * ow + ox,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

fn assert_close(got: &[f32], want: &[f64], what: &str, shape: &ConvShape) {
    let scale = want.iter().fold(1e-3_f64, |a, b| a.max(b.abs()));
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        // Sums of f32 products, in another order than the loop's.
        assert!(
            (f64::from(got) - want).abs() <= 2e-5 * scale,
            "{what} [{index}]: {got}, not {want}; {shape:?}"
        );
    }
}

fn check(shape: &ConvShape) {
    for layout in Layout::ALL {
        if layout.fits(shape.images) {
            check_in(layout, shape);
        }
    }
}

/// `values` `[images, ...]` in another layout, `image` being `[channels, height, width]`.
fn to_layout(layout: Layout, [channels, height, width]: [usize; 3], values: &[f32]) -> Vec<f32> {
    let mut turned = values.to_vec();
    if let Layout::Bundles(images) = layout {
        to_bundles(images, channels, height * width, values, &mut turned);
    }
    turned
}

fn from_layout(layout: Layout, [channels, height, width]: [usize; 3], values: &[f32]) -> Vec<f32> {
    let mut turned = values.to_vec();
    if let Layout::Bundles(images) = layout {
        to_planes(images, channels, height * width, values, &mut turned);
    }
    turned
}

fn check_in(layout: Layout, shape: &ConvShape) {
    let x = numbers(shape.input_len(), 1);
    let w = numbers(shape.weight_len(), 2);
    let dy = numbers(shape.output_len(), 3);
    let bias = numbers(shape.output[0], 4);
    let positions = shape.output[1] * shape.output[2];
    let (x_laid, dy_laid) = (
        to_layout(layout, shape.input, &x),
        to_layout(layout, shape.output, &dy),
    );

    let mut want: Vec<f64> = (0..dy.len())
        .map(|index| f64::from(bias[index / positions % shape.output[0]]))
        .collect();
    each_product(shape, |i, j, k| {
        want[k] += f64::from(x[i]) * f64::from(w[j])
    });
    let mut y = vec![f32::NAN; dy.len()];
    let mut finish = Finish {
        bias: Some(&bias),
        line: None,
    };
    let weight = Weight::new(&w);
    forward(layout, shape, &x_laid, weight, finish, &mut y);
    assert_close(&from_layout(layout, shape.output, &y), &want, "y", shape);

    // A normalisation on the way is one afterwards, bit by bit.
    let line = Line {
        factor: &numbers(shape.output[0], 5),
        offset: &numbers(shape.output[0], 6),
        clamp: Clamp::clip(-0.25, 0.5),
    };
    let run = match layout {
        Layout::Planes => positions,
        Layout::Bundles(images) => images,
    };
    let (mut want, mut normalised) = (y.clone(), vec![f32::NAN; y.len()]);
    normalise(line, run, &y, &mut want);
    finish.line = Some(line);
    forward(layout, shape, &x_laid, weight, finish, &mut normalised);
    assert_eq!(normalised, want, "normalised, {shape:?}, {layout:?}");

    let mut want = vec![0.0; x.len()];
    each_product(shape, |i, j, k| {
        want[i] += f64::from(w[j]) * f64::from(dy[k])
    });
    let mut dx = vec![f32::NAN; x.len()];
    backward_data(layout, shape, weight, &dy_laid, &mut dx);
    assert_close(&from_layout(layout, shape.input, &dx), &want, "dx", shape);

    let mut want = vec![0.0; w.len()];
    each_product(shape, |i, j, k| {
        want[j] += f64::from(x[i]) * f64::from(dy[k])
    });
    let mut dw = vec![f32::NAN; w.len()];
    backward_weight(layout, shape, &x_laid, &dy_laid, &mut dw);
    assert_close(&dw, &want, "dw", shape);
}

/// A convolution with its output's size, where it has one.
#[allow(clippy::too_many_arguments)]
fn conv(
    images: usize,
    groups: usize,
    [ci, h, w]: [usize; 3],
    co: usize,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
) -> Option<ConvShape> {
    let out = |len: usize, axis: usize| {
        let reach = dilations[axis] * (kernel[axis] - 1) + 1;
        let padded = len + pads[axis] + pads[axis + 2];
        Some(padded.checked_sub(reach)? / strides[axis] + 1)
    };
    Some(ConvShape {
        images,
        groups,
        input: [ci, h, w],
        output: [co, out(h, 0)?, out(w, 1)?],
        window: Window {
            kernel,
            strides,
            dilations,
            before: [pads[0], pads[1]],
        },
    })
}

#[test]
fn convolutions_of_every_kind_equal_the_loop() {
    let one = [1, 1];
    let cases = [
        // Many small planes joined, large planes in tiles, one position.
        conv(33, 1, [20, 4, 4], 24, [3, 3], one, one, [1, 1, 1, 1]),
        conv(2, 1, [3, 61, 47], 5, [3, 3], one, one, [1, 1, 1, 1]),
        conv(3, 1, [70, 40, 40], 2, [3, 3], one, one, [1, 1, 1, 1]),
        conv(9, 1, [17, 1, 1], 13, [1, 1], one, one, [0; 4]),
        // Pointwise, with and without stride, one of which is far larger than the input.
        conv(3, 1, [5, 4, 4], 6, [1, 1], [1 << 20, 1 << 20], one, [0; 4]),
        conv(5, 1, [19, 9, 7], 23, [1, 1], one, one, [0; 4]),
        conv(9, 1, [6, 8, 8], 5, [1, 1], one, one, [0; 4]),
        conv(1, 1, [6, 8, 8], 19, [1, 1], one, one, [0; 4]),
        conv(5, 1, [19, 9, 7], 23, [1, 1], [2, 2], one, [0; 4]),
        conv(1, 4, [16, 33, 31], 8, [1, 1], one, one, [0; 4]),
        // Asymmetric pads and kernels, stride, dilation, groups.
        conv(4, 1, [6, 11, 13], 7, [5, 2], [2, 3], one, [0, 2, 1, 0]),
        conv(4, 2, [6, 11, 13], 8, [3, 3], one, [2, 3], [2, 3, 2, 3]),
        conv(2, 3, [9, 8, 8], 6, [3, 3], [2, 2], one, [1, 1, 0, 0]),
        // Depthwise, also with a multiplier.
        conv(3, 35, [35, 9, 10], 35, [3, 3], one, one, [1, 1, 1, 1]),
        conv(3, 35, [35, 9, 10], 35, [3, 3], [2, 2], one, [0, 0, 1, 1]),
        conv(2, 5, [5, 7, 7], 10, [3, 3], one, one, [1, 1, 1, 1]),
        conv(2, 12, [12, 3, 5], 12, [5, 3], [1, 2], [2, 1], [4, 1, 4, 1]),
        conv(7, 3, [3, 1, 1], 3, [3, 3], one, one, [1, 1, 1, 1]),
        conv(1, 2, [2, 150, 90], 2, [3, 3], one, one, [1, 1, 1, 1]),
        // One output channel, one more than a tile has, and many.
        conv(3, 1, [5, 12, 12], 1, [3, 3], one, one, [1, 1, 1, 1]),
        conv(1, 1, [33, 7, 7], 33, [3, 3], one, one, [1, 1, 1, 1]),
        conv(3, 1, [9, 14, 14], 91, [3, 3], one, one, [1, 1, 1, 1]),
        conv(5, 1, [37, 14, 14], 15, [1, 1], one, one, [0; 4]),
        conv(2, 1, [1, 28, 28], 49, [1, 1], one, one, [0; 4]),
        // So many input channels that their sums are taken in parts.
        conv(2, 1, [300, 5, 6], 17, [3, 3], one, one, [1, 1, 1, 1]),
        conv(11, 1, [700, 1, 1], 200, [1, 1], one, one, [0; 4]),
        conv(19, 1, [130, 2, 2], 150, [3, 3], one, one, [1, 1, 1, 1]),
        // One large image, whose rows are divided; wide kernels; no padding.
        conv(1, 1, [3, 97, 101], 20, [7, 7], [2, 2], one, [3, 3, 3, 3]),
        conv(1, 1, [2, 90, 90], 16, [3, 3], one, one, [0; 4]),
        conv(1, 1, [2, 80, 70], 40, [3, 3], [3, 2], one, [1, 0, 2, 1]),
        conv(1, 1, [1, 6, 300], 3, [1, 50], one, [1, 3], [0, 60, 0, 60]),
        conv(2, 1, [3, 40, 40], 4, [3, 3], [3, 3], [2, 2], [0, 2, 1, 0]),
        // A tile that ends within a row of every second place of the target.
        conv(3, 1, [2, 4, 6], 1, [1, 1], [1, 2], one, [0; 4]),
        // Nothing but padding is read.
        conv(1, 1, [20, 1, 1], 30, [1, 3], [2, 1], one, [1, 0, 0, 2]),
        // Strides that skip inputs, also with taps that no input of a phase meets.
        conv(3, 1, [4, 9, 9], 5, [1, 1], [3, 2], one, [0; 4]),
        conv(3, 1, [4, 9, 9], 5, [2, 2], [4, 4], one, [1, 0, 0, 1]),
        conv(2, 2, [8, 13, 13], 6, [3, 3], [2, 2], [2, 2], [2, 2, 2, 2]),
        // Whole bundles: planes of one place and of several blocks of rows, many channels, strides, groups.
        conv(32, 1, [20, 4, 4], 24, [3, 3], one, one, [1, 1, 1, 1]),
        conv(64, 1, [33, 1, 1], 47, [3, 3], one, one, [1, 1, 1, 1]),
        conv(32, 1, [3, 20, 21], 15, [7, 7], [2, 2], one, [3, 3, 3, 3]),
        conv(32, 1, [130, 8, 9], 150, [1, 1], [2, 1], one, [0; 4]),
        conv(32, 1, [70, 16, 15], 3, [3, 3], one, one, [1, 1, 1, 1]),
        conv(32, 4, [24, 5, 6], 72, [2, 3], one, [2, 1], [0, 2, 1, 0]),
        conv(32, 19, [19, 7, 6], 19, [3, 3], [2, 1], one, [1, 1, 0, 1]),
        conv(64, 5, [5, 13, 12], 5, [3, 3], one, one, [1, 1, 1, 1]),
        conv(32, 1, [2, 3, 3], 3, [2, 2], [4, 4], one, [1, 0, 0, 1]),
        // Bundles whose positions share registers: rows that no number of positions divides, one place alone.
        conv(8, 1, [20, 7, 7], 24, [3, 3], one, one, [1, 1, 1, 1]),
        conv(24, 1, [33, 1, 1], 47, [3, 3], one, one, [1, 1, 1, 1]),
        conv(8, 1, [3, 20, 21], 15, [7, 7], [2, 2], one, [3, 3, 3, 3]),
        conv(8, 1, [130, 19, 9], 150, [1, 1], [2, 1], one, [0; 4]),
        conv(8, 1, [150, 9, 7], 130, [1, 1], [2, 2], one, [0; 4]),
        conv(8, 2, [80, 5, 5], 90, [1, 1], one, one, [0; 4]),
        conv(40, 4, [24, 5, 6], 72, [2, 3], one, [2, 1], [0, 2, 1, 0]),
        conv(8, 19, [19, 7, 6], 19, [3, 3], [2, 1], one, [1, 1, 0, 1]),
        conv(8, 1, [2, 3, 3], 3, [2, 2], [4, 4], one, [1, 0, 0, 1]),
        // Patches of 2x2 outputs: with columns and rows left over, other padding, groups, many channels, narrow bundles.
        conv(32, 1, [33, 10, 9], 47, [3, 3], one, one, [1, 1, 1, 1]),
        conv(64, 1, [70, 5, 5], 32, [3, 3], one, one, [0, 1, 2, 1]),
        conv(16, 1, [40, 12, 11], 61, [3, 3], one, one, [1, 1, 1, 1]),
        conv(16, 2, [90, 6, 6], 70, [3, 3], one, one, [2, 0, 0, 2]),
        conv(8, 1, [35, 13, 12], 100, [3, 3], one, one, [1, 1, 1, 1]),
        conv(24, 1, [300, 4, 7], 40, [3, 3], one, one, [0, 0, 0, 0]),
        // A part of the gradient of the weight that has one row alone.
        conv(8, 1, [64, 10, 9], 57, [3, 3], one, one, [1, 1, 1, 1]),
        conv(8, 1, [57, 10, 9], 64, [3, 3], one, one, [1, 1, 1, 1]),
        // Blocks of matrix registers: one and two rows and columns, channels in several turns, positions that read nothing,
        // regions of many and of few columns, steps that skip all but one place.
        conv(8, 1, [31, 9, 9], 17, [1, 1], one, one, [0; 4]),
        conv(16, 1, [600, 5, 3], 15, [1, 1], one, one, [0; 4]),
        conv(32, 1, [1500, 1, 2], 65, [1, 1], one, one, [0; 4]),
        conv(8, 1, [2800, 9, 9], 9, [1, 1], one, one, [0; 4]),
        conv(8, 1, [40, 9, 8], 33, [1, 1], [1, 2], one, [1, 0, 1, 1]),
        conv(8, 1, [65, 3, 150], 33, [3, 3], [1, 2], one, [1, 1, 1, 1]),
        conv(
            16,
            1,
            [40, 4, 4],
            33,
            [2, 2],
            [1 << 20, 1 << 20],
            one,
            [0; 4],
        ),
        conv(8, 1, [33, 12, 11], 48, [3, 3], [2, 3], [2, 1], [2, 1, 0, 3]),
        // Padding wider than the plane.
        conv(2, 1, [2, 2, 2], 3, [5, 5], [2, 2], one, [4, 4, 4, 4]),
        conv(2, 2, [2, 1, 1], 2, [3, 3], one, one, [1, 1, 1, 1]),
    ];
    for shape in cases {
        check(&shape.expect("the kernel fits"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_convolution_equals_the_loop(
        images in 1..40_usize,
        groups in 1..4_usize,
        group_in in 1..12_usize,
        group_out in 1..20_usize,
        size in (1..12_usize, 1..12_usize),
        kernel in (1..4_usize, 1..4_usize),
        strides in (1..4_usize, 1..4_usize),
        dilations in (1..3_usize, 1..3_usize),
        pads in proptest::array::uniform4(0..4_usize),
    ) {
        let shape = conv(
            images,
            groups,
            [groups * group_in, size.0, size.1],
            groups * group_out,
            [kernel.0, kernel.1],
            [strides.0, strides.1],
            [dilations.0, dilations.1],
            pads,
        );
        if let Some(shape) = shape {
            check(&shape);
            if shape.images < 4 {
                // The least number that fills each kind of bundles.
                for images in BUNDLES {
                    check(&ConvShape { images, ..shape });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_3x3_convolution_of_many_channels_equals_the_loop(
        images in proptest::sample::select(BUNDLES.to_vec()),
        groups in 1..3_usize,
        group_in in 32..50_usize,
        group_out in 32..50_usize,
        size in (4..9_usize, 4..9_usize),
        pads in proptest::array::uniform4(0..3_usize),
    ) {
        let shape = conv(
            images,
            groups,
            [groups * group_in, size.0, size.1],
            groups * group_out,
            [3, 3],
            [1, 1],
            [1, 1],
            pads,
        );
        if let Some(shape) = shape {
            check_in(Layout::Bundles(images), &shape);
        }
    }
}

#[test]
fn patches_of_outputs_err_at_most_twice_as_much_as_products_one_by_one() {
    let one = [1, 1];
    for (channels, size) in [(64, 12), (256, 8)] {
        let shape = conv(8, 1, [channels, size, size], 32, [3, 3], one, one, [1; 4]);
        let shape = shape.expect("the kernel fits");
        let planes = errors(Layout::Planes, &shape);
        let bundles = errors(Layout::Bundles(8), &shape);
        for (planes, bundles) in planes.into_iter().zip(bundles) {
            assert!(
                bundles < 2.0 * planes,
                "{channels} channels: {bundles:e}, not {planes:e}"
            );
        }
    }
}

/// Sums of parts of floats are as exact as sums of floats: with one of the six products less the error is over the bound.
#[test]
fn products_of_many_channels_err_as_sums_of_floats_do() {
    let one = [1, 1];
    for shape in [
        conv(8, 1, [64, 6, 6], 128, [1, 1], one, one, [0; 4]),
        conv(8, 1, [64, 7, 7], 128, [3, 3], [2, 2], one, [1; 4]),
    ] {
        let shape = shape.expect("the kernel fits");
        for error in errors(Layout::Bundles(8), &shape) {
            assert!(error < 5e-7, "{error:e}; {shape:?}");
        }
    }
}

/// The error of output, gradient of input and of weight, root mean square, of that of the values.
fn errors(layout: Layout, shape: &ConvShape) -> [f64; 3] {
    let [x, w, dy] = [
        numbers(shape.input_len(), 1),
        numbers(shape.weight_len(), 2),
        numbers(shape.output_len(), 3),
    ];
    let mut want = [vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]];
    each_product(shape, |i, j, k| {
        let [x, w, dy] = [x[i], w[j], dy[k]].map(f64::from);
        want[0][k] += w * x;
        want[1][i] += w * dy;
        want[2][j] += x * dy;
    });
    let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
    let mut dw = vec![f32::NAN; w.len()];
    let [x, dy] = [(shape.input, &x), (shape.output, &dy)]
        .map(|(image, values)| to_layout(layout, image, values));
    forward(
        layout,
        shape,
        &x,
        Weight::new(&w),
        Finish::default(),
        &mut y,
    );
    backward_data(layout, shape, Weight::new(&w), &dy, &mut dx);
    backward_weight(layout, shape, &x, &dy, &mut dw);
    let got = [
        from_layout(layout, shape.output, &y),
        from_layout(layout, shape.input, &dx),
        dw,
    ];
    // Root mean square, of that of the values.
    [0, 1, 2].map(|index| {
        let pairs = got[index].iter().zip(&want[index]);
        let error: f64 = pairs
            .map(|(got, want)| (f64::from(*got) - want).powi(2))
            .sum();
        (error / want[index].iter().map(|want| want * want).sum::<f64>()).sqrt()
    })
}

#[test]
fn sums_of_bundles_are_those_in_double_precision() {
    // One register's channels and less, more than a part has, many places and one.
    for (images, channels, places) in [
        (8, 1, 3),
        (8, 20, 65),
        (16, 33, 40),
        (32, 70, 17),
        (8, 130, 1),
        (32, 300, 2),
    ] {
        let values = numbers(images * channels * places, 5);
        let mut sums = vec![1.0; channels * channels];
        let mut totals = vec![2.0; channels];
        add_outer_products_of_bundles(images, channels, &values, &mut totals, &mut sums);
        for i in 0..channels {
            let each = values.chunks(images * channels);
            let own = each.flat_map(|place| &place[i * images..][..images]);
            let wanted = 2.0 + own.map(|value| f64::from(*value)).sum::<f64>();
            assert!(
                (totals[i] - wanted).abs() < 1e-4,
                "{channels}: {} {wanted}",
                totals[i]
            );
            for j in 0..=i {
                let products = values.chunks(images * channels).flat_map(|place| {
                    let of = |channel: usize| &place[channel * images..][..images];
                    of(i)
                        .iter()
                        .zip(of(j))
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                });
                let wanted = 1.0 + products.sum::<f64>();
                let got = sums[i * channels + j];
                let scale = (images * places) as f64;
                assert!(
                    (got - wanted).abs() < 1e-6 * scale,
                    "{channels}: {got} {wanted}"
                );
            }
        }
    }
}

/// Runs the other tests of this file again with matrix registers wherever they can be used, if the processor has such, and with
/// lesser instruction sets than the best one.
#[test]
fn every_instruction_set_passes() {
    const VARIABLE: &str = "SECATEUR_SIMD";
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    for name in ["amx", "avx512", "avx2", "scalar"] {
        let tests = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(tests)
            .env(VARIABLE, name)
            .output()
            .expect("the tests run");
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[test]
fn moments_are_those_of_the_definition() {
    for (images, channels, positions) in [
        (1, 3, 5000),
        (70, 5, 1),
        (8, 2, 33),
        (700, 3, 32),
        (700, 3, 16),
    ] {
        // Far from zero, where sums of squares would lose the variance.
        let mut x: Vec<f32> = numbers(images * channels * positions, 7)
            .iter()
            .map(|v| v + 100.0)
            .collect();
        check_moments(images, channels, positions, &x);
        // All values but those of the first image are nearly the same.
        let rest = images.min(2) - 1;
        for value in &mut x[rest * channels * positions..] {
            *value = 3.0 + 1e-4 * *value;
        }
        check_moments(images, channels, positions, &x);
    }
}

fn check_moments(images: usize, channels: usize, positions: usize, x: &[f32]) {
    let (mean, variance) = channel::moments(channels, positions, x);
    for channel in 0..channels {
        let values: Vec<f64> = (0..images)
            .flat_map(|n| (0..positions).map(move |p| (n * channels + channel) * positions + p))
            .map(|index| f64::from(x[index]))
            .collect();
        let count = values.len() as f64;
        let want = values.iter().sum::<f64>() / count;
        let spread = values.iter().map(|v| (v - want).powi(2)).sum::<f64>() / count;
        let got = (mean[channel], variance[channel]);
        assert!((got.0 - want).abs() < 1e-5, "{got:?} {want}");
        assert!(
            (got.1 - spread).abs() < 1e-5 * spread.max(1e-9) + 1e-9,
            "{got:?} {spread}"
        );
    }
}

#[test]
fn max_pooling_takes_the_first_largest_and_sends_the_gradient_there() {
    let shape = PoolShape {
        input: [3, 3],
        output: [2, 2],
        window: Window {
            kernel: [2, 2],
            strides: [2, 2],
            dilations: [1, 1],
            before: [1, 0],
        },
    };
    // Two planes; the windows of the first row of outputs see one row of inputs.
    let x = [
        1.0, 5.0, 2.0, 4.0, 4.0, -1.0, 3.0, 4.0, 9.0, //
        -1.0, -2.0, -3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    let mut y = [0.0; 8];
    max_forward(PLANES, &shape, &x, &mut y);
    assert_eq!(y, [5.0, 2.0, 4.0, 9.0, -1.0, -3.0, 0.0, 0.0]);
    let mut dx = [f32::NAN; 18];
    max_backward(
        PLANES,
        &shape,
        &x,
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        &mut dx,
    );
    let want = [
        0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 4.0, //
        5.0, 0.0, 6.0, 7.0, 0.0, 8.0, 0.0, 0.0, 0.0,
    ];
    assert_eq!(dx, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_max_pooling_equals_the_loop(
        planes in 1..20_usize,
        size in (1..40_usize, 1..40_usize),
        kernel in (1..4_usize, 1..4_usize),
        strides in (1..4_usize, 1..4_usize),
        dilations in (1..3_usize, 1..3_usize),
        before in (0..4_usize, 0..4_usize),
        output in (1..20_usize, 1..20_usize),
        special in proptest::sample::select(vec![0.5, f32::NAN, f32::NEG_INFINITY]),
    ) {
        let shape = PoolShape {
            input: [size.0, size.1],
            output: [output.0, output.1],
            window: Window {
                kernel: [kernel.0, kernel.1],
                strides: [strides.0, strides.1],
                dilations: [dilations.0, dilations.1],
                before: [before.0, before.1],
            },
        };
        // Few different values, so that there are ties.
        let x: Vec<f32> = numbers(planes * size.0 * size.1, 1)
            .iter()
            .map(|v| if *v > 0.8 { special } else { (v * 3.0).round() })
            .collect();
        let dy = numbers(planes * output.0 * output.1, 2);
        let mut y = vec![0.0; dy.len()];
        let mut dx = vec![f32::NAN; x.len()];
        max_forward(PLANES, &shape, &x, &mut y);
        max_backward(PLANES, &shape, &x, &dy, &mut dx);
        let mut want = vec![0.0; x.len()];
        for (k, y) in y.iter().enumerate() {
            let (plane, row) = (k / (output.0 * output.1), k / output.1 % output.0);
            let mut best: Option<usize> = None;
            for (i, j) in (0..kernel.0).flat_map(|i| (0..kernel.1).map(move |j| (i, j))) {
                let r = row * strides.0 + i * dilations.0;
                let c = k % output.1 * strides.1 + j * dilations.1;
                if r < before.0 || c < before.1 || r - before.0 >= size.0 || c - before.1 >= size.1 {
                    continue;
                }
                let index = (plane * size.0 + r - before.0) * size.1 + c - before.1;
                let wins = |b: usize| x[index] > x[b] || x[index].is_nan() && !x[b].is_nan();
                if best.is_none_or(wins) {
                    best = Some(index);
                }
            }
            let largest = best.map_or(f32::NEG_INFINITY, |best| x[best]);
            prop_assert!(largest.to_bits() == y.to_bits() || largest.is_nan() && y.is_nan());
            if let Some(best) = best {
                want[best] += dy[k];
            }
        }
        prop_assert_eq!(dx, want);
    }
}

#[test]
fn bundles_are_turned_and_back() {
    let shapes = [(1, 1), (3, 70), (40, 17), (300, 4)];
    for (bundle, (channels, positions)) in BUNDLES.into_iter().flat_map(|b| shapes.map(|s| (b, s)))
    {
        let x = numbers(2 * bundle * channels * positions, 1);
        let mut bundles = vec![f32::NAN; x.len()];
        to_bundles(bundle, channels, positions, &x, &mut bundles);
        for (index, &value) in x.iter().enumerate() {
            let (image, inner) = (
                index / (channels * positions),
                index % (channels * positions),
            );
            let (channel, position) = (inner / positions, inner % positions);
            let place = image / bundle * positions + position;
            let place = (place * channels + channel) * bundle + image % bundle;
            assert_eq!(
                value.to_bits(),
                bundles[place].to_bits(),
                "{channels} {positions}"
            );
        }
        let mut back = vec![f32::NAN; x.len()];
        to_planes(bundle, channels, positions, &bundles, &mut back);
        assert!(back == x, "{channels} {positions}");
    }
}

/// Whole bundles of each size, and more than one.
const IMAGES: usize = 64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn bundles_are_pooled_as_planes(
        channels in 1..9_usize,
        size in (1..12_usize, 1..12_usize),
        kernel in (1..4_usize, 1..4_usize),
        strides in (1..4_usize, 1..4_usize),
        dilations in (1..3_usize, 1..3_usize),
        before in (0..4_usize, 0..4_usize),
        output in (1..9_usize, 1..9_usize),
        special in proptest::sample::select(vec![0.5, f32::NAN, f32::NEG_INFINITY]),
    ) {
        let (input, output) = ([size.0, size.1], [output.0, output.1]);
        let window = Window {
            kernel: [kernel.0, kernel.1],
            strides: [strides.0, strides.1],
            dilations: [dilations.0, dilations.1],
            before: [before.0, before.1],
        };
        let shape = PoolShape { input, output, window };
        let (places, positions) = (size.0 * size.1, output[0] * output[1]);
        let x: Vec<f32> = numbers(IMAGES * channels * places, 1)
            .iter()
            .map(|v| if *v > 0.8 { special } else { (v * 3.0).round() })
            .collect();
        let dy = numbers(IMAGES * channels * positions, 2);
        let dy_mean = numbers(IMAGES * channels, 3);
        let run = |layout: Layout| {
            let batch = Batch { layout, channels };
            let laid = |values: &[f32], positions| to_layout(layout, [channels, 1, positions], values);
            let back = |values: &[f32], positions| from_layout(layout, [channels, 1, positions], values);
            let (x, dy, dy_mean) = (laid(&x, places), laid(&dy, positions), laid(&dy_mean, 1));
            let (mut y, mut dx) = (vec![9.0; dy.len()], vec![9.0; x.len()]);
            max_forward(batch, &shape, &x, &mut y);
            max_backward(batch, &shape, &x, &dy, &mut dx);
            let (mut mean, mut dx_mean) = (vec![9.0; dy_mean.len()], vec![9.0; x.len()]);
            average(batch, places, &x, &mut mean);
            average_backward(batch, places, &dy_mean, &mut dx_mean);
            [back(&y, positions), back(&dx, places), back(&mean, 1), back(&dx_mean, places)]
        };
        for images in BUNDLES {
            let bundled = run(Layout::Bundles(images));
            for (planes, bundles) in run(Layout::Planes).iter().zip(bundled) {
                for (a, b) in planes.iter().zip(bundles) {
                    prop_assert!((a - b).abs() < 1e-5 || a.is_nan() && b.is_nan() || *a == b);
                }
            }
        }
    }
}
