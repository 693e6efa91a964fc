"""Folder of a run or sweep: one that nobody else has."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import UserError
from trainer.runs import lock
from trainer.system.paths import at_home

if TYPE_CHECKING:
    from omegaconf import DictConfig


# What Hydra writes before a job begins.
HYDRAS = {
    ".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "trainer.log",
    "multirun.yaml",
}  # fmt: skip


def claim_folder(master: DictConfig, overrides: list[str], kind: str) -> Path:
    """Make the folder of this run or sweep, one that nobody else has."""
    if master.hydra.job.chdir:
        raise UserError(
            "hydra.job.chdir=true: paths are relative to where you start; leave it out."
        )
    given = str(master.hydra[kind].dir)
    if not given.strip():
        raise UserError(f"hydra.{kind}.dir={given}: must be a folder; . is this one.")
    folder = at_home(Path(given)).absolute()
    if any(word.lstrip("+").startswith(f"hydra.{kind}.dir=") for word in overrides):
        refuse_used(folder)
        if lock.is_locked(folder):
            raise UserError(f"{folder}: a run is beginning there. Choose another folder.")
        return make_folder(folder, exist_ok=True)
    for attempt in range(1, 1000):
        try:
            suffix = f"-{attempt}" if attempt > 1 else ""
            return make_folder(folder.with_name(folder.name + suffix), exist_ok=False)
        except FileExistsError:
            continue
    raise UserError(f"{folder}: a thousand folders of this name exist already.")


def make_folder(folder: Path, exist_ok: bool) -> Path:
    if "${" in str(folder):
        raise UserError(f"{folder}: Hydra cannot work in a folder with ${{ in its name.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=exist_ok)
    except FileExistsError:
        if folder.is_dir():
            raise
        raise UserError(f"{folder}: is a file, not a folder.") from None
    except OSError as error:
        raise UserError(
            f"{folder}: the run's folder cannot be made: {error.strerror}.\n"
            "Start from a folder that you may write in, or give hydra.run.dir=FOLDER."
        ) from error
    return folder


def refuse_used(folder: Path) -> None:
    """Raises UserError if something was trained there. What ended before its first state is no
    run: neither `resume` nor anybody else could do anything with it."""
    # os.path: a name that is too long for a folder is no error here, but where it is made.
    if os.path.exists(folder / "multirun.yaml"):
        raise UserError(
            f"{folder}: holds a sweep already. A sweep cannot be continued as a whole yet: "
            f"`python -m trainer report {folder}` tells which of its jobs are done, `resume "
            "FOLDER_OF_A_JOB` continues one that was cut off, and those that were not started "
            "need a sweep of their own, in another folder."
        )
    if holds_run(folder):
        raise UserError(
            f"{folder}: holds a run already, which would be overwritten.\n"
            f"Continue it with `python -m trainer resume {folder}`, or choose another folder."
        )


def holds_run(folder: Path) -> bool:
    """Whether there are states or weights, also damaged ones, or a result."""
    summary, states = folder / "summary.json", folder / "checkpoints"
    if os.path.isdir(states) and any(states.glob("*.pth*")):
        return True
    if not os.path.exists(summary):
        return False
    try:
        return bool(json.loads(summary.read_text("utf-8"))["status"] == "finished")
    except (ValueError, KeyError, TypeError):
        return True


def remove_half_made(folder: Path) -> None:
    """Hydra may refuse to start, or the disk to take what it writes before a job begins, which
    makes `.lock` first of all: then nothing is left behind, neither of a run nor of the jobs of a
    sweep."""
    for job in (*folder.glob("*/"), folder):
        with contextlib.suppress(OSError):
            files = {path.relative_to(job).as_posix(): path for path in job.rglob("*")}
            log = files.get("trainer.log")
            if files.keys() <= HYDRAS and not (log and log.stat().st_size):
                for path in sorted(files.values(), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                job.rmdir()
