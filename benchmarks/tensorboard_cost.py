"""What TensorBoard costs a run: the same training with it and without, in turns.

    python -m benchmarks.tensorboard_cost [--epochs 60] [--rounds 5]

Each run is a process of its own, `python -m trainer` with `tensorboard=true` or `false`, so that
imports and the pictures at the start and the end count as well. The task is made so that many
epochs are the best so far. What counts is the ratio of the CPU seconds, the median over the
rounds: other work on the machine moves them less than the seconds on the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    "data=synthetic", "data.num_train=60000", "data.num_test=10000", "data.noise=0.9",
    "optimizer.lr=0.00003", "num_threads=1",
)  # fmt: skip


def run_once(folder: Path, epochs: int, tensorboard: bool) -> tuple[float, float]:
    """CPU seconds and seconds on the wall of a whole training."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *WORDS, f"epochs={epochs}", f"hydra.run.dir={folder}",
         f"tensorboard={str(tensorboard).lower()}"],
        stdout=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the training ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cpu: dict[bool, list[float]] = {True: [], False: []}
    wall: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(args.rounds):
            for tensorboard in (True, False) if turn % 2 else (False, True):
                folder = Path(scratch) / f"{turn}_{tensorboard}"
                spent, passed = run_once(folder, args.epochs, tensorboard)
                cpu[tensorboard].append(spent)
                wall[tensorboard].append(passed)
        summary = json.loads((folder / "summary.json").read_text())
    print(f"{os.cpu_count()} cores, torch {summary['versions']['torch']}, {args.rounds} rounds of "
          f"{args.epochs} epochs, the best one {summary['best_epoch']}")  # fmt: skip
    for name, seconds in (("CPU", cpu), ("wall", wall)):
        ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
        without, with_it = statistics.median(seconds[False]), statistics.median(seconds[True])
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{name:<5} {without:6.1f} s without, {with_it:6.1f} s with it: ratio {spread}")


if __name__ == "__main__":
    main()
