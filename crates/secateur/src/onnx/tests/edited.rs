//! Edited graphs are written with what the file said of the untouched parts, and nothing stale.

use super::build::{bytes, floats, ints, model, node, value, with};
use super::message;
use crate::graph::{
    Activation, AutoPad, ConvAttrs, Dim, Graph, Node, Op, PoolAttrs, Reduction, SoftmaxAxis,
    SpatialPads, ValueDecl,
};
use crate::onnx::attributes::make;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use crate::onnx::{Model, from_bytes, to_bytes};
use crate::tensor::{ElementType, Floats, Tensor};
use ndarray::IxDyn;

fn import(proto: &ModelProto) -> Model {
    from_bytes(&bytes(proto)).unwrap()
}

fn export(model: &Model, edit: impl FnOnce(&mut Graph)) -> ModelProto {
    let mut graph = model.graph.clone();
    edit(&mut graph);
    message(&to_bytes(&model.with_graph(graph)).unwrap())
}

fn graph(proto: &ModelProto) -> &GraphProto {
    proto.graph.as_ref().unwrap()
}

fn names<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values.into_iter().collect()
}

fn array(shape: &[usize], value: f32) -> Tensor {
    Tensor::F32(Floats::from_elem(IxDyn(shape), value))
}

/// `x -> a (Conv w1) -> b (Relu) -> c (Conv w2) -> y (Relu)`, with shapes of all of them.
fn chain() -> ModelProto {
    let conv = |name: &str, i: &str, w: &str, o: &str| {
        let documented = NodeProto {
            doc_string: Some(format!("about {name}")),
            ..node("Conv", name, &[i, w], &[o])
        };
        with(documented, make::ints("kernel_shape", &[1, 1]))
    };
    let nodes = vec![
        conv("c1", "x", "w1", "a"),
        node("Relu", "r1", &["a"], &["b"]),
        conv("c2", "b", "w2", "c"),
        node("Relu", "r2", &["c"], &["y"]),
    ];
    let weights = vec![
        floats("w2", &[5, 4, 1, 1], &[0.5; 20]),
        floats("w1", &[4, 3, 1, 1], &[0.5; 12]),
    ];
    let mut proto = model(17, nodes, weights);
    let info =
        [("a", 4), ("b", 4), ("c", 5)].map(|(name, channels)| value(name, &[1, channels, 8, 8]));
    proto.graph.as_mut().unwrap().value_info = info.to_vec();
    proto
}

#[test]
fn names_are_made_unique_and_the_files_own_names_come_back() {
    let relu = |name: &str, i: &str, o: &str| node("Relu", name, &[i], &[o]);
    let nodes = vec![
        relu("n", "x", "a"),
        relu("n", "a", "b"),
        relu("", "b", "n"),
        NodeProto {
            name: None,
            ..relu("", "n", "c")
        },
        relu("c", "c", "d"),
        relu("b", "d", "y"),
    ];
    let proto = model(17, nodes, vec![]);
    let model = import(&proto);
    let found = names(model.graph.nodes.iter().map(|n| n.name.as_str()));
    assert_eq!(found, ["n", "b_1", "n_1", "c_1", "c", "b"]);
    assert_eq!(export(&model, |_| {}), proto);
}

#[test]
fn shapes_are_kept_upstream_of_a_change_and_dropped_downstream() {
    let proto = chain();
    let model = import(&proto);
    assert_eq!(export(&model, |_| {}), proto);
    let written = export(&model, |g| {
        g.initializers
            .insert("w2".into(), array(&[2, 4, 1, 1], 0.5));
    });
    assert_eq!(
        names(graph(&written).value_info.iter().map(|v| v.name())),
        ["a", "b"]
    );
    assert_eq!(graph(&written).node, graph(&proto).node);
    assert_eq!(graph(&written).initializer[0].dims, [2, 4, 1, 1]);
    // Other values in the same shape change no shape.
    let same_shape = export(&model, |g| {
        g.initializers
            .insert("w2".into(), array(&[5, 4, 1, 1], 7.0));
    });
    assert_eq!(graph(&same_shape).value_info, graph(&proto).value_info);
    assert_eq!(graph(&same_shape).initializer[0].float_data, [7.0; 20]);
    let input = export(&model, |g| {
        g.inputs[0].dims = Some(vec![
            Dim::Named("batch".into()),
            Dim::Fixed(3),
            Dim::Unknown,
            Dim::Unknown,
        ]);
    });
    assert_eq!(graph(&input).value_info, []);
    let stride = export(&model, |g| {
        let Op::Conv(attrs) = &mut g.nodes[2].op else {
            panic!()
        };
        attrs.strides = [2, 2];
    });
    let kept = graph(&stride).value_info.iter().map(|v| v.name());
    assert_eq!(names(kept), ["a", "b"]);
}

#[test]
fn a_kernel_of_another_size_is_stated_anew() {
    let model = import(&chain());
    let written = export(&model, |g| {
        g.initializers
            .insert("w1".into(), array(&[4, 3, 3, 3], 0.5));
    });
    let conv = &graph(&written).node[0];
    let kernel = conv
        .attribute
        .iter()
        .find(|a| a.name() == "kernel_shape")
        .unwrap();
    assert_eq!(kernel.ints, [3, 3]);
    assert_eq!(conv.doc_string(), "about c1");
    assert_eq!(graph(&written).node[1..], graph(&chain()).node[1..]);
}

#[test]
fn new_initializers_follow_the_files_own_in_its_order() {
    let model = import(&chain());
    let written = export(&model, |g| {
        g.initializers.insert("a.new".into(), array(&[5], 1.0));
        g.nodes[2].inputs.push("a.new".into());
    });
    let initializers = names(graph(&written).initializer.iter().map(TensorProto::name));
    assert_eq!(initializers, ["w2", "w1", "a.new"]);
    assert_eq!(names(graph(&written).input.iter().map(|i| i.name())), ["x"]);
}

#[test]
fn files_that_list_initializers_as_inputs_go_on_doing_so() {
    let mut proto = chain();
    proto.ir_version = Some(3);
    let inputs = &mut proto.graph.as_mut().unwrap().input;
    inputs.insert(0, value("w1", &[4, 3, 1, 1]));
    inputs.push(value("w2", &[5, 4, 1, 1]));
    let model = import(&proto);
    assert_eq!(
        names(model.graph.inputs.iter().map(|i| i.name.as_str())),
        ["x"]
    );
    assert_eq!(export(&model, |_| {}), proto);
    let written = export(&model, |g| {
        g.initializers
            .insert("w2".into(), array(&[2, 4, 1, 1], 0.5));
        g.initializers.insert("bias".into(), array(&[2], 0.5));
        g.nodes[2].inputs.push("bias".into());
    });
    let inputs = &graph(&written).input;
    assert_eq!(
        names(inputs.iter().map(|i| i.name())),
        ["w1", "x", "w2", "bias"]
    );
    assert_eq!(inputs[2], value("w2", &[2, 4, 1, 1]));
    assert_eq!(inputs[3], value("bias", &[2]));
    let removed = export(&model, |g| {
        g.nodes.truncate(2);
        g.initializers.remove("w2");
        g.outputs[0] = ValueDecl {
            name: "b".into(),
            element_type: ElementType::F32,
            dims: None,
        };
    });
    assert_eq!(
        names(graph(&removed).input.iter().map(|i| i.name())),
        ["w1", "x"]
    );
}

/// `Constant` weights: one in the middle of the nodes, one scalar in its short form.
fn constants() -> ModelProto {
    let constant = |name: &str, output: &str, a| with(node("Constant", name, &[], &[output]), a);
    let weight = TensorProto {
        name: None,
        ..floats("", &[4, 3, 1, 1], &[0.5; 12])
    };
    let nodes = vec![
        node("Relu", "r", &["x"], &["a"]),
        constant("k1", "w", make::tensor("value", weight)),
        node("Conv", "c", &["a", "w"], &["b"]),
        constant("k2", "half", make::float("value_float", 0.5)),
        node("Mul", "m", &["b", "half"], &["y"]),
    ];
    model(17, nodes, vec![])
}

#[test]
fn constant_nodes_become_initializers_and_go_back_where_they_stood() {
    let proto = constants();
    let model = import(&proto);
    assert_eq!(
        names(model.graph.nodes.iter().map(|n| n.name.as_str())),
        ["r", "c", "m"]
    );
    assert_eq!(
        names(model.graph.initializers.keys().map(String::as_str)),
        ["half", "w"]
    );
    assert_eq!(export(&model, |_| {}), proto);
    let written = export(&model, |g| {
        g.initializers
            .insert("w".into(), array(&[2, 3, 1, 1], 0.25));
        g.initializers.insert("half".into(), array(&[], 0.75));
    });
    let nodes = &graph(&written).node;
    assert_eq!(nodes[1].attribute[0].t.as_ref().unwrap().dims, [2, 3, 1, 1]);
    assert_eq!(
        nodes[1].attribute[0].t.as_ref().unwrap().float_data,
        [0.25; 6]
    );
    assert_eq!(nodes[3].attribute, [make::float("value_float", 0.75)]);
    assert_eq!(
        import(&written).graph.initializers["w"],
        array(&[2, 3, 1, 1], 0.25)
    );
}

#[test]
fn a_constant_that_outgrows_its_short_form_is_written_as_a_tensor() {
    let written = export(&import(&constants()), |g| {
        g.initializers
            .insert("half".into(), array(&[1, 4, 1, 1], 0.75));
    });
    let attribute = &graph(&written).node[3].attribute[0];
    assert_eq!(
        (attribute.name(), &attribute.t.as_ref().unwrap().dims[..]),
        ("value", &[1, 4, 1, 1][..])
    );
}

#[test]
fn a_constant_is_made_before_a_new_node_reads_it() {
    let written = export(&import(&constants()), |g| {
        let first = Node {
            name: "k2".into(),
            op: Op::Arithmetic(crate::graph::Arithmetic::Mul),
            inputs: vec!["x".into(), "half".into()],
            outputs: vec!["scaled".into()],
        };
        g.nodes.insert(0, first);
        g.nodes[1].inputs[0] = "scaled".into();
    });
    let made = graph(&written).node.iter().map(|n| n.output[0].as_str());
    assert_eq!(names(made), ["half", "scaled", "a", "w", "b", "y"]);
    // The new node took a constant's name: names stay unique.
    let own = graph(&written)
        .node
        .iter()
        .map(NodeProto::name)
        .filter(|name| !name.is_empty());
    assert_eq!(names(own), ["k2", "r", "k1", "c", "m"]);
    from_bytes(&bytes(&written)).unwrap();
}

#[test]
fn constants_of_removed_readers_disappear_with_them() {
    let written = export(&import(&constants()), |g| {
        g.nodes.truncate(1);
        g.nodes[0].outputs[0] = "y".into();
        g.initializers.clear();
    });
    assert_eq!(graph(&written).node.len(), 1);
    assert_eq!(graph(&written).initializer, []);
}

/// Weights filled by `ConstantOfShape`: two of one hidden shape, whose initializer is an input too.
fn filled() -> ModelProto {
    let fill = |output: &str, value: f32| {
        let value = TensorProto {
            name: None,
            ..floats("", &[1], &[value])
        };
        with(
            node("ConstantOfShape", "", &["s"], &[output]),
            make::tensor("value", value),
        )
    };
    let nodes = vec![
        fill("w1", 0.5),
        fill("w2", 0.25),
        node("Conv", "c1", &["x", "w1"], &["a"]),
        node("Conv", "c2", &["a", "w2"], &["y"]),
    ];
    let mut proto = model(9, nodes, vec![ints("s", &[4], &[3, 3, 1, 1])]);
    proto.ir_version = Some(3);
    let mut listed = value("s", &[4]);
    if let Some(crate::onnx::proto::type_proto::Value::TensorType(t)) =
        &mut listed.r#type.as_mut().unwrap().value
    {
        t.elem_type = Some(7);
    }
    proto.graph.as_mut().unwrap().input.push(listed);
    proto
}

#[test]
fn filled_weights_are_initializers_and_go_back_as_long_as_they_are_filled() {
    let proto = filled();
    let model = import(&proto);
    assert_eq!(
        names(model.graph.initializers.keys().map(String::as_str)),
        ["w1", "w2"]
    );
    assert_eq!(model.graph.initializers["w2"], array(&[3, 3, 1, 1], 0.25));
    assert_eq!(export(&model, |_| {}), proto);

    let one = export(&model, |g| {
        g.initializers
            .insert("w1".into(), array(&[3, 3, 1, 1], 0.75));
    });
    assert_eq!(
        names(graph(&one).node.iter().map(|n| n.output[0].as_str())),
        ["w2", "a", "y"]
    );
    assert_eq!(
        names(graph(&one).initializer.iter().map(TensorProto::name)),
        ["s", "w1"]
    );
    assert_eq!(
        names(graph(&one).input.iter().map(|i| i.name())),
        ["x", "s", "w1"]
    );
    assert_eq!(
        import(&one).graph.initializers["w1"],
        array(&[3, 3, 1, 1], 0.75)
    );

    let both = export(&model, |g| {
        g.initializers
            .insert("w1".into(), array(&[2, 3, 1, 1], 0.5));
        g.initializers
            .insert("w2".into(), array(&[3, 2, 1, 1], 0.25));
    });
    assert_eq!(
        names(graph(&both).node.iter().map(|n| n.name())),
        ["c1", "c2"]
    );
    assert_eq!(
        names(graph(&both).initializer.iter().map(TensorProto::name)),
        ["w1", "w2"]
    );
    assert_eq!(
        names(graph(&both).input.iter().map(|i| i.name())),
        ["x", "w1", "w2"]
    );
}

#[test]
fn a_shape_that_other_nodes_read_stays_in_the_graph() {
    let nodes = vec![
        node("ConstantOfShape", "f", &["s"], &["w"]),
        node("Reshape", "r", &["x", "s"], &["a"]),
        node("Add", "n", &["a", "w"], &["y"]),
    ];
    let proto = model(9, nodes, vec![ints("s", &[2], &[3, 64])]);
    let model = import(&proto);
    let constants = names(model.graph.initializers.keys().map(String::as_str));
    assert_eq!(constants, ["s", "w"]);
    assert_eq!(model.graph.initializers["w"], array(&[3, 64], 0.0));
    assert_eq!(export(&model, |_| {}), proto);
}

#[test]
fn a_hidden_shapes_name_may_be_taken_by_something_else() {
    let written = export(&import(&filled()), |g| {
        g.initializers.insert("s".into(), array(&[1], 2.0));
    });
    let again = import(&written).graph;
    assert_eq!(again.initializers["s"], array(&[1], 2.0));
    assert_eq!(again.initializers["w1"], array(&[3, 3, 1, 1], 0.5));
}

#[test]
fn metadata_keeps_its_order_and_takes_changes() {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    let mut proto = chain();
    proto.metadata_props = vec![entry("z", "1"), entry("a", "2"), entry("m", "3")];
    let model = import(&proto);
    assert_eq!(model.graph.metadata["a"], "2");
    assert_eq!(export(&model, |_| {}), proto);
    let written = export(&model, |g| {
        g.metadata.insert("a".into(), "20".into());
        g.metadata.insert("b".into(), "4".into());
        g.metadata.remove("m");
    });
    assert_eq!(
        written.metadata_props,
        [entry("z", "1"), entry("a", "20"), entry("b", "4")]
    );
}

#[test]
fn declarations_are_written_anew_where_they_changed() {
    let model = import(&chain());
    let written = export(&model, |g| {
        g.outputs[0].dims = Some(vec![
            Dim::Named("n".into()),
            Dim::Fixed(5),
            Dim::Unknown,
            Dim::Fixed(8),
        ]);
    });
    let again = import(&written).graph;
    let wanted = [
        Dim::Named("n".into()),
        Dim::Fixed(5),
        Dim::Unknown,
        Dim::Fixed(8),
    ];
    assert_eq!(again.outputs[0].dims.as_deref(), Some(&wanted[..]));
    assert_eq!(graph(&written).input, graph(&chain()).input);
}

#[test]
fn lengths_that_say_nothing_are_unknown() {
    let mut proto = chain();
    proto.graph.as_mut().unwrap().input[0] = value("x", &[-1, 3, 0, 8]);
    let dims = import(&proto).graph.inputs[0].dims.clone().unwrap();
    assert_eq!(
        dims,
        [Dim::Unknown, Dim::Fixed(3), Dim::Unknown, Dim::Fixed(8)]
    );
}

#[test]
fn forms_that_the_operator_set_lacks_are_errors() {
    let relu6 = Op::Clip {
        min: Some(0.0),
        max: Some(6.0),
    };
    let pooled = Op::Reduce {
        reduction: Reduction::Mean,
        axes: Some(vec![2, 3]),
        keep_dims: false,
        noop_with_empty_axes: false,
    };
    let last = Op::ArgMax {
        axis: 1,
        keep_dims: true,
        select_last_index: true,
    };
    for (opset, op, wanted) in [
        (11, last, "`select_last_index`"),
        (17, relu6, "`max`"),
        (18, pooled, "`axes`"),
        (17, Op::Softmax(SoftmaxAxis::FlattenFrom(1)), "axis"),
        (11, Op::Softmax(SoftmaxAxis::Single(1)), "axis"),
        (
            13,
            Op::Activation(Activation::HardSwish),
            "does not exist in operator set 13",
        ),
        (
            17,
            Op::Squeeze {
                axes: Some(vec![2]),
            },
            "`axes`",
        ),
        (17, Op::Dropout { ratio: Some(0.5) }, "`ratio`"),
        (7, Op::Reshape { allow_zero: false }, "1 inputs"),
    ] {
        let input = ValueDecl {
            name: "x".into(),
            element_type: ElementType::F32,
            dims: None,
        };
        let output = ValueDecl {
            name: "y".into(),
            ..input.clone()
        };
        let node = Node {
            name: "n".into(),
            op,
            inputs: vec!["x".into()],
            outputs: vec!["y".into()],
        };
        let graph = Graph {
            name: "g".into(),
            opset,
            inputs: vec![input],
            outputs: vec![output],
            nodes: vec![node],
            initializers: Default::default(),
            metadata: Default::default(),
        };
        let error = to_bytes(&Model::new(graph)).unwrap_err().to_string();
        assert!(
            error.contains("`n`") && error.contains(wanted),
            "wanted `{wanted}` in: {error}"
        );
    }
}

#[test]
fn a_file_is_written_whole_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let model = import(&chain());
    crate::onnx::write(&model, &path).unwrap();
    assert_eq!(crate::onnx::read(&path).unwrap().graph, model.graph);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = crate::onnx::write(&model, folder.path().join("absent/m.onnx")).unwrap_err();
    assert!(error.to_string().contains("absent/m.onnx"), "{error}");
}

#[test]
fn a_model_that_is_too_large_for_one_file_is_an_error_with_a_remedy_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let model = import(&chain());
    let size = to_bytes(&model).unwrap().len() as u64;
    let error = crate::onnx::write_within(&model, &path, size - 1).unwrap_err();
    let error = error.to_string();
    for part in ["m.onnx`", &format!(" {size} bytes"), "`--exclude`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    crate::onnx::write_within(&model, &path, size).unwrap();
    assert_eq!(crate::onnx::read(&path).unwrap().graph, model.graph);
}

#[test]
fn a_file_that_is_too_large_to_be_one_message_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    // A hole: it takes no room, and reading it would take 2 GiB of memory.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 31).unwrap();
    let error = crate::onnx::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("m.onnx`") && error.contains("save_as_external_data"),
        "{error}"
    );
}

/// The defaults of ONNX's operator schemas.
#[test]
fn attributes_left_out_have_the_defaults_of_the_schemas() {
    let op = |opset, node: NodeProto, weights| {
        let graph = import(&model(opset, vec![node], weights)).graph;
        graph.nodes[0].op.clone()
    };
    let unary = |opset, name| op(opset, node(name, "n", &["x"], &["y"]), vec![]);
    let lrn = with(node("LRN", "n", &["x"], &["y"]), make::int("size", 5));
    let wanted = Op::Lrn {
        alpha: 1e-4,
        beta: 0.75,
        bias: 1.0,
        size: 5,
    };
    assert_eq!(op(17, lrn, vec![]), wanted);
    let leaky = Op::Activation(Activation::LeakyRelu { alpha: 0.01 });
    assert_eq!(unary(17, "LeakyRelu"), leaky);
    let hard = Activation::HardSigmoid {
        alpha: 0.2,
        beta: 0.5,
    };
    assert_eq!(unary(17, "HardSigmoid"), Op::Activation(hard));
    assert_eq!(unary(17, "Flatten"), Op::Flatten { axis: 1 });
    assert_eq!(
        unary(11, "Softmax"),
        Op::Softmax(SoftmaxAxis::FlattenFrom(1))
    );
    let last = SoftmaxAxis::Single(-1);
    assert_eq!(unary(13, "LogSoftmax"), Op::LogSoftmax(last));
    let mean = Op::Reduce {
        reduction: Reduction::Mean,
        axes: None,
        keep_dims: true,
        noop_with_empty_axes: false,
    };
    assert_eq!(unary(17, "ReduceMean"), mean);
    assert_eq!(
        unary(15, "Shape"),
        Op::Shape {
            start: 0,
            end: None
        }
    );
    let product = Op::Gemm {
        alpha: 1.0,
        beta: 1.0,
        trans_a: false,
        trans_b: false,
    };
    let gemm = node("Gemm", "n", &["x", "x"], &["y"]);
    assert_eq!(op(17, gemm, vec![]), product);
    let norm = node(
        "BatchNormalization",
        "n",
        &["x", "s", "s", "s", "s"],
        &["y"],
    );
    let wanted = Op::BatchNormalization {
        epsilon: 1e-5,
        momentum: 0.9,
    };
    assert_eq!(op(17, norm, vec![floats("s", &[3], &[1.0; 3])]), wanted);
    let conv = node("Conv", "n", &["x", "w"], &["y"]);
    let weight = floats("w", &[1, 3, 1, 1], &[1.0; 3]);
    assert_eq!(op(17, conv, vec![weight]), Op::Conv(ConvAttrs::default()));
    let pool = with(
        node("AveragePool", "n", &["x"], &["y"]),
        make::ints("kernel_shape", &[2, 3]),
    );
    let wanted = PoolAttrs {
        kernel: [2, 3],
        strides: [1, 1],
        pads: SpatialPads::default(),
        dilations: [1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
    };
    assert_eq!(op(17, pool, vec![]), Op::AveragePool(wanted));
}
