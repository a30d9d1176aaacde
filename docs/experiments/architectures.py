"""Exports architectures of torchvision, and asks whether secateur reads and decomposes them unchanged.

`python architectures.py SECATEUR [NAME ...]`. Each network has random weights and random batch-norm
statistics (seed 0) and is exported twice, by `torch.onnx.export` with `dynamo=True` and `dynamo=False`.
The file goes through `secateur inspect` and `secateur decompose` at full rank; the original and the
factored file run in ONNX Runtime on one random image. Prints one row a file: the largest difference
over the largest output, or why it was refused. Needs `torch`, `torchvision`, `onnx`, `onnxscript`,
`onnxruntime` and `numpy`.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision

# A small image keeps the comparison short; some networks end in a pooling that only fits larger ones.
SIDE = {"alexnet": 224, "vgg11_bn": 224, "inception_v3": 128}
NAMES = [
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "googlenet", "inception_v3",
    "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_s",
    "regnet_y_400mf", "convnext_tiny", "mnasnet1_0",
]
BATCH = 1


def network(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def export(model, x, path, dynamo):
    """Exporters print what they think; nothing of it is of use here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["input"], "output_names": ["scores"]}
        torch.onnx.export(model, (x,), str(path), dynamo=dynamo, external_data=False, **names)


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def examine(secateur, path, folder, x):
    """Parameters, and either the relative error or the reason of a refusal."""
    inspected = subprocess.run([secateur, "inspect", str(path), "--format", "json"], capture_output=True, text=True)
    if inspected.returncode:
        return "", "refused: " + reason(inspected.stderr)
    params = json.loads(inspected.stdout)["params"]
    factored = folder / "factored.onnx"
    decomposed = subprocess.run([secateur, "decompose", str(path), "-o", str(factored), "--quiet"], capture_output=True, text=True)
    if decomposed.returncode:
        return f"{params:,}", "refused: " + reason(decomposed.stderr)
    before, after = run(path, x), run(factored, x)
    return f"{params:,}", f"{np.abs(before - after).max() / np.abs(before).max():.1e}"


def reason(text):
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    return (lines or text.splitlines() or ["no message"])[0].removeprefix("error: ").split("`: ", 1)[-1][:160]


def main():
    secateur, *chosen = sys.argv[1:]
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, ONNX Runtime {onnxruntime.__version__}\n")
    print("| network | side | exporter | opset | nodes | parameters | largest difference / largest output | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in chosen or NAMES:
        model, side = network(name), SIDE.get(name, 64)
        x = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(1))
        for exporter, dynamo in (("dynamo", True), ("older", False)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{name}.onnx"
                try:
                    export(model, x, path, dynamo)
                except Exception as problem:  # noqa: BLE001 - the exporter's own failure is a row too
                    print(f"| {name} | {side} | {exporter} | | | | not exported: {str(problem).splitlines()[0][:100]} | |", flush=True)
                    continue
                file = onnx.load(path)
                start = time.perf_counter()
                params, found = examine(secateur, path, Path(folder), x.numpy())
                seconds = time.perf_counter() - start
                print(f"| {name} | {side} | {exporter} | {file.opset_import[0].version} | {len(file.graph.node)} | {params} | {found} "
                      f"| {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
