"""Successive halving against the whole grid of 27 configurations: epochs that it trains, and how
often what it finds is as good as the grid's best.

The grid is trained, one seed after the other, and its validations are replayed to the search: a
configuration that was stopped and gone on with has the same bits, so it sees what it would see.
With --crossing the curves are simulated instead, such that slow starters end best, which is what
the method cannot know.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.helpers.simulated_jobs import SimulatedJobs, run
from trainer import job
from trainer.cli.asked import compose
from trainer.config.compose import parse
from trainer.evaluation.statistics import interval_of
from trainer.runs.read import read_metrics
from trainer.runs.side_files import read_json
from trainer.runs.sweep_file import Sweep
from trainer.sweeps.halving import Halving
from trainer.sweeps.search import Search

IMAGES = 1000  # of the validation split
DATA = ("data=synthetic", "data.num_train=2000", "data.val_size=0.5", "data.num_test=10",
        "data.shape=[1,8,8]", "data.noise=0.5", "tensorboard=false", "test=none",
        "num_threads=1")  # fmt: skip
KEYS = ("optimizer.lr=0.0003,0.003,0.03", "batch_size=16,64,256", "model.dropout=0,0.2,0.5")
GRID = [
    [f"optimizer.lr={lr}", f"batch_size={size}", f"model.dropout={dropout}"]
    for lr in (0.0003, 0.003, 0.03) for size in (16, 64, 256) for dropout in (0, 0.2, 0.5)
]  # fmt: skip

Curves = dict[tuple[str, ...], list[float]]
Accuracy = Callable[[Sequence[str], int], float]


def trained(seed: int, epochs: int) -> Accuracy:
    """Validation accuracy of each configuration after each epoch of its training."""
    words = ["--multirun", *DATA, f"epochs={epochs}", f"seed={seed}", f"data.seed={seed}", *KEYS]
    found: Curves = {}
    for own, config in zip(GRID, compose(parse(words)).jobs, strict=True):
        with tempfile.TemporaryDirectory() as name:
            job.run(config, Path(name), {}, in_sweep=True)
            rows = read_metrics(Path(name) / "metrics.jsonl")
        found[tuple(own)] = [row["accuracy"] for row in rows if row["split"] == "val"]
    return lambda words, epoch: found[tuple(words)][epoch - 1]


def crossing(seed: int, epochs: int) -> Accuracy:
    """Simulated: the slower a configuration, the higher its end."""

    def accuracy(words: Sequence[str], epoch: int) -> float:
        own = random.Random(f"{seed} {' '.join(words)}")
        slowness = own.random()
        end = 0.7 + 0.12 * slowness + 0.15 * own.random()
        expected = end - (end - 0.1) * math.exp(-epoch / (1 + 3 * slowness))
        draw = random.Random(f"{seed} {' '.join(words)} {epoch}")
        return sum(draw.random() < expected for _ in range(IMAGES)) / IMAGES

    return accuracy


def best_of(sweep: Sweep) -> float:
    """Validation accuracy of the best finished job."""
    finished = [job for job in sweep.jobs if job.state == "finished"]
    return max(
        float(read_json(sweep.folder_of(job) / "summary.json")["val_accuracy"]) for job in finished
    )


def compare(accuracy: Accuracy, epochs: int, min_epochs: int) -> tuple[int, int, float, float]:
    """Epochs of the grid and of halving, and the accuracies that they find."""
    configs = [{"epochs": epochs, "eval_every_epochs": 1, "stop_epoch": 0}]
    with tempfile.TemporaryDirectory() as name:
        whole, halved = SimulatedJobs(accuracy, epochs), SimulatedJobs(accuracy, epochs)
        grid = run(Path(name) / "grid", Search(GRID), whole, at_a_time=27)
        search = Halving(GRID, {"factor": 3, "min_epochs": min_epochs}, configs)
        found = run(Path(name) / "halving", search, halved, at_a_time=27)
        return whole.num_epochs, halved.num_epochs, best_of(grid), best_of(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--min-epochs", type=int, default=1)
    parser.add_argument("--crossing", action="store_true")
    args = parser.parse_args()
    hits, curves = 0, crossing if args.crossing else trained
    print("seed   epochs: grid  halving   best val: grid (95 %)            halving   within")
    for seed in range(args.seeds):
        accuracy = curves(seed, args.epochs)
        of_grid, of_halving, best, found = compare(accuracy, args.epochs, args.min_epochs)
        interval = interval_of(best, IMAGES)
        assert interval is not None
        hits += found >= interval.low
        print(f"{seed:>4}   {of_grid:>12} {of_halving:>8}   {best:.3f} ({interval})   "
              f"{found:>14.3f}   {'yes' if found >= interval.low else 'no'}",
              flush=True)  # fmt: skip
    print(f"within the interval of the grid's best: {hits} of {args.seeds}")


if __name__ == "__main__":
    main()
