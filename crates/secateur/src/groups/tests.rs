//! Tests of channel groups: what goes together, and why something stays.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::graph::samples::{Builder, resnet20, vgg16_features};
use crate::graph::{
    Activation, Arithmetic, ConvAttrs, Op, Reduction, SoftmaxAxis, Variadic, infer_images,
};
use crate::tensor::{ElementType, Tensor};
use ndarray::ArcArray;

fn found(graph: &Graph) -> ChannelGroups {
    discover(graph, &infer_images(graph, 2, 8, 8).unwrap())
}

fn names(groups: &ChannelGroups) -> Vec<(&str, usize)> {
    let groups = groups.groups.iter();
    groups.map(|g| (g.name.as_str(), g.channels)).collect()
}

fn indices<'a>(group: &'a ChannelGroup, initializer: &str) -> &'a [Vec<usize>] {
    let mut members = group.members.iter();
    let member = members.find(|member| member.initializer == initializer);
    &member.unwrap().indices
}

fn reason(groups: &ChannelGroups, node: &str) -> String {
    let layer = groups.fixed.iter().find(|layer| layer.node == node);
    layer.map_or("free".to_owned(), |layer| layer.reason.to_string())
}

fn integers(b: &mut Builder, name: &str, values: &[i64]) -> String {
    let list = Tensor::I64(ArcArray::from(values.to_vec()).into_dyn());
    b.graph.initializers.insert(name.into(), list);
    name.into()
}

const GEMM: Op = Op::Gemm {
    alpha: 1.0,
    beta: 1.0,
    trans_a: false,
    trans_b: true,
};
const RESHAPE: Op = Op::Reshape { allow_zero: false };

#[test]
fn residual_sums_and_padded_shortcuts_make_one_group() {
    let groups = found(&resnet20());
    let mut expected = vec![("conv".to_owned(), 64)];
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        expected.extend((0..3).map(|block| (format!("s{stage}b{block}.conv1"), width)));
    }
    let expected: Vec<(&str, usize)> = expected.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    assert_eq!(names(&groups), expected);
    // Channel 3 of the first stage is padded by 8 and then by 16 channels in front.
    let stream = groups.group("conv").unwrap();
    assert_eq!(indices(stream, "conv.weight")[3], [3]);
    assert_eq!(indices(stream, "s1b0.conv2.weight")[3], [11]);
    assert_eq!(indices(stream, "s2b0.conv2.weight")[3], [27]);
    assert_eq!(indices(stream, "head.weight")[3], [27]);
    // The 8 + 8 channels that the second stage adds, and then the 16 + 16 of the third.
    assert_eq!(indices(stream, "s1b0.conv2.weight")[16], [0]);
    assert_eq!(indices(stream, "s1b0.conv2.weight")[24], [24]);
    assert!(indices(stream, "conv.weight")[16].is_empty());
    let consumers: Vec<&str> = stream.nodes(Role::Consumes).collect();
    assert_eq!(consumers.len(), 10);
    assert!(consumers.contains(&"s1b0.conv1") && consumers.contains(&"head"));
    assert_eq!(stream.nodes(Role::Passes).count(), 10);
    let [head] = &groups.fixed[..] else {
        unreachable!()
    };
    assert_eq!(
        (head.node.as_str(), head.fixed, head.channels),
        ("head", 10, 10)
    );
    assert_eq!(head.reason, Fixed::GraphOutput("head".into()));
}

#[test]
fn a_chain_has_one_group_per_layer_and_its_end_stays() {
    let groups = found(&{
        let mut b = Builder::new(3);
        b.conv("a", "x", [6, 3, 3, 3], 1);
        b.with("bias", &[6]);
        b.batch_norm("norm", "a", 6);
        b.relu("relu", "norm");
        b.conv("b", "relu", [4, 6, 3, 3], 1);
        b.output("b")
    });
    assert_eq!(names(&groups), [("a", 6)]);
    let roles: Vec<(&str, usize, Role)> = groups.groups[0]
        .members
        .iter()
        .map(|m| (m.initializer.as_str(), m.axis, m.role))
        .collect();
    assert_eq!(
        roles,
        [
            ("a.weight", 0, Role::Produces),
            ("a.bias", 0, Role::Bias),
            ("norm.scale", 0, Role::Passes),
            ("norm.bias", 0, Role::Passes),
            ("norm.mean", 0, Role::Passes),
            ("norm.variance", 0, Role::Passes),
            ("b.weight", 1, Role::Consumes),
        ]
    );
    assert_eq!(
        reason(&groups, "b"),
        "its channels reach the graph's output `b`"
    );
    assert_eq!(found(&vgg16_at_its_size()).groups.len(), 12);
}

fn vgg16_at_its_size() -> Graph {
    // Five poolings need 32 rows; 8 of them are there, so the last two stages are cut off.
    let mut graph = vgg16_features();
    for node in &mut graph.nodes {
        if let Op::MaxPool(attrs) = &mut node.op {
            attrs.kernel = [1; 2];
        }
    }
    graph
}

#[test]
fn a_flattened_channel_owns_a_column_per_position() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [5, 3, 3, 3], 1);
    b.node("flat", Op::Flatten { axis: 1 }, &["a"]);
    b.node("dense", GEMM, &["flat"]);
    b.with("weight", &[7, 5 * 64]);
    b.with("bias", &[7]);
    b.relu("relu", "dense");
    b.node("head", GEMM, &["relu"]);
    b.with("weight", &[2, 7]);
    let groups = found(&b.output("head"));
    assert_eq!(names(&groups), [("a", 5), ("dense", 7)]);
    let columns: Vec<usize> = (128..192).collect();
    assert_eq!(indices(&groups.groups[0], "dense.weight")[2], columns);
    assert_eq!(indices(&groups.groups[1], "dense.weight")[6], [6]);
    assert_eq!(indices(&groups.groups[1], "dense.bias")[6], [6]);
}

#[test]
fn depthwise_grouped_and_squeeze_excite_follow_the_channels() {
    let mut b = Builder::new(3);
    let grouped = |groups| {
        Op::Conv(ConvAttrs {
            groups,
            ..ConvAttrs::default()
        })
    };
    b.conv("a", "x", [6, 3, 1, 1], 1);
    b.node("deep", grouped(6), &["a"]);
    b.with("weight", &[12, 1, 1, 1]);
    b.node("pool", Op::GlobalAveragePool, &["deep"]);
    b.conv("narrow", "pool", [2, 12, 1, 1], 1);
    b.conv("wide", "narrow", [12, 2, 1, 1], 1);
    b.node("gate", Op::Activation(Activation::Sigmoid), &["wide"]);
    b.node("mul", Op::Arithmetic(Arithmetic::Mul), &["deep", "gate"]);
    b.node("two", grouped(2), &["mul"]);
    b.with("weight", &[8, 6, 1, 1]);
    b.conv("end", "two", [3, 8, 1, 1], 1);
    let groups = found(&b.output("end"));
    // Channels 2i and 2i + 1 after `deep` come from channel i; `two` ties i to i + 6 of them.
    assert_eq!(names(&groups), [("a", 3), ("narrow", 2), ("two", 4)]);
    let a = &groups.groups[0];
    assert_eq!(indices(a, "a.weight")[1], [1, 4]);
    assert_eq!(indices(a, "deep.weight")[1], [2, 3, 8, 9]);
    assert_eq!(indices(a, "wide.weight")[1], [2, 3, 8, 9]);
    assert_eq!(indices(a, "two.weight")[1], [2, 3]);
    assert_eq!(indices(&groups.groups[2], "two.weight")[1], [1, 5]);
    assert!(groups.is_depthwise("deep") && !groups.is_depthwise("two"));
}

#[test]
fn a_shuffle_ties_the_channels_that_it_interleaves() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [6, 3, 1, 1], 1);
    let split = integers(&mut b, "split", &[0, 2, 3, 8, 8]);
    let join = integers(&mut b, "join", &[0, -1, 8, 8]);
    b.node("parts", RESHAPE, &["a", &split]);
    let perm = Some(vec![0, 2, 1, 3, 4]);
    b.node("turned", Op::Transpose { perm }, &["parts"]);
    b.node("mixed", RESHAPE, &["turned", &join]);
    b.conv("b", "mixed", [2, 6, 1, 1], 1);
    let groups = found(&b.output("b"));
    assert_eq!(names(&groups), [("a", 3)]);
    assert_eq!(indices(&groups.groups[0], "a.weight")[1], [1, 4]);
    assert_eq!(indices(&groups.groups[0], "b.weight")[1], [2, 3]);
}

#[test]
fn a_factored_layer_is_one_convolution_and_its_rank_no_group() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [6, 3, 1, 1], 1);
    b.conv("f.basis", "a", [4, 6, 3, 3], 1);
    let factors = b.zeros("f.scaling", &[1, 4, 1, 1]);
    b.node(
        "f.scale",
        Op::Arithmetic(Arithmetic::Mul),
        &["f.basis", &factors],
    );
    b.conv("f.projection", "f.scale", [5, 4, 1, 1], 1);
    b.conv("end", "f.projection", [2, 5, 1, 1], 1);
    let groups = found(&b.output("end"));
    assert_eq!(names(&groups), [("a", 6), ("f.projection", 5)]);
    assert_eq!(indices(&groups.groups[0], "f.basis.weight")[2], [2]);
    assert_eq!(
        reason(&groups, "f.basis"),
        "its channels are the directions of factored layer `f`"
    );
}

#[test]
fn the_directions_of_an_input_space_are_no_group() {
    let mut b = Builder::new(3);
    b.conv("a", "x", [6, 3, 1, 1], 1);
    b.conv("f.input", "a", [4, 6, 1, 1], 1);
    b.conv("f", "f.input", [5, 4, 3, 3], 1);
    b.conv("end", "f", [2, 5, 1, 1], 1);
    let groups = found(&b.output("end"));
    assert_eq!(names(&groups), [("a", 6), ("f", 5)]);
    assert_eq!(indices(&groups.groups[0], "f.input.weight")[2], [2]);
    assert_eq!(
        reason(&groups, "f.input"),
        "its channels are the directions of factored layer `f`"
    );
}

/// `a` (6 channels of 3), then what `middle` adds, then `end`, which reads the value it returns.
fn between(middle: impl FnOnce(&mut Builder) -> String) -> ChannelGroups {
    let mut b = Builder::new(3);
    b.conv("a", "x", [6, 3, 1, 1], 1);
    let value = middle(&mut b);
    b.conv("end", &value, [2, 6, 1, 1], 1);
    found(&b.output("end"))
}

fn arg_max(axis: i64) -> Op {
    Op::ArgMax {
        axis,
        keep_dims: true,
        select_last_index: false,
    }
}

#[test]
fn what_stays_says_why() {
    let lrn = Op::Lrn {
        alpha: 1.0,
        beta: 0.5,
        bias: 1.0,
        size: 3,
    };
    let identity = |b: &mut Builder, of: &str| b.node(&format!("{of}.copy"), Op::Identity, &[of]);
    type Middle = Box<dyn FnOnce(&mut Builder) -> String>;
    let cases: Vec<(&str, Middle, &str)> = vec![
        (
            "softmax over channels",
            Box::new(|b| b.node("soft", Op::Softmax(SoftmaxAxis::Single(-3)), &["a"])),
            "its channels reach node `soft` (Softmax), which does not treat them one by one",
        ),
        (
            "softmax over columns",
            Box::new(|b| b.node("soft", Op::Softmax(SoftmaxAxis::Single(3)), &["a"])),
            "free",
        ),
        (
            "local response normalisation",
            Box::new(move |b| b.node("lrn", lrn, &["a"])),
            "its channels reach node `lrn` (LRN), which does not treat them one by one",
        ),
        (
            "a sum with the input",
            Box::new(|b| {
                b.conv("b", "a", [3, 6, 1, 1], 1);
                b.node("sum", Op::Variadic(Variadic::Sum), &["x", "b"]);
                b.node("three", Op::Concat { axis: 1 }, &["sum", "sum"])
            }),
            "free",
        ),
        (
            "a computed scale",
            Box::new(move |b| {
                b.zeros("scale", &[6, 1, 1]);
                let scale = identity(b, "scale");
                b.node("mul", Op::Arithmetic(Arithmetic::Mul), &["a", &scale])
            }),
            "node `mul` reads a weight that is not a stored f32 constant",
        ),
        (
            "a computed shape",
            Box::new(move |b| {
                integers(b, "shape", &[0, 6, 64, 1]);
                let shape = identity(b, "shape");
                b.node("cut", RESHAPE, &["a", &shape])
            }),
            "node `cut` (Reshape) takes its shape or bounds from other nodes",
        ),
        (
            "the number of channels in a computation",
            Box::new(|b| {
                let (start, end) = (0, None);
                b.node("shape", Op::Shape { start, end }, &["a"]);
                b.node("cut", RESHAPE, &["a", "shape"])
            }),
            "node `shape` reads the number of channels",
        ),
        (
            "the number of images in a computation",
            Box::new(|b| {
                let (start, end) = (0, None);
                b.node("shape", Op::Shape { start, end }, &["a"]);
                let first = integers(b, "first", &[0]);
                let rest = integers(b, "rest", &[-1, 8, 8]);
                b.node("images", Op::Gather { axis: 0 }, &["shape", &first]);
                b.node("whole", Op::Concat { axis: 0 }, &["images", &rest]);
                b.node("cut", RESHAPE, &["a", "whole"])
            }),
            "free",
        ),
        (
            "a mean over channels",
            Box::new(|b| {
                let op = Op::Reduce {
                    reduction: Reduction::Mean,
                    axes: Some(vec![1]),
                    keep_dims: true,
                    noop_with_empty_axes: false,
                };
                b.node("mean", op, &["a"]);
                b.node("sum", Op::Variadic(Variadic::Sum), &["a", "mean"])
            }),
            "its channels reach node `mean` (ReduceMean), which does not treat them one by one",
        ),
        (
            "the largest of the channels",
            Box::new(|b| {
                b.node("class", arg_max(1), &["a"]);
                let to = ElementType::F32;
                b.node("cast", Op::Cast { to }, &["class"]);
                b.node("sum", Op::Variadic(Variadic::Sum), &["a", "cast"])
            }),
            "its channels reach node `class` (ArgMax), which does not treat them one by one",
        ),
        (
            "the largest of the rows",
            Box::new(|b| {
                b.node("row", arg_max(-2), &["a"]);
                let to = ElementType::F32;
                b.node("cast", Op::Cast { to }, &["row"])
            }),
            "free",
        ),
        (
            "a product of two values",
            Box::new(|b| b.node("mat", Op::MatMul, &["a", "a"])),
            "its channels reach node `mat` (MatMul), which does not treat them one by one",
        ),
    ];
    for (what, middle, expected) in cases {
        assert_eq!(reason(&between(middle), "a"), expected, "{what}");
    }
    let mut b = Builder::new(3);
    b.conv("one", "x", [1, 3, 1, 1], 1);
    b.conv("same", "one", [3, 1, 1, 1], 1);
    b.node("sum", Op::Variadic(Variadic::Sum), &["same", "x"]);
    b.zeros("w", &[4, 3, 1, 1]);
    b.node("w.copy", Op::Identity, &["w"]);
    b.node("odd", Op::Conv(ConvAttrs::default()), &["sum", "w.copy"]);
    let groups = found(&b.output("odd"));
    assert_eq!(groups.groups, []);
    assert_eq!(reason(&groups, "one"), "nothing would be left of `one`");
    assert_eq!(
        reason(&groups, "same"),
        "its channels are those of the graph's input `x`"
    );
    assert_eq!(
        reason(&groups, "odd"),
        "node `odd` reads a weight that is not a stored f32 constant"
    );
}

#[test]
fn a_shared_initializer_ties_or_keeps_its_readers() {
    // As a scale per channel it may shrink; as a scale per row of 8 it may not.
    let shared = |rows: bool| {
        let mut b = Builder::new(3);
        b.conv("a", "x", [8, 3, 1, 1], 1);
        b.zeros("s", &[8, 1, 1]);
        b.node("mul", Op::Arithmetic(Arithmetic::Mul), &["a", "s"]);
        b.conv("b", "mul", [8, 8, 1, 1], 1);
        let turned = Op::Transpose {
            perm: Some(vec![0, 2, 1, 3]),
        };
        let value = if rows {
            b.node("turned", turned, &["b"])
        } else {
            "b".to_owned()
        };
        b.node("again", Op::Arithmetic(Arithmetic::Mul), &[&value, "s"]);
        b.node("pool", Op::GlobalAveragePool, &["b"]);
        b.conv("end", "pool", [2, 8, 1, 1], 1);
        b.graph.outputs.clear();
        found(&b.output("end"))
    };
    let tied = shared(false);
    assert_eq!(names(&tied), [("a", 8)]);
    assert_eq!(indices(&tied.groups[0], "b.weight")[3], [3]);
    let kept = shared(true);
    assert_eq!(names(&kept), [("b", 8)]);
    assert!(reason(&kept, "a").contains("`again`"));
}

#[test]
fn shapes_of_another_graph_keep_everything_and_break_nothing() {
    let graph = resnet20();
    let nothing = discover(&graph, &Inferred::default());
    assert_eq!(nothing.groups, []);
    let mut inferred = infer_images(&graph, 2, 8, 8).unwrap();
    for (index, shape) in inferred.shapes.values_mut().enumerate() {
        if index % 3 == 0 {
            shape.pop();
        } else if index % 3 == 1 {
            shape.push(usize::MAX);
        }
    }
    let _ = discover(&graph, &inferred);
    let mut graph = graph;
    for node in &mut graph.nodes {
        node.inputs.truncate(1);
    }
    assert_eq!(discover(&graph, &inferred).groups, []);
    for node in &mut graph.nodes {
        node.inputs.clear();
        node.outputs.clear();
    }
    assert_eq!(discover(&graph, &inferred).groups, []);
}

#[test]
fn a_cast_to_integers_is_not_followed() {
    let groups = between(|b| {
        let to = ElementType::I64;
        b.node("whole", Op::Cast { to }, &["a"]);
        let to = ElementType::F32;
        b.node("back", Op::Cast { to }, &["whole"])
    });
    assert!(reason(&groups, "a").contains("`whole` (Cast)"));
}
