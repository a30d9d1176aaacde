//! Gradients of every operator against central differences of its forward pass, which the fixtures
//! of ONNX Runtime and the naive loops hold.

use super::*;
use crate::graph::{
    Activation, Arithmetic, AspectRatio, AutoPad, ConvTransposeAttrs, Coordinates, DepthOrder,
    GeluForm, Interpolation, Nearest, PadMode, Reduction, ResizeAttrs, SoftmaxAxis, SpatialPads,
    Variadic,
};
use crate::tensor::Ints;

/// A value is moved by this much to either side.
const STEP: f32 = 1.0 / 64.0;

/// The truncation error is of the order of `STEP^2 / 6` times a third derivative, the rounding
/// error of 1e-7 / `STEP` times the square root of the number of outputs: both stay below this.
const TOLERANCE: f64 = 5e-4;

/// Numbers at odd multiples of 1/32, in mixed order: none is within `STEP` of a kink at 0 or at a
/// multiple of 1/16, and no two are close enough to change places.
fn apart(shape: &[usize], seed: usize) -> Floats {
    let len: usize = shape.iter().product();
    let stride = (len / 3 + 1..)
        .find(|&stride| gcd(stride, len) == 1)
        .unwrap();
    let value = |i: usize| ((i * stride + seed) % len) as f32 / 16.0 - len as f32 / 32.0;
    let odd = if len.is_multiple_of(2) {
        1.0 / 32.0
    } else {
        0.0
    };
    let values = (0..len).map(|i| value(i) + odd).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .unwrap()
        .into_shared()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn ints(values: &[i64]) -> Tensor {
    let array = ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap();
    Tensor::I64(Ints::from(array))
}

/// One operator: the parameters that are differentiated by, and constants that steer it.
struct Case {
    what: &'static str,
    op: Op,
    parameters: Vec<Floats>,
    constants: Vec<Tensor>,
    batch_norm: BatchNormMode,
}

fn case(what: &'static str, op: Op, shapes: &[&[usize]]) -> Case {
    let parameters = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| apart(shape, 5 * i))
        .collect();
    Case {
        what,
        op,
        parameters,
        constants: Vec::new(),
        batch_norm: BatchNormMode::Stored,
    }
}

fn cases() -> Vec<Case> {
    let image: &[usize] = &[2, 3, 4, 5];
    let unary = |what, activation| case(what, Op::Activation(activation), &[image]);
    let positive = |what, activation| {
        let mut case = unary(what, activation);
        case.parameters[0].mapv_inplace(|v| v.abs() + 1.0);
        case
    };
    let power = |what, shapes: &[&[usize]]| {
        let mut case = case(what, Op::Arithmetic(Arithmetic::Pow), shapes);
        case.parameters[0].mapv_inplace(|v| v.abs() / 4.0 + 1.0);
        case.parameters[1].mapv_inplace(|v| v / 4.0);
        case
    };
    // Values of different operands are at least 1/24 apart: none changes places within a step.
    let extremum = |what, function| {
        let shapes: &[&[usize]] = &[&[2, 3, 2], &[3, 1], &[1]];
        let mut case = case(what, Op::Variadic(function), shapes);
        for (i, parameter) in case.parameters.iter_mut().enumerate() {
            parameter.mapv_inplace(|v| v * 2.0 + i as f32 / 24.0);
        }
        case
    };
    let arithmetic = |what, operation, shapes: &[&[usize]]| {
        let mut case = case(what, Op::Arithmetic(operation), shapes);
        // Divisors away from 0.
        case.parameters[1].mapv_inplace(|v| if v < 0.0 { v - 1.0 } else { v + 1.0 });
        case
    };
    let with = |mut case: Case, constants: Vec<Tensor>| {
        case.constants = constants;
        case
    };
    let gemm = |trans_a, trans_b| Op::Gemm {
        alpha: 0.5,
        beta: -1.5,
        trans_a,
        trans_b,
    };
    let norm = Op::BatchNormalization {
        epsilon: 1e-3,
        momentum: 0.9,
    };
    let batch_norm = |what, mode| {
        let shapes: &[&[usize]] = match mode {
            BatchNormMode::Stored => &[&[4, 3, 2, 3], &[3], &[3], &[3], &[3]],
            BatchNormMode::Batch => &[&[4, 3, 2, 3], &[3], &[3]],
        };
        let mut case = case(what, norm.clone(), shapes);
        case.batch_norm = mode;
        if mode == BatchNormMode::Stored {
            case.parameters[4].mapv_inplace(|v| v.abs() + 0.5);
        } else {
            let one = Tensor::F32(floats(&[3], &[1.0; 3]));
            case.constants = vec![one.clone(), one];
        }
        case
    };
    let pad = |mode| Op::Pad {
        mode,
        pads: None,
        value: None,
    };
    let bound = |value| Tensor::F32(floats(&[], &[value]));
    let clip = || Op::Clip {
        min: None,
        max: None,
    };
    let reduce = |reduction, axes: &[i64]| Op::Reduce {
        reduction,
        axes: Some(axes.to_vec()),
        keep_dims: true,
        noop_with_empty_axes: false,
    };
    let mean = |axes: &[i64]| reduce(Reduction::Mean, axes);
    let transposed = |groups, pads| {
        Op::ConvTranspose(ConvTransposeAttrs {
            strides: [2, 1],
            pads,
            dilations: [1, 2],
            groups,
            auto_pad: AutoPad::NotSet,
            output_padding: [1, 0],
            output_shape: None,
        })
    };
    let resize = |interpolation, coordinates| {
        Op::Resize(ResizeAttrs {
            interpolation,
            coordinates,
            exclude_outside: false,
            antialias: false,
            axes: Some(vec![2, 3]),
            aspect_ratio: AspectRatio::Stretch,
        })
    };
    // Inputs 1 and 2, roi and scales, hold nothing.
    let to_size = |case: Case, size: &[i64]| {
        let nothing = || Tensor::F32(floats(&[0], &[]));
        with(case, vec![nothing(), nothing(), ints(size)])
    };
    vec![
        unary("relu", Activation::Relu),
        unary("leaky relu", Activation::LeakyRelu { alpha: 0.1 }),
        unary("sigmoid", Activation::Sigmoid),
        // Its kinks lie at -2 and 2, among multiples of 1/16.
        unary(
            "hard sigmoid",
            Activation::HardSigmoid {
                alpha: 0.25,
                beta: 0.5,
            },
        ),
        unary("hard swish", Activation::HardSwish),
        unary("tanh", Activation::Tanh),
        unary("exp", Activation::Exp),
        unary("erf", Activation::Erf),
        unary("abs", Activation::Abs),
        unary("negate", Activation::Neg),
        unary("softplus", Activation::Softplus),
        unary("softsign", Activation::Softsign),
        unary("mish", Activation::Mish),
        unary("elu", Activation::Elu { alpha: 0.5 }),
        unary(
            "selu",
            Activation::Selu {
                alpha: 1.5,
                gamma: 1.25,
            },
        ),
        unary("celu", Activation::Celu { alpha: 2.0 }),
        unary(
            "thresholded relu",
            Activation::ThresholdedRelu { alpha: 0.5 },
        ),
        unary("gelu", Activation::Gelu(GeluForm::Exact)),
        unary("gelu by tanh", Activation::Gelu(GeluForm::Tanh)),
        unary("swish", Activation::Swish { alpha: 1.5 }),
        positive("log", Activation::Log),
        positive("square root", Activation::Sqrt),
        positive("reciprocal", Activation::Reciprocal),
        power("power", &[image, image]),
        power("power of channels", &[image, &[3, 1, 1]]),
        case("prelu", Op::PRelu, &[image, &[3, 1, 1]]),
        with(
            case("clip", clip(), &[image]),
            vec![bound(-0.5), bound(0.75)],
        ),
        with(case("clip from below", clip(), &[image]), vec![bound(-0.5)]),
        arithmetic("add", Arithmetic::Add, &[image, image]),
        arithmetic("add a row", Arithmetic::Add, &[image, &[5]]),
        arithmetic("subtract channels", Arithmetic::Sub, &[image, &[3, 1, 1]]),
        arithmetic(
            "multiply by channels",
            Arithmetic::Mul,
            &[image, &[1, 3, 1, 1]],
        ),
        arithmetic(
            "multiply by images and channels",
            Arithmetic::Mul,
            &[image, &[2, 3, 1, 1]],
        ),
        arithmetic("multiply by a scalar", Arithmetic::Mul, &[image, &[1]]),
        arithmetic("divide", Arithmetic::Div, &[image, image]),
        arithmetic(
            "divide both ways",
            Arithmetic::Div,
            &[&[2, 1, 4, 1], &[3, 1, 5]],
        ),
        case(
            "sum of three",
            Op::Variadic(Variadic::Sum),
            &[image, &[3, 1, 1], image],
        ),
        case(
            "mean of three",
            Op::Variadic(Variadic::Mean),
            &[&[3, 1, 1], image, &[5]],
        ),
        extremum("largest of three", Variadic::Max),
        extremum("smallest of three", Variadic::Min),
        case("concat", Op::Concat { axis: 1 }, &[image, &[2, 2, 4, 5]]),
        case(
            "concat along the last axis",
            Op::Concat { axis: -1 },
            &[&[2, 3], &[2, 1], &[2, 2]],
        ),
        case("gemm", gemm(false, true), &[&[4, 3], &[5, 3], &[5]]),
        case(
            "gemm of transposed",
            gemm(true, false),
            &[&[3, 4], &[3, 5], &[4, 1]],
        ),
        case("matmul", Op::MatMul, &[&[3, 4], &[4, 5]]),
        case("matmul of many by one", Op::MatMul, &[&[2, 3, 4], &[4, 2]]),
        case(
            "matmul of batches",
            Op::MatMul,
            &[&[2, 1, 3, 4], &[3, 4, 2]],
        ),
        case("matmul of vectors", Op::MatMul, &[&[4], &[4]]),
        batch_norm("batch norm by stored statistics", BatchNormMode::Stored),
        batch_norm("batch norm by the batch's statistics", BatchNormMode::Batch),
        case("global average pool", Op::GlobalAveragePool, &[image]),
        case("mean over positions", mean(&[2, 3]), &[image]),
        case("mean over channels and columns", mean(&[1, -1]), &[image]),
        case("global max pool", Op::GlobalMaxPool, &[image]),
        case("sum", reduce(Reduction::Sum, &[1, 3]), &[image]),
        case("largest", reduce(Reduction::Max, &[2, 3]), &[image]),
        case("smallest", reduce(Reduction::Min, &[0]), &[image]),
        case("magnitudes", reduce(Reduction::L1, &[1]), &[image]),
        case("length", reduce(Reduction::L2, &[1]), &[image]),
        case(
            "squares",
            reduce(Reduction::SumSquare, &[2, 3]),
            &[&[2, 3, 2, 2]],
        ),
        case(
            "transposed convolution",
            transposed(1, SpatialPads::default()),
            &[&[1, 2, 3, 3], &[2, 2, 3, 2], &[2]],
        ),
        case(
            "transposed convolution in groups, cut",
            transposed(
                2,
                SpatialPads {
                    top: 1,
                    left: 0,
                    bottom: 0,
                    right: 2,
                },
            ),
            &[&[1, 2, 3, 3], &[2, 1, 3, 2], &[2]],
        ),
        case(
            "layer norm",
            Op::LayerNormalization {
                axis: -1,
                epsilon: 1e-3,
            },
            &[&[3, 4], &[4], &[4]],
        ),
        case(
            "instance norm",
            Op::InstanceNormalization { epsilon: 1e-3 },
            &[&[2, 3, 2, 3], &[3], &[3]],
        ),
        case(
            "group norm",
            // Operator set 17, which these graphs state, has one scale for each group.
            Op::GroupNormalization {
                groups: 2,
                epsilon: 1e-3,
            },
            &[&[2, 4, 2, 2], &[2], &[2]],
        ),
        to_size(
            case(
                "resize to the nearest",
                resize(
                    Interpolation::Nearest(Nearest::RoundPreferFloor),
                    Coordinates::HalfPixel,
                ),
                &[image],
            ),
            &[7, 3],
        ),
        to_size(
            case(
                "resize linearly",
                resize(Interpolation::Linear, Coordinates::AlignCorners),
                &[image],
            ),
            &[6, 3],
        ),
        to_size(
            case(
                "resize by cubics",
                resize(Interpolation::Cubic { a: -0.75 }, Coordinates::HalfPixel),
                &[image],
            ),
            &[6, 8],
        ),
        case(
            "depth to space",
            Op::DepthToSpace {
                block: 2,
                order: DepthOrder::ColumnFirst,
            },
            &[&[2, 8, 2, 3]],
        ),
        case(
            "space to depth",
            Op::SpaceToDepth {
                block: 2,
                order: DepthOrder::ColumnFirst,
            },
            &[&[2, 3, 4, 2]],
        ),
        with(
            case("expand", Op::Expand, &[&[3, 1]]),
            vec![ints(&[2, 1, 4])],
        ),
        case("flatten", Op::Flatten { axis: 1 }, &[image]),
        with(
            case("reshape", Op::Reshape { allow_zero: false }, &[image]),
            vec![ints(&[6, -1])],
        ),
        case(
            "transpose",
            Op::Transpose {
                perm: Some(vec![2, 0, 3, 1]),
            },
            &[image],
        ),
        case(
            "reverse axes",
            Op::Transpose { perm: None },
            &[&[2, 3, 2, 1, 2]],
        ),
        case(
            "squeeze",
            Op::Squeeze {
                axes: Some(vec![0, 3]),
            },
            &[&[1, 3, 4, 1]],
        ),
        case(
            "unsqueeze",
            Op::Unsqueeze {
                axes: Some(vec![0, 3]),
            },
            &[&[3, 4]],
        ),
        with(
            case(
                "slice with steps",
                Op::Slice { bounds: None },
                &[&[2, 3, 5, 6]],
            ),
            vec![
                ints(&[0, 5]),
                ints(&[5, -10]),
                ints(&[2, 3]),
                ints(&[2, -2]),
            ],
        ),
        with(
            case("pad", pad(PadMode::Constant), &[image]),
            vec![ints(&[0, 2, 0, 1, 0, 1, 2, 0])],
        ),
        with(
            case("pad and crop", pad(PadMode::Constant), &[image]),
            vec![ints(&[0, 1, -1, 0, 0, 0, 0, -2])],
        ),
        with(
            case("pad by reflection", pad(PadMode::Reflect), &[image]),
            vec![ints(&[0, 0, 3, 1, 0, 0, 2, 4])],
        ),
        with(
            case("pad by the edge", pad(PadMode::Edge), &[image]),
            vec![ints(&[0, 0, 3, 1, 0, 0, 2, 4])],
        ),
        case(
            "softmax",
            Op::Softmax(SoftmaxAxis::Single(1)),
            &[&[2, 5, 3]],
        ),
        case(
            "softmax of the flattened",
            Op::Softmax(SoftmaxAxis::FlattenFrom(1)),
            &[&[2, 3, 2]],
        ),
        case(
            "log softmax",
            Op::LogSoftmax(SoftmaxAxis::Single(-1)),
            &[&[3, 6]],
        ),
        case("dropout", Op::Dropout { ratio: None }, &[image]),
        case(
            "lrn",
            Op::Lrn {
                alpha: 0.3,
                beta: 0.75,
                bias: 1.0,
                size: 4,
            },
            &[&[2, 6, 2, 2]],
        ),
        case(
            "cast",
            Op::Cast {
                to: ElementType::F32,
            },
            &[image],
        ),
    ]
}

#[test]
fn gradients_equal_central_differences() {
    for engine in engines() {
        check_gradients_equal_central_differences(&*engine);
    }
}

fn check_gradients_equal_central_differences(engine: &dyn Engine) {
    for case in cases() {
        let names: Vec<String> = (0..case.parameters.len())
            .map(|i| format!("p{i}"))
            .collect();
        let constants: Vec<String> = (0..case.constants.len()).map(|i| format!("c{i}")).collect();
        let inputs: Vec<&str> = names.iter().chain(&constants).map(String::as_str).collect();
        let tensors = case.parameters.iter().cloned().map(Tensor::F32);
        let tensors = tensors.chain(case.constants.iter().cloned());
        let initializers = inputs.iter().copied().zip(tensors).collect();
        let graph = graph(vec![node(case.op.clone(), &inputs, "y")], initializers);
        let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut request = request(&graph, &trainable);
        request.batch_norm = case.batch_norm;
        let mut session = engine.session(&request).unwrap();
        // Nothing reads the graph's input: all operands are parameters.
        let input = numbers(&[1, 1, 1, 1], 0);
        let output = session.forward(&input).unwrap().remove(0);
        let direction = numbers(output.shape(), 3);
        let got = step(&mut *session, &input, &direction);
        let loss = |session: &mut dyn Session| -> f64 {
            let output = session.forward(&input).unwrap().remove(0);
            output
                .iter()
                .zip(&direction)
                .map(|(&y, &d)| f64::from(y) * f64::from(d))
                .sum()
        };
        for (name, parameter) in names.iter().zip(&case.parameters) {
            let mut want = ArrayD::<f64>::zeros(parameter.raw_dim());
            for (index, &value) in parameter.indexed_iter() {
                let mut moved = parameter.clone();
                moved[&index] = value + STEP;
                session.set(name, &moved).unwrap();
                let above = loss(&mut *session);
                moved[&index] = value - STEP;
                session.set(name, &moved).unwrap();
                want[&index] = (above - loss(&mut *session)) / (2.0 * f64::from(STEP));
            }
            session.set(name, parameter).unwrap();
            assert_close(
                &got[name],
                &want,
                TOLERANCE,
                &format!("{}, by {name}", case.what),
            );
        }
    }
}

#[test]
fn batch_statistics_give_the_closed_form() {
    for engine in engines() {
        check_batch_statistics_give_the_closed_form(&*engine);
    }
}

fn check_batch_statistics_give_the_closed_form(engine: &dyn Engine) {
    // y = gamma (x - mean) / sqrt(var + eps) + beta, with the biased variance of the batch;
    // dx = gamma / std (g - mean g - xhat mean(g xhat)), dgamma = sum g xhat, dbeta = sum g.
    let (n, c, p) = (4, 3, 6);
    let x = numbers(&[n, c, 2, 3], 1);
    let (gamma, beta) = (numbers(&[c], 2), numbers(&[c], 3));
    let epsilon = 0.01;
    let one = Tensor::F32(floats(&[c], &[9.0; 3]));
    let nodes = vec![
        node(Op::Arithmetic(Arithmetic::Add), &["input", "shift"], "x"),
        node(
            Op::BatchNormalization {
                epsilon,
                momentum: 0.9,
            },
            &["x", "gamma", "beta", "mean", "variance"],
            "y",
        ),
    ];
    let initializers = vec![
        (
            "shift",
            Tensor::F32(ArrayD::zeros(x.raw_dim()).into_shared()),
        ),
        ("gamma", Tensor::F32(gamma.clone())),
        ("beta", Tensor::F32(beta.clone())),
        ("mean", one.clone()),
        ("variance", one),
    ];
    let graph = graph(nodes, initializers);
    let mut request = request(&graph, &["shift", "gamma", "beta"]);
    request.batch_norm = BatchNormMode::Batch;
    let mut session = engine.session(&request).unwrap();
    let direction = numbers(x.shape(), 4);
    let y = session.forward(&x).unwrap().remove(0);
    let got = step(&mut *session, &x, &direction);

    let (x, g) = (wide(&x), wide(&direction));
    let (mut want_y, mut want_dx) = (ArrayD::zeros(x.raw_dim()), ArrayD::zeros(x.raw_dim()));
    let (mut want_dgamma, mut want_dbeta) =
        (ArrayD::zeros(IxDyn(&[c])), ArrayD::zeros(IxDyn(&[c])));
    let count = (n * p) as f64;
    for channel in 0..c {
        let places: Vec<[usize; 4]> = (0..n)
            .flat_map(|i| (0..p).map(move |q| [i, channel, q / 3, q % 3]))
            .collect();
        let mean = places.iter().map(|&at| x[at]).sum::<f64>() / count;
        let variance = places.iter().map(|&at| (x[at] - mean).powi(2)).sum::<f64>() / count;
        let std = (variance + f64::from(epsilon)).sqrt();
        let hat = |at: [usize; 4]| (x[at] - mean) / std;
        let sum_g: f64 = places.iter().map(|&at| g[at]).sum();
        let sum_g_hat: f64 = places.iter().map(|&at| g[at] * hat(at)).sum();
        let (gamma, beta) = (f64::from(gamma[[channel]]), f64::from(beta[[channel]]));
        for &at in &places {
            want_y[at] = gamma * hat(at) + beta;
            want_dx[at] = gamma / std * (g[at] - sum_g / count - hat(at) * sum_g_hat / count);
        }
        want_dgamma[[channel]] = sum_g_hat;
        want_dbeta[[channel]] = sum_g;
    }
    assert_close(&y, &want_y, 1e-6, "y");
    assert_close(&got["shift"], &want_dx, 1e-6, "by x");
    assert_close(&got["gamma"], &want_dgamma, 1e-6, "by gamma");
    assert_close(&got["beta"], &want_dbeta, 1e-6, "by beta");
}

/// Rounding is flat between its jumps.
#[test]
fn rounding_has_no_gradient() {
    for activation in [Activation::Floor, Activation::Ceil, Activation::Round] {
        let x = numbers(&[2, 3], 1);
        let nodes = vec![node(Op::Activation(activation), &["p"], "y")];
        let graph = graph(nodes, vec![("p", Tensor::F32(x.clone()))]);
        let found = gradients(&graph, &["p"], &numbers(&[1], 0), &numbers(&[2, 3], 2));
        assert!(found["p"].iter().all(|&g| g == 0.0), "{activation:?}");
    }
}

/// `y = relu(a) * b + a` for the halves `a`, `b` of `x + p`: gradients of both outputs of one node
/// reach the same value.
#[test]
fn gradients_of_all_outputs_of_a_split_reach_its_input() {
    let split = Op::Split {
        axis: 1,
        sizes: None,
        num_outputs: None,
    };
    let mut halves = node(split, &["x"], "a");
    halves.outputs.push("b".to_owned());
    let nodes = vec![
        node(Op::Arithmetic(Arithmetic::Add), &["input", "p"], "x"),
        halves,
        node(Op::Activation(Activation::Relu), &["a"], "r"),
        node(Op::Arithmetic(Arithmetic::Mul), &["r", "b"], "m"),
        node(Op::Arithmetic(Arithmetic::Add), &["m", "a"], "y"),
    ];
    let zeros = Tensor::F32(ArrayD::zeros(IxDyn(&[2, 4, 3])).into_shared());
    let graph = graph(nodes, vec![("p", zeros)]);
    let (x, g) = (numbers(&[2, 4, 3], 1), numbers(&[2, 2, 3], 2));
    let y = forward(&graph, &x);
    let found = gradients(&graph, &["p"], &x, &g);
    let mut want = ArrayD::<f64>::zeros(x.raw_dim());
    for (at, &g) in g.indexed_iter() {
        let (low, high) = ([at[0], at[1], at[2]], [at[0], at[1] + 2, at[2]]);
        let (a, b, g) = (f64::from(x[low]), f64::from(x[high]), f64::from(g));
        assert!((f64::from(y[low]) - (a.max(0.0) * b + a)).abs() < 1e-6);
        want[low] = g * (if a > 0.0 { b } else { 0.0 } + 1.0);
        want[high] = g * a.max(0.0);
    }
    assert_close(&found["p"], &want, 1e-6, "by p");
}

#[test]
fn a_constant_condition_chooses_values_and_gradients() {
    let condition = [true, false, true];
    let mask = Tensor::Bool(ndarray::arr1(&condition).into_dyn().into_shared());
    let nodes = vec![node(Op::Where, &["mask", "p", "low"], "y")];
    // What is not chosen may be infinite.
    let low = Tensor::F32(floats(&[], &[f32::NEG_INFINITY]));
    let p = numbers(&[2, 3], 1);
    let graph = graph(
        nodes,
        vec![("mask", mask), ("p", Tensor::F32(p.clone())), ("low", low)],
    );
    let (input, g) = (numbers(&[1], 0), numbers(&[2, 3], 2));
    for engine in engines() {
        let y = forward_on(&*engine, &graph, &input);
        let dp = &gradients_on(&*engine, &graph, &["p"], &input, &g)["p"];
        for (at, &y) in y.indexed_iter() {
            let holds = condition[at[1]];
            assert_eq!(y, if holds { p[&at] } else { f32::NEG_INFINITY });
            assert_eq!(dp[&at], if holds { g[&at] } else { 0.0 });
        }
    }
}
