"""Layers by hand against torch's, side by side in one run.

    python -m benchmarks.numpy_layers [--threads 1] [--rounds 15]

- VGG19's forward at 224 px, batch 1, float32: Winograd and im2col against torch in its default
  layout (NCHW) and in channels_last.
- A training step of LeNet-5 (6-16-120-84, 28 px padded by 2, batch 64): forward, backward, SGD.
- Peak memory of the VGG19 forward, each way in a process of its own, without torch.

All sides take turns, round by round, so that a busy machine slows them alike; medians of wall time.
More threads than idle cores measure nothing but how threads wait for each other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from models.numpy_nn.layers import Sequential
    from models.numpy_nn.vgg19 import Params

# What the project holds itself to: (a side, its yardstick, at most so many times its time).
VGG_LIMITS = [
    ("NumPy Winograd", "torch NCHW", 1.0),
    ("NumPy Winograd", "torch channels_last", 1.25),
    ("NumPy im2col", "torch NCHW", 2.5),
]
LENET_LIMITS = [("NumPy", "torch NCHW", 2.5)]
MEMORY_LIMIT = 2.0  # GB


def main() -> None:
    parser = argparse.ArgumentParser(description="Layers by hand against torch's.")
    parser.add_argument("--threads", type=int, default=1, help="of either side (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="LeNet-5 takes ten times as many")
    parser.add_argument("--memory-of", choices=["winograd", "im2col"], help="only this, in GB")
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)  # read when NumPy is imported, below
    if args.memory_of:
        print(peak_memory(fast=args.memory_of == "winograd"))
        return
    import torch

    torch.set_num_threads(args.threads)
    print(f"{args.threads} thread(s), torch {torch.__version__}")
    compare_vgg19(args.rounds)
    compare_lenet5(args.rounds * 10)
    report_memory(args.threads)


def peak_memory(fast: bool) -> float:
    """The most memory, in GB, that this process has held, after one VGG19 forward."""
    import numpy as np

    from models.numpy_nn import vgg19

    rng = np.random.default_rng(0)
    steps = vgg19.vgg19(vgg19.he_params(rng), fast)
    vgg19.run(steps, rng.standard_normal((1, 3, 224, 224), dtype=np.float32))
    # Linux's own count for this program; getrusage would include the parent's from before exec.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def report_memory(threads: int) -> None:
    print(f"\nPeak memory of the VGG19 forward, a process each (limit {MEMORY_LIMIT} GB)")
    for way in ("winograd", "im2col"):
        command = [sys.executable, "-m", __spec__.name, "--memory-of", way]
        command += ["--threads", str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(
            f"  {way:20} {float(done.stdout):6.2f} GB  {verdict(float(done.stdout), MEMORY_LIMIT)}"
        )


def verdict(value: float, limit: float) -> str:
    return "ok" if value <= limit else "TOO MUCH"


def compare(title: str, sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: median(taken[1:]) for name, taken in times.items()}
    print(f"\n{title}, median of {rounds}")
    for name, seconds in medians.items():
        print(f"  {name:20} {1e3 * seconds:8.2f} ms")
    return medians


def print_ratios(medians: dict[str, float], limits: list[tuple[str, str, float]]) -> None:
    for name, yardstick, limit in limits:
        ratio = medians[name] / medians[yardstick]
        print(f"  {name} / {yardstick}: {ratio:.2f}  (limit {limit})  {verdict(ratio, limit)}")


def compare_vgg19(rounds: int) -> None:
    import numpy as np
    import torch

    from models.numpy_nn import vgg19

    rng = np.random.default_rng(0)
    params = vgg19.he_params(rng)
    winograd, im2col = vgg19.vgg19(params), vgg19.vgg19(params, fast=False)
    default = torch_vgg19(params)
    last = torch_vgg19(params).to(memory_format=torch.channels_last)
    x = rng.standard_normal((1, 3, 224, 224), dtype=np.float32)
    tensor = torch.from_numpy(x)
    tensor_last = tensor.to(memory_format=torch.channels_last)
    sides: dict[str, Callable[[], object]] = {
        "NumPy Winograd": lambda: vgg19.run(winograd, x),
        "NumPy im2col": lambda: vgg19.run(im2col, x),
        "torch NCHW": lambda: default(tensor),
        "torch channels_last": lambda: last(tensor_last),
    }
    with torch.inference_mode():
        medians = compare("VGG19 forward, 224 px, batch 1", sides, rounds)
        expected = default(tensor).numpy()
    print_ratios(medians, VGG_LIMITS)
    for name, steps in (("Winograd", winograd), ("im2col", im2col)):
        difference = np.abs(vgg19.run(steps, x) - expected).max() / np.abs(expected).max()
        print(f"  {name}: differs from torch by {difference:.1e} of the largest logit")


def torch_vgg19(params: Params) -> nn.Sequential:
    """The same net of torch's layers, on the same weights."""
    import torch
    from torch import nn

    from models.numpy_nn.vgg19 import CHANNELS

    weights = iter(params)
    layers: list[nn.Module] = []

    def append(layer: nn.Conv2d | nn.Linear) -> None:
        layer.weight, layer.bias = (nn.Parameter(torch.from_numpy(w)) for w in next(weights))
        layers.append(layer)

    before = 3
    for block in CHANNELS:
        for after in block:
            append(nn.Conv2d(before, after, 3, padding=1, device="meta"))
            layers.append(nn.ReLU(inplace=True))
            before = after
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for i in range(-3, 0):
        after, before = params[i][0].shape
        append(nn.Linear(before, after, device="meta"))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers[:-1]).eval()


def compare_lenet5(rounds: int) -> None:
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    ours = numpy_lenet5(rng)
    twins = {layout: torch_lenet5(ours) for layout in ("NCHW", "channels_last")}
    twins["channels_last"].to(memory_format=torch.channels_last)
    x, labels = rng.standard_normal((64, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 64)
    sides: dict[str, Callable[[], float]] = {"NumPy": numpy_step(ours, x, labels)}
    for layout, net in twins.items():
        sides[f"torch {layout}"] = torch_step(net, torch.from_numpy(x), torch.from_numpy(labels))
    for _ in range(20):
        losses = {name: run() for name, run in sides.items()}
    medians = compare("LeNet-5, one SGD step, 28 px, batch 64", sides, rounds)
    print_ratios(medians, LENET_LIMITS)
    print("  losses of step 20: " + ", ".join(f"{n} {loss:.7f}" for n, loss in losses.items()))


def numpy_lenet5(rng: np.random.Generator) -> Sequential:
    from models.numpy_nn.layers import Conv2d, Linear, Sequential, flatten, max_pool2d, relu

    return Sequential(
        Conv2d(1, 6, 5, rng, padding=2, need_grad_x=False),
        relu(),
        max_pool2d(2),
        Conv2d(6, 16, 5, rng),
        relu(),
        max_pool2d(2),
        flatten(),
        Linear(400, 120, rng),
        relu(),
        Linear(120, 84, rng),
        relu(),
        Linear(84, 10, rng),
    )


def numpy_step(net: Sequential, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    from models.numpy_nn.functional import cross_entropy_backward, cross_entropy_forward
    from models.numpy_nn.optim import SGD

    optimizer = SGD(net.params, lr=0.01, momentum=0.9)

    def step() -> float:
        loss, cache = cross_entropy_forward(net.forward(x), labels)
        net.backward(cross_entropy_backward(1.0, cache))
        optimizer.step(net.grads)
        return float(loss)

    return step


def torch_lenet5(ours: Sequential) -> nn.Sequential:
    """The same net of torch's layers, from a copy of the same weights."""
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    net.load_state_dict({name: torch.tensor(value) for name, value in ours.params.items()})
    return net


def torch_step(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    import torch

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    main()
