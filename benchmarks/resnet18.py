"""Training ResNet-18 on pictures of 32 px, batch 128: the usual eager loop in NCHW, and ours.

    python -m benchmarks.resnet18 [--steps 4] [--rounds 5] [--compile none|model|step]

The usual loop is that of the well-known CIFAR repositories: the same net in torch's default layout,
SGD with momentum, `.item()` each batch, on pictures that are at hand as normalised float tensors
(its loading is left out: what is compared is the arithmetic). Ours is the program's own loop with
its defaults, channels_last among them. Both take turns in one process. Beside them the product of
two 2048 x 2048 float32 matrices says what this CPU can do at that moment.

On a GPU (`--device cuda`) ours runs in bf16 and channels_last, and images/s is what counts.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from trainer import build, compose, loop, runtime
from trainer.state import Run

BATCH_SIZE, NUM_IMAGES = 128, 2048
MATRIX = 2048


def our_run(folder: str, device: str, compiled: str) -> Run:
    precision = "bf16" if device.startswith("cuda") else "fp32"
    words = ["model=resnet18", "data=synthetic", "data.shape=[3,32,32]", "data.hflip=true",
             f"data.num_train={NUM_IMAGES}", "data.num_test=10", "data.mean=[0.5]",
             "optimizer=sgd", f"batch_size={BATCH_SIZE}", f"device={device}",
             f"precision={precision}", f"compile={compiled}", "tensorboard=false"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    config: dict[str, Any] = compose.plain(composer.jobs(composer.master())[0])
    return build.build(config, Path(folder), runtime.StopSignals())


def our_seconds(run: Run, steps: int) -> float:
    """Seconds of one step, by the loop's own train_step on the loader's own batches."""
    run.model.train()
    runtime.synchronize(run.device)
    start = time.perf_counter()
    for _, (images, targets) in zip(range(steps), run.train.epoch(), strict=False):
        loss, _ = loop.train_step(run, images, targets)
    loss.item()
    return (time.perf_counter() - start) / steps


class Usual:
    """The loop of the usual repository, on the same net."""

    def __init__(self, device: torch.device, model: nn.Module) -> None:
        self.model = model.to(device).to(memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.images = torch.randn(BATCH_SIZE, 3, 32, 32, device=device)
        self.labels = torch.arange(BATCH_SIZE, device=device) % 10

    def seconds(self, steps: int) -> float:
        self.model.train()
        start = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            logits = self.model(self.images)
            loss = F.cross_entropy(logits, self.labels)
            loss.backward()
            self.optimizer.step()
            loss.item()
            (logits.argmax(1) == self.labels).sum().item()
        return (time.perf_counter() - start) / steps


def matmul_flops(device: torch.device) -> float:
    """FLOP/s of a large product of float32 matrices, the best of five."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    best = float("inf")
    for _ in range(5):
        runtime.synchronize(device)
        start = time.perf_counter()
        a @ b
        runtime.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * MATRIX**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", default="none", choices=("none", "model", "step"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = our_run(folder, args.device, args.compile)
        usual = Usual(run.device, copy.deepcopy(run.model))
        # A training step takes three times the forward's multiply-adds: forward, and backward for
        # weights and for inputs.
        flops = 2 * 3 * run.cost.macs * BATCH_SIZE
        our_seconds(run, 2)
        usual.seconds(1)
        ours, theirs, peaks = [], [], []
        for _ in range(args.rounds):
            theirs.append(usual.seconds(args.steps))
            ours.append(our_seconds(run, args.steps))
            peaks.append(matmul_flops(run.device))
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    share = statistics.median(flops / o / p for o, p in zip(ours, peaks, strict=True))
    print(
        f"{os.cpu_count()} cores, torch {torch.__version__}, {run.device}, compile={args.compile}"
    )
    for name, times in (("usual, NCHW", theirs), ("ours", ours)):
        middle = statistics.median(times)
        print(f"{name:<12} {middle:7.3f} s a step, {BATCH_SIZE / middle:8.1f} images/s")
    print(f"ours is {ratio:.2f} times as fast, and reaches {share:.0%} of the float32 matmul peak "
          f"({statistics.median(peaks) / 1e9:.0f} GFLOP/s)")  # fmt: skip


if __name__ == "__main__":
    main()
