//! Convolution in which each channel has a kernel of its own: a plane at a time.

use crate::conv::ConvShape;
use crate::elementwise::dot;
use pulp::Arch;
use rayon::prelude::*;

/// Planes that one part of the work takes.
const PLANES: usize = 16;

pub(crate) fn forward(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (plane_in, plane_out, taps) = sizes(shape);
    let parts = x.par_chunks(PLANES * plane_in);
    y.par_chunks_mut(PLANES * plane_out)
        .zip(parts)
        .enumerate()
        .for_each(|(part, (y, x))| {
            Arch::new().dispatch(|| {
                let planes = x.chunks_exact(plane_in).zip(y.chunks_exact_mut(plane_out));
                for (index, (x, y)) in planes.enumerate() {
                    let channel = (part * PLANES + index) % shape.input[0];
                    y.fill(0.0);
                    let w = &w[channel * taps..][..taps];
                    each_run(shape, |tap, source, target, len| {
                        let y = &mut y[target..][..len];
                        let x = &x[source..];
                        add_scaled(y, x, w[tap], shape.window.strides[1]);
                    });
                }
            });
        });
}

pub(crate) fn backward_data(shape: &ConvShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (plane_in, plane_out, taps) = sizes(shape);
    let stride = shape.window.strides[1];
    let parts = dy.par_chunks(PLANES * plane_out);
    dx.par_chunks_mut(PLANES * plane_in)
        .zip(parts)
        .enumerate()
        .for_each(|(part, (dx, dy))| {
            Arch::new().dispatch(|| {
                let planes = dx.chunks_exact_mut(plane_in);
                for (index, (dx, dy)) in planes.zip(dy.chunks_exact(plane_out)).enumerate() {
                    let channel = (part * PLANES + index) % shape.input[0];
                    let w = &w[channel * taps..][..taps];
                    each_run(shape, |tap, source, target, len| {
                        let dy = &dy[target..][..len];
                        let dx = &mut dx[source..];
                        if stride == 1 {
                            for (dx, dy) in dx[..len].iter_mut().zip(dy) {
                                *dx += w[tap] * *dy;
                            }
                        } else {
                            for (dx, dy) in dx.iter_mut().step_by(stride).zip(dy) {
                                *dx += w[tap] * *dy;
                            }
                        }
                    });
                }
            });
        });
}

pub(crate) fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (plane_in, plane_out, taps) = sizes(shape);
    let stride = shape.window.strides[1];
    dw.par_chunks_mut(taps)
        .enumerate()
        .for_each(|(channel, dw)| {
            Arch::new().dispatch(|| {
                for image in 0..shape.images {
                    let plane = image * shape.input[0] + channel;
                    let x = &x[plane * plane_in..][..plane_in];
                    let dy = &dy[plane * plane_out..][..plane_out];
                    each_run(shape, |tap, source, target, len| {
                        let (x, dy) = (&x[source..], &dy[target..][..len]);
                        dw[tap] += if stride == 1 {
                            dot(&x[..len], dy)
                        } else {
                            let x = x.iter().step_by(stride);
                            x.zip(dy).map(|(x, dy)| x * dy).sum()
                        };
                    });
                }
            });
        });
}

fn sizes(shape: &ConvShape) -> (usize, usize, usize) {
    let [kernel_h, kernel_w] = shape.window.kernel;
    (
        shape.input[1] * shape.input[2],
        shape.positions(),
        kernel_h * kernel_w,
    )
}

/// Calls `work(tap, first input, first output, outputs)` for every run of outputs of one row and tap
/// whose inputs lie inside the plane.
#[inline(always)]
fn each_run(shape: &ConvShape, mut work: impl FnMut(usize, usize, usize, usize)) {
    let [_, height, width] = shape.input;
    let [_, out_height, out_width] = shape.output;
    let [kernel_h, kernel_w] = shape.window.kernel;
    for tap_x in 0..kernel_w {
        let inside = shape.window.columns(tap_x, out_width, width);
        if inside.first == inside.last {
            continue;
        }
        for tap_y in 0..kernel_h {
            for row in 0..out_height {
                let Some(source) = shape.window.row(row, tap_y, height) else {
                    continue;
                };
                work(
                    tap_y * kernel_w + tap_x,
                    source * width + inside.start,
                    row * out_width + inside.first,
                    inside.last - inside.first,
                );
            }
        }
    }
}

#[inline(always)]
fn add_scaled(y: &mut [f32], x: &[f32], factor: f32, stride: usize) {
    if stride == 1 {
        for (y, x) in y.iter_mut().zip(x) {
            *y += factor * *x;
        }
    } else {
        for (y, x) in y.iter_mut().zip(x.iter().step_by(stride)) {
            *y += factor * *x;
        }
    }
}
