"""`python -m trainer [key=value ...]`: train, validate each epoch, test the best weights once."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config as knobs
from trainer import lock
from trainer.commands import idle
from trainer.compose import Composer, call_hydra, parse, plain, quoted
from trainer.errors import Stopped, UserError, named
from trainer.paths import at_home

if TYPE_CHECKING:
    from omegaconf import DictConfig

CHECKED_WITH_TORCH = (
    "device",
    "precision",
    "layers",
    "compile",
    "weights",
    "replace_head",
    "freeze",
    *knobs.GROUPS,
)
# What Hydra writes before a job begins.
HYDRAS = {
    ".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "trainer.log",
    "multirun.yaml",
}  # fmt: skip


class JobFailedError(Exception):
    """A job of a sweep has failed, and told why."""


def main(argv: list[str]) -> int:
    logging.raiseExceptions = False  # a reader that closes the pipe, such as `head`, is no error
    args = parse(argv)
    argv = [*args.flags, *args.overrides]  # the only order that Hydra takes
    if args.help or args.hydra_help or args.shell_completion:
        call_hydra(argv, task)
        return 0
    composer = Composer(args)
    master = composer.master()
    jobs = [plain(job) for job in composer.jobs(master)]
    for job in jobs:
        knobs.check(job)
    typed = idle.keys_in(args.overrides)
    refuse_trust(typed, jobs)
    if args.cfg or args.info:
        call_hydra(argv, task)
        return 0
    check_with_torch(jobs, typed)
    kind = "sweep" if args.multirun else "run"
    folder = claim_folder(master, args.overrides, kind)
    failed = False
    try:
        with named(folder):
            call_hydra([*argv, f"hydra.{kind}.dir={quoted(str(folder))}"], task)
    except JobFailedError:
        failed = True
    except Exception:  # Hydra's own, between jobs
        if args.multirun and any(folder.glob(f"*/{lock.NAME}")):
            report_sweep(folder)
        raise
    finally:
        remove_half_made(folder)
    return (report_sweep(folder) or int(failed)) if args.multirun else 0


def refuse_trust(typed: Collection[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError: here it would change nothing."""
    given = [job["trust"] for job in jobs if job["trust"]]
    if given and "trust" in typed:
        raise UserError(
            f"trust={knobs.spell(given[0])}: plays no part in a training, which takes what its own "
            "command names. Give it to the command that uses the checkpoint."
        )


def report_sweep(folder: Path) -> int:
    """The table of all jobs, the failed ones with their reason."""
    from trainer.commands.report import runs_and_jobs, table
    from trainer.job import show

    rows = runs_and_jobs(folder)
    print(f"\n{table(rows, folder)}")
    print(f"\nsweep folder  {show(folder)}")
    print(f"as a page     python -m trainer report {show(folder)}")
    print(f"see curves    tensorboard --logdir {show(folder)}")
    return int(any(row.status != "finished" for row in rows))


def check_with_torch(jobs: list[dict[str, Any]], typed: Collection[str]) -> None:
    """What only torch, the data and the model can tell: first all that needs no files, so that a
    wrong value in any job of a sweep is said before anything is downloaded."""
    from trainer import build

    check_once(build.check, CHECKED_WITH_TORCH, jobs)
    idle.refuse_in_training(typed, jobs)
    check_once(build.check_data, ("data",), jobs)


def check_once(
    check: Callable[[dict[str, Any]], None], keys: Sequence[str], jobs: list[dict[str, Any]]
) -> None:
    """Of jobs that these keys do not tell apart, the first alone."""
    seen: list[dict[str, Any]] = []
    for job in jobs:
        parts = {key: job[key] for key in keys}
        if parts not in seen:
            seen.append(parts)
            check(job)


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


def task(cfg: DictConfig) -> None:
    """One job, in the folder that Hydra has made. A failure is told in the job's own log; a job of
    a sweep then raises, so that Hydra goes on with the next."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from trainer import job

    hydra = HydraConfig.get()
    folder, in_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    try:
        with lock.locked(folder):
            refuse_used(folder)  # hydra.sweep.subdir may repeat
            (folder / "summary.json").unlink(missing_ok=True)  # of a start that came to nothing
            job.run(plain(cfg), folder, dict(hydra.runtime.choices), in_sweep)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None  # ends a sweep, too
    except Exception as error:
        code = job.tell(error, folder)
        if in_sweep:
            raise JobFailedError from error
        raise SystemExit(code) from None
