//! Values that inference computes.

use super::*;

#[test]
fn the_arithmetic_of_a_view_is_computed() {
    // view(x.size(0), -1), as PyTorch exports it.
    let (mut graph, shapes) = graph_of(
        Op::Shape {
            start: 0,
            end: None,
        },
        &[shape(&[2, 3, 4])],
    );
    let mut add = |op, inputs: &[&str], output: &str| {
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        graph.nodes.push(Node {
            name: output.into(),
            op,
            inputs,
            outputs: vec![output.into()],
        });
    };
    add(Op::Gather { axis: 0 }, &["y", "zero"], "batch");
    add(
        Op::Unsqueeze {
            axes: Some(vec![0]),
        },
        &["batch"],
        "row",
    );
    add(Op::Concat { axis: 0 }, &["row", "rest"], "wanted");
    add(RESHAPE, &["x0", "wanted"], "flat");
    graph.initializers.insert(
        "zero".into(),
        Tensor::I64(ArcArray::from_elem(IxDyn(&[]), 0)),
    );
    graph.initializers.insert("rest".into(), int_tensor(&[-1]));
    let inferred = infer(&graph, &shapes).unwrap();
    assert_eq!(inferred.shapes["flat"], [2, 12]);
    assert_eq!(inferred.constants["wanted"], int_tensor(&[2, -1]));
    assert_eq!(inferred.constants.len(), 4);
}

#[test]
fn constants_are_computed() {
    computes(
        Op::Shape {
            start: -2,
            end: None,
        },
        &[shape(&[2, 3, 4])],
        &int_tensor(&[3, 4]),
    );
    computes(
        Op::Shape {
            start: 1,
            end: Some(-1),
        },
        &[shape(&[2, 3, 4])],
        &int_tensor(&[3]),
    );
    computes(
        Op::Shape {
            start: 2,
            end: Some(1),
        },
        &[shape(&[2, 3, 4])],
        &int_tensor(&[]),
    );
    computes(
        Op::Gather { axis: 0 },
        &[ints(&[5, 6, 7]), ints(&[-1, 0])],
        &int_tensor(&[7, 5]),
    );
    fails(
        Op::Gather { axis: 0 },
        &[ints(&[5, 6, 7]), ints(&[3])],
        "3 is outside",
    );
    computes(
        Op::Concat { axis: 0 },
        &[ints(&[5]), ints(&[]), ints(&[6, 7])],
        &int_tensor(&[5, 6, 7]),
    );
    computes(
        SLICE,
        &[
            ints(&[5, 6, 7]),
            ints(&[-1]),
            ints(&[i64::MIN]),
            ints(&[0]),
            ints(&[-2]),
        ],
        &int_tensor(&[7, 5]),
    );
    let four = Tensor::F32(ArcArray::from(vec![4.0]).into_dyn());
    let expected = Tensor::F32(ArcArray::from_elem(IxDyn(&[2, 3]), 4.0));
    computes(
        Op::ConstantOfShape { value: four },
        &[ints(&[2, 3])],
        &expected,
    );
    computes(
        Op::Cast {
            to: ElementType::I64,
        },
        &[float(-2.7)],
        &Tensor::I64(ArcArray::from_elem(IxDyn(&[]), -2)),
    );
    let matrix =
        Tensor::I64(ArcArray::from_shape_vec(IxDyn(&[2, 3]), vec![1, 2, 3, 4, 5, 6]).unwrap());
    let turned =
        Tensor::I64(ArcArray::from_shape_vec(IxDyn(&[3, 2]), vec![1, 4, 2, 5, 3, 6]).unwrap());
    computes(
        Op::Transpose { perm: None },
        &[Operand::Constant(matrix.clone())],
        &turned,
    );
    computes(
        RESHAPE,
        &[Operand::Constant(turned), ints(&[-1])],
        &int_tensor(&[1, 4, 2, 5, 3, 6]),
    );
    computes(
        Op::Squeeze { axes: None },
        &[Operand::Constant(matrix.clone())],
        &matrix,
    );
}

#[test]
fn integer_arithmetic_is_exact_or_an_error() {
    for (operation, expected) in [
        (Arithmetic::Add, [9, -5]),
        (Arithmetic::Sub, [5, -9]),
        (Arithmetic::Mul, [14, -14]),
        (Arithmetic::Div, [3, -3]),
    ] {
        computes(
            Op::Arithmetic(operation),
            &[ints(&[7, -7]), ints(&[2])],
            &int_tensor(&expected),
        );
    }
    fails(
        Op::Arithmetic(Arithmetic::Mul),
        &[ints(&[i64::MAX]), ints(&[2])],
        "overflow",
    );
    fails(
        Op::Arithmetic(Arithmetic::Div),
        &[ints(&[1]), ints(&[0])],
        "divided by 0",
    );
    fails(
        Op::Arithmetic(Arithmetic::Div),
        &[ints(&[i64::MIN]), ints(&[-1])],
        "overflow",
    );
    fails(
        Op::Arithmetic(Arithmetic::Add),
        &[ints(&[1]), float(2.0)],
        "one type",
    );
}

#[test]
fn large_constants_stay_nodes() {
    let large = Tensor::F32(ArcArray::zeros(IxDyn(&[MAX_CONSTANT + 1])));
    let inferred = infer_one(Op::Identity, &[Operand::Constant(large)]).unwrap();
    assert!(inferred.constants.is_empty());
    let one = Tensor::F32(ArcArray::from_elem(IxDyn(&[1]), 1.0));
    let op = Op::ConstantOfShape { value: one };
    let inferred = infer_one(op.clone(), &[ints(&[MAX_CONSTANT as i64, 2])]).unwrap();
    assert!(inferred.constants.is_empty());
    fails(op.clone(), &[ints(&[i64::MAX, i64::MAX, 0])], "too large");
    fails(op, &[ints(&[-1])], "-1 is not a length");
}

#[test]
fn computed_constants_have_a_limit_together() {
    let (mut graph, shapes) = graph_of(Op::Identity, &[shape(&[1])]);
    let numbers = |values: &[i64]| int_tensor(values);
    graph.initializers.insert("number".into(), numbers(&[7]));
    graph
        .initializers
        .insert("length".into(), numbers(&[1 << 16]));
    for n in 0..100 {
        graph.nodes.push(Node {
            name: format!("n{n}"),
            op: Op::Expand,
            inputs: vec!["number".into(), "length".into()],
            outputs: vec![format!("y{n}")],
        });
    }
    let inferred = infer(&graph, &shapes).unwrap();
    let large = |tensor: &&Tensor| tensor.shape() == [1 << 16];
    assert_eq!(inferred.constants.values().filter(large).count(), 64);
    assert_eq!(inferred.shapes["y99"], [1 << 16]);
}
