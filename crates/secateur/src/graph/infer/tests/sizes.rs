//! Shapes of transposed convolutions, resizing, splitting, blocks and norms within an image.

use super::*;

#[test]
fn transposed_convolutions_invert_the_size_of_convolutions() {
    let attrs = |strides, output_padding, output_shape| ConvTransposeAttrs {
        strides,
        pads: SpatialPads::default(),
        dilations: [1, 1],
        groups: 1,
        auto_pad: AutoPad::NotSet,
        output_padding,
        output_shape,
    };
    let x = shape(&[2, 4, 5, 6]);
    let weight = shape(&[4, 3, 3, 2]);
    let given = |attrs| Op::ConvTranspose(attrs);
    let operands = [x.clone(), weight.clone()];
    gives(given(attrs([1, 1], [0, 0], None)), &operands, &[2, 3, 7, 7]);
    gives(
        given(attrs([2, 3], [1, 2], None)),
        &operands,
        &[2, 3, 12, 19],
    );
    gives(
        given(attrs([2, 2], [0, 0], Some([10, 12]))),
        &operands,
        &[2, 3, 10, 12],
    );
    let wrong = shape(&[3, 3, 3, 2]);
    fails(
        given(attrs([1, 1], [0, 0], None)),
        &[x.clone(), wrong],
        "does not fit an input of 4 channels",
    );
    let bias = shape(&[4]);
    fails(
        given(attrs([1, 1], [0, 0], None)),
        &[x.clone(), weight.clone(), bias],
        "the bias has shape [4], wanted [3]",
    );
    // Sizes of a damaged file: what is computed is bounded, not only what is left of it.
    fails(
        given(attrs([usize::MAX; 2], [0, 0], None)),
        &operands,
        "becomes too long",
    );
    let large = attrs([1 << 20, 1 << 20], [0, 0], Some([4, 4]));
    fails(given(large), &operands, "is too large");
    let cut = ConvTransposeAttrs {
        pads: SpatialPads {
            top: 7,
            ..SpatialPads::default()
        },
        ..attrs([1, 1], [0, 0], None)
    };
    fails(given(cut), &operands, "are cut off at the beginning");
}

#[test]
fn resized_axes_follow_scales_or_sizes() {
    let resize = |coordinates, axes: Option<&[i64]>| {
        Op::Resize(ResizeAttrs {
            coordinates,
            axes: axes.map(<[i64]>::to_vec),
            ..ResizeAttrs::upsample(Interpolation::Linear)
        })
    };
    let scales =
        |values: &[f32]| Operand::Constant(Tensor::F32(ArcArray::from(values.to_vec()).into_dyn()));
    let x = shape(&[2, 3, 5, 4]);
    let plain = || resize(Coordinates::HalfPixel, None);
    let by_scales = |values: &[f32]| [x.clone(), LeftOut, scales(values)];
    gives(plain(), &by_scales(&[1.0, 1.0, 2.0, 0.5]), &[2, 3, 10, 2]);
    gives(
        plain(),
        &[x.clone(), scales(&[1.0, 1.0, 1.5, 1.0])],
        &[2, 3, 7, 4],
    );
    let by_sizes = [x.clone(), LeftOut, LeftOut, ints(&[7, 9])];
    gives(
        resize(Coordinates::HalfPixel, Some(&[-2, -1])),
        &by_sizes,
        &[2, 3, 7, 9],
    );
    fails(
        plain(),
        &by_sizes,
        "2 scales and sizes are given for 4 axes",
    );
    fails(
        plain(),
        &[x.clone(), LeftOut, LeftOut],
        "0 scales and sizes",
    );
    fails(
        plain(),
        &by_scales(&[1.0, 1.0, 0.0, 1.0]),
        "0 is not a scale",
    );
    fails(
        plain(),
        &by_scales(&[1.0, 1.0, f32::NAN, 1.0]),
        "NaN is not a scale",
    );
    fails(plain(), &by_scales(&[1.0, 1.0, 1e30, 1.0]), "is too large");
    fails(
        plain(),
        &[x.clone(), LeftOut, shape(&[4])],
        "must be a constant list of f32",
    );
    fails(
        resize(Coordinates::AlignCorners, None),
        &by_scales(&[1.0, 1.0, 1.5, 1.0]),
        "runtimes disagree",
    );
    fails(
        plain(),
        &[x, LeftOut, LeftOut, ints(&[2, 3, -1, 4])],
        "cannot become -1",
    );
}

#[test]
fn parts_of_a_split_cover_the_axis() {
    let split = |sizes: Option<&[i64]>, num_outputs| Op::Split {
        axis: 1,
        sizes: sizes.map(<[i64]>::to_vec),
        num_outputs,
    };
    let parts = |op: Op, outputs: usize| {
        let (mut graph, shapes) = graph_of(op, &[shape(&[2, 7, 3])]);
        graph.nodes[0].outputs = (0..outputs).map(|i| format!("y{i}")).collect();
        let inferred = infer(&graph, &shapes).map_err(|e| e.to_string())?;
        let length = |i| inferred.shape(&format!("y{i}")).map(|shape| shape[1]);
        Ok::<_, String>((0..outputs).filter_map(length).collect::<Vec<_>>())
    };
    assert_eq!(parts(split(Some(&[1, 4, 2]), None), 3).unwrap(), [1, 4, 2]);
    assert_eq!(parts(split(None, None), 7).unwrap(), [1; 7]);
    assert_eq!(parts(split(None, Some(3)), 3).unwrap(), [3, 3, 1]);
    assert_eq!(parts(split(None, Some(5)), 5).unwrap(), [2, 2, 2, 1, 0]);
    for (op, outputs) in [
        (split(None, None), 2),
        (split(Some(&[1, 4]), None), 2),
        (split(Some(&[1, 6]), None), 3),
        (split(Some(&[8, -1]), None), 2),
        (split(Some(&[i64::MAX, i64::MAX]), None), 2),
    ] {
        let problem = parts(op, outputs).unwrap_err();
        assert!(problem.contains("does not split into"), "{problem}");
    }
}

#[test]
fn blocks_and_norms_that_do_not_fit_are_errors() {
    let order = DepthOrder::default();
    let x = shape(&[2, 12, 4, 6]);
    let one = std::slice::from_ref(&x);
    gives(Op::DepthToSpace { block: 2, order }, one, &[2, 3, 8, 12]);
    gives(Op::SpaceToDepth { block: 2, order }, one, &[2, 48, 2, 3]);
    fails(
        Op::DepthToSpace { block: 5, order },
        one,
        "blocks of 5 do not fit",
    );
    fails(
        Op::DepthToSpace {
            block: usize::MAX,
            order,
        },
        one,
        "do not fit",
    );
    fails(
        Op::SpaceToDepth { block: 3, order },
        one,
        "blocks of 3 do not fit an image of 4 by 6",
    );
    fails(
        Op::SpaceToDepth { block: 0, order },
        one,
        "blocks of 0 do not fit",
    );
    let epsilon = 1e-5;
    let group = |groups| Op::GroupNormalization { groups, epsilon };
    let vector = |length| shape(&[length]);
    // Operator set 17 has a scale for each group.
    gives(group(3), &[x.clone(), vector(3), vector(3)], &[2, 12, 4, 6]);
    fails(
        group(5),
        &[x.clone(), vector(5), vector(5)],
        "do not split into 5 groups",
    );
    fails(
        group(3),
        &[x.clone(), vector(12), vector(12)],
        "the scale has shape [12], wanted [3]",
    );
    let instance = Op::InstanceNormalization { epsilon };
    fails(
        instance,
        &[x.clone(), vector(12), vector(3)],
        "the bias has shape [3], wanted [12]",
    );
    let layer = |axis| Op::LayerNormalization { axis, epsilon };
    gives(layer(-1), &[x.clone(), vector(6)], &[2, 12, 4, 6]);
    fails(layer(-1), &[x.clone(), vector(4)], "does not broadcast to");
    fails(layer(4), &[x, vector(6)], "axis 4 is outside");
}
