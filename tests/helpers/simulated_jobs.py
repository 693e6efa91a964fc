"""For tests and benchmarks of searches: a launcher whose jobs write the files of a training without
training anything, an epoch of each running job at a time."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.runs import sweep_file
from trainer.runs.sweep_file import Sweep
from trainer.sweeps.driver import run_jobs
from trainer.sweeps.plan import extend
from trainer.sweeps.progress import Reporter
from trainer.sweeps.room import Room
from trainer.sweeps.search import Search

Curve = Callable[[Sequence[str], int], float]


class KilledError(BaseException):
    """The end of the process that drives a sweep."""


@dataclass
class SimulatedJobs:
    """Launcher; see `trainer.sweeps.driver.Launcher`.

    Attributes:
        curve: validation accuracy of the job with these overrides after an epoch.
        epochs: of a whole training.
        most_calls: the sweep is killed after so many looks at its jobs.
        num_epochs: that were trained, over all jobs.
        failing: beginnings of the folder names of jobs that fail after an epoch.
    """

    curve: Curve
    epochs: int
    most_calls: float = float("inf")
    num_epochs: int = 0
    failing: tuple[str, ...] = ()
    running: dict[int, tuple[list[str], Path, int]] = field(default_factory=dict)
    codes: list[tuple[int, int]] = field(default_factory=list)

    def start(self, key: int, words: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        stop = [int(word.partition("=")[2]) for word in words if word.startswith("stop_epoch=")]
        own = [word for word in words if not word.startswith("stop_epoch=")]
        self.running[key] = (own, log.parent, stop[-1] if stop else 0)
        (log.parent / "summary.json").unlink(missing_ok=True)

    def ended(self, timeout_s: float) -> list[tuple[int, int]]:
        self.most_calls -= 1
        if self.most_calls < 0:
            raise KilledError
        for key, (words, folder, stop) in list(self.running.items()):
            self.train_epoch(key, words, folder, stop)
        found, self.codes = self.codes, []
        return found

    def going(self, folders: Mapping[int, Path]) -> list[int]:
        return []

    def send(self, key: int, number: int) -> None:
        if key in self.running:
            self.end(key, "interrupted", f"stopped by signal {number}", 128 + number)

    def stop(self, number: int) -> list[tuple[int, int]]:
        if self.most_calls < 0:
            raise KilledError
        for key in list(self.running):
            self.send(key, number)
        found, self.codes = self.codes, []
        return found

    def train_epoch(self, key: int, words: Sequence[str], folder: Path, stop: int) -> None:
        file = folder / "metrics.jsonl"
        epoch = 1 + (len(file.read_text().splitlines()) if file.exists() else 0)
        accuracy = self.curve(words, epoch)
        row = {"step": epoch, "epoch": epoch, "split": "val", "accuracy": accuracy,
               "loss": 1 - accuracy}  # fmt: skip
        with open(file, "a") as rows:
            rows.write(json.dumps(row) + "\n")
        self.num_epochs += 1
        if folder.name.startswith(self.failing or "-"):
            self.end(key, "failed", "no such luck", 1)
        elif epoch >= self.epochs:
            self.end(key, "finished", None, 0)
        elif epoch == stop:
            self.end(key, "interrupted", f"stopped after epoch {stop} (stop_epoch)", 0)

    def end(self, key: int, status: str, reason: str | None, code: int) -> None:
        _words, folder, _ = self.running.pop(key)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        best = max((row["accuracy"] for row in rows), default=None)
        summary = {"status": status, "reason": reason, "val_accuracy": best, "epochs": len(rows)}
        (folder / "summary.json").write_text(json.dumps(summary))
        self.codes.append((key, code))


def run(
    folder: Path, search: Search, jobs: SimulatedJobs, at_a_time: int = 2, retry: bool = False
) -> Sweep:
    """Run, or go on with, a sweep of simulated jobs, as `trainer.cli.sweep` does."""
    is_begun = sweep_file.is_own(folder)
    folder.mkdir(exist_ok=True)
    sweep = sweep_file.load(folder) if is_begun else Sweep(folder, folder.name, [])
    extend(sweep, search.planned)
    sweep.save()
    search.begin(sweep, sweep.to_do(retry))
    with contextlib.redirect_stdout(io.StringIO()):
        run_jobs(
            sweep, search, lambda job: [*job.overrides, *search.words(job)], jobs,
            Room(at_a_time, 64, (), lambda job: 1), Reporter(sweep.jobs),
        )  # fmt: skip
    return sweep


def outcome(sweep: Sweep) -> list[tuple[str, str, str | None]]:
    """Of each job, the words, the state and the reason."""
    return [(" ".join(job.overrides), job.state, job.reason) for job in sweep.jobs]
