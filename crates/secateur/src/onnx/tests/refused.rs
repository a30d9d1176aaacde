//! What is not supported, damaged or inconsistent is an error that says so.

use super::build::{self, bytes, floats, ints, model, node, value, with};
use super::fixtures;
use crate::onnx::attributes::make;
use crate::onnx::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorAnnotation, TensorProto, TrainingInfoProto,
};
use crate::onnx::{OnnxError, from_bytes, read};

fn message(model: &ModelProto) -> String {
    match from_bytes(&bytes(model)) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The error of a model whose only node is `node`.
pub(super) fn of_node(opset: i64, node: NodeProto, initializers: Vec<TensorProto>) -> String {
    message(&model(opset, vec![node], initializers))
}

pub(super) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "wanted `{part}` in: {message}");
    }
}

#[test]
fn files_that_are_no_models_are_told_apart() {
    let of = |bytes: &[u8]| from_bytes(bytes).unwrap_err();
    assert!(matches!(of(b""), OnnxError::Empty));
    let text = "\n  This is a note about my model, not the model itself, and it is long.\n";
    assert!(
        matches!(of(text.as_bytes()), OnnxError::Text(begin) if begin.starts_with("This is a note"))
    );
    assert!(matches!(of("é".repeat(400).as_bytes()), OnnxError::Text(_)));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    assert!(matches!(of(pointer.as_bytes()), OnnxError::LfsPointer));
    assert!(matches!(of(&[0xff; 100]), OnnxError::Damaged(_)));
    assert!(matches!(
        of(&bytes(&ModelProto::default())),
        OnnxError::Empty
    ));
    let no_graph = ModelProto {
        ir_version: Some(8),
        ..ModelProto::default()
    };
    assert_says(&message(&no_graph), &["truncated", "no graph"]);
}

#[test]
fn every_cut_of_a_file_is_an_error() {
    let case = fixtures::operators()
        .into_iter()
        .find(|c| c.name == "residual-17")
        .unwrap();
    // The operator set stands at the file's end, so that no shorter file is a model.
    for length in 0..case.model.len() {
        assert!(
            from_bytes(&case.model[..length]).is_err(),
            "{length} bytes are accepted"
        );
    }
}

#[test]
fn a_file_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("note.onnx");
    std::fs::write(&path, "hello").unwrap();
    assert_says(
        &read(&path).unwrap_err().to_string(),
        &["note.onnx", "text", "hello"],
    );
    let absent = folder.path().join("absent.onnx");
    assert_says(&read(&absent).unwrap_err().to_string(), &["absent.onnx"]);
    assert_says(
        &read(folder.path()).unwrap_err().to_string(),
        &[&folder.path().display().to_string()],
    );
}

#[test]
fn operator_sets_outside_the_range_are_refused_with_the_range() {
    for opset in [1, 6, 29, 1000, -1] {
        let message = of_node(opset, node("Relu", "n", &["x"], &["y"]), vec![]);
        assert_says(&message, &[&format!("operator set {opset}"), "7 to 28"]);
    }
    for opset in [7, 28] {
        assert_eq!(
            of_node(opset, node("Relu", "n", &["x"], &["y"]), vec![]),
            "accepted"
        );
    }
    let mut none = model(17, vec![node("Relu", "n", &["x"], &["y"])], vec![]);
    none.opset_import.clear();
    assert_says(&message(&none), &["operator set"]);
    let mut two = model(17, vec![node("Relu", "n", &["x"], &["y"])], vec![]);
    two.opset_import.push(OperatorSetIdProto {
        domain: Some("ai.onnx".into()),
        version: Some(18),
    });
    assert_says(&message(&two), &["two versions"]);
}

#[test]
fn all_unsupported_operators_are_named_at_once() {
    let custom = NodeProto {
        domain: Some("com.acme".into()),
        ..node("Relu", "c", &["b"], &["d"])
    };
    let nodes = vec![
        node("Det", "n3", &["x"], &["a"]),
        node("Relu", "fine", &["a"], &["b"]),
        custom,
        node("HardSwish", "", &["d"], &["y"]),
    ];
    let message = message(&model(13, nodes, vec![]));
    let wanted = "node `n3`: operator `Det` is not supported (and 2 more nodes: `c`: `com.acme.Relu`, `y`: \
                  `HardSwish in operator set 13`)";
    assert_eq!(message, wanted);
    let one = of_node(17, node("Det", "n3", &["x"], &["y"]), vec![]);
    assert_eq!(one, "node `n3`: operator `Det` is not supported");
    let quantised = of_node(17, node("QLinearConv", "q", &["x"], &["y"]), vec![]);
    assert_says(&quantised, &["`q`", "`QLinearConv`", "32-bit float model"]);
    let branch = of_node(17, node("If", "i", &["x"], &["y"]), vec![]);
    assert_says(
        &branch,
        &["`i`", "`If`", "sub-graphs", "without control flow"],
    );
}

#[test]
fn features_beyond_plain_graphs_are_refused_by_name_with_a_remedy() {
    let base = || model(17, vec![node("Relu", "n", &["x"], &["y"])], vec![]);
    let mut function = base();
    function.functions.push(FunctionProto {
        name: Some("gelu".into()),
        ..FunctionProto::default()
    });
    assert_says(
        &message(&function),
        &["function `gelu`", "not supported", "inline"],
    );
    let mut training = base();
    training.training_info.push(TrainingInfoProto::default());
    assert_says(&message(&training), &["training information", "inference"]);
    let mut sparse = base();
    let values = SparseTensorProto {
        values: Some(floats("w", &[0], &[])),
        ..SparseTensorProto::default()
    };
    sparse
        .graph
        .as_mut()
        .unwrap()
        .sparse_initializer
        .push(values);
    assert_says(&message(&sparse), &["sparse initializer `w`", "densely"]);
    let mut quantised = base();
    let annotation = TensorAnnotation {
        tensor_name: Some("x".into()),
        ..TensorAnnotation::default()
    };
    quantised
        .graph
        .as_mut()
        .unwrap()
        .quantization_annotation
        .push(annotation);
    assert_says(
        &message(&quantised),
        &["quantisation of `x`", "32-bit float"],
    );
    let sparse = with(
        node("Constant", "k", &[], &["y"]),
        make::int("sparse_value", 0),
    );
    assert_says(&of_node(17, sparse, vec![]), &["`k`", "sparse", "densely"]);
    let text = with(
        node("Constant", "k", &[], &["y"]),
        make::text("value_string", "a"),
    );
    assert_says(&of_node(17, text, vec![]), &["`k`", "text"]);
}

#[test]
fn element_types_without_a_meaning_here_are_refused_by_name() {
    for (code, name, remedy) in [
        (10, "FLOAT16", "32-bit floats"),
        (16, "BFLOAT16", "32-bit floats"),
        (2, "UINT8", "quantised"),
        (3, "INT8", "quantised"),
        (8, "STRING", "supported are"),
        (12, "UINT32", "supported are"),
    ] {
        let tensor = TensorProto {
            data_type: Some(code),
            ..floats("w", &[0], &[])
        };
        // Weights and casts may be of 16 bits, inputs may not.
        let is_narrow = remedy == "32-bit floats";
        if !is_narrow {
            let add = node("Add", "n", &["x", "w"], &["y"]);
            assert_says(&of_node(17, add, vec![tensor]), &["`w`", name, remedy]);
        }
        let cast = with(
            node("Cast", "n", &["x"], &["y"]),
            make::int("to", i64::from(code)),
        );
        if !is_narrow {
            assert_says(&of_node(17, cast, vec![]), &["node `n` (Cast)", name]);
        }
        let mut input = model(17, vec![node("Relu", "n", &["x"], &["y"])], vec![]);
        use crate::onnx::proto::type_proto::Value;
        let declared = &mut input.graph.as_mut().unwrap().input[0];
        let Some(Value::TensorType(tensor)) = &mut declared.r#type.as_mut().unwrap().value else {
            panic!()
        };
        tensor.elem_type = Some(code);
        assert_says(&message(&input), &["input `x`", name]);
    }
}

#[test]
fn windows_of_other_than_two_dimensions_are_refused() {
    for (axes, count) in [(vec![4, 3, 3], 1), (vec![4, 3, 3, 3, 3], 3)] {
        let n: i64 = axes.iter().product();
        let weight = floats("w", &axes, &vec![0.0; usize::try_from(n).unwrap()]);
        let message = of_node(17, node("Conv", "c", &["x", "w"], &["y"]), vec![weight]);
        assert_says(
            &message,
            &[
                "node `c` (Conv)",
                "only two-dimensional",
                &format!("{count} spatial"),
            ],
        );
    }
    for (op, kernel) in [("MaxPool", vec![2]), ("AveragePool", vec![2, 2, 2])] {
        let pool = with(
            node(op, "p", &["x"], &["y"]),
            make::ints("kernel_shape", &kernel),
        );
        let count = format!("{} spatial", kernel.len());
        assert_says(
            &of_node(17, pool, vec![]),
            &["`p`", op, "only two-dimensional", &count],
        );
    }
    // A weight that is computed has no known shape; the attributes have.
    let conv = with(
        node("Conv", "c", &["x", "x"], &["y"]),
        make::ints("strides", &[1]),
    );
    assert_says(
        &of_node(17, conv, vec![]),
        &["only two-dimensional", "1 spatial"],
    );
}

#[test]
fn attributes_that_would_change_the_meaning_are_errors() {
    let conv = || node("Conv", "c", &["x", "w"], &["y"]);
    let weight = || vec![floats("w", &[1, 3, 3, 3], &[0.0; 27])];
    let pool = || {
        with(
            node("MaxPool", "c", &["x"], &["y"]),
            make::ints("kernel_shape", &[2, 2]),
        )
    };
    let relu = || node("Relu", "c", &["x"], &["y"]);
    let cases = [
        (
            17,
            with(relu(), make::float("slope", 0.1)),
            "`slope` is not known in operator set 17",
        ),
        (
            9,
            with(pool(), make::int("ceil_mode", 1)),
            "`ceil_mode` is not known in operator set 9",
        ),
        (
            11,
            with(node("Clip", "c", &["x"], &["y"]), make::float("min", 0.0)),
            "`min` is not known in operator set 11",
        ),
        (
            17,
            with(conv(), make::ints("pads", &[0, 0, -1, 0])),
            "`pads` holds -1",
        ),
        (
            17,
            with(conv(), make::ints("pads", &[1, 1])),
            "`pads` has 2 values, wanted 4",
        ),
        (
            17,
            with(conv(), make::ints("strides", &[0, 1])),
            "`strides` holds 0",
        ),
        (
            17,
            with(conv(), make::ints("strides", &[1 << 40, 1])),
            "`strides` holds",
        ),
        (
            17,
            with(conv(), make::ints("kernel_shape", &[5, 3])),
            "`kernel_shape` is [5, 3]",
        ),
        (17, with(conv(), make::int("group", 0)), "`group` is 0"),
        (
            17,
            with(conv(), make::text("auto_pad", "SAME")),
            "`auto_pad` is `SAME`",
        ),
        (
            17,
            with(conv(), make::int("strides", 2)),
            "`strides` is not a list of integers",
        ),
        (
            17,
            with(with(conv(), make::int("group", 1)), make::int("group", 3)),
            "`group` is given twice",
        ),
        (
            17,
            node("MaxPool", "c", &["x"], &["y"]),
            "`kernel_shape` is missing",
        ),
        (17, node("Concat", "c", &["x"], &["y"]), "`axis` is missing"),
        (17, node("Cast", "c", &["x"], &["y"]), "`to` is missing"),
        (17, node("LRN", "c", &["x"], &["y"]), "`size` is missing"),
        (
            7,
            node("Unsqueeze", "c", &["x"], &["y"]),
            "`axes` is missing",
        ),
        (7, node("Slice", "c", &["x"], &["y"]), "`starts` is missing"),
        (7, node("Pad", "c", &["x"], &["y"]), "`pads` is missing"),
        (
            17,
            with(
                node("Transpose", "c", &["x"], &["y"]),
                make::ints("perm", &[0, 2, 2, 1]),
            ),
            "not a permutation",
        ),
        (
            7,
            with(
                with(node("Pad", "c", &["x"], &["y"]), make::text("mode", "wrap")),
                make::ints("pads", &[0; 8]),
            ),
            "`wrap`",
        ),
        (
            17,
            node("Gemm", "c", &["x"], &["y"]),
            "has 1 inputs, wanted 2 to 3",
        ),
        (
            7,
            node("Gemm", "c", &["x", "x"], &["y"]),
            "has 2 inputs, wanted 3",
        ),
        (
            17,
            node("Conv", "c", &["x", ""], &["y"]),
            "required input 1 is left out",
        ),
        (17, node("Relu", "c", &["x"], &[]), "no output"),
        (17, node("Relu", "c", &["x"], &["y", "z"]), "2 outputs"),
    ];
    for (opset, node, wanted) in cases {
        let op = node.op_type().to_owned();
        let weights = if op == "Conv" { weight() } else { vec![] };
        assert_says(
            &of_node(opset, node, weights),
            &[&format!("node `c` ({op})"), wanted],
        );
    }
}

#[test]
fn models_in_training_mode_are_refused() {
    let remedy = "export the model in evaluation mode";
    let stats = || {
        ["s", "b", "m", "v"]
            .map(|name| floats(name, &[3], &[1.0; 3]))
            .to_vec()
    };
    let norm = |outputs: &[&str]| {
        node(
            "BatchNormalization",
            "bn",
            &["x", "s", "b", "m", "v"],
            outputs,
        )
    };
    assert_eq!(of_node(17, norm(&["y"]), stats()), "accepted");
    let training = with(norm(&["y"]), make::int("training_mode", 1));
    assert_says(&of_node(17, training, stats()), &["`bn`", remedy]);
    for opset in [7, 9, 13, 14, 17] {
        assert_says(
            &of_node(opset, norm(&["y", "mean"]), stats()),
            &["`bn`", "`mean`", remedy],
        );
    }
    let positions = with(norm(&["y"]), make::int("spatial", 0));
    assert_says(&of_node(7, positions, stats()), &["`bn`", "`spatial`"]);

    let flag = |name: &str, on: i32| TensorProto {
        data_type: Some(9),
        int32_data: vec![on],
        float_data: vec![],
        ..floats(name, &[], &[])
    };
    let dropout = || node("Dropout", "d", &["x", "", "t"], &["y"]);
    assert_eq!(of_node(17, dropout(), vec![flag("t", 0)]), "accepted");
    assert_says(
        &of_node(17, dropout(), vec![flag("t", 1)]),
        &["`d`", remedy],
    );
    let computed = vec![
        with(node("Cast", "k", &["x"], &["t"]), make::int("to", 9)),
        dropout(),
    ];
    assert_says(&message(&model(17, computed, vec![])), &["`d`", remedy]);
}

#[test]
fn second_outputs_may_not_be_read() {
    let pool = || {
        with(
            node("MaxPool", "p", &["x"], &["a", "b"]),
            make::ints("kernel_shape", &[1, 1]),
        )
    };
    let drop = || node("Dropout", "d", &["x"], &["a", "b"]);
    for first in [pool(), drop()] {
        let reader = node("Add", "r", &["a", "b"], &["y"]);
        assert_says(
            &message(&model(17, vec![first.clone(), reader], vec![])),
            &[&format!("`{}`", first.name()), "`b` is read"],
        );
        let relu = node("Relu", "r", &["a"], &["y"]);
        let unread = model(17, vec![first, relu], vec![]);
        assert_eq!(message(&unread), "accepted");
        let mut returned = unread;
        returned
            .graph
            .as_mut()
            .unwrap()
            .output
            .push(value("b", &[]));
        assert_says(&message(&returned), &["`b` is read"]);
    }
}

#[test]
fn graphs_that_hang_in_the_air_are_refused() {
    let relu = |name: &str, i: &str, o: &str| node("Relu", name, &[i], &[o]);
    let of = |nodes, initializers| message(&model(17, nodes, initializers));
    assert_says(
        &of(vec![relu("n", "ghost", "y")], vec![]),
        &["`n`", "`ghost`"],
    );
    assert_says(
        &of(vec![relu("n", "a", "y"), relu("m", "x", "a")], vec![]),
        &["`n`", "`a`", "earlier"],
    );
    assert_says(&of(vec![relu("n", "x", "z")], vec![]), &["output `y`"]);
    assert_says(
        &of(vec![relu("n", "x", "y"), relu("m", "x", "y")], vec![]),
        &["`m`", "`y`", "already"],
    );
    assert_says(
        &of(vec![relu("n", "x", "x")], vec![]),
        &["`n`", "`x`", "already"],
    );
    let w = || floats("w", &[1], &[1.0]);
    assert_says(
        &of(vec![relu("n", "x", "y")], vec![w(), w()]),
        &["two initializers", "`w`"],
    );
    let nameless = TensorProto { name: None, ..w() };
    assert_says(
        &of(vec![relu("n", "x", "y")], vec![nameless]),
        &["initializer", "no name"],
    );
    let mut twice = model(17, vec![relu("n", "x", "y")], vec![]);
    twice.graph.as_mut().unwrap().input.push(value("x", &[]));
    assert_says(&message(&twice), &["two inputs", "`x`"]);
    let mut nothing = model(17, vec![relu("n", "x", "y")], vec![]);
    nothing.graph.as_mut().unwrap().output.clear();
    assert_says(&message(&nothing), &["no output"]);
}

#[test]
fn tensors_whose_sizes_do_not_fit_their_data_are_refused_before_allocation() {
    let add = || node("Add", "n", &["x", "w"], &["y"]);
    let of = |tensor| of_node(17, add(), vec![tensor]);
    let raw = |dims: &[i64], length: usize| TensorProto {
        raw_data: Some(vec![0; length].into()),
        ..floats("w", dims, &[])
    };
    assert_eq!(of(raw(&[2, 2], 16)), "accepted");
    assert_says(
        &of(raw(&[2, 2], 15)),
        &["`w`", "4 elements of 4 bytes", "has 15 bytes"],
    );
    assert_says(
        &of(floats("w", &[3], &[1.0, 2.0])),
        &["`w`", "3 elements", "2"],
    );
    assert_says(
        &of(floats("w", &[-3], &[1.0, 2.0])),
        &["`w`", "not a shape"],
    );
    let huge = i64::MAX;
    assert_says(&of(raw(&[huge], 4)), &["`w`", "too large"]);
    assert_says(&of(raw(&[1 << 32, 1 << 32], 4)), &["`w`", "too large"]);
    assert_says(&of(raw(&[1 << 40], 4)), &["`w`", "has 4 bytes"]);
    assert_says(&of(raw(&[0, huge, huge], 0)), &["`w`", "too large"]);
    let both = TensorProto {
        float_data: vec![0.0],
        ..raw(&[1], 4)
    };
    assert_says(&of(both), &["`w`", "twice"]);
    let elsewhere = TensorProto {
        data_type: Some(7),
        ..floats("w", &[1], &[0.0])
    };
    assert_says(&of(elsewhere), &["`w`", "another type"]);
}

#[test]
fn filled_weights_are_limited_together() {
    let of = |shape: &[i64]| {
        let n = i64::try_from(shape.len()).unwrap();
        let nodes = vec![
            node("ConstantOfShape", "f0", &["s"], &["w"]),
            node("Relu", "n", &["x"], &["y"]),
        ];
        message(&model(17, nodes, vec![ints("s", &[n], shape)]))
    };
    // Found by fuzzing: 244 bytes that asked for 1.7 GB. Networks with filled weights take 0.6 GB.
    assert_says(
        &of(&[1 << 28, 2]),
        &["`f0`", "exceed the limit of 1073741824 bytes"],
    );
    assert_says(&of(&[i64::MAX, 2]), &["`f0`", "too large"]);
    assert_says(&of(&[-1]), &["`f0`", "not a shape"]);
    let mut store = crate::onnx::tensor::Store::new(None);
    assert_eq!(store.claim_filled(1 << 30), Ok(()));
    assert!(store.claim_filled(1).is_err());
}

mod external {
    use super::{
        ModelProto, OnnxError, StringStringEntryProto, TensorProto, build, floats, model, node,
    };
    use crate::onnx::{Model, from_bytes, read, to_bytes};
    use std::path::Path;

    fn external(entries: &[(&str, &str)]) -> ModelProto {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        let tensor = TensorProto {
            data_location: Some(1),
            external_data: entries.iter().map(entry).collect(),
            ..floats("w", &[2], &[])
        };
        model(
            17,
            vec![node("Add", "n", &["x", "w"], &["y"])],
            vec![tensor],
        )
    }

    /// A folder with the model, `weights.bin` of 12 bytes beside it, and a file outside.
    fn attempt(folder: &Path, entries: &[(&str, &str)]) -> Result<Model, OnnxError> {
        let inside = folder.join("model");
        std::fs::create_dir_all(inside.join("data")).unwrap();
        let weights: Vec<u8> = [1.0_f32, 2.0, 3.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        std::fs::write(inside.join("weights.bin"), &weights).unwrap();
        std::fs::write(inside.join("data/weights.bin"), &weights).unwrap();
        std::fs::write(folder.join("secret.bin"), &weights).unwrap();
        let path = inside.join("m.onnx");
        std::fs::write(&path, build::bytes(&external(entries))).unwrap();
        read(&path)
    }

    #[test]
    fn data_beside_the_model_is_read_and_moves_into_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for (entries, wanted) in [
            (
                vec![("location", "weights.bin"), ("offset", "4")],
                [2.0, 3.0],
            ),
            (
                vec![
                    ("location", "./data/weights.bin"),
                    ("offset", "0"),
                    ("length", "8"),
                ],
                [1.0, 2.0],
            ),
        ] {
            let model = attempt(folder.path(), &entries).unwrap();
            let read = model.graph.initializers["w"].as_floats().unwrap().clone();
            assert_eq!(read.as_slice().unwrap(), wanted);
            let again = from_bytes(&to_bytes(&model).unwrap()).unwrap();
            assert_eq!(again.graph, model.graph);
        }
    }

    #[test]
    fn data_outside_the_folder_or_beyond_the_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret.bin").display().to_string();
        for (entries, wanted) in [
            // Refused by its form, even where it comes back.
            (
                vec![("location", "../model/weights.bin"), ("length", "8")],
                "outside the model's folder",
            ),
            (
                vec![("location", "../secret.bin"), ("length", "8")],
                "outside the model's folder",
            ),
            (
                vec![("location", "data/../../secret.bin"), ("length", "8")],
                "outside the model's folder",
            ),
            (
                vec![("location", secret.as_str()), ("length", "8")],
                "outside the model's folder",
            ),
            (vec![("location", "")], "outside the model's folder"),
            (vec![("length", "8")], "no `location`"),
            (vec![("location", "absent.bin")], "absent.bin"),
            (vec![("location", "data")], "not a regular file"),
            (
                vec![("location", "weights.bin")],
                "needs 8 bytes, its external data has 12",
            ),
            (
                vec![
                    ("location", "weights.bin"),
                    ("offset", "8"),
                    ("length", "8"),
                ],
                "has 12 bytes",
            ),
            (
                vec![
                    ("location", "weights.bin"),
                    ("offset", "18446744073709551615"),
                    ("length", "8"),
                ],
                "has 12 bytes",
            ),
            (
                vec![
                    ("location", "weights.bin"),
                    ("offset", "-4"),
                    ("length", "8"),
                ],
                "`offset`",
            ),
            (
                vec![("location", "weights.bin"), ("length", "4")],
                "needs 8 bytes",
            ),
        ] {
            let error = attempt(folder.path(), &entries)
                .map(|_| "accepted")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("`w`") && error.contains(wanted),
                "wanted `{wanted}` in: {error}"
            );
        }
        let in_memory = build::bytes(&external(&[("location", "weights.bin"), ("length", "8")]));
        let error = from_bytes(&in_memory).unwrap_err().to_string();
        assert!(
            error.contains("weights.bin") && error.contains("read the model from its file"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("model");
        std::fs::create_dir_all(&inside).unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret.bin"), inside.join("link.bin"))
            .unwrap();
        std::os::unix::fs::symlink(folder.path(), inside.join("up")).unwrap();
        for location in ["link.bin", "up/secret.bin"] {
            let error =
                attempt(folder.path(), &[("location", location), ("length", "8")]).unwrap_err();
            assert!(
                error.to_string().contains("outside the model's folder"),
                "{error}"
            );
        }
    }
}

/// Graphs are never nested here, so a file of nested ones must not exhaust the stack.
#[test]
fn deeply_nested_messages_are_an_error() {
    let mut graph = GraphProto::default();
    for _ in 0..90 {
        let attribute = crate::onnx::proto::AttributeProto {
            g: Some(graph),
            ..make::int("body", 0)
        };
        let outer = with(node("If", "n", &[], &["y"]), attribute);
        graph = GraphProto {
            node: vec![outer],
            ..GraphProto::default()
        };
    }
    let nested = ModelProto {
        graph: Some(graph),
        ..model(17, vec![], vec![])
    };
    assert_says(&message(&nested), &["damaged"]);
}
