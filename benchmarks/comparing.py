"""Time of `compare` on two runs of many predictions, process start included."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from trainer.runs import predictions


def write_run(folder: Path, num_images: int, seed: int) -> None:
    """Folder of a run as `compare` needs it, with an accuracy of 0.9."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    classes = [f"class {k}" for k in range(10)]
    rows = []
    for i, (label, right) in enumerate(zip(np.arange(num_images) % 10, rng.random(num_images) < 0.9,
                                           strict=True)):  # fmt: skip
        top = [classes[(label + k + (not right)) % 10] for k in range(5)]
        shares = [0.9, 0.05, 0.03, 0.01, 0.01]
        rows.append(("test", i, "", classes[label], top[0], 0.9, 0.105, *top, *shares))
    predictions.write(folder / predictions.NAME, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for seed in (1, 2):
            write_run(Path(name) / str(seed), args.images, seed)
        seconds = []
        for _ in range(args.turns):
            start = time.perf_counter()
            command = [sys.executable, "-m", "trainer", "compare", "1", "2"]
            subprocess.run(command, cwd=name, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    print(f"compare, {args.images:,} predictions each: {statistics.median(seconds):.2f} s "
          f"({min(seconds):.2f} to {max(seconds):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
