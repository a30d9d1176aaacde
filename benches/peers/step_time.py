"""Training steps and forward passes beside PyTorch, on the same networks, batches and threads.

    pip install torch torchvision onnx onnxscript
    cargo build --release --locked -p secateur --example step_time
    python benches/peers/step_time.py target/release/examples/step_time [THREADS [ROUNDS [NETWORK...]]]

Networks have random weights. Each round times PyTorch in both memory layouts and then `step_time`,
each the median of its repetitions; the table has the median over the rounds of each time, and of
the ratio of PyTorch's better layout to the native engine within a round. Above 1 the native engine
is faster. `frozen` trains everything but the weights of convolutions, `all` everything; batch norm
takes the batch's statistics in steps. Peak memory is that of the whole process, for all passes.
"""

import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = {
    "vgg16-32": ("vgg16", 32, 64),
    "resnet18-32": ("resnet18", 32, 64),
    "resnet50-224": ("resnet50", 224, 8),
    "mobilenet2-32": ("mobilenet_v2", 32, 64),
    "mobilenet2-224": ("mobilenet_v2", 224, 16),
}
PASSES = ("forward", "step, frozen", "step, all")
REPETITIONS = 3


def network(name):
    import torch
    import torchvision

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None, num_classes=10)
    if name == "vgg16":
        # The features and one dense layer: the original head is larger than everything else.
        net = torch.nn.Sequential(net.features, torch.nn.Flatten(), torch.nn.Linear(512, 10))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Equal vectors would be stored once and shared between layers.
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(values.data, 0.5, 1.5)
    return net


def export(name, size, path):
    import torch

    torch.onnx.export(
        network(name).eval(),
        torch.randn(2, 3, size, size),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamic_axes={"input": {0: "n"}},
        input_names=["input"],
        opset_version=17,
    )


def time_torch(name, size, batch, layout, threads):
    """Prints the median milliseconds of every pass; runs in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    layout = getattr(torch, layout)
    net = network(name).to(memory_format=layout)
    x = torch.randn(batch, 3, size, size).to(memory_format=layout)
    gradient = torch.randn(batch, 10)

    def forward():
        with torch.no_grad():
            net(x)

    def step():
        net.zero_grad(set_to_none=True)
        net(x).backward(gradient)

    for what in PASSES:
        net.train(what != "forward")
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.requires_grad_(what == "step, all")
        work = forward if what == "forward" else step
        work()
        times = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - start))
        print(f"{what:>14}: {statistics.median(times):8.1f} ms")


def measured(command, threads):
    """The milliseconds of every pass that a command prints, and its peak memory in MiB."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}")
    times = [float(number) for number in re.findall(r":\s+([\d.]+) ms", text)]
    return dict(zip(PASSES, times)), usage.ru_maxrss / 1024


def main():
    binary, *rest = sys.argv[1:]
    threads = int(rest[0]) if rest else 2
    rounds = int(rest[1]) if len(rest) > 1 else 3
    names = rest[2:] or list(NETWORKS)
    me = [sys.executable, os.path.abspath(__file__)]
    print(f"{threads} threads, {rounds} rounds; milliseconds; ratio: PyTorch / native")
    print("| network | pass | contiguous | channels last | native | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    steps, memory = [], []
    for label in names:
        name, size, batch = NETWORKS[label]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            subprocess.run(me + ["--export", name, str(size), path], check=True, capture_output=True)
            found = []
            for _ in range(rounds):
                work = [name, str(size), str(batch), str(threads)]
                contiguous = measured(me + ["--torch", *work, "contiguous_format"], threads)
                channels = measured(me + ["--torch", *work, "channels_last"], threads)
                native = measured([binary, path, f"{size}x{size}", str(batch), str(REPETITIONS)], threads)
                found.append((contiguous, channels, native))
        for what in PASSES:
            times = [[side[0][what] for side in sides] for sides in found]
            ratio = statistics.median(min(t[0], t[1]) / t[2] for t in times)
            middle = [statistics.median(column) for column in zip(*times)]
            if what != "forward":
                steps.append(ratio)
            print(f"| {label} b{batch} | {what} | " + " | ".join(f"{m:.0f}" for m in middle) + f" | {ratio:.2f} |", flush=True)
        peak = [statistics.median(side[1] for side in column) for column in zip(*found)]
        memory.append((label, peak))
    mean = math.exp(statistics.mean(math.log(ratio) for ratio in steps))
    print(f"\ngeometric mean of the steps' ratios: {mean:.2f}")
    for label, (contiguous, channels, native) in memory:
        print(f"peak memory of {label}, MiB: PyTorch {contiguous:.0f} and {channels:.0f}, native {native:.0f}")


if sys.argv[1:2] == ["--export"]:
    export(sys.argv[2], int(sys.argv[3]), sys.argv[4])
elif sys.argv[1:2] == ["--torch"]:
    time_torch(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[6], int(sys.argv[5]))
else:
    main()
