//! Whole small graphs, evaluated naively in `f64` before and after. Weights are stored as `f32`, so
//! a rewritten weight is off by 6e-8 of its size: outputs are compared to 1e-5 of the largest one.

use crate::reference::{evaluate, max_abs, output, random};
use ndarray::{ArrayD, Axis};
use secateur::decompose::{
    DecomposeConfig, DecomposeError, Kept, OutputScale, convolutions, factored_layers,
};
use secateur::fold::{BatchNorm, FoldConfig, Form, SizeRule, fold, recompose};
use secateur::graph::{
    Activation, Arithmetic, ConvAttrs, Dim, FactoredKind, Graph, LayerShape, Node, Op, Size,
    SpatialPads, ValueDecl,
};
use secateur::progress::Silent;
use secateur::prune::{
    Candidate, Goal, LayerPlan, PLAN_VERSION, PruneError, PruningPlan, SelectConfig, apply,
    compensate, mask, select,
};
use secateur::tensor::{ElementType, Tensor};
use std::collections::BTreeMap;

fn floats(shape: &[usize], seed: u64) -> Tensor {
    Tensor::F32(random(shape, seed).mapv(|value| value as f32).into_shared())
}

fn decl(name: &str, rank: usize) -> ValueDecl {
    let dims = Some(vec![Dim::Unknown; rank]);
    ValueDecl {
        name: name.into(),
        element_type: ElementType::F32,
        dims,
    }
}

fn node(name: &str, op: Op, inputs: &[&str], output: &str) -> Node {
    let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
    Node {
        name: name.into(),
        op,
        inputs,
        outputs: vec![output.into()],
    }
}

fn conv(groups: usize, pad: usize, stride: usize) -> Op {
    let pads = SpatialPads {
        top: pad,
        left: pad,
        bottom: pad,
        right: pad,
    };
    Op::Conv(ConvAttrs {
        strides: [stride; 2],
        pads,
        groups,
        ..ConvAttrs::default()
    })
}

const RELU: Op = Op::Activation(Activation::Relu);
const BATCH_NORM: Op = Op::BatchNormalization {
    epsilon: 1e-5,
    momentum: 0.9,
};

/// Plain, grouped, depthwise and pointwise convolutions, batch norm after some, a residual sum, and
/// `Gemm` and `MatMul`.
pub fn network() -> Graph {
    let gemm = Op::Gemm {
        alpha: 0.5,
        beta: 2.0,
        trans_a: false,
        trans_b: true,
    };
    let nodes = vec![
        node("plain", conv(1, 1, 1), &["x", "plain.w"], "y1"),
        node(
            "norm",
            BATCH_NORM,
            &["y1", "scale", "shift", "mean", "variance"],
            "y2",
        ),
        node("relu1", RELU, &["y2"], "y3"),
        node(
            "grouped",
            conv(2, 1, 2),
            &["y3", "grouped.w", "grouped.b"],
            "y4",
        ),
        node("relu2", RELU, &["y4"], "y5"),
        node("depthwise", conv(12, 1, 1), &["y5", "depthwise.w"], "y6"),
        node(
            "pointwise",
            conv(1, 0, 1),
            &["y6", "pointwise.w", "pointwise.b"],
            "y7",
        ),
        node("sum", Op::Arithmetic(Arithmetic::Add), &["y7", "y4"], "y8"),
        node("pool", Op::GlobalAveragePool, &["y8"], "y9"),
        node("flat", Op::Flatten { axis: 1 }, &["y9"], "y10"),
        node("dense", gemm, &["y10", "dense.w", "dense.b"], "y11"),
        node("relu3", RELU, &["y11"], "y12"),
        node("product", Op::MatMul, &["y12", "product.w"], "y13"),
        node("head", Op::MatMul, &["y13", "head.w"], "y"),
    ];
    let mut initializers = BTreeMap::from([
        ("plain.w".to_owned(), floats(&[8, 3, 3, 3], 1)),
        ("grouped.w".to_owned(), floats(&[12, 4, 3, 3], 2)),
        ("grouped.b".to_owned(), floats(&[12], 3)),
        ("depthwise.w".to_owned(), floats(&[12, 1, 3, 3], 4)),
        ("pointwise.w".to_owned(), floats(&[12, 12, 1, 1], 5)),
        ("pointwise.b".to_owned(), floats(&[12], 6)),
        ("dense.w".to_owned(), floats(&[10, 12], 7)),
        ("dense.b".to_owned(), floats(&[10], 8)),
        ("product.w".to_owned(), floats(&[10, 9], 9)),
        ("head.w".to_owned(), floats(&[9, 4], 10)),
    ]);
    for (seed, name) in (20_u64..).zip(["scale", "shift", "mean"]) {
        initializers.insert(name.to_owned(), floats(&[8], seed));
    }
    let variance = random(&[8], 30)
        .mapv(|value| 0.2 + value.abs() as f32)
        .into_shared();
    initializers.insert("variance".to_owned(), Tensor::F32(variance));
    let graph = Graph {
        name: "network".into(),
        opset: 13,
        inputs: vec![decl("x", 4)],
        outputs: vec![decl("y", 2)],
        nodes,
        initializers,
        metadata: BTreeMap::new(),
    };
    graph.validate().unwrap();
    graph
}

pub fn images() -> ArrayD<f64> {
    random(&[3, 3, 7, 6], 99)
}

fn assert_same_function(a: &Graph, b: &Graph, tolerance: f64) {
    a.validate().unwrap();
    b.validate().unwrap();
    let (a, b) = (output(a, &images()), output(b, &images()));
    let difference = max_abs(&(&a - &b));
    assert!(
        difference <= tolerance * max_abs(&a),
        "{difference} of {}",
        max_abs(&a)
    );
}

pub fn config() -> DecomposeConfig {
    DecomposeConfig {
        head: Some("head".into()),
        ..DecomposeConfig::default()
    }
}

fn factored(config: &DecomposeConfig) -> Graph {
    convolutions(&network(), config, &Silent).unwrap().0
}

/// The factored network with scaling factors and output scales that are not 1.
pub fn trained(output_scale: OutputScale) -> Graph {
    let mut graph = factored(&DecomposeConfig {
        output_scale,
        ..config()
    });
    let names: Vec<String> = graph.initializers.keys().cloned().collect();
    for (seed, name) in (200_u64..).zip(names) {
        if name.ends_with("scaling") || name.ends_with("output_scale") {
            let shape = graph.initializers[&name].shape().to_vec();
            let values = random(&shape, seed)
                .mapv(|value| 1.0 + 0.5 * value as f32)
                .into_shared();
            graph.initializers.insert(name, Tensor::F32(values));
        }
    }
    graph
}

fn plan(keep: &[(&str, usize, &[usize])]) -> PruningPlan {
    let layers = keep
        .iter()
        .map(|&(name, rank, keep)| {
            (
                name.to_owned(),
                LayerPlan {
                    rank,
                    keep: keep.to_vec(),
                },
            )
        })
        .collect();
    PruningPlan {
        version: PLAN_VERSION,
        basis: secateur::decompose::Basis::Svd,
        layers,
        predicted: Size::default(),
    }
}

pub fn some_plan() -> PruningPlan {
    plan(&[
        ("plain", 8, &[0, 2, 3, 7]),
        ("grouped", 6, &[1, 4]),
        ("pointwise", 12, &[0, 5, 6]),
        ("dense", 10, &[3]),
        ("product", 9, &[0, 1, 8]),
    ])
}

#[test]
fn full_rank_factors_compute_what_the_layers_did() {
    for output_scale in [
        OutputScale::Nowhere,
        OutputScale::Factored,
        OutputScale::All,
    ] {
        let graph = factored(&DecomposeConfig {
            output_scale,
            ..config()
        });
        assert_same_function(&network(), &graph, 1e-5);
        // Every value that was there is there still, with the same content.
        let before = evaluate(&network(), &images());
        let after = evaluate(&graph, &images());
        for name in network().nodes.iter().map(|node| &node.outputs[0]) {
            assert!(
                max_abs(&(&before[name] - &after[name])) < 1e-5 * max_abs(&before[name]),
                "{name}"
            );
        }
    }
}

#[test]
fn every_layer_is_recorded_with_its_ranks_and_reason() {
    let (_, summary) = convolutions(&network(), &config(), &Silent).unwrap();
    let found: Vec<_> = summary
        .layers
        .iter()
        .map(|layer| {
            (
                layer.name.as_str(),
                layer.full_rank,
                layer.break_even_rank,
                layer.kept.clone(),
            )
        })
        .collect();
    let expected = [
        // n = 27, co = 8: 216 / 35.
        ("plain", 8, 6, None),
        // Per group n = 36, co = 6: 216 / 42.
        ("grouped", 6, 5, None),
        ("depthwise", 1, 0, Some(Kept::Depthwise)),
        // 144 / 24 = 6 exactly: 6 does not pay.
        ("pointwise", 12, 5, None),
        // 120 / 22.
        ("dense", 10, 5, None),
        // 90 / 19.
        ("product", 9, 4, None),
        ("head", 4, 2, Some(Kept::Head)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn factored_layers_are_recognised_by_pattern() {
    let layers = factored_layers(&factored(&DecomposeConfig {
        output_scale: OutputScale::All,
        ..config()
    }));
    let found: Vec<_> = layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.kind, layer.rank, layer.shape))
        .collect();
    let shape = |n, co, groups| LayerShape { n, co, groups };
    let expected = [
        ("plain", FactoredKind::Convolution, 8, shape(27, 8, 1)),
        ("grouped", FactoredKind::Convolution, 6, shape(36, 12, 2)),
        ("pointwise", FactoredKind::Convolution, 12, shape(12, 12, 1)),
        ("dense", FactoredKind::Dense, 10, shape(12, 10, 1)),
        ("product", FactoredKind::Dense, 9, shape(10, 9, 1)),
    ];
    assert_eq!(found, expected);
    assert_eq!(layers[1].bias.as_deref(), Some("grouped.b"));
    assert_eq!(layers[0].factors, "plain.scaling");
    assert!(factored_layers(&network()).is_empty());
}

#[test]
fn a_value_between_the_factors_that_somebody_reads_hides_the_layer() {
    let mut graph = factored(&config());
    graph.outputs.push(decl("plain.basis.output", 4));
    graph
        .nodes
        .push(node("spy", RELU, &["grouped.scaling.output"], "seen"));
    let names: Vec<_> = factored_layers(&graph)
        .into_iter()
        .map(|layer| layer.name)
        .collect();
    assert_eq!(names, ["pointwise", "dense", "product"]);
}

#[test]
fn factors_are_not_factored_again() {
    let once = factored(&config());
    let (twice, summary) = convolutions(&once, &config(), &Silent).unwrap();
    assert_eq!(twice, once);
    assert_eq!(
        summary
            .layers
            .iter()
            .filter(|layer| layer.kept == Some(Kept::AlreadyFactored))
            .count(),
        10
    );
}

#[test]
fn options_that_match_nothing_are_errors() {
    let exclude = Some(regex::Regex::new("^nothing$").unwrap());
    let error = convolutions(
        &network(),
        &DecomposeConfig {
            exclude,
            ..config()
        },
        &Silent,
    )
    .unwrap_err();
    assert!(
        matches!(error, DecomposeError::ExcludesNothing(ref pattern) if pattern == "^nothing$")
    );
    let head = Some("relu1".to_owned());
    let error =
        convolutions(&network(), &DecomposeConfig { head, ..config() }, &Silent).unwrap_err();
    assert!(matches!(error, DecomposeError::NoSuchHead(ref head) if head == "relu1"));
    let exclude = Some(regex::Regex::new("d$").unwrap());
    let (graph, summary) = convolutions(
        &network(),
        &DecomposeConfig {
            exclude,
            ..config()
        },
        &Silent,
    )
    .unwrap();
    assert!(graph.node("grouped").is_some() && graph.node("plain").is_none());
    assert_eq!(summary.layers[1].kept, Some(Kept::Excluded));
}

#[test]
fn a_weight_with_two_readers_stays() {
    let mut graph = network();
    graph.node_mut("product").unwrap().inputs[1] = "dense.w".into();
    graph.node_mut("head").unwrap().inputs[1] = "square".into();
    graph
        .initializers
        .insert("square".into(), floats(&[12, 4], 40));
    let (_, summary) = convolutions(&graph, &config(), &Silent).unwrap();
    let kept: Vec<_> = summary
        .layers
        .iter()
        .skip(4)
        .map(|layer| layer.kept.clone())
        .collect();
    assert_eq!(
        kept,
        [
            Some(Kept::WeightShared),
            Some(Kept::WeightShared),
            Some(Kept::Head)
        ]
    );
}

#[test]
fn a_weight_that_is_not_finite_is_an_error_that_names_the_node() {
    let mut graph = network();
    if let Some(Tensor::F32(weight)) = graph.initializers.get_mut("grouped.w") {
        weight.fill(f32::INFINITY);
    }
    let error = convolutions(&graph, &config(), &Silent).unwrap_err();
    assert!(matches!(error, DecomposeError::NoDecomposition { ref node } if node == "grouped"));
}

#[test]
fn masking_directions_equals_removing_them() {
    for graph in [factored(&config()), trained(OutputScale::All)] {
        let removed = apply(&graph, &some_plan()).unwrap();
        // The same sums without their zeros.
        assert_same_function(&mask(&graph, &some_plan()).unwrap(), &removed, 1e-14);
        let ranks: Vec<_> = factored_layers(&removed)
            .iter()
            .map(|layer| layer.rank)
            .collect();
        assert_eq!(ranks, [4, 2, 3, 1, 3]);
        let change = max_abs(&(output(&graph, &images()) - output(&removed, &images())));
        assert!(change > 0.01, "the plan removes something");
    }
}

#[test]
fn two_plans_in_a_row_are_one() {
    let graph = trained(OutputScale::Nowhere);
    let next = plan(&[("plain", 4, &[1, 3]), ("grouped", 2, &[0])]);
    let stepwise = apply(&apply(&graph, &some_plan()).unwrap(), &next).unwrap();
    let both = some_plan().then(&next).unwrap();
    assert_eq!(both.layers["plain"].keep, [2, 7]);
    assert_eq!(apply(&graph, &both).unwrap(), stepwise);
    assert!(
        matches!(next.then(&some_plan()), Err(PruneError::Rank { ref layer, plan: 6, graph: 1 }) if layer == "grouped")
    );
}

#[test]
fn a_plan_survives_json() {
    let json = serde_json::to_string(&some_plan()).unwrap();
    assert_eq!(
        serde_json::from_str::<PruningPlan>(&json).unwrap(),
        some_plan()
    );
}

#[test]
fn a_plan_that_does_not_fit_is_an_error_that_names_the_layer() {
    let graph = factored(&config());
    let message = |plan: &PruningPlan| apply(&graph, plan).unwrap_err().to_string();
    assert_eq!(
        message(&plan(&[("other", 8, &[0])])),
        "the plan names layer `other`, but the graph has no factored layer of that name"
    );
    assert_eq!(
        message(&plan(&[("plain", 7, &[0])])),
        "layer `plain`: the plan is made for rank 7, but the layer has rank 8"
    );
    for keep in [&[][..], &[8], &[2, 1], &[1, 1]] {
        assert!(
            message(&plan(&[("plain", 8, keep)])).starts_with("layer `plain`: the plan "),
            "{keep:?}"
        );
    }
    assert!(matches!(
        apply(
            &graph,
            &PruningPlan {
                version: 9,
                ..some_plan()
            }
        ),
        Err(PruneError::Version(9))
    ));
}

#[test]
fn compensation_leaves_no_mean_difference() {
    let graph = trained(OutputScale::Nowhere);
    let values = evaluate(&graph, &images());
    // One layer at a time, so that what the layer reads is the same before and after.
    for layer in factored_layers(&graph) {
        let keep = some_plan().layers[&layer.name].clone();
        let plan = plan(&[(&layer.name, keep.rank, &keep.keep)]);
        let mean = |value: &ArrayD<f64>| {
            let channels = value.shape()[1];
            let by_channel: Vec<f64> = (0..channels)
                .map(|c| value.index_axis(Axis(1), c).mean().unwrap())
                .collect();
            by_channel
        };
        let means = BTreeMap::from([(layer.name.clone(), mean(&values[&layer.basis_output]))]);
        let cut = apply(&compensate(&graph, &plan, &means).unwrap(), &plan).unwrap();
        cut.validate().unwrap();
        let after = &evaluate(&cut, &images())[&layer.output];
        let plain = &evaluate(&apply(&graph, &plan).unwrap(), &images())[&layer.output];
        let difference = |a: &ArrayD<f64>| max_abs(&mean(&(a - &values[&layer.output])));
        assert!(difference(plain) > 1e-3, "{}", layer.name);
        assert!(
            difference(after) < 1e-6,
            "{}: {}",
            layer.name,
            difference(after)
        );
    }
    let short = BTreeMap::from([("plain".to_owned(), vec![0.0; 3])]);
    assert!(matches!(
        compensate(&graph, &some_plan(), &short),
        Err(PruneError::Means {
            got: 3,
            want: 8,
            ..
        })
    ));
}

/// The network, its product followed by the sum with a bias, as frameworks without `Gemm` write a dense layer.
fn with_added_bias() -> Graph {
    let mut graph = network();
    let index = graph.nodes.iter().position(|node| node.name == "product");
    let index = index.unwrap();
    graph.nodes[index].outputs = vec!["y13.product".into()];
    let add = Op::Arithmetic(Arithmetic::Add);
    let add = node("product.add", add, &["product.b", "y13.product"], "y13");
    graph.nodes.insert(index + 1, add);
    let bias = floats(&[9], 40);
    graph.initializers.insert("product.b".into(), bias);
    graph.validate().unwrap();
    graph
}

#[test]
fn a_bias_added_after_a_product_is_the_bias_of_the_layer() {
    // As `compress` decomposes, which gives layers without batch norm a scale to train.
    let config = DecomposeConfig {
        output_scale: OutputScale::Factored,
        ..config()
    };
    let (graph, _) = convolutions(&with_added_bias(), &config, &Silent).unwrap();
    let product = |graph: &Graph| factored_layers(graph).pop().unwrap();
    let layer = product(&graph);
    assert_eq!(layer.bias.as_deref(), Some("product.b"));
    assert_eq!(layer.bias_add.as_deref(), Some("product.add"));
    assert_eq!(layer.output, "y13");
    let whole = recompose(&graph, &layer).unwrap();
    assert_same_function(&graph, &whole, 1e-5);
    let (folded, _) = fold(&graph, &FoldConfig::default()).unwrap();
    assert_same_function(&graph, &folded, 1e-5);

    // Whether there was a bias or not, one sum is there after each cut, and its values are the layer's.
    for start in [graph, factored(&config)] {
        let adds = |graph: &Graph| {
            let is_add = |node: &&Node| node.op == Op::Arithmetic(Arithmetic::Add);
            graph.nodes.iter().filter(is_add).count()
        };
        let mut cut = start;
        let before = product(&cut).bias_values(&cut).unwrap();
        let mut wanted = before.unwrap_or_else(|| vec![0.0; 9]);
        for keep in [&[0, 1, 2, 3, 4, 5, 6][..], &[0, 1, 2, 3]] {
            let layer = product(&cut);
            let plan = plan(&[("product", layer.rank, keep)]);
            let means = BTreeMap::from([("product".to_owned(), vec![0.5; layer.rank])]);
            let matrices = layer.matrices(&cut).unwrap();
            for (o, value) in wanted.iter_mut().enumerate() {
                for j in keep.len()..layer.rank {
                    *value += 0.5 * matrices.factors[[0, j]] * matrices.projection[[0, j, o]];
                }
            }
            cut = apply(&compensate(&cut, &plan, &means).unwrap(), &plan).unwrap();
            assert_eq!(adds(&cut), 2, "the residual sum and the bias");
            let found = product(&cut).bias_values(&cut).unwrap().unwrap();
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
            }
        }
    }
}

#[test]
fn folding_changes_no_output() {
    let whole = trained(OutputScale::All);
    let cut = apply(&whole, &some_plan()).unwrap();
    for graph in [&whole, &cut] {
        for size_rule in [SizeRule::Smaller, SizeRule::Factored, SizeRule::Dense] {
            for batch_norm in [BatchNorm::Fold, BatchNorm::Keep] {
                let (folded, summary) = fold(
                    graph,
                    &FoldConfig {
                        size_rule,
                        batch_norm,
                        ..FoldConfig::default()
                    },
                )
                .unwrap();
                assert_same_function(graph, &folded, 1e-5);
                let left: Vec<_> = folded.nodes.iter().map(|node| node.op.name()).collect();
                assert!(!left.contains(&"Mul"), "{left:?}");
                assert_eq!(
                    left.contains(&"BatchNormalization"),
                    batch_norm == BatchNorm::Keep
                );
                assert_eq!(
                    summary.batch_norms,
                    usize::from(batch_norm == BatchNorm::Fold)
                );
                // grouped, depthwise, pointwise, dense; batch norm follows `plain`, and a product has none.
                assert_eq!(summary.output_scales, 4);
                assert!(
                    !folded
                        .initializers
                        .keys()
                        .any(|name| name.contains("scal") && name != "scale")
                );
            }
        }
    }
}

#[test]
fn the_size_rule_recomposes_what_does_not_pay() {
    let keep = plan(&[
        ("plain", 8, &[0, 1, 2, 3, 4, 5]),
        ("grouped", 6, &[0, 1, 2, 3, 4]),
        ("pointwise", 12, &[0, 1, 2, 3, 4, 5]),
    ]);
    let graph = apply(&trained(OutputScale::Nowhere), &keep).unwrap();
    let (folded, summary) = fold(&graph, &FoldConfig::default()).unwrap();
    let forms: Vec<_> = summary
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.form, layer.params))
        .collect();
    let expected = [
        ("plain", Form::Factored, 6 * 35),
        ("grouped", Form::Factored, 5 * 84),
        ("pointwise", Form::Dense, 144),
        ("dense", Form::Dense, 120),
        ("product", Form::Dense, 90),
    ];
    assert_eq!(forms, expected);
    let names: Vec<_> = folded.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names[..2], ["plain.basis", "plain.projection"]);
    assert!(
        names.contains(&"pointwise")
            && names.contains(&"dense")
            && !names.contains(&"pointwise.basis")
    );
    assert_eq!(
        folded.initializers["pointwise.weight"].shape(),
        [12, 12, 1, 1]
    );
    let weights: usize = ["plain.basis.weight", "plain.projection.weight"]
        .iter()
        .map(|name| folded.initializers[*name].len())
        .sum();
    assert_eq!(weights, 6 * 35);
    assert_same_function(&graph, &folded, 1e-5);
}

#[test]
fn recomposing_one_layer_leaves_the_others() {
    let graph = apply(&trained(OutputScale::All), &some_plan()).unwrap();
    for layer in factored_layers(&graph) {
        let dense = recompose(&graph, &layer).unwrap();
        assert_same_function(&graph, &dense, 1e-5);
        assert_eq!(factored_layers(&dense).len(), 4);
        assert!(dense.node(&layer.name).is_some());
        assert!(
            recompose(&dense, &layer)
                .unwrap_err()
                .to_string()
                .contains(&layer.name)
        );
    }
}

#[test]
fn batch_norm_stays_where_its_input_is_read_elsewhere() {
    let mut graph = network();
    graph.outputs.push(decl("y1", 4));
    let (folded, summary) = fold(&graph, &FoldConfig::default()).unwrap();
    assert_eq!((summary.batch_norms, &folded), (0, &graph));
    let (folded, summary) = fold(&network(), &FoldConfig::default()).unwrap();
    assert_eq!(summary.batch_norms, 1);
    assert!(!folded.initializers.contains_key("variance"));
    assert_same_function(&network(), &folded, 1e-5);
}

#[test]
fn selecting_applying_and_folding_reaches_the_predicted_size() {
    let graph = trained(OutputScale::Nowhere);
    let positions = BTreeMap::from([
        ("plain", 42),
        ("grouped", 12),
        ("pointwise", 12),
        ("dense", 1),
        ("product", 1),
    ]);
    let layers = factored_layers(&graph);
    let candidates: Vec<_> = layers
        .iter()
        .map(|layer| Candidate::new(layer, positions[layer.name.as_str()]))
        .collect();
    let scores = (300_u64..)
        .zip(&layers)
        .map(|(seed, layer)| {
            (
                layer.name.clone(),
                random(&[layer.rank], seed)
                    .mapv(f64::abs)
                    .into_raw_vec_and_offset()
                    .0,
            )
        })
        .collect();
    for want in [600, 450, 300] {
        let plan = select(&candidates, &scores, &SelectConfig::new(Goal::Params(want))).unwrap();
        let (folded, summary) =
            fold(&apply(&graph, &plan).unwrap(), &FoldConfig::default()).unwrap();
        let stored: u64 = summary.layers.iter().map(|layer| layer.params).sum();
        assert_eq!(stored, plan.predicted.params);
        assert!(stored <= want);
        // Nothing else shrinks: biases, batch norm, depthwise and head are as before.
        let floats =
            |graph: &Graph| graph.initializers.values().map(Tensor::len).sum::<usize>() as u64;
        let dense: u64 = layers.iter().map(|layer| layer.shape.dense_params()).sum();
        let bias_of_batch_norm = 8;
        assert_eq!(
            floats(&folded) - stored,
            floats(&network()) - dense - 4 * 8 + bias_of_batch_norm
        );
    }
}

#[test]
fn positions_are_those_of_one_image() {
    let graph = factored(&config());
    let inferred = secateur::graph::infer(
        &graph,
        &BTreeMap::from([("x".to_owned(), vec![3, 3, 7, 6])]),
    )
    .unwrap();
    let found: Vec<_> = factored_layers(&graph)
        .iter()
        .map(|layer| layer.positions(&inferred))
        .collect();
    assert_eq!(found, [Some(42), Some(12), Some(12), Some(1), Some(1)]);
}
