"""Times PyTorch on VGG-16 at 32x32: the work of `cargo run --example step_time`.

    python benches/peers/vgg16_step.py [BATCH [REPETITIONS [THREADS]]]

Prints the median of the repetitions, in milliseconds, for both memory layouts: a forward pass in
evaluation; a step that trains a scaling factor after each convolution and the head, all
convolutions frozen; a step that trains every weight.
"""

import statistics
import sys
import time

import torch
from torch import nn

LAYERS = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return x * self.factor


def vgg():
    layers, channels = [], 3
    for width in LAYERS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1), Scale(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def median_ms(work, repetitions):
    work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    arguments = [int(a) for a in sys.argv[1:]] + [64, 5, 2][len(sys.argv) - 1 :]
    batch, repetitions, threads = arguments
    torch.set_num_threads(threads)
    for layout in (torch.contiguous_format, torch.channels_last):
        net = vgg().to(memory_format=layout)
        x = torch.randn(batch, 3, 32, 32).to(memory_format=layout)
        weights = torch.randn(batch, 10)

        def forward():
            with torch.no_grad():
                net(x)

        def step():
            net.zero_grad(set_to_none=True)
            (net(x) * weights).sum().backward()

        frozen = [p for m in net if isinstance(m, nn.Conv2d) for p in m.parameters()]
        times = [median_ms(forward, repetitions)]
        for trains_all in (False, True):
            for parameter in frozen:
                parameter.requires_grad_(trains_all)
            times.append(median_ms(step, repetitions))
        name = "channels last" if layout is torch.channels_last else "contiguous"
        print(f"PyTorch {torch.__version__}, {name}, batch {batch}, {threads} threads")
        for what, time_ms in zip(("forward", "step, frozen", "step, all"), times):
            print(f"{what:>14}: {time_ms:7.0f} ms")


main()
