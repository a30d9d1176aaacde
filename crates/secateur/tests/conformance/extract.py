#!/usr/bin/env python3
"""Writes ONNX's own test cases of single nodes as `cases.json` and `cases.bin` into a folder.

    pip install onnx
    python extract.py FOLDER

The cases are those of the package `onnx` (`onnx.backend.test.case.node`). An engine runs graphs of
one f32 input: the first f32 input of a case stays the graph's input, the others become
initializers; a case without any gets an input that nothing reads. Tensors are byte ranges of
`cases.bin`, little-endian, in C order.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

KINDS = {"float32": "<f4", "float64": "<f8", "int32": "<i4", "int64": "<i8", "bool": "|b1"}


class Store:
    def __init__(self):
        self.bytes = bytearray()

    def put(self, blob):
        offset = len(self.bytes)
        self.bytes += blob
        return offset

    def tensor(self, name, value):
        """A tensor, or what it is where it is none that can be compared."""
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        if not isinstance(value, (np.ndarray, np.generic)):
            return {"name": name, "kind": "sequence, optional or map"}
        array = np.asarray(value)
        kind = array.dtype.name
        if kind not in KINDS:
            return {"name": name, "kind": kind}
        raw = np.ascontiguousarray(array, dtype=KINDS[kind]).tobytes()
        return {"name": name, "kind": kind, "shape": list(array.shape), "offset": self.put(raw)}


def with_one_input(model, inputs):
    """The model with one f32 input at most, the rest stored; and the value of that input."""
    kept = None
    for declared, value in zip(list(model.graph.input), inputs):
        is_tensor = declared.type.HasField("tensor_type")
        if not is_tensor or value is None:
            continue
        if kept is None and declared.type.tensor_type.elem_type == TensorProto.FLOAT:
            kept = (declared.name, value)
            continue
        proto = TensorProto()
        if isinstance(value, TensorProto):
            proto.CopyFrom(value)
            proto.name = declared.name
        else:
            proto = numpy_helper.from_array(np.asarray(value), declared.name)
        model.graph.initializer.append(proto)
    if kept is None:
        kept = ("nothing_reads_this", np.zeros([1], np.float32))
        model.graph.input.append(helper.make_tensor_value_info(kept[0], TensorProto.FLOAT, [1]))
    return kept


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    store, cases = Store(), []
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        if case.model is None or not case.data_sets:
            continue
        for number, (inputs, outputs) in enumerate(case.data_sets):
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
            operators = [f"{n.domain}.{n.op_type}".lstrip(".") for n in model.graph.node]
            name, value = with_one_input(model, inputs)
            blob = model.SerializeToString()
            cases.append({
                "name": case.name + (f"_{number}" if number else ""),
                "opset": opset,
                "operators": operators,
                "model": {"offset": store.put(blob), "length": len(blob)},
                "input": store.tensor(name, value),
                "outputs": [store.tensor(o.name, v) for o, v in zip(model.graph.output, outputs)],
            })
    (folder / "cases.bin").write_bytes(bytes(store.bytes))
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    text = f'{{"onnx": "{onnx.__version__}", "cases": [\n{lines}\n]}}\n'
    (folder / "cases.json").write_text(text)


if __name__ == "__main__":
    main()
