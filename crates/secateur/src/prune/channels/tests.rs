//! Tests of channel plans and of the repair; whole networks are in `tests/channels`.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::exec::{Engine, NativeEngine, Request};
use crate::graph::samples::{Builder, resnet20};
use crate::graph::{Activation, ConvAttrs, Dim, Op, ValueDecl, infer_images};
use crate::tensor::{ElementType, Floats, Tensor};
use ndarray::{Array2, ArrayView2, Axis, IxDyn, array};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: usize = 8;

fn inferred(graph: &Graph) -> Inferred {
    infer_images(graph, 2, SIZE, SIZE).unwrap()
}

fn plan(groups: &[(&str, usize, &[usize])]) -> ChannelPlan {
    let plans = groups.iter().map(|(name, channels, keep)| {
        let (channels, keep) = (*channels, keep.to_vec());
        ((*name).to_owned(), GroupPlan { channels, keep })
    });
    ChannelPlan {
        version: CHANNEL_PLAN_VERSION,
        groups: plans.collect(),
    }
}

fn fill(graph: &mut Graph, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for tensor in graph.initializers.values_mut() {
        if let Tensor::F32(values) = tensor {
            let fan_in: usize = values.shape().iter().skip(1).product();
            let scale = 1.7 / (fan_in as f32).sqrt();
            values.mapv_inplace(|_| scale * rng.random_range(-1.0..1.0_f32));
        }
    }
}

fn noise(shape: &[usize], seed: u64) -> Floats {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Floats::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

fn values(graph: &Graph, outputs: &[&str], input: &Floats) -> Vec<Floats> {
    let request = Request::evaluation(graph, outputs.iter().map(|&name| name.to_owned()).collect());
    let engine = NativeEngine::new();
    let mut session = engine.session(&request).unwrap();
    session.forward(input).unwrap()
}

#[test]
fn attributes_and_lists_that_count_channels_follow() {
    let mut graph = resnet20();
    fill(&mut graph, 1);
    let shapes = inferred(&graph);
    // Channels 0 and 5 of the stream, one of the 8 that are padded in front, two of those behind.
    let keep: Vec<usize> = (0..64)
        .filter(|c| ![0, 5, 17, 25, 26].contains(c))
        .collect();
    let plan = plan(&[("conv", 64, &keep), ("s1b0.conv1", 32, &[1, 4])]);
    let small = apply(&graph, &shapes, &plan).unwrap();
    small.validate().unwrap();
    let shape = |name: &str| small.initializers[name].shape().to_vec();
    assert_eq!(shape("conv.weight"), [14, 3, 3, 3]);
    assert_eq!(shape("s1b0.conv1.weight"), [2, 14, 3, 3]);
    assert_eq!(shape("s1b0.conv2.weight"), [27, 2, 3, 3]);
    assert_eq!(shape("s1b0.bn2.variance"), [27]);
    assert_eq!(shape("head.weight"), [10, 59]);
    let Op::Pad { pads, .. } = &small.node("s1b0.pad").unwrap().op else {
        unreachable!()
    };
    assert_eq!(pads.as_deref(), Some(&[0, 7, 0, 0, 0, 6, 0, 0][..]));
    // The sample's batch norm scales by random numbers; the square roots of negative variances
    // would be no numbers.
    let positive = |mut graph: Graph| {
        for (name, tensor) in &mut graph.initializers {
            if let (true, Tensor::F32(values)) = (name.ends_with("variance"), tensor) {
                values.mapv_inplace(|value| value.abs() + 0.5);
            }
        }
        graph
    };
    let zeroed = zero(&graph, &shapes, &plan).unwrap();
    let input = noise(&[2, 3, SIZE, SIZE], 2);
    let got = values(&positive(small), &["head"], &input).remove(0);
    let want = values(&positive(zeroed), &["head"], &input).remove(0);
    let whole = values(&positive(graph), &["head"], &input).remove(0);
    let largest = |a: &Floats, b: &Floats| (a - b).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(largest(&got, &want) < 1e-4 * largest(&whole, &want));
}

#[test]
fn a_slice_by_attributes_is_cut_with_its_channels() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [8, 3, 1, 1], 1);
    let bounds = crate::graph::SliceBounds {
        starts: vec![2, -5],
        ends: vec![100, i64::MAX],
        axes: Some(vec![3, 1]),
    };
    let bounds = Some(bounds);
    b.node("piece", Op::Slice { bounds }, &["a"]);
    b.conv("end", "piece", [2, 5, 1, 1], 1);
    let graph = b.output("end");
    let shapes = inferred(&graph);
    let plan = plan(&[("a", 8, &[1, 2, 4, 7])]);
    let small = apply(&graph, &shapes, &plan).unwrap();
    let Op::Slice {
        bounds: Some(bounds),
    } = &small.node("piece").unwrap().op
    else {
        unreachable!()
    };
    assert_eq!(
        (&bounds.starts[..], &bounds.ends[..]),
        (&[2, 2][..], &[100, 4][..])
    );
    assert_eq!(small.initializers["end.weight"].shape(), [2, 2, 1, 1]);
}

#[test]
fn weights_listed_as_inputs_change_their_declared_shape() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [8, 3, 1, 1], 1);
    b.conv("end", "a", [2, 8, 1, 1], 1);
    let mut graph = b.output("end");
    graph.inputs.push(ValueDecl {
        name: "end.weight".into(),
        element_type: ElementType::F32,
        dims: Some([2, 8, 1, 1].map(Dim::Fixed).to_vec()),
    });
    let small = apply(&graph, &inferred(&graph), &plan(&[("a", 8, &[0])])).unwrap();
    let declared = small.inputs[1].dims.clone();
    assert_eq!(declared, Some([2, 1, 1, 1].map(Dim::Fixed).to_vec()));
}

#[test]
fn a_plan_without_groups_changes_nothing() {
    let graph = resnet20();
    let shapes = inferred(&graph);
    let plan = plan(&[]);
    assert_eq!(apply(&graph, &shapes, &plan).unwrap(), graph);
    assert_eq!(zero(&graph, &shapes, &plan).unwrap(), graph);
    assert_eq!(repairable(&graph, &shapes, &plan).unwrap(), []);
}

#[test]
fn a_plan_is_text_that_can_be_read() {
    let plan = plan(&[("conv", 4, &[0, 3])]);
    let text = r#"{"version":1,"groups":{"conv":{"channels":4,"keep":[0,3]}}}"#;
    assert_eq!(serde_json::to_string(&plan).unwrap(), text);
    assert_eq!(serde_json::from_str::<ChannelPlan>(text).unwrap(), plan);
    assert!(serde_json::from_str::<ChannelPlan>(&text.replace("keep", "kept")).is_err());
}

#[test]
fn plans_that_do_not_fit_say_what_is_wrong() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [4, 3, 1, 1], 1);
    for (name, start) in [("left", 0), ("right", 2)] {
        let bounds = crate::graph::SliceBounds {
            starts: vec![start],
            ends: vec![start + 2],
            axes: Some(vec![1]),
        };
        let bounds = Some(bounds);
        b.node(name, Op::Slice { bounds }, &["a"]);
    }
    b.node("sum", Op::Concat { axis: 1 }, &["right", "left"]);
    b.conv("end", "sum", [2, 4, 1, 1], 1);
    let graph = b.output("end");
    let shapes = inferred(&graph);
    let mut old = plan(&[]);
    old.version = 7;
    let cases = [
        (old, "the plan has version 7, but version 1 is known"),
        (
            plan(&[("end", 2, &[0])]),
            "the plan names group `end`, but the graph has no channel group of that name",
        ),
        (
            plan(&[("a", 5, &[0])]),
            "group `a`: the plan is made for 5 channels, but the group has 4",
        ),
        (
            plan(&[("a", 4, &[])]),
            "group `a`: the plan keeps no channel",
        ),
        (
            plan(&[("a", 4, &[1, 1])]),
            "group `a`: the plan does not list its channels in increasing order",
        ),
        (
            plan(&[("a", 4, &[1, 4])]),
            "group `a`: the plan keeps a channel that the group does not have",
        ),
        (
            plan(&[("a", 4, &[2, 3])]),
            "the plan leaves no channel of `left`",
        ),
    ];
    for (plan, expected) in cases {
        let problem = apply(&graph, &shapes, &plan).unwrap_err().to_string();
        assert_eq!(problem, expected);
        assert_eq!(
            zero(&graph, &shapes, &plan).unwrap_err().to_string(),
            expected
        );
        assert_eq!(
            cost(&graph, &shapes, &plan).unwrap_err().to_string(),
            expected
        );
    }
    let wrong = infer_images(&resnet20(), 2, SIZE, SIZE).unwrap();
    assert!(apply(&graph, &wrong, &plan(&[("a", 4, &[0, 2])])).is_err());
}

const EXACT: RepairConfig = RepairConfig { ridge: 0.0 };

/// `samples` `[t, n]` to their second moment `[n, n]`.
fn moment(samples: &Array2<f64>) -> Array2<f64> {
    samples.t().dot(samples)
}

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
}

#[test]
fn an_input_that_is_a_multiple_of_another_is_replaced_without_loss() {
    let x = random(30, 1, 1);
    let mut samples = Array2::zeros((30, 2));
    samples.column_mut(0).assign(&x.column(0));
    samples.column_mut(1).assign(&(&x.column(0) * 2.0));
    let weight = array![[1.0, -1.0], [0.5, 3.0]];
    let om = moment(&samples);
    let fixed = reconstruct("l", weight.view(), om.view(), &[1], EXACT).unwrap();
    assert_eq!(fixed.keep, [0]);
    assert!(
        (&fixed.weight - &array![[2.0, 5.0]])
            .iter()
            .all(|d| d.abs() < 1e-12)
    );
    assert!(fixed.error < 1e-12 * fixed.error_before);
    let lost = om[[1, 1]] * (0.25 + 9.0);
    assert!((fixed.error_before - lost).abs() < 1e-12 * lost);
}

/// Gaussian elimination without pivoting; `a` is positive definite.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            let factor = a[[j, i]] / a[[i, i]];
            let (row, right) = (a.row(i).to_owned(), b.row(i).to_owned());
            a.row_mut(j).scaled_add(-factor, &row);
            b.row_mut(j).scaled_add(-factor, &right);
        }
    }
    for i in 0..n {
        let pivot = a[[i, i]];
        b.row_mut(i).mapv_inplace(|value| value / pivot);
    }
    b
}

fn part(m: &ArrayView2<'_, f64>, rows: &[usize], columns: &[usize]) -> Array2<f64> {
    m.select(Axis(0), rows).select(Axis(1), columns)
}

#[test]
fn a_repair_is_what_the_formula_says() {
    let om = moment(&random(40, 9, 3));
    let weight = random(9, 4, 4);
    let (gone, keep) = (vec![7, 0, 4], vec![1, 2, 3, 5, 6, 8]);
    let fixed = reconstruct("l", weight.view(), om.view(), &gone, EXACT).unwrap();
    let view = om.view();
    let to_gone = part(&view, &keep, &gone);
    let coefficients = solve(part(&view, &keep, &keep), to_gone.clone());
    let weight_gone = weight.select(Axis(0), &gone);
    let expected = weight.select(Axis(0), &keep) + coefficients.dot(&weight_gone);
    assert!((&fixed.weight - &expected).iter().all(|d| d.abs() < 1e-10));
    let schur = part(&view, &gone, &gone) - to_gone.t().dot(&coefficients);
    let error = (&weight_gone * &schur.dot(&weight_gone)).sum();
    assert!((fixed.error - error).abs() < 1e-9 * fixed.error_before);
    assert!(fixed.error < 0.99 * fixed.error_before);
}

proptest! {
    #[test]
    fn a_repair_never_loses_more_than_none(
        n in 2_usize..12,
        samples in 1_usize..30,
        exponent in -9_i32..3,
        seed in any::<u64>(),
    ) {
        let om = moment(&random(samples, n, seed));
        let weight = random(n, 3, seed ^ 1);
        let gone: Vec<usize> = (0..n).filter(|row| (seed >> (8 + row)) & 1 == 1).collect();
        let config = RepairConfig { ridge: 10_f64.powi(exponent) };
        let fixed = reconstruct("l", weight.view(), om.view(), &gone, config).unwrap();
        prop_assert!(fixed.error <= fixed.error_before * (1.0 + 1e-9));
        // The stated error is that of the weights.
        let mut change = -weight;
        for (row, values) in fixed.keep.iter().zip(fixed.weight.rows()) {
            change.row_mut(*row).scaled_add(1.0, &values);
        }
        let error = (&change * &om.dot(&change)).sum();
        prop_assert!((error - fixed.error).abs() <= 1e-6 * fixed.error_before.max(1e-9));
    }
}

#[test]
fn repairs_that_cannot_be_computed_say_why() {
    let (om, weight) = (moment(&random(9, 4, 1)), random(4, 2, 1));
    let fails = |om: &Array2<f64>, gone: &[usize], ridge: f64| {
        let config = RepairConfig { ridge };
        let fixed = reconstruct("l", weight.view(), om.view(), gone, config);
        fixed.unwrap_err().to_string()
    };
    assert!(fails(&om, &[0], f64::NAN).starts_with("the ridge is NaN"));
    assert!(fails(&om, &[4], 0.0).ends_with("row 4 is to go, but the weight has 4 rows"));
    let small = Array2::zeros((3, 3));
    assert!(fails(&small, &[0], 0.0).ends_with("has shape [3, 3], wanted [4, 4]"));
    let negative = -Array2::<f64>::eye(4);
    assert!(fails(&negative, &[0], 0.5).contains("not positive definite"));
    let graph = resnet20();
    let moments = BTreeMap::from([("bn".to_owned(), Array2::zeros((1, 1)))]);
    let failed = repair(&graph, &inferred(&graph), &plan(&[]), &moments, EXACT);
    let problem = failed.unwrap_err().to_string();
    assert!(
        problem.starts_with("second moments are given for `bn`"),
        "{problem}"
    );
}

/// Patches of `[n, c, h, w]` under a 3 by 3 window with one row of zeros around, `[t, c * 9]`.
fn patches(x: &Floats) -> Array2<f64> {
    let &[images, channels, height, width] = x.shape() else {
        unreachable!()
    };
    let mut rows = Vec::new();
    for n in 0..images {
        for y in 0..height as i64 {
            for x0 in 0..width as i64 {
                for c in 0..channels {
                    for (dy, dx) in (0..9).map(|k| (k / 3 - 1, k % 3 - 1)) {
                        let (row, column) = (y + dy, x0 + dx);
                        let inside = (0..height as i64).contains(&row)
                            && (0..width as i64).contains(&column);
                        let at = [n, c, row as usize, column as usize];
                        rows.push(if inside { f64::from(x[at]) } else { 0.0 });
                    }
                }
            }
        }
    }
    Array2::from_shape_vec((images * height * width, channels * 9), rows).unwrap()
}

#[test]
fn a_repaired_layer_is_off_by_what_is_foreseen() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [8, 3, 3, 3], 1);
    b.node("act", Op::Activation(Activation::Relu), &["a"]);
    b.conv("b", "act", [5, 8, 3, 3], 1);
    b.node("flat", Op::Flatten { axis: 1 }, &["b"]);
    let gemm = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: true,
    };
    b.node("c", gemm, &["flat"]);
    b.with("weight", &[6, 5 * 16]);
    b.node("d", Op::MatMul, &["c"]);
    b.with("weight", &[6, 2]);
    let grouped = Op::Conv(ConvAttrs {
        groups: 4,
        ..ConvAttrs::default()
    });
    b.node("other", grouped, &["act"]);
    b.with("weight", &[4, 2, 1, 1]);
    let mut graph = b.output("d");
    fill(&mut graph, 5);
    let shapes = infer_images(&graph, 40, 4, 4).unwrap();
    let input = noise(&[40, 3, 4, 4], 6);
    let seen = values(&graph, &["act", "flat", "c"], &input);
    let dense = |x: &Floats| {
        let shape = (x.shape()[0], x.shape()[1]);
        x.mapv(f64::from).to_shape(shape).unwrap().to_owned()
    };
    let moments = BTreeMap::from([
        ("b".to_owned(), moment(&patches(&seen[0]))),
        ("c".to_owned(), moment(&dense(&seen[1]))),
        ("d".to_owned(), moment(&dense(&seen[2]))),
    ]);
    for (group, layer, rows, gone) in [("a", "b", 72, 36), ("b", "c", 80, 32), ("c", "d", 6, 2)] {
        let channels = discover(&graph, &shapes).group(group).unwrap().channels;
        // `other` ties the channels of `a` that are at the same place in its four groups.
        let keep: Vec<usize> = match group {
            "a" => vec![1],
            "b" => vec![0, 1, 3],
            _ => vec![0, 2, 3, 5],
        };
        let plan = plan(&[(group, channels, &keep)]);
        let listed = repairable(&graph, &shapes, &plan).unwrap();
        assert_eq!(listed, [(layer.to_owned(), rows)]);
        let config = RepairConfig { ridge: 1e-9 };
        let (repaired, summary) = repair(&graph, &shapes, &plan, &moments, config).unwrap();
        let [summary] = &summary[..] else {
            unreachable!()
        };
        assert_eq!(
            (summary.layer.as_str(), summary.removed_rows),
            (layer, gone)
        );
        let whole = &values(&graph, &[layer], &input)[0];
        let lost = |graph: &Graph| {
            let small = apply(graph, &shapes, &plan).unwrap();
            let got = &values(&small, &[layer], &input)[0];
            let squares = (got - whole).mapv(f64::from).mapv(|d| d * d);
            squares.sum()
        };
        let (with, without) = (lost(&repaired), lost(&graph));
        assert!(with < 0.9 * without, "{layer}: {with} of {without}");
        // The outputs are `f32`, off by 1e-7 of their size.
        let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * summary.error_before;
        assert!(near(with, summary.error), "{layer}: {with}, {summary:?}");
        assert!(
            near(without, summary.error_before),
            "{layer}: {without}, {summary:?}"
        );
    }
}
