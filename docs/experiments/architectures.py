"""Exports architectures, and asks whether secateur reads, decomposes, cuts and writes them rightly.

`python architectures.py SECATEUR [NAME ...]`, a name as `torchvision/resnet18` (all of `exporters.py`
where none is given) or the path of an ONNX file. Each network has random weights (seed 0). Its file goes

- through `secateur decompose` at full rank: original and factored file run in ONNX Runtime on one
  random image, and the largest difference of an output over its difference between two images is the
  column `full rank` (an output that hardly depends on the image would hide any fault);
- through `secateur compress` on 24 random images without labels, to 80 % of the parameters, of which
  directions (`dynamo` and others) or channels (`older`) go: the file must load and run in ONNX
  Runtime, hold as many parameters as was foretold when it was cut, and give there what the network in
  memory gives, within the column `file and memory`: the largest difference on the test images over the
  largest output there. The command itself refuses what differs by more than a thousandth of what the
  outputs differ by between those images.

Prints one row a file; a row that is wrong says so, and the command then ends with 1. A row that is
refused carries the reason. Needs what `exporters.py` needs for the names given, `onnx`, `onnxruntime`,
`numpy` and `Pillow`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from exporters import FAMILIES, export, exporter, side
from PIL import Image

TARGET = 0.8
TOLERANCE = 1e-3
LEAST = 1e-3
CUT = {"older": "channels"}


def images(folder):
    generator = np.random.default_rng(0)
    for number in range(24):
        coarse = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 96), Image.BICUBIC).save(folder / f"{number}.png")


def environment():
    """Where the command finds the ONNX Runtime of this Python."""
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    return os.environ | {"ORT_DYLIB_PATH": str(library)}


def command(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment())


def reason(ran):
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    return "refused: " + (lines or ran.stderr.splitlines() or ["no message"])[0].removeprefix("error: ").split("`: ", 1)[-1][:200]


def shape_of(path):
    """The input of a file; lengths that it leaves open are 1 image of 64 pixels."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    given = next(value for value in graph.input if value.name not in stored)
    dims = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    return [dim or default for dim, default in zip(dims, (1, 3, 64, 64))]


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def spread(path, outputs, shape):
    """By how much each output differs between two images: what an error is measured by."""
    other = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return [max(float(np.abs(a - b).max()), 1e-30) for a, b in zip(outputs, run(path, other), strict=True)]


def full_rank(secateur, path, folder, x, outputs):
    """The largest difference over the spread of its output, or why there is none."""
    factored = folder / "factored.onnx"
    ran = command(secateur, "decompose", path, "-o", factored, "--quiet")
    if ran.returncode:
        return reason(ran)
    compared = zip(outputs, run(factored, x), spread(path, outputs, x.shape), strict=True)
    worst = max(float(np.abs(before - after).max()) / by for before, after, by in compared)
    return f"{'' if worst < TOLERANCE else 'WRONG '}{worst:.1e}"


def cut(secateur, path, folder, x, removed):
    """Parameters before and after, difference between file and memory, error of the outputs."""
    small, work = folder / "small.onnx", folder / "run"
    few = [option for name in ("statistics", "refit") for option in (f"--{name}-images", 16)]
    size = ["--size", f"{x.shape[2]}x{x.shape[3]}"]
    ran = command(
        secateur, "compress", path, "-o", small, "--run", work, "--data", folder / "images", "--data-kind", "images",
        "--preprocess", "unit", *size, *few, "--batch-size", 8, "--remove", removed, "--target", f"params={TARGET:.0%}",
        "--runtime", "ort", "--format", "json", "--quiet",
    )
    if ran.returncode not in (0, 1):
        differs = "WRONG " if "largest difference" in ran.stderr else ""
        return "", "", differs + reason(ran), ""
    report = json.loads(ran.stdout)
    after = report["after"]["params"]
    wrong = []
    foretold = [r["size"]["params"] for r in report["rounds"] if r["accepted"]][-1]
    if foretold != after:
        wrong.append(f"WRONG foretold {foretold}")
    outputs = run(small, x)
    if not all(np.isfinite(output).all() for output in outputs):
        wrong.append("WRONG not finite")
    if ran.returncode == 1:
        wrong.append("target missed")
    near = report["verify"]["relative"]
    if near >= TOLERANCE:
        wrong.append("WRONG")
    near = " ".join([f"{near:.1e}", *wrong])
    return f"{report['before']['params']:,}", f"{after:,}", near, f"{100 * report['output_error']:.1f} %"


def row(secateur, name, writer, path, folder):
    file = onnx.load(path, load_external_data=False)
    x = np.random.default_rng(1).standard_normal(shape_of(path)).astype(np.float32)
    outputs = run(path, x)
    if max(np.abs(output).max() for output in outputs) < LEAST:
        raise ValueError(f"not judged, its outputs for random images are below {LEAST}, where rounding is all there is")
    start = time.perf_counter()
    exact = full_rank(secateur, path, folder, x, outputs)
    removed = CUT.get(writer, "basis")
    before, after, near, error = cut(secateur, path, folder, x, removed)
    seconds = time.perf_counter() - start
    opset = next(o.version for o in file.opset_import if o.domain == "")
    removed = {"basis": "directions"}.get(removed, removed)
    return (f"| {name} | {x.shape[2]}x{x.shape[3]} | {writer} | {opset} | {len(file.graph.node)} | {exact} | {removed} | {before} | {after} "
            f"| {near} | {error} | {seconds:.0f} |")


def main():
    secateur, *chosen = sys.argv[1:]
    print("| network | image | exporter | operator set | nodes | full rank | removed | parameters before | after | file and memory | error of the outputs | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    is_wrong = False
    for name in chosen or FAMILIES:
        is_file = name.endswith(".onnx")
        writer = "file" if is_file else exporter(name)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "images").mkdir()
            images(folder / "images")
            path = Path(name) if is_file else folder / "network.onnx"
            try:
                if not is_file:
                    export(name, writer, path)
                line = row(secateur, Path(name).stem if is_file else name, writer, path, folder)
            except Exception as problem:  # noqa: BLE001 - what fails is a row too
                text = (str(problem).splitlines() or [""])[0][:120]
                line = f"| {name} | {'' if is_file else side(name)} | {writer} | | | {type(problem).__name__}: {text} | | | | | | |"
            is_wrong |= "WRONG" in line
            print(line, flush=True)
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
