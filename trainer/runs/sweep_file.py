"""sweep.json: the jobs of a sweep, written before the first of them begins.

The jobs' own folders say what became of them; the states here repeat it for readers, and are all
that is known of the jobs without a folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.config.changes import IDLE
from trainer.errors import UserError
from trainer.runs.lock import is_locked
from trainer.runs.side_files import UNREADABLE, read_json, readable
from trainer.system.files import write_bytes
from trainer.text.json_text import json_of

NAME = "sweep.json"
WAITING, RUNNING, FINISHED, FAILED, INTERRUPTED = STATES = (
    "waiting", "running", "finished", "failed", "interrupted",
)  # fmt: skip
# Beginnings of the reason of a job that a search has stopped for good.
PRUNED, ELIMINATED = "pruned at epoch", "eliminated after epoch"


@dataclass
class Job:
    """One training of a sweep.

    Attributes:
        index: place in the plan, from 0.
        overrides: words of its command line.
        folder: name of its folder in the sweep's.
        state: one of STATES.
        reason: first line of the message of a failure, or why it was stopped.
        attempts: processes that were started for it.
    """

    index: int
    overrides: list[str]
    folder: str
    state: str = WAITING
    reason: str | None = None
    attempts: int = 0

    @property
    def is_missing(self) -> bool:
        """True if it has no end yet, and will have one once the sweep is resumed."""
        has_end = self.state in (FINISHED, FAILED) or is_given_up(self.state, self.reason)
        return not has_end


@dataclass
class Sweep:
    """Plan of a sweep, and the state of its jobs.

    Attributes:
        command: words of its command line.
        versions: of the program and the packages that the results depend on.
        begun_with: what its results depend on beside the overrides, to tell a change when it is
            resumed: digest of the program's source, configuration, datasets.
    """

    folder: Path
    name: str
    command: list[str]
    versions: dict[str, str] = field(default_factory=dict)
    begun_with: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.folder

    def to_do(self, retry_failed: bool) -> list[Job]:
        """Jobs that have no end by what their folders say, those that failed among them if they are
        to be tried again."""
        self.refresh()
        done = (FINISHED,) if retry_failed else (FINISHED, FAILED)
        jobs = [job for job in self.jobs if job.state not in done]
        for job in jobs:
            job.state = INTERRUPTED if job.attempts else WAITING
        return jobs

    def give_up(self, job: Job, reason: str) -> None:
        """Note in the folder of a job that it is not to go on, and why."""
        folder = self.folder_of(job)
        if job.reason == reason or is_locked(folder):
            return
        summary = readable({}, read_json, folder / "summary.json")
        summary |= {"status": INTERRUPTED, "reason": reason}
        write_bytes(folder / "summary.json", (json_of(summary, indent=2) + "\n").encode())
        job.state, job.reason = INTERRUPTED, reason

    def save(self) -> None:
        """Write sweep.json, whole or not at all."""
        entries = {key: value for key, value in vars(self).items() if key not in ("folder", "jobs")}
        entries["jobs"] = [asdict(job) for job in self.jobs]
        write_bytes(self.folder / NAME, (json_of(entries, indent=1) + "\n").encode())

    def refresh(self) -> None:
        """Set each job's state to what its folder says."""
        for job in self.jobs:
            job.state, job.reason = state_in(self.folder_of(job))


def state_in(folder: Path) -> tuple[str, str | None]:
    """State of the job in a folder, and the reason of a failure."""
    if is_locked(folder):
        return RUNNING, None
    summary = readable({}, read_json, folder / "summary.json")
    status, reason = summary.get("status"), summary.get("reason")
    if status in (FINISHED, FAILED, INTERRUPTED):
        return status, str(reason) if reason is not None else None
    has_states = any((folder / "checkpoints").glob("*.pth"))
    return (INTERRUPTED if has_states else WAITING), None


def is_given_up(status: str, reason: str | None) -> bool:
    """True of a job that a search has stopped for good, so that nothing of it is missing."""
    return status == INTERRUPTED and (reason or "").startswith((PRUNED, ELIMINATED))


def is_own(folder: Path) -> bool:
    """True for the folder of a sweep of this program's."""
    return os.path.isfile(folder / NAME)


def is_sweep(folder: Path) -> bool:
    """True for the folder of a sweep, also of one of Hydra's launchers."""
    return is_own(folder) or os.path.isfile(folder / "multirun.yaml")


def listed_in(sweep: Path, folder: Path) -> bool:
    """True if a folder is that of a job of this sweep."""
    return any(sweep / job.folder == folder for job in jobs_in(sweep))


def jobs_in(folder: Path) -> list[Job]:
    """Jobs of the sweep in a folder; [] if it holds none that can be read."""
    return readable([], lambda: read_jobs(read_json(folder / NAME)))


def read_jobs(entries: dict[str, Any]) -> list[Job]:
    """Raises one of UNREADABLE."""
    return [checked(job, number) for number, job in enumerate(entries["jobs"])]


def load(folder: Path) -> Sweep:
    """The sweep in a folder. Raises UserError."""
    try:
        found = read_json(folder / NAME)
        jobs = read_jobs(found)
        words = texts(found["command"])
        versions, begun_with = dict(found.get("versions", {})), dict(found.get("begun_with", {}))
        return Sweep(folder, str(found["name"]), words, versions, begun_with, jobs)
    except UNREADABLE as error:
        raise UserError(
            f"{folder / NAME}: cannot be read ({error!s:.200}), so which jobs the sweep has is not "
            f"known. Resume them one by one (`resume FOLDER_OF_A_JOB`); those that were not "
            "started need a sweep of their own."
        ) from error


def checked(entry: dict[str, Any], number: int) -> Job:
    """Job of an entry of sweep.json. Raises one of UNREADABLE."""
    job = Job(
        int(entry["index"]), texts(entry["overrides"]), str(entry["folder"]), str(entry["state"]),
        entry.get("reason"), int(entry.get("attempts", 0)),
    )  # fmt: skip
    if job.index != number or job.state not in STATES:
        raise ValueError(f"job {number} is damaged")
    if not job.folder or Path(job.folder).is_absolute() or ".." in Path(job.folder).parts:
        raise ValueError(f"job {number} has a folder outside of the sweep's")
    return job


def texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError("not a list of words")
    return value


def identity(overrides: Sequence[str]) -> frozenset[str]:
    """What makes two jobs the same: their overrides in any order, but for those that change nothing
    that is trained."""
    return frozenset(w for w in overrides if w.lstrip("+").partition("=")[0] not in IDLE)
