//! Convolution and pooling, forward and backward, against obvious loops.

use super::naive::{self, Pool};
use super::*;
use crate::graph::{Arithmetic, ConvAttrs, PoolAttrs, SpatialPads};

/// Sums of at most some hundred products of numbers below 1 in `f32`.
const TOLERANCE: f64 = 2e-6;

fn pads(top: usize, left: usize, bottom: usize, right: usize) -> SpatialPads {
    SpatialPads {
        top,
        left,
        bottom,
        right,
    }
}

/// `input [..] -> x = input + shift -> node`, so that the gradient by `shift` is that by `x`.
fn behind_shift(
    op: Op,
    inputs: &[&str],
    mut initializers: Vec<(&str, Tensor)>,
    x: &Floats,
) -> Graph {
    let zeros = ArrayD::<f32>::zeros(x.raw_dim()).into_shared();
    initializers.push(("shift", Tensor::F32(zeros)));
    let shift = node(Op::Arithmetic(Arithmetic::Add), &["input", "shift"], "x");
    graph(vec![shift, node(op, inputs, "y")], initializers)
}

#[test]
fn convolution_and_its_gradients_equal_six_loops() {
    struct Case {
        x: [usize; 4],
        weight: [usize; 4],
        attrs: ConvAttrs,
    }
    let base = ConvAttrs::default();
    let cases = [
        // 3x3 with padding, odd and unequal sizes.
        Case {
            x: [2, 3, 5, 7],
            weight: [4, 3, 3, 3],
            attrs: ConvAttrs {
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        // 1x1, and 1x1 images.
        Case {
            x: [3, 5, 4, 3],
            weight: [6, 5, 1, 1],
            attrs: base.clone(),
        },
        Case {
            x: [2, 5, 1, 1],
            weight: [6, 5, 1, 1],
            attrs: base.clone(),
        },
        Case {
            x: [2, 3, 1, 1],
            weight: [2, 3, 3, 3],
            attrs: ConvAttrs {
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        // Strides that leave rows over, with and without pads.
        Case {
            x: [2, 3, 6, 5],
            weight: [4, 3, 3, 3],
            attrs: ConvAttrs {
                strides: [2, 2],
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [2, 3, 8, 7],
            weight: [4, 3, 2, 3],
            attrs: ConvAttrs {
                strides: [3, 2],
                ..base.clone()
            },
        },
        Case {
            x: [2, 3, 7, 8],
            weight: [4, 3, 1, 1],
            attrs: ConvAttrs {
                strides: [2, 2],
                ..base.clone()
            },
        },
        // Asymmetric pads.
        Case {
            x: [2, 3, 6, 5],
            weight: [4, 3, 3, 3],
            attrs: ConvAttrs {
                strides: [2, 2],
                pads: pads(0, 0, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [1, 2, 4, 6],
            weight: [3, 2, 3, 2],
            attrs: ConvAttrs {
                pads: pads(2, 0, 1, 3),
                ..base.clone()
            },
        },
        // Dilation.
        Case {
            x: [2, 2, 9, 8],
            weight: [3, 2, 3, 3],
            attrs: ConvAttrs {
                dilations: [2, 3],
                pads: pads(2, 3, 2, 3),
                ..base.clone()
            },
        },
        Case {
            x: [2, 2, 9, 8],
            weight: [3, 2, 3, 2],
            attrs: ConvAttrs {
                dilations: [2, 2],
                strides: [2, 1],
                pads: pads(1, 0, 0, 2),
                ..base.clone()
            },
        },
        // Groups, depthwise, depthwise with two filters a channel.
        Case {
            x: [2, 6, 5, 5],
            weight: [4, 3, 3, 3],
            attrs: ConvAttrs {
                groups: 2,
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [2, 6, 5, 4],
            weight: [6, 1, 3, 3],
            attrs: ConvAttrs {
                groups: 6,
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [2, 4, 6, 7],
            weight: [4, 1, 3, 3],
            attrs: ConvAttrs {
                groups: 4,
                strides: [2, 2],
                pads: pads(0, 0, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [2, 4, 9, 7],
            weight: [4, 1, 3, 3],
            attrs: ConvAttrs {
                groups: 4,
                dilations: [2, 2],
                pads: pads(2, 2, 2, 2),
                ..base.clone()
            },
        },
        Case {
            x: [2, 3, 5, 5],
            weight: [6, 1, 3, 3],
            attrs: ConvAttrs {
                groups: 3,
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
        },
        Case {
            x: [2, 4, 5, 5],
            weight: [4, 2, 1, 1],
            attrs: ConvAttrs { groups: 2, ..base },
        },
    ];
    for (index, case) in cases.iter().enumerate() {
        for with_bias in [true, false] {
            let what = format!("case {index}, bias {with_bias}");
            let x = numbers(&case.x, 1);
            let weight = numbers(&case.weight, 2);
            let bias = numbers(&[case.weight[0]], 3);
            let mut initializers = vec![("weight", Tensor::F32(weight.clone()))];
            let mut inputs = vec!["x", "weight"];
            let mut trainable = vec!["shift", "weight"];
            if with_bias {
                initializers.push(("bias", Tensor::F32(bias.clone())));
                inputs.push("bias");
                trainable.push("bias");
            }
            let graph = behind_shift(Op::Conv(case.attrs.clone()), &inputs, initializers, &x);

            let wide_bias = wide(&bias);
            let (wide_x, wide_weight) = (wide(&x), wide(&weight));
            let bias = with_bias.then_some(&wide_bias);
            let want = naive::conv(&wide_x, &wide_weight, bias, &case.attrs);
            assert_close(&forward(&graph, &x), &want, TOLERANCE, &what);

            let direction = numbers(want.shape(), 4);
            let got = gradients(&graph, &trainable, &x, &direction);
            let direction = wide(&direction);
            let loss = |y: &ArrayD<f64>| (y * &direction).sum();
            let want = naive::gradient(&wide_x, 1.0, |x| {
                loss(&naive::conv(x, &wide_weight, bias, &case.attrs))
            });
            assert_close(&got["shift"], &want, TOLERANCE, &format!("{what}, by x"));
            let want = naive::gradient(&wide_weight, 1.0, |weight| {
                loss(&naive::conv(&wide_x, weight, bias, &case.attrs))
            });
            assert_close(
                &got["weight"],
                &want,
                TOLERANCE,
                &format!("{what}, by weight"),
            );
            if with_bias {
                let want = naive::gradient(&wide_bias, 1.0, |bias| {
                    loss(&naive::conv(&wide_x, &wide_weight, Some(bias), &case.attrs))
                });
                assert_close(&got["bias"], &want, TOLERANCE, &format!("{what}, by bias"));
            }
        }
    }
}

#[test]
fn pooling_and_its_gradients_equal_loops() {
    let base = PoolAttrs {
        kernel: [3, 3],
        strides: [2, 2],
        pads: SpatialPads::default(),
        dilations: [1, 1],
        auto_pad: crate::graph::AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
    };
    let cases = [
        (base.clone(), [2, 3, 7, 9]),
        (
            PoolAttrs {
                kernel: [2, 2],
                ..base.clone()
            },
            [2, 3, 5, 6],
        ),
        (
            PoolAttrs {
                kernel: [1, 1],
                strides: [1, 1],
                ..base.clone()
            },
            [2, 3, 1, 1],
        ),
        (
            PoolAttrs {
                pads: pads(1, 1, 1, 1),
                ..base.clone()
            },
            [2, 3, 6, 8],
        ),
        (
            PoolAttrs {
                pads: pads(0, 0, 1, 1),
                ..base.clone()
            },
            [2, 3, 6, 8],
        ),
        (
            PoolAttrs {
                pads: pads(2, 0, 1, 1),
                strides: [1, 2],
                ..base.clone()
            },
            [1, 2, 5, 6],
        ),
        (
            PoolAttrs {
                ceil_mode: true,
                ..base.clone()
            },
            [2, 3, 6, 8],
        ),
        (
            PoolAttrs {
                ceil_mode: true,
                pads: pads(1, 0, 1, 1),
                ..base.clone()
            },
            [2, 3, 7, 8],
        ),
        (
            PoolAttrs {
                ceil_mode: true,
                kernel: [2, 2],
                strides: [3, 3],
                ..base.clone()
            },
            [2, 3, 5, 7],
        ),
        (
            PoolAttrs {
                dilations: [2, 2],
                strides: [1, 1],
                ..base.clone()
            },
            [2, 3, 7, 8],
        ),
        (
            PoolAttrs {
                dilations: [2, 1],
                pads: pads(1, 1, 2, 0),
                ..base
            },
            [2, 3, 7, 8],
        ),
    ];
    for (index, (attrs, shape)) in cases.into_iter().enumerate() {
        for kind in [Pool::Max, Pool::Average] {
            for count_include_pad in [false, true] {
                let attrs = PoolAttrs {
                    count_include_pad,
                    ..attrs.clone()
                };
                let what = format!("case {index}, {kind:?}, counting pads {count_include_pad}");
                let x = numbers(&shape, 5);
                let op = match kind {
                    Pool::Max => Op::MaxPool(attrs.clone()),
                    Pool::Average => Op::AveragePool(attrs.clone()),
                };
                let graph = behind_shift(op, &["x"], Vec::new(), &x);
                let size = attrs.output_size([shape[2], shape[3]]).unwrap();
                let wide_x = wide(&x);
                let want = naive::pool(&wide_x, &attrs, size, kind);
                assert_close(&forward(&graph, &x), &want, TOLERANCE, &what);

                let direction = numbers(want.shape(), 6);
                let got = gradients(&graph, &["shift"], &x, &direction);
                let direction = wide(&direction);
                // Smaller than half the gaps between the numbers, so that no maximum changes.
                let want = naive::gradient(&wide_x, 1e-5, |x| {
                    (naive::pool(x, &attrs, size, kind) * &direction).sum()
                });
                assert_close(&got["shift"], &want, 1e-5, &format!("{what}, by x"));
            }
        }
    }
}
