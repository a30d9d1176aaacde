"""Torch-Pruning on the same trained network, data and size, beside files that secateur wrote.

    pip install torch torch-pruning onnx onnxruntime
    python benches/peers/pruning.py NETWORK.onnx CIFAR10 imagenet|caffe params|macs SHARE[,SHARE...]
        [--local] [--images N] [--epochs E] [--steps S] [--seed SEED] [--criteria LIST]
        [--threads T] [--no-latency] [--ours NAME=FILE.onnx ...]

NETWORK is a residual network of the CIFAR kind or a plain sequence, with batch norm. CIFAR10 holds
the binary batches. Each of Torch-Pruning's criteria (L1, Taylor, batch-norm scale; over all layers
together or, with `--local`, the same share of each; in S steps) removes channels until SHARE of the
parameters or multiply-accumulates is left. In residual networks those are the channels inside
blocks, as the shortcut pads with zeros. Top-1 accuracy on all 10,000 test images: right after the
cut, with batch-norm statistics re-estimated on N training images, and (unless E is 0) after E passes
of training all weights on those N images (SGD, one-cycle, flips and shifts). Seconds are those of
cut and training. The table ends with each file in ONNX Runtime, all timed in turns in one process:
medians of milliseconds at batch sizes 1 and 64 (unless there is `--no-latency`).
"""

import argparse
import glob
import os
import statistics
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import torch
import torch_pruning
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

CRITERIA = {
    "L1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
    "Taylor": torch_pruning.importance.GroupTaylorImportance,
    "batch-norm scale": torch_pruning.importance.BNScaleImportance,
}


class Block(nn.Module):
    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.pad = stride, (channels - channels_in) // 2

    def forward(self, x):
        inner = functional.relu(self.bn1(self.conv1(x)))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(self.bn2(self.conv2(inner)) + x)


class Residual(nn.Module):
    def __init__(self, weights):
        super().__init__()
        shapes = {name: value.shape for name, value in weights.items()}
        width = shapes["conv1.weight"][0]
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in (1, 2, 3):
            blocks, index = [], 0
            while f"layer{stage}.{index}.conv1.weight" in shapes:
                channels, channels_in = shapes[f"layer{stage}.{index}.conv1.weight"][:2]
                blocks.append(Block(channels_in, channels, 2 if channels != channels_in else 1))
                index += 1
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(*reversed(shapes["linear.weight"]))

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))

    def kept_whole(self):
        outer = [block.conv2 for stage in (self.layer1, self.layer2, self.layer3) for block in stage]
        return [self.conv1, self.linear, *outer]


class Plain(nn.Sequential):
    def kept_whole(self):
        return [[layer for layer in self if isinstance(layer, nn.Linear)][-1]]


def network(path):
    graph = onnx.load(path).graph
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    if "layer1.0.conv1.weight" in weights:
        net = Residual(weights)
        missing, _ = net.load_state_dict(weights, strict=False)
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        return net.eval()
    layers = []
    for node in graph.node:
        given = [weights.get(name) for name in node.input[1:]]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            assert attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
            layer = nn.Conv2d(
                *reversed(given[0].shape[:2]),
                given[0].shape[2:],
                stride=attributes.get("strides", 1),
                padding=attributes.get("pads", [0, 0])[:2],
                bias=len(given) > 1,
            )
            layer.weight.data = given[0]
            if len(given) > 1:
                layer.bias.data = given[1]
        elif node.op_type == "BatchNormalization":
            layer = nn.BatchNorm2d(len(given[0]), eps=attributes.get("epsilon", 1e-5))
            layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var = given
        elif node.op_type == "MaxPool":
            layer = nn.MaxPool2d(attributes["kernel_shape"], attributes["strides"])
        elif node.op_type == "Gemm":
            weight = given[0] if attributes.get("transB") else given[0].t()
            layer = nn.Linear(*reversed(weight.shape))
            layer.weight.data, layer.bias.data = weight.contiguous(), given[1]
        else:
            layer = {"Relu": nn.ReLU, "Flatten": nn.Flatten, "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1)}[
                node.op_type
            ]()
        layers.append(layer)
    return Plain(*layers).eval()


def images(pattern):
    raw = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in sorted(glob.glob(pattern))])
    return torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(raw[:, 0].astype(np.int64))


def preprocess(name):
    if name == "caffe":
        mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
        return lambda x: x.flip(1).float() - mean
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return lambda x: (x.float() / 255 - mean) / deviation


@torch.no_grad()
def top1(run, x, y, prepare):
    hits = sum((run(prepare(x[i : i + 500])).argmax(1) == y[i : i + 500]).sum().item() for i in range(0, len(x), 500))
    return 100 * hits / len(x)


@torch.no_grad()
def reestimate(net, x, prepare):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    for i in range(0, len(x), 128):
        net(prepare(x[i : i + 128]))
    net.eval()


def augmented(x, generator):
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
    padded = functional.pad(x, (4, 4, 4, 4))
    down, right = torch.randint(0, 9, (2, len(x)), generator=generator).tolist()
    return torch.stack([image[:, d : d + 32, r : r + 32] for image, d, r in zip(padded, down, right)])


def train(net, x, y, prepare, epochs, seed):
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    batch, rate = 128, 0.02
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for i in range(len(x) // batch):
            chosen = order[i * batch : (i + 1) * batch]
            loss = functional.cross_entropy(net(augmented(prepare(x[chosen]), generator)), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def prune(net, criterion, unit, share, steps, x, y, prepare, is_global):
    example = torch.zeros(1, 3, 32, 32)
    sizes = lambda: dict(zip(("macs", "params"), torch_pruning.utils.count_ops_and_params(net, example)))
    want = share * sizes()[unit]
    pruner = torch_pruning.pruner.BasePruner(
        net,
        example,
        CRITERIA[criterion](),
        global_pruning=is_global,
        pruning_ratio=0.98,
        max_pruning_ratio=0.95,
        iterative_steps=steps,
        ignored_layers=net.kept_whole(),
    )
    for step in range(steps):
        if criterion == "Taylor":
            net.zero_grad()
            chosen = torch.arange(512) + 512 * step
            chosen %= len(x)
            functional.cross_entropy(net(prepare(x[chosen])), y[chosen]).backward()
        pruner.step()
        if sizes()[unit] <= want:
            break
    return sizes()


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def latencies(files, threads, rounds=9):
    """Medians of milliseconds of each file, by batch size, all files in turns."""
    found = {}
    for batch, repeats in ((1, 30), (64, 3)):
        feed = np.random.default_rng(0).normal(size=(batch, 3, 32, 32)).astype(np.float32)
        sessions = {name: session(path, threads) for name, path in files.items()}
        taken = {name: [] for name in files}
        for _ in range(rounds):
            for name, loaded in sessions.items():
                inputs = {loaded.get_inputs()[0].name: feed}
                loaded.run(None, inputs)
                begin = time.perf_counter()
                for _ in range(repeats):
                    loaded.run(None, inputs)
                taken[name].append(1000 * (time.perf_counter() - begin) / repeats)
        for name, times in taken.items():
            found[name, batch] = statistics.median(times)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("preprocess", choices=("imagenet", "caffe"))
    parser.add_argument("unit", choices=("params", "macs"))
    parser.add_argument("shares", type=lambda text: [float(share) for share in text.split(",")])
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--criteria", default=",".join(CRITERIA))
    parser.add_argument("--ours", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    x, y = images(os.path.join(args.data, "data_batch_*.bin"))
    chosen = torch.randperm(len(x))[: args.images]
    x, y = x[chosen], y[chosen]
    test_x, test_y = images(os.path.join(args.data, "test_batch.bin"))
    prepare = preprocess(args.preprocess)
    judge = lambda net: top1(net, test_x, test_y, prepare)
    folder = tempfile.mkdtemp()
    files, rows = {"uncut": args.network}, {}
    net = network(args.network)
    macs, params = torch_pruning.utils.count_ops_and_params(net, torch.zeros(1, 3, 32, 32))
    rows["uncut"] = [params, macs, judge(net), None, None, None]
    cuts = [(criterion, share) for criterion in args.criteria.split(",") if criterion for share in args.shares]
    for criterion, share in cuts:
        net = network(args.network)
        begin = time.perf_counter()
        size = prune(net, criterion, args.unit, share, args.steps, x, y, prepare, not args.local)
        seconds = time.perf_counter() - begin
        row = [size["params"], size["macs"], judge(net)]
        reestimate(net, x, prepare)
        row.append(judge(net))
        begin = time.perf_counter()
        if args.epochs:
            train(net, x, y, prepare, args.epochs, args.seed)
        row += [judge(net) if args.epochs else None, seconds + time.perf_counter() - begin]
        name = criterion if len(args.shares) == 1 else f"{criterion}, {share}"
        rows[name] = row
        if not args.no_latency:
            files[name] = os.path.join(folder, f"{len(files)}.onnx")
            axes = {"x": {0: "n"}}
            torch.onnx.export(net, (torch.zeros(2, 3, 32, 32),), files[name], dynamo=False, input_names=["x"], dynamic_axes=axes)
        print(name, row, flush=True)
    for given in args.ours:
        name, path = given.split("=", 1)
        loaded = session(path, args.threads)
        run = lambda batch: torch.from_numpy(loaded.run(None, {loaded.get_inputs()[0].name: batch.numpy()})[0])
        rows[name] = [None, None, judge(run), None, None, None]
        files[name] = path
    found = {} if args.no_latency else latencies(files, args.threads)
    print("| | parameters | MACs | right after | batch norm re-estimated | trained | seconds | ms, batch 1 | ms, batch 64 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (params, macs, *accuracies, seconds) in rows.items():
        cells = ["" if params is None else f"{params:,}", "" if macs is None else f"{macs / 1e6:.1f} M"]
        cells += ["" if accuracy is None else f"{accuracy:.2f}" for accuracy in accuracies]
        cells += ["" if seconds is None else f"{seconds:.0f}"]
        cells += [f"{found[name, batch]:.2f}" if found else "" for batch in (1, 64)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
