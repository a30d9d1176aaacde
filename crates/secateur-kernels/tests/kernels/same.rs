//! What does not change results: the number of threads, and what was computed before.

use super::{check, conv, numbers};
use secateur_kernels::conv::{ConvShape, Finish, backward_data, backward_weight, forward};
use secateur_kernels::gram::add_outer_products_of_bundles;
use secateur_kernels::layout::BUNDLES;
use secateur_kernels::packed::Weight;
use secateur_kernels::{Layout, channel};

/// Forward, backward to the data and backward to the weight.
fn results(layout: Layout, shape: &ConvShape) -> [Vec<f32>; 3] {
    let x = numbers(shape.input_len(), 1);
    let w = numbers(shape.weight_len(), 2);
    let dy = numbers(shape.output_len(), 3);
    let mut y = vec![f32::NAN; dy.len()];
    let mut dx = vec![f32::NAN; x.len()];
    let mut dw = vec![f32::NAN; w.len()];
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
    [y, dx, dw]
}

#[test]
fn threads_do_not_change_a_bit() {
    let one = [1, 1];
    let cases = [
        conv(17, 1, [40, 6, 6], 30, [3, 3], one, one, [1, 1, 1, 1]),
        conv(64, 1, [300, 1, 1], 200, [1, 1], one, one, [0; 4]),
        conv(2, 1, [16, 64, 64], 16, [3, 3], one, one, [1, 1, 1, 1]),
        conv(3, 1, [16, 32, 32], 40, [1, 1], one, one, [0; 4]),
        conv(9, 1, [30, 16, 16], 50, [3, 3], [2, 2], one, [1, 1, 1, 1]),
        conv(9, 30, [30, 16, 16], 30, [3, 3], one, one, [1, 1, 1, 1]),
        conv(5, 4, [32, 20, 20], 64, [3, 3], one, one, [1, 1, 1, 1]),
    ];
    let x = numbers(17 * 40 * 36, 1);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads").install(|| {
            let run = |layout, images: Option<usize>| {
                cases.map(|shape| {
                    let shape = shape.expect("the kernel fits");
                    let images = images.unwrap_or(shape.images);
                    results(layout, &ConvShape { images, ..shape })
                })
            };
            let planes = run(Layout::Planes, None);
            let bundles = BUNDLES.map(|images| run(Layout::Bundles(images), Some(images)));
            let bundled = BUNDLES.map(|images| channel::moments(17 * 45, images, &x));
            let seconds = BUNDLES.map(|images| {
                let (mut totals, mut sums) = (vec![0.0; 70], vec![0.0; 70 * 70]);
                let values = &x[..9 * 70 * images];
                add_outer_products_of_bundles(images, 70, values, &mut totals, &mut sums);
                (totals, sums)
            });
            (
                planes,
                bundles,
                channel::moments(40, 36, &x),
                bundled,
                seconds,
            )
        })
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn former_calls_leave_nothing_behind() {
    let one = [1, 1];
    let pads = [1, 1, 1, 1];
    let cases = [
        conv(3, 1, [20, 9, 9], 17, [3, 3], one, one, pads),
        conv(3, 1, [20, 9, 9], 17, [3, 3], [2, 2], one, pads),
        conv(1, 1, [3, 40, 40], 9, [3, 3], one, one, pads),
        conv(3, 20, [20, 9, 9], 20, [3, 3], one, one, pads),
        conv(3, 1, [20, 9, 9], 17, [1, 1], one, one, [0; 4]),
        conv(3, 1, [33, 1, 1], 20, [1, 1], [2, 2], one, pads), // Padding alone.
    ];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(|| {
        let larger = conv(5, 1, [40, 14, 14], 50, [3, 3], one, one, pads);
        let bundle = conv(32, 1, [40, 14, 14], 50, [3, 3], one, one, pads);
        for spoilt in [larger, cases[0], cases[3], bundle] {
            let spoilt = spoilt.expect("the kernel fits");
            let [x, w, y] = [spoilt.input_len(), spoilt.weight_len(), spoilt.output_len()]
                .map(|len| vec![f32::NAN; len]);
            let weight = Weight::new(&w);
            for layout in Layout::ALL {
                if layout.fits(spoilt.images) {
                    forward(
                        layout,
                        &spoilt,
                        &x,
                        weight,
                        Finish::default(),
                        &mut y.clone(),
                    );
                    backward_data(layout, &spoilt, weight, &y, &mut x.clone());
                    backward_weight(layout, &spoilt, &x, &y, &mut w.clone());
                }
            }
            for shape in cases {
                let shape = shape.expect("the kernel fits");
                check(&shape);
                for images in BUNDLES {
                    check(&ConvShape { images, ..shape });
                }
            }
        }
    });
}
