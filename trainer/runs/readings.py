"""Ledger of test readings: one line for each time that a test split was evaluated.

A test split estimates how good a model is on new images as long as nothing was chosen by it. The
ledger, test_readings.jsonl beside the runs, counts how often it was looked at, by which runs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.evaluation.statistics import expected_maximum
from trainer.runs.folder import sweep_of
from trainer.runs.lock import fcntl
from trainer.runs.side_files import UNREADABLE, content
from trainer.text.values import count

log = logging.getLogger("trainer")

NAME = "test_readings.jsonl"
HANDFUL = 5  # models that may be read before the price of choosing among them is told


@dataclass(frozen=True)
class Readings:
    """Readings of one test split so far.

    Attributes:
        count: readings.
        runs: different runs, or checkpoints outside of runs, that were evaluated; a copy of a
            run's checkpoint is that run.
        models: different weights that were evaluated, whichever checkpoint they were in.
    """

    file: Path
    count: int
    runs: int
    models: int

    def told(self, accuracy: float | None, num_images: int, std: float | None = None) -> str:
        """A sentence for the end of a training or evaluation.

        Args:
            accuracy, num_images: of the latest reading.
            std: standard deviation of the accuracy over seeds, if known; None: that of the
                binomial distribution.
        """
        line = (
            f"readings of this test split: {self.count:,}, by {count(self.runs, 'run')} "
            f"({os.path.relpath(self.file)})"
        )
        if self.models <= HANDFUL or accuracy is None or num_images < 1:
            return line
        if std is None:
            std = math.sqrt(accuracy * (1 - accuracy) / num_images)
        luck = 100 * expected_maximum(self.models, std)
        return (
            f"{line}; the best of {self.models} equally good models is {luck:.1f} points above "
            "their mean by luck alone: choose by validation"
        )


def ledger_of(path: Path, in_run: bool = True) -> Path:
    """Ledger for a run's folder: in the `outputs` folder above it, else beside the run, or beside
    the sweep that it is a job of.

    Args:
        path: the run's folder, or a checkpoint that lies in none.
        in_run: False: such a checkpoint; its ledger is in `outputs` of the working folder.
    """
    if not in_run:
        return Path("outputs") / NAME
    folder = Path(os.path.abspath(path))
    for above in folder.parents:
        if above.name == "outputs":
            return above / NAME
    return (sweep_of(folder) or folder).parent / NAME


def name_in(file: Path, run: Path) -> str:
    """Name of a run, or of a checkpoint, in a ledger: the same wherever the command was started."""
    top = file.absolute().parent
    top = top.parent if top.name == "outputs" else top
    path = os.path.abspath(run)
    return os.path.relpath(path, top) if Path(path).is_relative_to(top) else path


def note(file: Path, **reading: Any) -> Readings | None:
    """Append a reading: `command`, `run`, `checkpoint`, `digest`, `weights` (their
    digest), `dataset`, `pixels`, `split`, `num_images`.
    Returns all readings of that test split; None, and a line in the log, if the file cannot be
    written: no result is lost for that."""
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **reading}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        append(file, json.dumps(row).encode() + b"\n")
    except OSError as error:
        log.warning("%s: the reading of the test split could not be noted: %s", file,
                    error.strerror)  # fmt: skip
        return None
    return readings_of(file, reading["dataset"], reading.get("pixels"))


def append(file: Path, line: bytes) -> None:
    """Append a line in one write, so that runs that end at the same time do not mix theirs, and
    after a newline where an earlier one was cut off."""
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network drives have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed
        if os.lseek(descriptor, 0, os.SEEK_END):
            os.lseek(descriptor, -1, os.SEEK_END)
            line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def are_other(a: str | None, b: str | None) -> bool:
    """True where two test splits with one id have other pixels: their images were brought to the
    same shape in the same way, and differ. Of earlier versions' rows it is not known (None)."""
    if not a or not b:
        return False
    return a != b and a.rpartition(":")[0] == b.rpartition(":")[0]


def readings_of(file: Path, dataset: str, pixels: str | None = None) -> Readings:
    """Readings of the test split with this id and these pixels."""
    found = [
        row
        for row in rows(file)
        if row["dataset"] == dataset and not are_other(row["pixels"], pixels)
    ]
    same: dict[str, str] = {}  # run -> the first of those that share a digest with it
    of_digest: dict[str, str] = {}
    for row in found:
        first = of_digest.setdefault(row["digest"], same.get(row["run"], row["run"]))
        same.setdefault(row["run"], first)
    weights = {row["digest"]: row["weights"] for row in found if row["weights"]}
    models = {weights.get(digest, digest) for digest in of_digest}
    return Readings(file, len(found), len({*same.values()}), len(models))


def rows(file: Path) -> Iterator[dict[str, str]]:
    """Rows of a ledger; lines that cannot be used are passed over."""
    try:
        lines = content(file).splitlines()
    except UNREADABLE:
        return
    for line in lines:
        try:
            row = json.loads(line)
            known = {key: str(row[key]) for key in ("dataset", "run", "digest")}
            yield known | {key: str(row.get(key) or "") for key in ("pixels", "weights")}
        except UNREADABLE:
            continue
