"""Writes the demo network with random weights: `python make_untrained.py untrained.onnx`.

A small residual network for 3 x 16 x 16 images and 10 classes, He-initialised with a fixed seed.
docs/demo.md has the command that trains it. Needs `numpy` and `onnx`.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(2108)
nodes, weights = [], []


def constant(name, array):
    weights.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name


def conv(name, x, n_in, n_out):
    std = np.sqrt(2.0 / (9 * n_in))
    weight = constant(f"{name}.weight", rng.normal(0.0, std, (n_out, n_in, 3, 3)))
    nodes.append(helper.make_node("Conv", [x, weight], [f"{name}.out"], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    affine = [
        constant(f"{name}.bn.{slot}", np.full(n_out, value))
        for slot, value in [("scale", 1), ("bias", 0), ("mean", 0), ("variance", 1)]
    ]
    nodes.append(helper.make_node("BatchNormalization", [f"{name}.out", *affine], [f"{name}.bn.out"], f"{name}.bn"))
    return f"{name}.bn.out"


def relu(name, x):
    nodes.append(helper.make_node("Relu", [x], [f"{name}.out"], name))
    return f"{name}.out"


def block(name, x, channels):
    y = relu(f"{name}.relu1", conv(f"{name}.conv1", x, channels, channels))
    y = conv(f"{name}.conv2", y, channels, channels)
    nodes.append(helper.make_node("Add", [x, y], [f"{name}.sum"], f"{name}.add"))
    return relu(f"{name}.relu2", f"{name}.sum")


def pool(name, x):
    nodes.append(helper.make_node("MaxPool", [x], [f"{name}.out"], name, kernel_shape=[2, 2], strides=[2, 2]))
    return f"{name}.out"


x = relu("stem.relu", conv("stem", "images", 3, 24))
x = pool("pool1", block("block1", x, 24))
x = relu("widen1.relu", conv("widen1", x, 24, 48))
x = pool("pool2", block("block2", x, 48))
x = relu("widen2.relu", conv("widen2", x, 48, 64))
nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool3"))
nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], "flatten", axis=1))
head = [
    constant("head.weight", rng.normal(0.0, 0.1, (10, 64))),
    constant("head.bias", np.zeros(10)),
]
nodes.append(helper.make_node("Gemm", ["features", *head], ["scores"], "head", transB=1))

graph = helper.make_graph(
    nodes,
    "demo",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
    weights,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
