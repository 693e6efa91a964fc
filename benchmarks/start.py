"""What a process takes beside its work: commands of the program against `import torch` alone.

    python -m benchmarks.start [--rounds 9]

Whole processes take turns, from their start to their end, so that a machine whose speed drifts,
drifts for all. Of the default run the seconds of its training, by its own summary, are taken off;
its twenty validations and its test stay. What counts is the median of the ratios to the `import
torch` of the same round, by the clock and, but for that run, in seconds of CPU, which a busy
machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Times = tuple[float, float]  # seconds by the clock, and of CPU

LEAST = ["-c", "import torch"]
STEP = ["-m", "trainer", "epochs=1", "limit_batches=1", "test=none", "hydra.run.dir=step"]
DEFAULT = ["-m", "trainer", "hydra.run.dir=default", "num_threads=1"]
COMMANDS: dict[str, Sequence[str]] = {
    "import torch": LEAST,
    "one training step": STEP,
    "default run, less training": DEFAULT,
    "predict, one image": ["-m", "trainer", "predict", "kept/checkpoints/best.pth", "digit.png"],
    "--help": ["-m", "trainer", "--help"],
}


def times_of(words: Sequence[str], cwd: Path) -> Times:
    """Of such a Python process from its start to its end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, cwd=cwd, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or all of ours is compiled at each start
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory() as name:
        cwd = Path(name)
        Image.new("L", (28, 28)).save(cwd / "digit.png")
        times_of([*STEP[:-1], "hydra.run.dir=kept"], cwd)
        taken: dict[str, list[Times]] = {name: [] for name in COMMANDS}
        for round_ in range(args.rounds + 1):
            for name, words in COMMANDS.items():
                for folder in ("step", "default"):
                    shutil.rmtree(cwd / folder, ignore_errors=True)
                times = times_of(words, cwd)
                if words is DEFAULT:
                    summary = json.loads((cwd / "default" / "summary.json").read_text())
                    times = (times[0] - summary["train_s"], math.nan)
                if round_:  # the first one fills the file cache
                    taken[name].append(times)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {args.rounds} rounds")
    print(f"{'':<30}{'seconds':>8}  {'from ... to':<14}{'times import torch':>20}   of CPU")
    least = taken["import torch"]
    for name, rows in taken.items():
        clock, pairs = [one[0] for one in rows], list(zip(rows, least, strict=True))
        by_clock, by_cpu = (statistics.median(a[i] / b[i] for a, b in pairs) for i in range(2))
        span = f"{min(clock):.2f} ... {max(clock):.2f}"
        print(f"{name:<30}{statistics.median(clock):8.2f}  {span:<14}{by_clock:20.2f}{by_cpu:9.2f}")


if __name__ == "__main__":
    main()
