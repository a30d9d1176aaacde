"""Decomposes networks at full rank and compares them with the originals in ONNX Runtime.

`python full_rank.py SECATEUR CIFAR10_TEST_BATCH MODEL:PREPROCESS:SIZE ...`, PREPROCESS one of `imagenet`,
`caffe`, `pm1`. Prints one row a network: the largest difference over the largest output on 500 images,
top-1 agreement, and what `onnx.checker` says. Needs `numpy`, `pillow`, `onnx` and `onnxruntime`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image

N_IMAGES, BATCH = 500, 50
secateur, test_batch, *networks = sys.argv[1:]
raw = np.fromfile(test_batch, np.uint8).reshape(-1, 3073)[:N_IMAGES, 1:]
images = [Image.fromarray(image.reshape(3, 32, 32).transpose(1, 2, 0)) for image in raw]


def column(*values):
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


PREPROCESS = {
    "imagenet": lambda x: (x / 255 - column(0.485, 0.456, 0.406)) / column(0.229, 0.224, 0.225),
    "caffe": lambda x: x[:, ::-1] - column(103.939, 116.779, 123.68),
    "pm1": lambda x: x / 127.5 - 1,
}

print("| network | size | factored layers | largest difference / largest output | top-1 agreement | checker |")
print("| --- | --- | --- | --- | --- | --- |")
for network in networks:
    path, preprocess, size = network.split(":")
    side = int(size)
    x = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images])
    x = PREPROCESS[preprocess](x.transpose(0, 3, 1, 2).astype(np.float32)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        factored = str(Path(folder) / "factored.onnx")
        subprocess.run([secateur, "decompose", path, "-o", factored, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        model = onnx.load(factored)
        onnx.checker.check_model(model, full_check=True)
        n_factored = sum(node.name.endswith(".projection") for node in model.graph.node)
        sessions = [onnxruntime.InferenceSession(file) for file in (path, factored)]
    name = sessions[0].get_inputs()[0].name
    difference = largest = agree = 0
    for start in range(0, N_IMAGES, BATCH):
        batch = np.ascontiguousarray(x[start : start + BATCH])
        before, after = [session.run(None, {name: batch})[0].reshape(len(batch), -1) for session in sessions]
        difference = max(difference, np.abs(before - after).max())
        largest = max(largest, np.abs(before).max())
        agree += int((before.argmax(1) == after.argmax(1)).sum())
    print(f"| {Path(path).stem} | {side} | {n_factored} | {difference / largest:.1e} | {agree} of {N_IMAGES} | ok |", flush=True)
