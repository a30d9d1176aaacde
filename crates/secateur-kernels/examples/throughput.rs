//! Throughput of the convolutions of well-known networks, as multiply-adds per second and as a share
//! of the fused multiply-add peak that is measured beside each repetition with the same threads.
//!
//! `cargo run --release --example throughput -p secateur-kernels [part of a case's name, or memory] [kept]`
//!
//! With `kept`, weights are kept packed, as those are that are not trained.

#![allow(clippy::print_stdout)]

use pulp::{Arch, Simd, WithSimd};
use secateur_kernels::aligned::Aligned;
use secateur_kernels::conv::{ConvShape, Finish, backward_data, backward_weight, forward};
use secateur_kernels::layout::Batch;
use secateur_kernels::norm::{self, Line};
use secateur_kernels::packed::{Packed, Weight};
use secateur_kernels::pool::{PoolShape, average, max_backward, max_forward};
use secateur_kernels::{Clamp, Layout, Window, channel};
use std::hint::black_box;
use std::time::Instant;

/// Repetitions, of which the median counts.
const REPETITIONS: usize = 7;

/// A chain of dependent multiply-adds in each of many registers.
struct Peak {
    rounds: usize,
}

/// Registers, enough to hide the latency of a multiply-add.
const CHAINS: usize = 12;

impl WithSimd for Peak {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [simd.splat_f32s(0.0); CHAINS];
        let factor = simd.splat_f32s(black_box(0.999));
        let term = simd.splat_f32s(black_box(0.001));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        2.0 * (self.rounds * CHAINS * S::F32_LANES) as f64
    }
}

/// Floating-point operations per second of all threads, in units of 10^9.
fn peak() -> f64 {
    let start = Instant::now();
    let flops = rayon::broadcast(|_| Arch::new().dispatch(Peak { rounds: 200_000 }));
    flops.iter().sum::<f64>() / start.elapsed().as_secs_f64() / 1e9
}

/// Median throughput of `work`, and of its ratio to the peak.
fn measure(flops: f64, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut runs: Vec<(f64, f64)> = (0..REPETITIONS)
        .map(|_| {
            let before = peak();
            let start = Instant::now();
            work();
            let rate = flops / start.elapsed().as_secs_f64() / 1e9;
            (rate, rate / before.midpoint(peak()))
        })
        .collect();
    let middle = REPETITIONS / 2;
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rate = runs[middle].0;
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    (rate, runs[middle].1)
}

struct Case {
    name: &'static str,
    images: usize,
    groups: usize,
    channels: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
}

impl Case {
    fn name(&self) -> String {
        let [from, to] = self.channels;
        format!(
            "{}: {}x{from}-{to} {} {}/{}",
            self.name, self.images, self.size, self.kernel, self.stride
        )
    }

    fn shape(&self) -> ConvShape {
        let pad = self.kernel / 2;
        let out = (self.size + 2 * pad - self.kernel) / self.stride + 1;
        ConvShape {
            images: self.images,
            groups: self.groups,
            input: [self.channels[0], self.size, self.size],
            output: [self.channels[1], out, out],
            window: Window {
                kernel: [self.kernel; 2],
                strides: [self.stride; 2],
                dilations: [1, 1],
                before: [pad; 2],
            },
        }
    }
}

fn cases() -> Vec<Case> {
    let dense = |name, images, channels, size, kernel, stride| Case {
        name,
        images,
        groups: 1,
        channels,
        size,
        kernel,
        stride,
    };
    let depthwise = |name, images, channels, size, stride| Case {
        name,
        images,
        groups: channels,
        channels: [channels; 2],
        size,
        kernel: 3,
        stride,
    };
    let grouped = |name, groups, channels, size| Case {
        groups,
        ..dense(name, 32, [channels; 2], size, 3, 1)
    };
    vec![
        dense("vgg16-32", 64, [3, 64], 32, 3, 1),
        dense("vgg16-32", 64, [64, 64], 32, 3, 1),
        dense("vgg16-32", 64, [64, 128], 16, 3, 1),
        dense("vgg16-32", 64, [128, 128], 16, 3, 1),
        dense("vgg16-32", 64, [128, 256], 8, 3, 1),
        dense("vgg16-32", 64, [256, 256], 8, 3, 1),
        dense("vgg16-32", 64, [256, 512], 4, 3, 1),
        dense("vgg16-32", 64, [512, 512], 4, 3, 1),
        dense("vgg16-32", 64, [512, 512], 2, 3, 1),
        dense("vgg16-32 dense", 64, [512, 512], 1, 1, 1),
        dense("factored", 64, [64, 37], 32, 3, 1),
        dense("factored", 64, [37, 64], 32, 1, 1),
        dense("factored", 64, [256, 91], 8, 3, 1),
        dense("factored", 64, [91, 256], 8, 1, 1),
        dense("resnet20-32", 64, [16, 16], 32, 3, 1),
        dense("resnet20-32", 64, [16, 32], 32, 3, 2),
        dense("resnet20-32", 64, [32, 32], 16, 3, 1),
        dense("resnet20-32", 64, [64, 64], 8, 3, 1),
        dense("resnet18-32", 64, [3, 64], 32, 7, 2),
        dense("resnet18-32", 64, [64, 64], 8, 3, 1),
        dense("resnet18-32", 64, [64, 128], 8, 3, 2),
        dense("resnet18-32", 64, [128, 128], 4, 3, 1),
        dense("resnet18-32", 64, [256, 256], 2, 3, 1),
        dense("resnet18-32", 64, [256, 512], 2, 3, 2),
        dense("resnet18-32", 64, [512, 512], 1, 3, 1),
        dense("resnet50-224", 8, [3, 64], 224, 7, 2),
        dense("resnet50-224", 8, [64, 64], 56, 1, 1),
        dense("resnet50-224", 8, [64, 64], 56, 3, 1),
        dense("resnet50-224", 8, [64, 256], 56, 1, 1),
        dense("resnet50-224", 8, [256, 64], 56, 1, 1),
        dense("resnet50-224", 8, [128, 128], 56, 3, 2),
        dense("resnet50-224", 8, [256, 512], 56, 1, 2),
        dense("resnet50-224", 8, [128, 128], 28, 3, 1),
        dense("resnet50-224", 8, [256, 256], 14, 3, 1),
        dense("resnet50-224", 8, [256, 1024], 14, 1, 1),
        dense("resnet50-224", 8, [512, 512], 7, 3, 1),
        dense("resnet50-224", 8, [2048, 512], 7, 1, 1),
        dense("mobilenet2-224", 16, [3, 32], 224, 3, 2),
        dense("mobilenet2-224", 16, [16, 96], 112, 1, 1),
        dense("mobilenet2-224", 16, [144, 24], 56, 1, 1),
        dense("mobilenet2-224", 16, [32, 192], 28, 1, 1),
        dense("mobilenet2-224", 16, [160, 960], 7, 1, 1),
        grouped("resnext, 32 groups", 32, 128, 28),
        grouped("resnext, 32 groups", 32, 256, 14),
        grouped("resnext, 64 groups", 64, 128, 28),
        depthwise("mobilenet2-224 dw", 16, 32, 112, 1),
        depthwise("mobilenet2-224 dw", 16, 96, 112, 2),
        depthwise("mobilenet2-224 dw", 16, 144, 56, 1),
        depthwise("mobilenet2-224 dw", 16, 192, 28, 1),
        depthwise("mobilenet2-224 dw", 16, 384, 14, 1),
        depthwise("mobilenet2-224 dw", 16, 576, 14, 2),
        depthwise("mobilenet2-224 dw", 16, 960, 7, 1),
    ]
}

/// Gigabytes of a value a second, read or written, of what is done between convolutions.
fn memory() {
    let (images, channels, size) = (64, 64, 16);
    let positions = size * size;
    let mut x = Aligned::zeros(images * channels * positions);
    for (i, value) in x.iter_mut().enumerate() {
        *value = (i * 37 % 101) as f32 / 50.0 - 1.0;
    }
    let shape = PoolShape {
        input: [size; 2],
        output: [size / 2; 2],
        window: Window {
            kernel: [3; 2],
            strides: [2; 2],
            dilations: [1; 2],
            before: [1; 2],
        },
    };
    let (mut y, mut dx) = (Aligned::zeros(x.len()), Aligned::zeros(x.len()));
    let factors = vec![0.5; channels];
    println!("values of {images} images, {channels} channels, {size} x {size}: GB/s");
    for layout in Layout::ALL {
        let run = match layout {
            Layout::Planes => positions,
            Layout::Bundles(images) => images,
        };
        let batch = Batch { layout, channels };
        let print = |what: &str, values: usize, work: &mut dyn FnMut()| {
            let (rate, _) = measure(4.0 * values as f64, work);
            println!("{what:<34} {:<11} {rate:>8.1}", format!("{layout:?}"));
        };
        let n = x.len();
        print("moments", n, &mut || {
            black_box(channel::moments(channels, run, &x));
        });
        let line = Line {
            factor: &factors,
            offset: &factors,
            clamp: Clamp::RELU,
        };
        print("normalisation", 2 * n, &mut || {
            norm::forward(line, run, &x, &mut y);
        });
        let two = [&factors[..]; 2];
        print("sums of its gradient", 2 * n, &mut || {
            black_box(norm::sums(line, two, run, &y, &x));
        });
        let three = [&factors[..]; 3];
        print("its gradient", 3 * n, &mut || {
            norm::backward(line, three, run, &y, &x, &mut dx);
        });
        let pooled = n / 4;
        print("max pooling 3/2", n + pooled, &mut || {
            max_forward(batch, &shape, &x, &mut y[..pooled]);
        });
        print("gradient of the pooling", 2 * n + pooled, &mut || {
            max_backward(batch, &shape, &x, &y[..pooled], &mut dx);
        });
        print("mean of positions", n, &mut || {
            average(batch, positions, &x, &mut y[..images * channels]);
        });
    }
}

fn main() {
    // As in a pass through a network: from any other thread, each operator would wait for those of the pool to wake.
    rayon::scope(|_| run());
}

fn run() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "memory" {
        return memory();
    }
    let is_kept = std::env::args().nth(2).is_some_and(|word| word == "kept");
    println!(
        "{} threads, peak {:.0} GFLOP/s; GFLOP/s and share of the peak, median of {REPETITIONS}",
        rayon::current_num_threads(),
        peak()
    );
    println!(
        "{:<34} {:<11} {:>14} {:>14} {:>14}",
        "network: n x channels size kernel", "layout", "forward", "data", "weight"
    );
    for case in cases() {
        let name = case.name();
        if !name.contains(&wanted) {
            continue;
        }
        let shape = case.shape();
        let values = |len: usize| {
            let mut values = Aligned::zeros(len);
            for (i, value) in values.iter_mut().enumerate() {
                *value = (i * 37 % 101) as f32 / 50.0 - 1.0;
            }
            values
        };
        let x = values(shape.input_len());
        let w = values(shape.weight_len());
        let dy = values(shape.output_len());
        let [mut y, mut dx, mut dw] = [&dy, &x, &w].map(|like| values(like.len()));
        let patch = case.channels[0] / case.groups * case.kernel * case.kernel;
        let flops = 2.0 * (shape.output_len() * patch) as f64;
        for layout in Layout::ALL {
            if !layout.fits(shape.images) {
                continue;
            }
            let packed = Packed::default();
            let weight = Weight {
                values: &w,
                packed: is_kept.then_some(&packed),
            };
            let results = [
                measure(flops, || {
                    forward(layout, &shape, &x, weight, Finish::default(), &mut y)
                }),
                measure(flops, || {
                    backward_data(layout, &shape, weight, &dy, &mut dx)
                }),
                measure(flops, || backward_weight(layout, &shape, &x, &dy, &mut dw)),
            ];
            print!("{name:<34} {:<11}", format!("{layout:?}"));
            for (rate, ratio) in results {
                print!(" {rate:>8.1} {:>4.0}%", 100.0 * ratio);
            }
            println!();
        }
    }
}
