"""How little it takes to learn something on a CPU: a recipe timed as a whole process.

    python -m benchmarks.cpu_speedrun fashion_91 --root FOLDER [--seeds 10] [--usual]

Each seed is a process of its own, timed from its start to its end, which reads the test split once.
Before and after it a fixed product of matrices is timed with as many threads, so that the cost can
be told in products, too, which another machine's speed changes less than seconds: one TFLOP of
float32, by the faster of the two. With --usual the usual script takes turns with the record.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import stats

from trainer.text.tables import align

SIDE, PRODUCTS = 2048, 12


@dataclass(frozen=True)
class Task:
    """An accuracy to be reached on a test split, by the mean over the seeds.

    Attributes:
        words: of the record's training, without its folder and seed.
        usual: words of the usual script; empty: there is none.
    """

    accuracy: float
    words: Sequence[str]
    usual: Sequence[str] = ()


def trained(experiment: str) -> list[str]:
    return ["-m", "trainer", f"experiment={experiment}", "test=all"]


TASKS = {
    "fashion_91": Task(
        0.91, trained("fashion_mnist_fast"), ["-m", "benchmarks.usual_fashion", "--epochs", "4"]
    ),
    "fashion_93": Task(0.93, trained("fashion_mnist_best")),
    "digits_98": Task(0.98, trained("digits_99")),
}


def product_seconds() -> float:
    """Of one TFLOP of products of float32 matrices; the middle of several."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    times = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e12 / (2 * SIDE**3)


def timed(words: Sequence[str], cwd: Path) -> tuple[float, str]:
    """Seconds of such a Python process, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start, done.stdout


def ours(task: Task, root: Path, cwd: Path, seed: int) -> tuple[float, float]:
    """Seconds and test accuracy of the record with this seed."""
    own = [f"seed={seed}", f"hydra.run.dir=run{seed}", f"data.root={root}"]
    seconds, _ = timed([*task.words, *own], cwd)
    summary = json.loads((cwd / f"run{seed}" / "summary.json").read_text())
    return seconds, summary["test_accuracy"]


def usual(task: Task, root: Path, cwd: Path, seed: int) -> tuple[float, float]:
    """The same of the usual script; it reads the test split after each epoch, the last counts."""
    seconds, printed = timed([*task.usual, "--root", str(root), "--seed", str(seed)], cwd)
    return seconds, float(re.findall(r"test accuracy ([\d.]+)", printed)[-1])


def told(name: str, rows: Sequence[tuple[float, float, float]], bar: float) -> list[str]:
    """Cells of a side: its accuracy with a t interval of the mean, its seconds, its cost."""
    seconds, accuracies, costs = zip(*rows, strict=True)
    mean = statistics.mean(accuracies)
    interval = ""
    if len(rows) > 1:
        half = stats.sem(accuracies) * stats.t.ppf(0.975, len(rows) - 1)
        interval = f" ({mean - half:.4f} to {mean + half:.4f})"
    return [name, f"{mean:.4f}{interval}", "yes" if mean >= bar else "no",
            f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
            f"{statistics.median(costs):.2f} TFLOP"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--root", type=Path, required=True, help="folder with the dataset's files")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--usual", action="store_true", help="the usual script in turns with it")
    args = parser.parse_args()
    task = TASKS[args.task]
    sides: dict[str, Callable[..., tuple[float, float]]] = {"the record": ours}
    if args.usual and task.usual:
        sides = {"the usual script": usual, **sides}
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as cwd:
        for seed in range(args.seeds):
            for name, run in sides.items():
                before = product_seconds()
                seconds, accuracy = run(task, args.root.resolve(), Path(cwd), seed)
                cost = seconds / min(before, product_seconds())
                rows[name].append((seconds, accuracy, cost))
                print(f"{name}, seed {seed}: {accuracy:.4f} in {seconds:.1f} s, {cost:.2f} TFLOP",
                      flush=True)  # fmt: skip
    head = ["", "test accuracy", f"{task.accuracy:.0%}?", "seconds", "cost"]
    table = [head, *(told(name, found, task.accuracy) for name, found in rows.items())]
    print(f"\n{align(table, left=(0, 1))}")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for the product, torch "
          f"{torch.__version__}")  # fmt: skip
    if len(rows) > 1:
        theirs, mine = rows.values()
        ratio = statistics.median(a[0] / b[0] for a, b in zip(theirs, mine, strict=True))
        print(f"the usual script takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
