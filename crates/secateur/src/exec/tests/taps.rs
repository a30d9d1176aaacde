//! Taps see activations and gradients as they are.

use super::*;
use crate::exec::{Keep, Of, Statistic};
use crate::graph::{Activation, Arithmetic};

/// `input [n, 2, h, w] -> a = input * p -> b = relu(a) -> y = b * q`.
fn network() -> Graph {
    let mul = || Op::Arithmetic(Arithmetic::Mul);
    let nodes = vec![
        node(mul(), &["input", "p"], "a"),
        node(Op::Activation(Activation::Relu), &["a"], "b"),
        node(mul(), &["b", "q"], "y"),
    ];
    let initializers = vec![
        ("p", Tensor::F32(floats(&[1, 2, 1, 1], &[0.5, -2.0]))),
        ("q", Tensor::F32(floats(&[1, 2, 1, 1], &[3.0, 4.0]))),
    ];
    graph(nodes, initializers)
}

fn tap(value: &str, of: Of, keep: Keep) -> Tap {
    Tap {
        value: value.to_owned(),
        of,
        keep,
    }
}

/// Moments by obvious loops over `arrays`, all of `channels` channels.
fn moments(arrays: &[Floats], channels: usize) -> Statistic {
    let (mut images, mut count) = (0, 0);
    let (mut sum, mut sum_of_squares) = (vec![0.0; channels], vec![0.0; channels]);
    for array in arrays {
        images += array.shape()[0] as u64;
        count += (array.len() / channels) as u64;
        for (at, &value) in array.indexed_iter() {
            sum[at[1]] += f64::from(value);
            sum_of_squares[at[1]] += f64::from(value) * f64::from(value);
        }
    }
    Statistic::Moments {
        images,
        count,
        sum,
        sum_of_squares,
    }
}

fn assert_moments(got: &Statistic, want: &Statistic, what: &str) {
    let (
        Statistic::Moments {
            images,
            count,
            sum,
            sum_of_squares,
        },
        Statistic::Moments {
            images: i,
            count: c,
            sum: s,
            sum_of_squares: q,
        },
    ) = (got, want)
    else {
        panic!("{what}: not moments");
    };
    assert_eq!((images, count), (i, c), "{what}");
    for (got, want) in sum.iter().zip(s).chain(sum_of_squares.iter().zip(q)) {
        assert!(
            (got - want).abs() <= 1e-5 * want.abs().max(1.0),
            "{what}: {got}, not {want}"
        );
    }
}

#[test]
fn taps_gather_activations_and_gradients_of_every_pass() {
    for engine in engines() {
        check_taps_gather_activations_and_gradients_of_every_pass(&*engine);
    }
}

fn check_taps_gather_activations_and_gradients_of_every_pass(engine: &dyn Engine) {
    let graph = network();
    // `q` alone is trainable: `a` and `b` lie before it, and their gradients are still seen.
    for trainable in [&["q"][..], &["p", "q"], &[]] {
        let mut request = request(&graph, trainable);
        for value in ["input", "a", "b", "y"] {
            request.taps.push(tap(value, Of::Activation, Keep::Moments));
            request.taps.push(tap(value, Of::Gradient, Keep::Moments));
        }
        let mut session = engine.session(&request).unwrap();
        let inputs = [numbers(&[3, 2, 4, 4], 1), numbers(&[2, 2, 4, 4], 2)];
        let directions = [numbers(&[3, 2, 4, 4], 3), numbers(&[2, 2, 4, 4], 4)];
        session.forward(&numbers(&[1, 2, 1, 1], 9)).unwrap();
        session.take_statistics();
        for (input, direction) in inputs.iter().zip(&directions) {
            step(&mut *session, input, direction);
        }
        let factor = |v: [f32; 2]| floats(&[1, 2, 1, 1], &v);
        let (p, q) = (factor([0.5, -2.0]), factor([3.0, 4.0]));
        let mut want: BTreeMap<(&str, Of), Vec<Floats>> = BTreeMap::new();
        for (input, direction) in inputs.iter().zip(&directions) {
            let a = (input * &p).into_shared();
            let b = a.mapv(|v| v.max(0.0)).into_shared();
            let b_gradient = (direction * &q).into_shared();
            let open = a.mapv(|v| f32::from(v > 0.0));
            let a_gradient = (&b_gradient * &open).into_shared();
            let input_gradient = (&a_gradient * &p).into_shared();
            let y = (&b * &q).into_shared();
            let all = [
                ("input", Of::Activation, input.clone()),
                ("a", Of::Activation, a),
                ("b", Of::Activation, b),
                ("y", Of::Activation, y),
                ("input", Of::Gradient, input_gradient),
                ("a", Of::Gradient, a_gradient),
                ("b", Of::Gradient, b_gradient),
                ("y", Of::Gradient, direction.clone()),
            ];
            for (value, of, array) in all {
                want.entry((value, of)).or_default().push(array);
            }
        }
        assert_eq!(session.statistics().len(), 8);
        for (tap, got) in session.statistics() {
            let arrays = &want[&(tap.value.as_str(), tap.of)];
            assert_moments(got, &moments(arrays, 2), &format!("{trainable:?} {tap:?}"));
        }
    }
}

#[test]
fn forward_feeds_activation_taps_only() {
    for engine in engines() {
        check_forward_feeds_activation_taps_only(&*engine);
    }
}

fn check_forward_feeds_activation_taps_only(engine: &dyn Engine) {
    let graph = network();
    let mut request = request(&graph, &["p"]);
    request.outputs.clear();
    request
        .taps
        .push(tap("b", Of::Activation, Keep::SecondMoment));
    request
        .taps
        .push(tap("a", Of::Gradient, Keep::SecondMoment));
    let mut session = engine.session(&request).unwrap();
    let input = numbers(&[3, 2, 4, 4], 1);
    assert!(session.forward(&input).unwrap().is_empty());
    let statistics = session.take_statistics();
    assert_eq!(statistics.len(), 1);
    let (_, statistic) = statistics.first_key_value().unwrap();
    let Statistic::SecondMoment {
        images: 3,
        count: 48,
        sum,
        ..
    } = statistic
    else {
        panic!("{statistics:?}");
    };
    let products = statistic.second_moment().unwrap() * 48.0;
    let (mut want, mut want_sum) = ([[0.0; 2]; 2], [0.0; 2]);
    for n in 0..3 {
        for h in 0..4 {
            for w in 0..4 {
                let b0 = f64::from((input[[n, 0, h, w]] * 0.5).max(0.0));
                let b1 = f64::from((input[[n, 1, h, w]] * -2.0).max(0.0));
                want_sum[0] += b0;
                want_sum[1] += b1;
                want[0][0] += b0 * b0;
                want[0][1] += b0 * b1;
                want[1][1] += b1 * b1;
            }
        }
    }
    want[1][0] = want[0][1];
    for i in 0..2 {
        for j in 0..2 {
            assert!((products[[i, j]] - want[i][j]).abs() < 1e-6 * want[i][j].abs().max(1.0));
        }
        assert!((sum[i] - want_sum[i]).abs() < 1e-6 * want_sum[i].max(1.0));
    }
    assert!(session.statistics().is_empty());
}

#[test]
fn gradient_taps_do_not_change_other_gradients() {
    for engine in engines() {
        check_gradient_taps_do_not_change_other_gradients(&*engine);
    }
}

fn check_gradient_taps_do_not_change_other_gradients(engine: &dyn Engine) {
    let graph = network();
    let input = numbers(&[3, 2, 4, 4], 1);
    let direction = numbers(&[3, 2, 4, 4], 3);
    let mut with_taps = request(&graph, &["p", "q"]);
    for value in ["input", "a", "b", "y"] {
        with_taps.taps.push(tap(value, Of::Gradient, Keep::Moments));
    }
    let mut session = engine.session(&with_taps).unwrap();
    let got = step(&mut *session, &input, &direction);
    let without = gradients_on(engine, &graph, &["p", "q"], &input, &direction);
    assert_eq!(got, without);
}

#[test]
fn a_tap_of_a_value_without_channels_is_an_error() {
    for engine in engines() {
        check_a_tap_of_a_value_without_channels_is_an_error(&*engine);
    }
}

fn check_a_tap_of_a_value_without_channels_is_an_error(engine: &dyn Engine) {
    let graph = network();
    let mut request = request(&graph, &[]);
    request
        .taps
        .push(tap("input", Of::Activation, Keep::Moments));
    let mut session = engine.session(&request).unwrap();
    assert!(session.forward(&numbers(&[3], 1)).is_err());
}
