"""compile=step against eager steps, epoch by epoch in turns, in our own loop.

    python -m benchmarks.compiled_step [--net mlp|resnet18] [--repeats 7]

mlp: 784-128-64-10, batch 64, Adam, 60,000 resident pictures an epoch. resnet18: 32 px, batch 128,
SGD with momentum, channels_last, 6 steps a turn. Two runs of the same command, but for `compile`,
take turns in one process, so that a machine whose speed drifts, drifts for both; what counts is the
median of the ratios. Compile times are those of two fresh processes that share a cache, empty at
first.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from trainer import build, compose, loop, runtime
from trainer.compiled import CompiledStep
from trainer.state import Run

NETS = {
    "mlp": ["model=mlp", "data=synthetic", "data.num_train=60100", "data.val_size=0.001664",
            "batch_size=64"],
    "resnet18": ["model=resnet18", "data=synthetic", "data.shape=[3,32,32]",
                 "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "optimizer=sgd",
                 "batch_size=128", "limit_batches=6"],
}  # fmt: skip


def make_run(net: str, num_epochs: int, folder: Path, is_compiled: bool) -> Run:
    words = [*NETS[net], "data.num_test=100", f"epochs={num_epochs}", "tensorboard=false"]
    composer = compose.Composer(compose.parse(words))
    config = compose.plain(composer.jobs(composer.master())[0])
    folder.mkdir()
    run = build.build(config, folder, runtime.StopSignals())
    if is_compiled:
        guard: Any = run.guard
        run.update = CompiledStep(run.model, run.loss, guard, run.autocast, config["batch_size"])
    return run


def train_epoch(run: Run) -> float:
    """Seconds of the next epoch's training, as the run reports them."""
    before = run.progress.train_s
    run.epochs = run.progress.epoch + 1
    loop.fit(run)
    return run.progress.train_s - before


def compile_seconds(net: str, cache: str) -> float:
    """In a process of its own, checks included."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compiled_step", "--net", net, "--only-compile"],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = re.findall(r"compile=step: ([\d.]+) s", done.stdout)
    return float(found)


def only_compile(net: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(net, 1, Path(folder) / "run", is_compiled=True)
        batches = run.train.epoch()
        for _ in range(2):  # the first is eager
            loop.train_step(run, *next(batches))
        run.log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only-compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_compile:
        only_compile(args.net)
        return
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (compile_seconds(args.net, f"{folder}/cache") for _ in range(2))
        runs = {
            name: make_run(args.net, args.repeats + 1, Path(folder) / name, name == "compiled")
            for name in ("eager", "compiled")
        }
        for run in runs.values():  # once apart, with the compiling
            train_epoch(run)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.repeats):
            for name, run in runs.items():
                seconds[name].append(train_epoch(run))
        for run in runs.values():
            run.log.close()
    print(f"{args.net}: {os.cpu_count()} cores, torch {torch.__version__}, {args.repeats} rounds, "
          f"{torch.get_num_threads()} thread(s)")  # fmt: skip
    num_images, num_steps = runs["eager"].train.num_images, len(runs["eager"].train)
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<9} {middle:7.3f} s (from {min(times):.3f} to {max(times):.3f})   "
              f"{1000 * middle / num_steps:8.3f} ms a step   {num_images / middle:>9,.0f} images/s"
        )  # fmt: skip
    pairs = zip(seconds["eager"], seconds["compiled"], strict=True)
    ratio = statistics.median(eager / compiled for eager, compiled in pairs)
    print(f"compiled is {ratio:.2f} times as fast; compiling took {cold:.1f} s, "
          f"with a warm cache {warm:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
