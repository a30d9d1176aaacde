"""VGG-16 with ImageNet weights, batch norm inserted, all weights fine-tuned on CIFAR-10 in PyTorch.

    pip install torch onnx
    python docs/experiments/finetune_vgg16.py vgg16-imagenet-features.onnx CIFAR10 splits.json EPOCHS vgg16-cifar10.onnx

CIFAR10 holds the binary batches; `splits.json` is that of a `secateur compress` run on the same folder,
so that its validation images stay unseen. SGD with momentum, one cycle, batches of 128, flips and shifts
by up to two pixels; convolutions in bfloat16 where the processor multiplies it (AMX, AVX-512), in f32 elsewhere. Prints the accuracy on the validation
split after each pass and on the test images at the end.
"""

import json
import os
import sys

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

BATCH, RATE = 128, 0.02
HAS_BFLOAT16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def images(raw):
    pixels = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32)[:, ::-1].copy())
    return pixels, torch.from_numpy(raw[:, 0].astype(np.int64))


class Product(torch.autograd.Function):
    """3x3 convolution in bfloat16. The gradient of its weight is nine matrix products, one a tap: the kernel
    that PyTorch 2.15 has for it on processors with AMX takes twenty times as long as the forward pass."""

    @staticmethod
    def forward(context, x, weight, bias):
        weight = weight.bfloat16()
        context.save_for_backward(x, weight)
        return functional.conv2d(x, weight, bias.bfloat16(), padding=1)

    @staticmethod
    def backward(context, gradient):
        x, weight = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        one, zero, wanted = [1, 1], [0, 0], [context.needs_input_grad[0], False, False]
        of_x = None
        if wanted[0]:
            backward = torch.ops.aten.convolution_backward
            of_x = backward(gradient, x, weight, None, one, one, one, False, zero, 1, wanted)[0]
        height, width = x.shape[2:]
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, weight.shape[0]).t()
        of_weight = torch.empty(3, 3, *weight.shape[:2], dtype=torch.bfloat16)
        for i in range(3):
            for j in range(3):
                tap = padded[:, i : i + height, j : j + width].reshape(-1, weight.shape[1])
                torch.mm(rows, tap, out=of_weight[i, j])
        return of_x, of_weight.permute(2, 3, 0, 1).float(), gradient.sum((0, 2, 3), dtype=torch.float32)


class Conv(nn.Conv2d):
    def forward(self, x):
        return Product.apply(x.bfloat16(), self.weight, self.bias) if HAS_BFLOAT16 else super().forward(x)


class Widen(nn.Module):
    def forward(self, x):
        return x.float()


def network(path):
    graph = onnx.load(path).graph
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type == "Conv":
            weight, bias = weights[node.input[1]], weights[node.input[2]]
            convolution = Conv(weight.shape[1], weight.shape[0], 3, padding=1)
            convolution.weight.data, convolution.bias.data = weight, bias
            layers += [convolution, nn.BatchNorm2d(weight.shape[0]), nn.ReLU(inplace=True)]
        elif node.op_type == "MaxPool":
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, Widen(), nn.Flatten(), nn.Linear(512, 10))


def augmented(x, mean):
    flip = torch.rand(len(x)) < 0.5
    x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
    padded = functional.pad(x.float() - mean, (2, 2, 2, 2))
    down, right = torch.randint(0, 5, (2, len(x))).tolist()
    return torch.stack([image[:, d : d + 32, r : r + 32] for image, d, r in zip(padded, down, right)])


def export(net, path):
    nodes, initializers, value, count = [], [], "input", 0

    def store(name, array):
        array = np.ascontiguousarray(array.detach().float().contiguous().numpy())
        initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(kind, name, *inputs, **attributes):
        nonlocal value
        nodes.append(helper.make_node(kind, [value, *inputs], [f"{name}.out"], name=name, **attributes))
        value = f"{name}.out"

    for layer in net:
        if isinstance(layer, nn.Conv2d):
            name = f"conv{count}"
            stored = [store(f"{name}.weight", layer.weight), store(f"{name}.bias", layer.bias)]
            node("Conv", name, *stored, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        elif isinstance(layer, nn.BatchNorm2d):
            name = f"bn{count}"
            arrays = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            stored = [store(f"{name}.{what}", a) for what, a in zip(("scale", "shift", "mean", "var"), arrays)]
            node("BatchNormalization", name, *stored, epsilon=layer.eps)
        elif isinstance(layer, nn.ReLU):
            node("Relu", f"relu{count}")
            count += 1
        elif isinstance(layer, nn.MaxPool2d):
            node("MaxPool", f"pool{count}", kernel_shape=[2, 2], strides=[2, 2])
        elif isinstance(layer, nn.Flatten):
            node("Flatten", "flatten")
        elif isinstance(layer, nn.Linear):
            node("Gemm", "fc", store("fc.weight", layer.weight), store("fc.bias", layer.bias), transB=1)
    graph = helper.make_graph(
        nodes,
        "vgg16-cifar10",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    source, folder, splits, epochs, target = sys.argv[1:]
    epochs = int(epochs)
    torch.manual_seed(0)
    read = lambda name: np.fromfile(os.path.join(folder, name), np.uint8).reshape(-1, 3073)
    raw = np.concatenate([read(f"data_batch_{i}.bin") for i in range(1, 6)])
    with open(splits) as file:
        chosen = {name: np.array([int(i) for i in ids]) for name, ids in json.load(file).items() if name != "test"}
    (x, y), (val_x, val_y) = images(raw[chosen["train"]]), images(raw[chosen["val"]])
    test_x, test_y = images(read("test_batch.bin"))
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    net = network(source).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps, pct_start=0.15)

    prepared = lambda x: (x.float() - mean).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def top1(x, y):
        net.eval()
        hits = 0
        for i in range(0, len(x), 500):
            hits += (net(prepared(x[i : i + 500])).argmax(1) == y[i : i + 500]).sum().item()
        return 100 * hits / len(x)

    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x))
        for step in range(steps):
            at = order[step * BATCH : (step + 1) * BATCH]
            batch = augmented(x[at], mean).to(memory_format=torch.channels_last)
            loss = functional.cross_entropy(net(batch), y[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"pass {epoch + 1}: validation {top1(val_x, val_y):.2f} %", flush=True)
    print(f"test {top1(test_x, test_y):.2f} %")
    export(net, target)


if __name__ == "__main__":
    main()
