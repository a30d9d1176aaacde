//! The operators that are read and written: in which operator sets, with which inputs and attributes.
//!
//! The facts are those of the ONNX operator schemas. An attribute that is not listed for the model's
//! operator set is an error at import, so that no meaning is lost silently.

/// The oldest operator set that is read.
pub const OLDEST_OPSET: i64 = 7;
/// The newest operator set that is read.
pub const NEWEST_OPSET: i64 = 28;

/// One row of the table of supported operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedOperator {
    /// The ONNX name.
    pub name: &'static str,
    /// The first operator set in which it is supported.
    pub since: i64,
    /// What is refused or restricted; empty where nothing is.
    pub limits: &'static str,
}

/// Every operator that can be imported, by name.
#[must_use]
pub fn supported_operators() -> Vec<SupportedOperator> {
    let mut rows: Vec<_> = ENTRIES
        .iter()
        .map(|entry| SupportedOperator {
            name: entry.op,
            since: entry.since.max(OLDEST_OPSET),
            limits: entry.limits,
        })
        .collect();
    rows.sort_by_key(|row| row.name);
    rows
}

/// The rules of one operator.
pub(super) struct Entry {
    /// The ONNX name.
    pub op: &'static str,
    /// The operator set that introduced it.
    since: i64,
    /// The last operator set that has it.
    last: i64,
    /// Numbers of inputs, newest operator set first.
    arity: &'static [Arity],
    /// The largest number of outputs.
    pub max_outputs: usize,
    attributes: &'static [Attribute],
    limits: &'static str,
}

struct Arity {
    from: i64,
    min: usize,
    max: usize,
}

struct Attribute {
    name: &'static str,
    from: i64,
    until: i64,
}

impl Entry {
    /// The least and the largest number of inputs in operator set `opset`.
    pub fn arity(&self, opset: i64) -> (usize, usize) {
        let found = self.arity.iter().find(|a| a.from <= opset);
        found.map_or((0, 0), |a| (a.min, a.max))
    }

    /// Whether attribute `name` exists in operator set `opset`.
    pub fn has_attribute(&self, name: &str, opset: i64) -> bool {
        let mut attributes = self.attributes.iter();
        attributes.any(|a| a.name == name && a.from <= opset && opset <= a.until)
    }

    /// Whether the operator exists in operator set `opset`.
    pub fn exists_in(&self, opset: i64) -> bool {
        (self.since..=self.last).contains(&opset)
    }
}

/// The rules of operator `op`, where it is supported.
pub(super) fn entry(op: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.op == op)
}

const ANY: usize = usize::MAX;
const NEVER_REMOVED: i64 = i64::MAX;

const fn attr(name: &'static str) -> Attribute {
    between(name, 1, NEVER_REMOVED)
}

const fn from(name: &'static str, from: i64) -> Attribute {
    between(name, from, NEVER_REMOVED)
}

const fn until(name: &'static str, until: i64) -> Attribute {
    between(name, 1, until)
}

const fn between(name: &'static str, from: i64, until: i64) -> Attribute {
    Attribute { name, from, until }
}

const fn inputs(from: i64, min: usize, max: usize) -> Arity {
    Arity { from, min, max }
}

const NO_ATTRIBUTES: &[Attribute] = &[];
const ONE_INPUT: &[Arity] = &[inputs(1, 1, 1)];
const TWO_INPUTS: &[Arity] = &[inputs(1, 2, 2)];
const MANY_INPUTS: &[Arity] = &[inputs(1, 1, ANY)];

const fn plain(
    op: &'static str,
    since: i64,
    arity: &'static [Arity],
    attributes: &'static [Attribute],
) -> Entry {
    limited(op, since, arity, attributes, "")
}

const fn limited(
    op: &'static str,
    since: i64,
    arity: &'static [Arity],
    attributes: &'static [Attribute],
    limits: &'static str,
) -> Entry {
    Entry {
        op,
        since,
        last: NEVER_REMOVED,
        arity,
        max_outputs: 1,
        attributes,
        limits,
    }
}

const CONV_TRANSPOSE_ATTRIBUTES: &[Attribute] = &[
    attr("auto_pad"),
    attr("dilations"),
    attr("group"),
    attr("kernel_shape"),
    attr("output_padding"),
    attr("output_shape"),
    attr("pads"),
    attr("strides"),
];
const RESIZE_ATTRIBUTES: &[Attribute] = &[
    from("antialias", 18),
    from("axes", 18),
    from("coordinate_transformation_mode", 11),
    from("cubic_coeff_a", 11),
    from("exclude_outside", 11),
    from("extrapolation_value", 11),
    from("keep_aspect_ratio_policy", 18),
    attr("mode"),
    from("nearest_mode", 11),
];

/// A reduction; axes became an input in operator set 13 for sums, 18 for the others.
const fn reduction(
    op: &'static str,
    arity: &'static [Arity],
    attributes: &'static [Attribute],
) -> Entry {
    plain(op, 1, arity, attributes)
}

const AXES_INPUT_13: &[Arity] = &[inputs(13, 1, 2), inputs(1, 1, 1)];
const AXES_INPUT_18: &[Arity] = &[inputs(18, 1, 2), inputs(1, 1, 1)];
const REDUCTION_13: &[Attribute] = &[
    until("axes", 12),
    attr("keepdims"),
    from("noop_with_empty_axes", 13),
];
const REDUCTION_18: &[Attribute] = &[
    until("axes", 17),
    attr("keepdims"),
    from("noop_with_empty_axes", 18),
];

const ENTRIES: &[Entry] = &[
    limited(
        "Conv",
        1,
        &[inputs(1, 2, 3)],
        &[
            attr("auto_pad"),
            attr("dilations"),
            attr("group"),
            attr("kernel_shape"),
            attr("pads"),
            attr("strides"),
        ],
        "two-dimensional only; no negative pads",
    ),
    plain(
        "Gemm",
        1,
        &[inputs(11, 2, 3), inputs(1, 3, 3)],
        &[attr("alpha"), attr("beta"), attr("transA"), attr("transB")],
    ),
    plain("MatMul", 1, TWO_INPUTS, NO_ATTRIBUTES),
    Entry {
        op: "BatchNormalization",
        since: 1,
        last: NEVER_REMOVED,
        arity: &[inputs(1, 5, 5)],
        max_outputs: 5,
        attributes: &[
            attr("epsilon"),
            attr("momentum"),
            until("spatial", 8),
            from("training_mode", 14),
        ],
        limits: "evaluation form only (no training mode, `spatial` = 1)",
    },
    plain("Relu", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("LeakyRelu", 1, ONE_INPUT, &[attr("alpha")]),
    plain("PRelu", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain(
        "Clip",
        1,
        &[inputs(11, 1, 3), inputs(1, 1, 1)],
        &[until("max", 10), until("min", 10)],
    ),
    plain("Sigmoid", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("HardSigmoid", 1, ONE_INPUT, &[attr("alpha"), attr("beta")]),
    plain("HardSwish", 14, ONE_INPUT, NO_ATTRIBUTES),
    plain("Tanh", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Add", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain("Sub", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain("Mul", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain("Div", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain("Sum", 1, MANY_INPUTS, NO_ATTRIBUTES),
    plain("Mean", 1, MANY_INPUTS, NO_ATTRIBUTES),
    plain("Max", 1, MANY_INPUTS, NO_ATTRIBUTES),
    plain("Min", 1, MANY_INPUTS, NO_ATTRIBUTES),
    plain("Concat", 1, MANY_INPUTS, &[attr("axis")]),
    Entry {
        op: "MaxPool",
        since: 1,
        last: NEVER_REMOVED,
        arity: ONE_INPUT,
        max_outputs: 2,
        attributes: &[
            attr("auto_pad"),
            from("ceil_mode", 10),
            from("dilations", 10),
            attr("kernel_shape"),
            attr("pads"),
            from("storage_order", 8),
            attr("strides"),
        ],
        limits: "two-dimensional only; the output `Indices` may not be read",
    },
    limited(
        "AveragePool",
        1,
        ONE_INPUT,
        &[
            attr("auto_pad"),
            from("ceil_mode", 10),
            attr("count_include_pad"),
            from("dilations", 19),
            attr("kernel_shape"),
            attr("pads"),
            attr("strides"),
        ],
        "two-dimensional only",
    ),
    plain("GlobalAveragePool", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("GlobalMaxPool", 1, ONE_INPUT, NO_ATTRIBUTES),
    reduction("ReduceMean", AXES_INPUT_18, REDUCTION_18),
    reduction("ReduceSum", AXES_INPUT_13, REDUCTION_13),
    reduction("ReduceMax", AXES_INPUT_18, REDUCTION_18),
    reduction("ReduceMin", AXES_INPUT_18, REDUCTION_18),
    reduction("ReduceL1", AXES_INPUT_18, REDUCTION_18),
    reduction("ReduceL2", AXES_INPUT_18, REDUCTION_18),
    reduction("ReduceSumSquare", AXES_INPUT_18, REDUCTION_18),
    plain(
        "ArgMax",
        1,
        ONE_INPUT,
        &[
            attr("axis"),
            attr("keepdims"),
            from("select_last_index", 12),
        ],
    ),
    limited(
        "ConvTranspose",
        1,
        &[inputs(1, 2, 3)],
        CONV_TRANSPOSE_ATTRIBUTES,
        "two-dimensional only; no negative pads",
    ),
    plain(
        "InstanceNormalization",
        1,
        &[inputs(1, 3, 3)],
        &[attr("epsilon")],
    ),
    Entry {
        op: "LayerNormalization",
        since: 17,
        last: NEVER_REMOVED,
        arity: &[inputs(1, 2, 3)],
        max_outputs: 3,
        attributes: &[attr("axis"), attr("epsilon"), attr("stash_type")],
        limits: "`stash_type` 1",
    },
    limited(
        "GroupNormalization",
        18,
        &[inputs(1, 3, 3)],
        &[attr("epsilon"), attr("num_groups"), from("stash_type", 21)],
        "`stash_type` 1",
    ),
    limited(
        "Resize",
        10,
        &[inputs(11, 1, 4), inputs(10, 2, 2)],
        RESIZE_ATTRIBUTES,
        "constant scales and sizes; not `tf_crop_and_resize`",
    ),
    Entry {
        op: "Upsample",
        since: 7,
        last: 9,
        arity: &[inputs(9, 2, 2), inputs(7, 1, 1)],
        max_outputs: 1,
        attributes: &[attr("mode"), until("scales", 8)],
        limits: "operator sets 7 to 9; constant scales",
    },
    plain(
        "DepthToSpace",
        1,
        ONE_INPUT,
        &[attr("blocksize"), from("mode", 11)],
    ),
    plain(
        "SpaceToDepth",
        1,
        ONE_INPUT,
        &[attr("blocksize"), from("mode", 28)],
    ),
    Entry {
        op: "Split",
        since: 2,
        last: NEVER_REMOVED,
        arity: &[inputs(13, 1, 2), inputs(2, 1, 1)],
        max_outputs: ANY,
        attributes: &[attr("axis"), from("num_outputs", 18), until("split", 12)],
        limits: "constant lengths",
    },
    limited("Expand", 8, TWO_INPUTS, NO_ATTRIBUTES, "a constant shape"),
    limited(
        "Where",
        9,
        &[inputs(9, 3, 3)],
        NO_ATTRIBUTES,
        "a constant condition",
    ),
    plain("Pow", 1, TWO_INPUTS, NO_ATTRIBUTES),
    plain("Exp", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Log", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Sqrt", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Erf", 9, ONE_INPUT, NO_ATTRIBUTES),
    plain("Abs", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Neg", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Reciprocal", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Floor", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Ceil", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Round", 11, ONE_INPUT, NO_ATTRIBUTES),
    plain("Softplus", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Softsign", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain("Mish", 18, ONE_INPUT, NO_ATTRIBUTES),
    plain("Elu", 1, ONE_INPUT, &[attr("alpha")]),
    plain("Selu", 1, ONE_INPUT, &[attr("alpha"), attr("gamma")]),
    plain("Celu", 12, ONE_INPUT, &[attr("alpha")]),
    plain("ThresholdedRelu", 10, ONE_INPUT, &[attr("alpha")]),
    plain("Gelu", 20, ONE_INPUT, &[attr("approximate")]),
    plain("Swish", 24, ONE_INPUT, &[attr("alpha")]),
    plain("Flatten", 1, ONE_INPUT, &[attr("axis")]),
    plain("Reshape", 5, TWO_INPUTS, &[from("allowzero", 14)]),
    plain("Transpose", 1, ONE_INPUT, &[attr("perm")]),
    plain(
        "Squeeze",
        1,
        &[inputs(13, 1, 2), inputs(1, 1, 1)],
        &[until("axes", 12)],
    ),
    plain(
        "Unsqueeze",
        1,
        &[inputs(13, 2, 2), inputs(1, 1, 1)],
        &[until("axes", 12)],
    ),
    plain(
        "Slice",
        1,
        &[inputs(10, 3, 5), inputs(1, 1, 1)],
        &[until("axes", 9), until("ends", 9), until("starts", 9)],
    ),
    limited(
        "Pad",
        2,
        &[inputs(18, 2, 4), inputs(11, 2, 3), inputs(1, 1, 1)],
        &[attr("mode"), until("pads", 10), until("value", 10)],
        "modes `constant`, `reflect` and `edge`; not `wrap`",
    ),
    plain("Softmax", 1, ONE_INPUT, &[attr("axis")]),
    plain("LogSoftmax", 1, ONE_INPUT, &[attr("axis")]),
    Entry {
        op: "Dropout",
        since: 7,
        last: NEVER_REMOVED,
        arity: &[inputs(12, 1, 3), inputs(1, 1, 1)],
        max_outputs: 2,
        attributes: &[until("ratio", 11), from("seed", 12)],
        limits: "evaluation form only (no training mode); the output `mask` may not be read",
    },
    plain("Identity", 1, ONE_INPUT, NO_ATTRIBUTES),
    plain(
        "LRN",
        1,
        ONE_INPUT,
        &[attr("alpha"), attr("beta"), attr("bias"), attr("size")],
    ),
    limited(
        "Cast",
        6,
        ONE_INPUT,
        &[from("round_mode", 24), from("saturate", 19), attr("to")],
        "to float, double, int32, int64 and bool; to 16-bit floats as to float",
    ),
    plain("Shape", 1, ONE_INPUT, &[from("end", 15), from("start", 15)]),
    plain("Gather", 1, TWO_INPUTS, &[attr("axis")]),
    limited(
        "Constant",
        1,
        &[inputs(1, 0, 0)],
        &[
            attr("value"),
            from("value_float", 12),
            from("value_floats", 12),
            from("value_int", 12),
            from("value_ints", 12),
        ],
        "dense tensors of float, double, int32, int64 and bool",
    ),
    plain("ConstantOfShape", 9, ONE_INPUT, &[attr("value")]),
];
