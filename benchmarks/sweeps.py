"""Cost of a process per job of a sweep: against Hydra's serial launcher, in which all jobs share
one process, and against a command of its own for each job."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# Hydra takes launchers from a package of this name alone.
PLUGIN = """\
from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class SerialLauncher(BasicLauncher):
    pass
"""
SERIAL = "hydra.launcher._target_=hydra_plugins.serial.SerialLauncher"
TINY = ("model=mlp", "epochs=1", "limit_batches=2", "tensorboard=false", "test=none")


def seconds(words: Sequence[str], cwd: Path) -> float:
    """Wall time of a command."""
    paths = f"{cwd}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    seeds = f"seed=range({args.jobs})"
    sweep = ("--multirun", "model=mlp", f"epochs={args.epochs}", seeds)
    names = ("own", "serial", "many", "one", "cold")
    figures: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        cwd = Path(name)
        (cwd / "hydra_plugins").mkdir()
        (cwd / "hydra_plugins" / "serial.py").write_text(PLUGIN)
        for _ in range(args.turns):  # in turns, so that other load meets all alike
            figures["own"].append(seconds((*sweep, "jobs=2"), cwd))
            figures["serial"].append(seconds((*sweep, SERIAL), cwd))
            figures["many"].append(seconds(("--multirun", *TINY, "jobs=1", "seed=range(9)"), cwd))
            figures["one"].append(seconds(("--multirun", *TINY, "jobs=1", "seed=0"), cwd))
            figures["cold"].append(seconds((*TINY, "seed=0"), cwd))
    median = {name: statistics.median(values) for name, values in figures.items()}
    print(f"{args.jobs} jobs of model=mlp, {args.epochs} epochs: jobs=2 {median['own']:.1f} s, "
          f"Hydra's serial launcher {median['serial']:.1f} s, "
          f"ratio {median['own'] / median['serial']:.2f}")  # fmt: skip
    per_job = (median["many"] - median["one"]) / 8
    print(f"a tiny job: {per_job:.2f} s in a sweep, {median['cold']:.2f} s as a command of its "
          f"own, ratio {per_job / median['cold']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
