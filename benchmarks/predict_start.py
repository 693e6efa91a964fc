"""`predict` on one image against the least that any program of torch's needs, in alternation.

    python -m benchmarks.predict_start CHECKPOINT IMAGE [--repeats 15]

    for example, after `python -m trainer` in the same folder, on any image of a digit:
    python -m benchmarks.predict_start outputs/<date>/<time>/checkpoints/best.pth digit.png

The least is a process that imports torch, makes the default net and computes it once, on nothing:
it reads no file. Both are timed from the start of the process to its end, one after the other, so
that a machine whose speed drifts, drifts for both; what counts is the median of the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

LEAST = """
import torch
from torch import nn
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                    nn.Linear(64, 10))
with torch.inference_mode():
    print(net(torch.zeros(1, 1, 28, 28)).softmax(1))
"""


def seconds(words: list[str]) -> float:
    """From the start of such a Python process to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    commands = {
        "import torch, one forward": ["-c", LEAST],
        "trainer predict": ["-m", "trainer", "predict", args.checkpoint, args.image],
    }
    for words in commands.values():
        seconds(words)  # fills the file cache
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.repeats):
        for name, words in commands.items():
            times[name].append(seconds(words))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {args.repeats} rounds")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"{name:<26} {middle:6.2f} s (from {min(taken):.2f} to {max(taken):.2f})")
    least, ours = times.values()
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, least, strict=True))
    print(f"median of the ratios: {ratio:.2f}")


if __name__ == "__main__":
    main()
