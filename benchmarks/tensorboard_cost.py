"""What TensorBoard costs a run: the same training with it and without, in turns.

    python -m benchmarks.tensorboard_cost [--epochs 40] [--rounds 3]

Each run is a process of its own with `tensorboard=true` or `false`, so that imports and the
images at the start and the end count as well. The task is made so that many epochs are the best
so far. Two figures: the ratio of the CPU seconds of whole runs, which other work on the machine
moves by more than what is to be seen; and a stopwatch inside the runs with TensorBoard, round all
that it does (imports, scalars, images, flushing), over all their CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.__main__ import main as trainer_main
from trainer.monitoring import run_logger, visualizer

WORDS = (
    "data=synthetic", "data.num_train=60000", "data.num_test=10000", "data.noise=0.9",
    "optimizer.lr=0.00003", "num_threads=1",
)  # fmt: skip


class Stopwatch:
    """CPU seconds of this process inside the functions that it is put round, nested ones once."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def round(self, owner: Any, name: str) -> None:
        setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start, self.depth = time.process_time(), self.depth + 1
            try:
                return function(*args, **options)
            finally:
                self.depth -= 1
                self.seconds += 0 if self.depth else time.process_time() - start

        return timed


def one_run(words: list[str]) -> None:
    """A training in this process; the last line says the seconds in TensorBoard, and in all."""
    watch = Stopwatch()
    for name in ("start", "epoch", "best", "finish"):
        watch.round(visualizer.Visualizer, name)
    for name in ("step", "epoch", "save", "finish", "close"):
        watch.round(run_logger.RunLogger, name)
    watch.round(run_logger, "event_writer")  # its imports, too
    sys.argv = ["trainer", *words]
    try:
        trainer_main()
    except SystemExit as exit:
        if exit.code:
            raise
    print(watch.seconds, time.process_time())


def child(folder: Path, epochs: int, tensorboard: bool) -> tuple[float, float]:
    """The two figures of `one_run` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tensorboard_cost", "--run", *WORDS, f"epochs={epochs}",
         f"hydra.run.dir={folder}", f"tensorboard={str(tensorboard).lower()}"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    inside, all_of_it = map(float, done.stdout.splitlines()[-1].split())
    return inside, all_of_it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        one_run(args.run)
        return
    ratios, shares, seconds = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(args.rounds):
            spent = {}
            for tensorboard in (True, False) if turn % 2 else (False, True):
                folder = Path(scratch) / f"{turn}_{tensorboard}"
                inside, spent[tensorboard] = child(folder, args.epochs, tensorboard)
                if tensorboard:
                    shares.append(inside / spent[True])
            ratios.append(spent[True] / spent[False])
            seconds.append(spent[False])
    print(f"{os.cpu_count()} cores, {args.rounds} rounds of {args.epochs} epochs, "
          f"{statistics.median(seconds):.1f} CPU seconds without TensorBoard")  # fmt: skip
    for name, values in (("with it over without", ratios), ("inside it, of a run", shares)):
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:<20} {statistics.median(values):.3f} ({spread})")


if __name__ == "__main__":
    main()
