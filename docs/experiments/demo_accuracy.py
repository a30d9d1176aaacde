"""Accuracy of the demo's exported network in ONNX Runtime: `python demo_accuracy.py runs/demo`.

Reads the run's folder, takes the same test images from scikit-learn's copy of the digits, and compares
with the accuracy in `report.json`. Needs `numpy`, `pillow`, `onnxruntime` and `scikit-learn`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits

run = Path(sys.argv[1])
report = json.loads((run / "report.json").read_text())
test = [int(name) for name in json.loads((run / "splits.json").read_text())["test"]]
session = onnxruntime.InferenceSession(run / "model.onnx")
preprocess = json.loads(session.get_modelmeta().custom_metadata_map["secateur.preprocess"])
print("preprocessing:", preprocess)
digits = load_digits()
levels = np.clip(np.round(digits.data * (255 / 16)), 0, 255).astype(np.uint8).reshape(-1, 8, 8)
size = (preprocess["width"], preprocess["height"])
images = [Image.fromarray(levels[i]).resize(size, Image.Resampling.BILINEAR) for i in test]
x = np.stack([np.repeat(np.asarray(image, np.float32)[None], 3, axis=0) for image in images])
channel = lambda name: np.array(preprocess[name], np.float32).reshape(1, 3, 1, 1)
x = (x * np.float32(preprocess["scale"]) - channel("mean")) / channel("std")
scores = session.run(None, {session.get_inputs()[0].name: x})[0].reshape(len(test), -1)
correct = int((scores.argmax(1) == digits.target[test]).sum())
want = round(report["after"]["top1"] * report["n_test"])
print(f"ONNX Runtime {onnxruntime.__version__}: {correct} of {len(test)} correct; reported: {want} of {report['n_test']}")
sys.exit(0 if correct == want else 1)
