"""Table rows of runs, read from the small files in their folders; the runs may be finished, running
or killed, and the files incomplete."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.evaluation.measures import MEASURES, score_of
from trainer.evaluation.statistics import Interval, interval_of
from trainer.runs import sweep_file
from trainer.runs.lock import is_locked
from trainer.runs.side_files import (
    UNREADABLE,
    content,
    is_number,
    read_json,
    read_rows,
    read_yaml,
    readable,
)

NOT_STARTED = "not started"
RUN_FILES = ("summary.json", "metrics.jsonl")


@dataclass(frozen=True)
class Row:
    """Result of one run; values that are unknown are None.

    Attributes:
        overrides: keys changed on its command line, as key=value.
        status: as in summary.json; "unfinished" without that file, "running" while a process holds
            the run's lock, "unreadable" if a file is damaged, "not started" for a job of a sweep
            that has not begun.
        dataset: id of the test split, see `Dataset.test_set_id`; None: an older run.
        test_pixels: tells its pixels, see `readings.are_other`; None: an older run.
        held_out: what was tested, "test" or a fold, "fold 2 of 5".
        weights_sha256: digest of its last weights.
        best_by: measure of its best epoch, one of progress.MEASURES; None: an older run, of
            accuracy.
        val_score: the best epoch's value of it.
        num_train_images: in its train split; None: an older run.
    """

    folder: Path
    overrides: list[str]
    status: str
    reason: str | None
    test_accuracy: float | None
    val_accuracy: float | None
    best_epoch: int | None
    epochs: int | None
    train_s: float | None
    images_per_s: float | None
    val_loss: float | None
    num_val_images: int | None
    num_test_images: int | None
    dataset: str | None
    test_pixels: str | None
    held_out: str | None
    weights_sha256: str | None
    best_by: str | None = None
    val_score: float | None = None
    num_train_images: int | None = None

    @property
    def fold(self) -> str | None:
        """Fold that took the place of its test split, "fold 2 of 5"; None: none."""
        return None if self.held_out in (None, "test") else self.held_out

    @property
    def is_over(self) -> bool:
        """True of a run that has ended as it should, also by a search that has stopped it."""
        return self.status == "finished" or sweep_file.is_given_up(self.status, self.reason)

    @property
    def val_interval(self) -> Interval | None:
        return interval_of(self.val_accuracy, self.num_val_images or 0)

    @property
    def test_interval(self) -> Interval | None:
        return interval_of(self.test_accuracy, self.num_test_images or 0)


def read_runs(folder: Path) -> list[Row]:
    """Rows of the runs at or below a folder, in natural order (2 before 10)."""
    found = {path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")}
    found |= {path.parent for name in RUN_FILES for path in folder.rglob(name)}
    return [read_run(run) for run in sorted(found, key=natural)]


def unlisted(folder: Path) -> list[OSError]:
    """Folders, at any depth, that may hold runs and cannot be listed."""
    errors: list[OSError] = []
    for _ in os.walk(folder, onerror=errors.append):
        pass
    return errors


def runs_and_jobs(folder: Path) -> list[Row]:
    """The runs at or below a folder, and the jobs of sweeps that have not begun."""
    rows = read_runs(folder)
    by_folder = {row.folder: row for row in rows}
    for file in folder.rglob(sweep_file.NAME):
        for job in sweep_file.jobs_in(file.parent):
            place = file.parent / job.folder
            if place not in by_folder:
                by_folder[place] = not_started(place, job.overrides)
            elif not by_folder[place].overrides:  # it died before it wrote them
                by_folder[place] = replace(by_folder[place], overrides=job.overrides)
    return sorted(by_folder.values(), key=lambda row: natural(row.folder))


def not_started(folder: Path, overrides: list[str]) -> Row:
    return Row(folder, overrides, NOT_STARTED, None, **dict.fromkeys((*NUMBERS, *TEXTS)))


def natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_run(folder: Path) -> Row:
    """Row of one run. If a file is damaged, its status is "unreadable", and the values of the other
    files are kept."""
    faults: list[str] = []

    def read_or(name: str, otherwise: Any, read: Callable[[Path], Any]) -> Any:
        try:
            return read(folder)
        except UNREADABLE as error:
            why = error.strerror if isinstance(error, OSError) else None
            faults.append(f"{name} cannot be read: {why}" if why else f"{name} is damaged")
            return otherwise

    overrides = read_or(OVERRIDES, [], lambda run: read_overrides(run / OVERRIDES))
    has_summary = (folder / "summary.json").exists()
    summary = read_or("summary.json" if has_summary else "metrics.jsonl", {}, checked_summary)
    status, reason = summary.get("status", "unfinished"), summary.get("reason")
    if faults:
        status, reason = "unreadable", ", ".join(faults)
    if is_locked(folder):
        status, reason = "running", None
    known = {name: summary.get(name) for name in (*NUMBERS, *TEXTS)}
    return Row(folder, overrides, status, reason, **known)


OVERRIDES = ".hydra/overrides.yaml"
NUMBERS = (
    "test_accuracy", "val_accuracy", "best_epoch", "epochs", "train_s", "images_per_s", "val_loss",
    "num_val_images", "num_test_images", "val_score", "num_train_images",
)  # fmt: skip
TEXTS = ("dataset", "test_pixels", "held_out", "weights_sha256", "best_by")
LARGEST = 1e15  # larger values of NUMBERS count as damaged
MOST_WORDS, LONGEST_WORD = 10_000, 2**16


def checked_summary(folder: Path) -> dict[str, Any]:
    """`read_summary` with the types of the entries in `Row` checked. Raises TypeError."""
    summary = read_summary(folder)
    for name in NUMBERS:
        value = summary.get(name)
        if value is not None and not (is_number(value) and abs(value) < LARGEST):
            raise TypeError(f"{name} is not a number")
        if value is not None and name.endswith("_accuracy") and not 0 <= value <= 1:
            raise TypeError(f"{name} is no share")
    for name in ("status", "reason", *TEXTS):
        if not isinstance(summary.get(name, ""), str | None):
            raise TypeError(f"{name} is not a text")
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """Content of summary.json; without that file, the best and the last epoch from
    metrics.jsonl."""
    file = folder / "summary.json"
    if file.is_file():
        return read_json(file)
    rows, by = read_metrics(folder / "metrics.jsonl"), best_by_of(folder)
    found: dict[str, Any] = {"epochs": rows[-1]["epoch"]} if rows else {}
    if (best := best_row(rows, by)) is not None:
        found |= {"val_accuracy": best["accuracy"], "val_loss": best["loss"], "best_by": by,
                  "val_score": best[by], "best_epoch": best["epoch"]}  # fmt: skip
    return found


def best_by_of(folder: Path) -> str:
    """Key best_by of a run, from its configuration; accuracy where that does not say."""
    config = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
    by = config.get("best_by") if isinstance(config, dict) else None
    return by if by in MEASURES else MEASURES[0]


def best_row(rows: Iterable[dict[str, Any]], by: str) -> dict[str, Any] | None:
    """Best validation among rows of a metrics.jsonl, as a run chooses its best epoch."""
    usable = (
        row for row in rows
        if row["split"] == "val" and row["accuracy"] is not None and row["loss"] is not None
        and row.get(by) is not None
    )  # fmt: skip
    return max(usable, key=lambda row: (score_of(by, row), -row["loss"]), default=None)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Usable rows of a metrics.jsonl; a truncated last line is skipped. Raises ValueError if there
    are lines, but no usable row."""
    if not file.is_file():
        return []
    rows, bad = read_rows(content(file) + b"\n")
    if bad and not rows:
        raise ValueError(f"{file}: no rows")
    return [row for _, row, _ in rows]


def read_overrides(file: Path) -> list[str]:
    """Overrides of the command line in an overrides.yaml of Hydra. Raises one of UNREADABLE."""
    noted = (read_yaml(file) if file.is_file() else []) or []
    if not isinstance(noted, list) or len(noted) > MOST_WORDS:
        raise TypeError(f"{file}: not a list of words")
    words = [str(word) for word in noted if isinstance(word, str | int | float | None)]
    if len(words) < len(noted) or any(len(word) > LONGEST_WORD for word in words):
        raise TypeError(f"{file}: not a list of words")
    return [word for word in words if not word.startswith("stop_epoch=")]  # it has passed


def noted_choices(file: Path) -> dict[str, Any]:
    """Name of the chosen option of each config group, in a hydra.yaml of Hydra. Raises one of
    UNREADABLE."""
    noted = read_yaml(file)["hydra"]["runtime"]["choices"]
    return {str(group): str(choice) for group, choice in noted.items()}


def shared_overrides(rows: list[Row]) -> set[str]:
    """Overrides that all of several runs have in common."""
    return set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def text(value: int | None) -> str:
    return "-" if value is None else str(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}" if minutes else f"{rest:.1f}s"
