"""Evaluation against the bare forward pass of the same network, in turns, in one process.

    python -m benchmarks.scoring [--turns 15] [--threads 1]

Ours is what validation, test and `evaluate` do: batches normalised from uint8, forward pass, loss,
accuracy, confusion. The bare side normalises the same batches and computes the forward pass, in
inference mode, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import turns
from data.loading.batches import Batches
from trainer.builders import training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training import loop
from trainer.training.run import Run

NETS = {"mlp": (10_000, 28, 1), "lenet5": (10_000, 28, 1), "cifar_net": (10_000, 32, 3),
        "resnet18": (512, 32, 3)}  # fmt: skip


def built(net: str, threads: int, folder: Path) -> Run:
    number, side, channels = NETS[net]
    words = [f"model={net}", "data=synthetic", f"data.shape=[{channels},{side},{side}]",
             f"data.num_test={number}", "data.num_train=1000", f"num_threads={threads}",
             "tensorboard=false"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    config = compose.plain(composer.jobs(composer.master())[0])
    return training_run.build(config, folder, StopSignals())


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}")
    for net in NETS:
        with tempfile.TemporaryDirectory() as folder:
            run = built(net, args.threads, Path(folder))
            source = run.test
            assert isinstance(source, Batches)
            assert source.rows is None
            batches = source.images.split(source.batch_size)

            @torch.inference_mode()
            def bare(run: Run = run, source: Batches = source) -> None:
                run.model.eval()
                for images in source.images.split(source.batch_size):
                    run.model(source.preprocess(images))

            def ours(run: Run = run) -> None:
                loop.evaluate(
                    run.model, run.eval_loss, run.test, run.autocast, run.meter_of("test")
                )

            for warm_up in (bare, ours):
                warm_up()
            taken = [(seconds(ours), seconds(bare)) for _ in range(args.turns)]
            run.close()
        mine, theirs = (list(times) for times in zip(*taken, strict=True))
        print(f"{net:<10} {len(batches)} batches of {len(batches[0])}: ours "
              f"{1000 * sorted(mine)[len(mine) // 2]:.1f} ms ({1000 * min(mine):.1f} to "
              f"{1000 * max(mine):.1f}), bare {1000 * sorted(theirs)[len(theirs) // 2]:.1f} ms "
              f"({1000 * min(theirs):.1f} to {1000 * max(theirs):.1f}), ratio "
              f"{turns.ratio(mine, theirs):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
