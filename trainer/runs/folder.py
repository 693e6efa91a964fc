"""Folder of a run or sweep: created for it alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from omegaconf import DictConfig

from trainer.errors import UserError
from trainer.runs import lock
from trainer.runs.side_files import read_json, readable
from trainer.runs.sweep_file import is_sweep, listed_in
from trainer.system.paths import at_home, shell_path

# Files that Hydra writes before a job starts.
HYDRAS = {
    ".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "trainer.log",
    "multirun.yaml",
}  # fmt: skip


def run_folder(master: DictConfig, overrides: list[str]) -> Path | None:
    """Folder of a run that the user has named; None: the default."""
    if not is_named(overrides, "run"):
        return None
    return at_home(Path(str(master.hydra.run.dir))).absolute()


def is_named(overrides: list[str], kind: str) -> bool:
    return any(word.lstrip("+").startswith(f"hydra.{kind}.dir=") for word in overrides)


def claim_folder(
    master: DictConfig, overrides: list[str], kind: str, named: Path | None = None
) -> Path:
    """Create a new folder for this run or sweep, with a number added to its default name if it
    exists. Raises UserError if a folder that the user named is in use.

    Args:
        kind: run or sweep.
        named: by another key than Hydra's.
    """
    if master.hydra.job.chdir:
        raise UserError(
            "hydra.job.chdir=true: not supported, since paths are relative to the folder where the "
            "command is started. Leave the key out."
        )
    given = str(named or master.hydra[kind].dir)
    if not given.strip():
        raise UserError(f"hydra.{kind}.dir={given}: must be a folder; . is the current one.")
    folder = at_home(Path(given)).absolute()
    if named or is_named(overrides, kind):
        refuse_used(folder)
        if lock.is_locked(folder):
            raise UserError(f"{folder}: a run is starting there. Choose another folder.")
        return make_folder(folder, exist_ok=True)
    for attempt in range(1, 1000):
        try:
            suffix = f"-{attempt}" if attempt > 1 else ""
            return make_folder(folder.with_name(folder.name + suffix), exist_ok=False)
        except FileExistsError:
            continue
    raise UserError(f"{folder}: a thousand folders of this name already exist. Remove some.")


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
            f"{folder}: the run's folder cannot be created: {error.strerror}.\n"
            "Start in a folder with write permission, or give hydra.run.dir=FOLDER."
        ) from error
    return folder


def refuse_used(folder: Path) -> None:
    """Raises UserError if a folder holds a run or a sweep. A training that ended before its first
    state does not count: it cannot be resumed."""
    # os.path does not raise for a name that is too long; creating the folder reports it.
    if is_sweep(folder):
        raise UserError(
            f"{folder}: holds a sweep already, which would be overwritten.\n"
            f"Continue it with `python -m trainer resume {shell_path(folder)}`, or choose another "
            "folder."
        )
    if holds_run(folder):
        raise UserError(
            f"{folder}: holds a run already, which would be overwritten.\n"
            f"Continue it with `python -m trainer resume {shell_path(folder)}`, or choose another "
            "folder."
        )


def run_of(checkpoint: Path) -> Path | None:
    """Folder of the run that a checkpoint lies in; None if it lies in none."""
    folder = checkpoint.absolute().parent
    in_run = folder.name == "checkpoints" and (folder.parent / "metrics.jsonl").is_file()
    return folder.parent if in_run else None


def sweep_of(folder: Path) -> Path | None:
    """Folder of the sweep that a run is a job of, at any depth; None: of none."""
    above = Path(os.path.abspath(folder)).parents
    return next((path for path in above if is_sweep(path)), None)


def is_gone_on_with(folder: Path) -> bool:
    """True if a folder holds a run that its own command goes on with when it is given again: a job
    of a sweep, or a training that torchrun or Slurm has restarted."""
    restarts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    is_restarted = any(os.environ.get(name, "0") not in ("", "0") for name in restarts)
    return holds_run(folder) and (is_restarted or listed_in(folder.parent, folder))


def holds_run(folder: Path) -> bool:
    """True if a folder has checkpoints, also damaged ones, or the summary of a finished run."""
    summary, states = folder / "summary.json", folder / "checkpoints"
    if os.path.isdir(states) and any(states.glob("*.pth*")):
        return True
    found = readable({}, read_json, summary)
    return os.path.exists(summary) and found.get("status", "finished") == "finished"


def remove_half_made(folder: Path) -> None:
    """Remove the folder of a run, or of a sweep with its jobs, if it holds only what Hydra writes
    before a job starts. Called when Hydra refuses to start, or the disk fails at that point."""
    for job in (*folder.glob("*/"), folder):
        with contextlib.suppress(OSError):
            files = {path.relative_to(job).as_posix(): path for path in job.rglob("*")}
            log = files.get("trainer.log")
            if files.keys() <= HYDRAS and not (log and log.stat().st_size):
                for path in sorted(files.values(), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                job.rmdir()
