"""Training ResNet-18 on images of 32 px, batch 128: the usual eager loop in NCHW, and ours.

    python -m benchmarks.resnet18 [--steps 2] [--rounds 5] [--compile none|model|step] [--bf16]

The usual loop is that of the well-known CIFAR repositories: the same net in torch's default layout,
SGD with momentum, `.item()` each batch, on images that are at hand as normalised float tensors
(its loading is left out: what is compared is the arithmetic). Ours is the program's own loop with
its defaults, channels_last among them; --compile and --bf16 add a run of ours with compile=, and
one with precision=bf16. Each side is a process of its own, with as many threads as the others, for
what a program makes of the allocator is part of it. They take turns.

Beside them, the peak: the fastest product of two float32 matrices that could be had in the same
run, by torch's BLAS or as a convolution of 1 x 1 by oneDNN. A CPU whose usual loop already reaches
a share s of it cannot be made to train more than 1 / s times as fast, whatever the program.

On a GPU (`--device cuda`) ours runs in bf16 and channels_last, and images/s is what counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import turns
from models.resnet import ResNet
from trainer.builders import training_run
from trainer.config import compose
from trainer.system.device import synchronize
from trainer.system.signals import StopSignals
from trainer.training.run import Run

BATCH_SIZE, NUM_IMAGES = 128, 2048
MATRIX = 2048
MACS = 555_422_720  # multiply-adds of one image's forward pass
USUAL = "usual, NCHW"


def our_run(folder: Path, device: str, compiled: str, precision: str) -> Run:
    words = ["model=resnet18", "data=synthetic", "data.shape=[3,32,32]", "data.hflip=true",
             f"data.num_train={NUM_IMAGES}", "data.num_test=10", "data.mean=[0.5]",
             "optimizer=sgd", f"batch_size={BATCH_SIZE}", f"device={device}",
             f"precision={precision}", f"compile={compiled}", "tensorboard=false",
             "limit_batches=14"]  # all of them full  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    config: dict[str, Any] = compose.plain(composer.jobs(composer.master())[0])
    folder.mkdir()
    return training_run.build(config, folder, StopSignals())


class Ours:
    """The program's own loop, with its loader and its metrics."""

    def __init__(self, device: str, compiled: str, precision: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.run = our_run(Path(self.folder.name) / "run", device, compiled, precision)
        self.steps = turns.steps_of(self.run)

    def seconds(self, steps: int) -> float:
        """Of one step."""
        synchronize(self.run.about.device)
        start = time.perf_counter()
        for _ in range(steps):
            next(self.steps)
        synchronize(self.run.about.device)
        return (time.perf_counter() - start) / steps


class Usual:
    """The loop of the usual repository, on the same net."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.model = ResNet((3, 32, 32), 10, depth=18, stem="small").to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.images = torch.randn(BATCH_SIZE, 3, 32, 32, device=device)
        self.labels = torch.arange(BATCH_SIZE, device=device) % 10

    def seconds(self, steps: int) -> float:
        """Of one step."""
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


def peak_flops(device: torch.device) -> float:
    """FLOP/s of the fastest large product of float32 matrices, of ten by each way."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    rows = a.t().reshape(1, MATRIX, 32, MATRIX // 32).to(memory_format=torch.channels_last)
    kernel, out = b.view(MATRIX, MATRIX, 1, 1), torch.empty_like(a)
    ways: list[Callable[[], Tensor]] = [
        lambda: torch.mm(a, b, out=out),
        lambda: F.conv2d(rows, kernel),
    ]
    best = float("inf")
    with torch.inference_mode():
        for multiply in 10 * ways:
            synchronize(device)
            start = time.perf_counter()
            multiply()
            synchronize(device)
            best = min(best, time.perf_counter() - start)
    return 2 * MATRIX**3 / best


def serve(make: Callable[[], Usual | Ours], pipe: Connection) -> None:
    """In the process of one side: for each number of steps that comes, the seconds of one."""
    side = make()
    while steps := pipe.recv():
        pipe.send(side.seconds(steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", default="none", choices=("none", "model", "step"))
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    native = "bf16" if args.device.startswith("cuda") else "fp32"
    makers: dict[str, Callable[[], Usual | Ours]] = {
        USUAL: partial(Usual, args.device),
        "ours": partial(Ours, args.device, "none", native),
    }
    if args.compile != "none":
        makers[f"ours, compile={args.compile}"] = partial(Ours, args.device, args.compile, native)
    if args.bf16:
        makers["ours, precision=bf16"] = partial(Ours, args.device, "none", "bf16")
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, make in makers.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(make, theirs), daemon=True).start()

    def seconds_of(name: str, steps: int) -> float:
        pipes[name].send(steps)
        return float(pipes[name].recv())

    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    peak = 0.0
    for name in pipes:
        seconds_of(name, 2)  # an eager first step, and the compiling
    for _ in range(args.rounds):
        for name in pipes:
            seconds[name].append(seconds_of(name, args.steps))
        peak = max(peak, peak_flops(torch.device(args.device)))
    for pipe in pipes.values():
        pipe.send(0)
    show(seconds, peak, args.device)


def show(seconds: dict[str, list[float]], peak: float, device: str) -> None:
    # A training step takes three times the forward's multiply-adds: forward, and backward for
    # weights and for inputs.
    flops = 2 * 3 * MACS * BATCH_SIZE
    print(
        f"{os.cpu_count()} cores, torch {torch.__version__}, {device}, {len(seconds[USUAL])} rounds"
    )
    print(f"float32 matmul peak {peak / 1e9:.0f} GFLOP/s")
    for name, times in seconds.items():
        middle = statistics.median(times)
        ratio = turns.ratio(seconds[USUAL], times)
        print(f"{name:<22} {middle:7.3f} s a step {BATCH_SIZE / middle:8.1f} images/s   "
              f"{ratio:5.2f} times the usual   {flops / middle / peak:4.0%} of the peak "
              f"({flops / min(times) / peak:.0%} at best)")  # fmt: skip


if __name__ == "__main__":
    main()
