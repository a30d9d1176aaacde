//! Indices of the largest elements, which are whole numbers in `f32`.

use super::*;
use crate::exec::ExecError;
use crate::graph::{Arithmetic, Variadic};

fn arg_max(axis: i64, keep_dims: bool, select_last_index: bool) -> Op {
    Op::ArgMax {
        axis,
        keep_dims,
        select_last_index,
    }
}

#[test]
fn the_first_or_the_last_of_equal_elements_is_named() {
    // Rounded to quarters, so that most maxima are there more than once.
    let x = numbers(&[2, 3, 7, 5], 4).mapv(|v| (4.0 * v).round() / 4.0);
    let x = x.into_shared();
    for axis in 0..4 {
        for last in [false, true] {
            let graph = graph(
                vec![node(arg_max(axis - 4, false, last), &["input"], "y")],
                vec![],
            );
            let got = forward(&graph, &x);
            let lanes = x.lanes(ndarray::Axis(axis as usize));
            let want: Vec<f32> = lanes
                .into_iter()
                .map(|lane| {
                    let highest = lane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let mut places = (0..lane.len()).filter(|&at| lane[at] == highest);
                    let place = if last {
                        places.next_back()
                    } else {
                        places.next()
                    };
                    place.unwrap() as f32
                })
                .collect();
            assert_eq!(
                got.iter().copied().collect::<Vec<_>>(),
                want,
                "{axis} {last}"
            );
        }
    }
    let infinite = floats(&[1, 3], &[f32::NEG_INFINITY; 3]);
    for (last, want) in [(false, 0.0), (true, 2.0)] {
        let graph = graph(vec![node(arg_max(1, true, last), &["input"], "y")], vec![]);
        assert_eq!(forward(&graph, &infinite), floats(&[1, 1], &[want]));
    }
}

#[test]
fn indices_are_moved_and_cast_and_nothing_else() {
    let cast = |to| Op::Cast { to };
    let x = numbers(&[2, 4, 3, 3], 1);
    let largest = || node(arg_max(1, true, false), &["input"], "indices");
    let moved = graph(
        vec![
            largest(),
            node(cast(ElementType::I32), &["indices"], "cast"),
            node(
                Op::Squeeze {
                    axes: Some(vec![1]),
                },
                &["cast"],
                "flat",
            ),
            node(cast(ElementType::F32), &["flat"], "floats"),
            node(Op::Variadic(Variadic::Sum), &["floats", "floats"], "twice"),
        ],
        vec![],
    );
    let plain = forward(&graph(vec![largest()], vec![]), &x);
    assert!(plain.iter().any(|&index| index > 1.0));
    let twice: Vec<f32> = plain.iter().map(|index| 2.0 * index).collect();
    assert_eq!(forward(&moved, &x), floats(&[2, 3, 3], &twice));

    let sum = Op::Arithmetic(Arithmetic::Add);
    for (op, inputs) in [
        (sum, &["indices", "indices"][..]),
        (cast(ElementType::Bool), &["indices"]),
        (arg_max(0, true, false), &["indices"]),
    ] {
        let graph = graph(vec![largest(), node(op, inputs, "y")], vec![]);
        for engine in engines() {
            let mut session = engine.session(&request(&graph, &[])).unwrap();
            let error = session.forward(&x).unwrap_err();
            assert!(matches!(error, ExecError::Node { .. }), "{error}");
            assert!(
                error.to_string().contains("reads the indices `indices`"),
                "{error}"
            );
        }
    }
}

#[test]
fn no_gradient_goes_through_indices() {
    let x = numbers(&[2, 4], 1);
    let shift = node(Op::Arithmetic(Arithmetic::Add), &["input", "shift"], "x");
    let nodes = vec![shift, node(arg_max(1, true, false), &["x"], "y")];
    let graph = graph(nodes, vec![("shift", Tensor::F32(numbers(&[4], 2)))]);
    let found = gradients(&graph, &["shift"], &x, &floats(&[2, 1], &[1.0, 2.0]));
    assert_eq!(found["shift"], floats(&[4], &[0.0; 4]));
}
