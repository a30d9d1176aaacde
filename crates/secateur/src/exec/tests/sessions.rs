//! What sessions promise: names, shapes, trainables, determinism.

use super::*;
use crate::exec::ExecError;
use crate::graph::{Activation, Arithmetic, ConvAttrs, SpatialPads};

/// `input [n, 3, h, w] -> conv a -> relu -> conv b -> relu -> mean -> gemm head`, `scale` after `b`.
fn network() -> Graph {
    let attrs = ConvAttrs {
        pads: SpatialPads {
            top: 1,
            left: 1,
            bottom: 1,
            right: 1,
        },
        ..ConvAttrs::default()
    };
    let nodes = vec![
        node(
            Op::Conv(attrs.clone()),
            &["input", "a.weight", "a.bias"],
            "a",
        ),
        node(Op::Activation(Activation::Relu), &["a"], "a.relu"),
        node(Op::Conv(attrs), &["a.relu", "b.weight"], "b"),
        node(Op::Arithmetic(Arithmetic::Mul), &["b", "scale"], "b.scaled"),
        node(Op::Activation(Activation::Relu), &["b.scaled"], "b.relu"),
        node(Op::GlobalAveragePool, &["b.relu"], "pooled"),
        node(Op::Flatten { axis: 1 }, &["pooled"], "flat"),
        node(dense(), &["flat", "head.weight", "head.bias"], "logits"),
    ];
    let initializers = [
        ("a.weight", vec![8, 3, 3, 3]),
        ("a.bias", vec![8]),
        ("b.weight", vec![6, 8, 3, 3]),
        ("scale", vec![1, 6, 1, 1]),
        ("head.weight", vec![5, 6]),
        ("head.bias", vec![5]),
    ];
    let seeds = 10..;
    let initializers = initializers
        .into_iter()
        .zip(seeds)
        .map(|((n, s), i)| (n, Tensor::F32(numbers(&s, i))));
    graph(nodes, initializers.collect())
}

/// Found by mutated models: Burn panics at an exponent that is infinite, or beyond `i64`.
#[test]
fn an_exponent_beyond_all_numbers_is_an_error() {
    for beta in [f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let lrn = Op::Lrn {
            alpha: 1.0,
            beta,
            bias: 1.0,
            size: 3,
        };
        let graph = graph(vec![node(lrn, &["input"], "y")], vec![]);
        for engine in engines() {
            let mut session = engine.session(&request(&graph, &[])).unwrap();
            let error = session.forward(&numbers(&[1, 4, 2, 2], 1)).unwrap_err();
            assert!(error.to_string().contains("out of range"), "{error}");
        }
    }
}

#[test]
fn a_window_over_channels_may_be_larger_than_they_are_many() {
    let lrn = |size: usize, alpha: f32| {
        let op = Op::Lrn {
            alpha,
            beta: 0.75,
            bias: 1.0,
            size,
        };
        graph(vec![node(op, &["input"], "y")], vec![])
    };
    let input = numbers(&[2, 4, 2, 2], 1);
    for engine in engines() {
        let run = |graph: &Graph| {
            let mut session = engine.session(&request(graph, &[])).unwrap();
            session.forward(&input).unwrap().remove(0)
        };
        // All four channels, of which the mean is over all that the window has.
        let size = i32::MAX as usize;
        let got = run(&lrn(size, size as f32));
        for (index, got) in got.indexed_iter() {
            let square = |channel: usize| input[[index[0], channel, index[2], index[3]]].powi(2);
            let want = input[&index] / (1.0 + (0..4).map(square).sum::<f32>()).powf(0.75);
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }
}

#[test]
fn only_trainables_get_gradients_and_all_agree_with_the_full_set() {
    let graph = network();
    let input = numbers(&[4, 3, 6, 6], 1);
    let weights = numbers(&[4, 5], 2);
    let all = [
        "a.weight",
        "a.bias",
        "b.weight",
        "scale",
        "head.weight",
        "head.bias",
    ];
    let full = gradients(&graph, &all, &input, &weights);
    assert_eq!(full.len(), all.len());
    for (name, gradient) in &full {
        assert!(gradient.iter().any(|&g| g != 0.0), "{name} has a gradient");
    }
    let some = gradients(&graph, &["scale", "head.bias"], &input, &weights);
    assert_eq!(some.keys().collect::<Vec<_>>(), ["head.bias", "scale"]);
    for (name, gradient) in &some {
        assert_eq!(gradient, &full[name], "{name}");
    }
}

#[test]
fn an_initializer_read_twice_gets_the_sum_and_an_unused_one_zeros() {
    let add = Op::Arithmetic(Arithmetic::Add);
    let mul = Op::Arithmetic(Arithmetic::Mul);
    let nodes = vec![
        node(mul, &["input", "w"], "scaled"),
        node(add, &["scaled", "w"], "y"),
    ];
    let initializers = vec![
        ("w", Tensor::F32(floats(&[1, 2], &[2.0, 3.0]))),
        ("unused", Tensor::F32(floats(&[3], &[1.0, 1.0, 1.0]))),
    ];
    let graph = graph(nodes, initializers);
    let input = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let weights = floats(&[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
    // d/dw_j = sum_n g_nj (x_nj + 1).
    let got = gradients(&graph, &["w", "unused"], &input, &weights);
    assert_eq!(got["w"], floats(&[1, 2], &[402.0, 5030.0]));
    assert_eq!(got["unused"], floats(&[3], &[0.0; 3]));
}

#[test]
fn setting_a_trainable_changes_what_is_computed() {
    for engine in engines() {
        check_setting_a_trainable_changes_what_is_computed(&*engine);
    }
}

fn check_setting_a_trainable_changes_what_is_computed(engine: &dyn Engine) {
    let mut graph = network();
    let input = numbers(&[2, 3, 5, 5], 1);
    let mut session = engine.session(&request(&graph, &["scale"])).unwrap();
    let before = session.forward(&input).unwrap().remove(0);
    let scale = numbers(&[1, 6, 1, 1], 77);
    session.set("scale", &scale).unwrap();
    let after = session.forward(&input).unwrap().remove(0);
    assert_ne!(before, after);
    graph
        .initializers
        .insert("scale".to_owned(), Tensor::F32(scale.clone()));
    assert_eq!(after, forward_on(engine, &graph, &input));

    let wrong_shape = session.set("scale", &numbers(&[6], 1));
    assert!(
        matches!(wrong_shape, Err(ExecError::Parameter { .. })),
        "{wrong_shape:?}"
    );
    let frozen = session.set("a.bias", &numbers(&[8], 1));
    assert!(
        matches!(frozen, Err(ExecError::Parameter { .. })),
        "{frozen:?}"
    );
}

#[test]
fn batch_and_image_size_may_change_between_runs() {
    for engine in engines() {
        check_batch_and_image_size_may_change_between_runs(&*engine);
    }
}

fn check_batch_and_image_size_may_change_between_runs(engine: &dyn Engine) {
    let graph = network();
    let mut session = engine.session(&request(&graph, &["scale"])).unwrap();
    for shape in [[4, 3, 6, 6], [1, 3, 6, 6], [4, 3, 9, 7], [4, 3, 6, 6]] {
        let input = numbers(&shape, 5);
        let got = session.forward(&input).unwrap().remove(0);
        assert_eq!(got.shape(), [shape[0], 5]);
        assert_eq!(got, forward_on(engine, &graph, &input));
    }
}

#[test]
fn images_do_not_influence_each_other() {
    let graph = network();
    let input = numbers(&[5, 3, 6, 6], 5);
    let together = forward(&graph, &input);
    let third = input
        .slice(ndarray::s![2..3, .., .., ..])
        .to_owned()
        .into_dyn()
        .into_shared();
    let alone = forward(&graph, &third);
    let want = together
        .slice(ndarray::s![2..3, ..])
        .mapv(f64::from)
        .into_dyn();
    assert_close(&alone, &want, 1e-6, "image 2 alone");
}

#[test]
fn what_does_not_fit_is_an_error() {
    for engine in engines() {
        check_what_does_not_fit_is_an_error(&*engine);
    }
}

fn check_what_does_not_fit_is_an_error(engine: &dyn Engine) {
    let graph = network();
    let mut unknown = request(&graph, &[]);
    unknown.outputs.push("nowhere".to_owned());
    assert!(matches!(engine.session(&unknown), Err(ExecError::UnknownValue(n)) if n == "nowhere"));
    let unknown = request(&graph, &["a"]);
    assert!(matches!(engine.session(&unknown), Err(ExecError::UnknownValue(n)) if n == "a"));

    let mut session = engine.session(&request(&graph, &["scale"])).unwrap();
    for shape in [
        vec![2, 4, 6, 6],
        vec![2, 3, 6],
        vec![0, 3, 6, 6],
        vec![2, 3, 0, 6],
    ] {
        let outcome = session.forward(&numbers(&shape, 1));
        assert!(outcome.is_err(), "input {shape:?}");
    }
    let input = numbers(&[2, 3, 6, 6], 1);
    let outcome = session.step(&input, &mut |_| vec![numbers(&[2, 4], 1)]);
    assert!(matches!(outcome, Err(ExecError::OutputGradient { .. })));
    let outcome = session.step(&input, &mut |_| Vec::new());
    assert!(matches!(outcome, Err(ExecError::OutputGradient { .. })));
    assert!(
        session.forward(&input).is_ok(),
        "the session survives errors"
    );
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let graph = network();
    let input = numbers(&[16, 3, 24, 24], 1);
    let weights = numbers(&[16, 5], 2);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let all = [
                "a.weight",
                "a.bias",
                "b.weight",
                "scale",
                "head.weight",
                "head.bias",
            ];
            (
                forward(&graph, &input),
                gradients(&graph, &all, &input, &weights),
            )
        })
    };
    let one = run(1);
    for threads in [1, 2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads");
    }
}
