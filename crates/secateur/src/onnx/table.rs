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
        self.since <= opset
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
        arity,
        max_outputs: 1,
        attributes,
        limits,
    }
}

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
    plain("Concat", 1, MANY_INPUTS, &[attr("axis")]),
    Entry {
        op: "MaxPool",
        since: 1,
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
    plain(
        "ReduceMean",
        1,
        &[inputs(18, 1, 2), inputs(1, 1, 1)],
        &[
            until("axes", 17),
            attr("keepdims"),
            from("noop_with_empty_axes", 18),
        ],
    ),
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
        "to float, double, int32, int64 and bool",
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
