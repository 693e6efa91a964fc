"""`python -m trainer [key=value ...]`: train, validate each epoch, test the best weights once."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config as knobs
from trainer.compose import Composer, call_hydra, parse, plain, quoted
from trainer.errors import Stopped, UserError

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


def main(argv: list[str]) -> int:
    logging.raiseExceptions = False  # a reader that closes the pipe, such as `head`, is no error
    args = parse(argv)
    argv = flags_first(argv, args.overrides)
    if args.help or args.hydra_help or args.shell_completion:
        call_hydra(argv, task)
        return 0
    composer = Composer(args)
    master = composer.master()
    jobs = [plain(job) for job in composer.jobs(master)]
    for job in jobs:
        knobs.check(job)
    if args.cfg or args.info:
        call_hydra(argv, task)
        return 0
    check_with_torch(jobs)
    kind = "sweep" if args.multirun else "run"
    folder = claim_folder(master, args.overrides, kind)
    failed = False
    try:
        call_hydra([*argv, f"hydra.{kind}.dir={quoted(str(folder))}"], task)
    except Exception:
        if not args.multirun or not any(folder.iterdir()):
            raise
        failed = True
    finally:
        remove_if_empty(folder)
    return (report_sweep(folder) or int(failed)) if args.multirun else 0


def flags_first(argv: list[str], overrides: list[str]) -> list[str]:
    """The same words with Hydra's flags before the overrides, the only order that it takes."""
    flags = list(argv)
    for word in overrides:
        flags.remove(word)
    return flags + overrides


def report_sweep(folder: Path) -> int:
    """The table of all jobs, the failed ones with their reason."""
    from trainer.commands.report import read_runs, table
    from trainer.job import show

    rows = read_runs(folder)
    print(f"\n{table(rows, folder)}")
    print(f"\nsweep folder  {show(folder)}")
    print(f"as a page     python -m trainer report {show(folder)}")
    print(f"see curves    tensorboard --logdir {show(folder)}")
    return int(any(row.status != "finished" for row in rows))


def check_with_torch(jobs: list[dict[str, Any]]) -> None:
    """What only torch, the data and the model can tell: first all that needs no files, so that a
    wrong value in any job of a sweep is said before anything is downloaded."""
    from trainer import build

    for step, keys in ((build.check, CHECKED_WITH_TORCH), (build.check_data, ("data",))):
        seen: list[dict[str, Any]] = []
        for job in jobs:
            parts = {key: job[key] for key in keys}
            if parts not in seen:
                seen.append(parts)
                step(job)


def claim_folder(master: DictConfig, overrides: list[str], kind: str) -> Path:
    """Make the folder of this run or sweep, one that nobody else has."""
    if master.hydra.job.chdir:
        raise UserError(
            "hydra.job.chdir=true: paths are relative to where you start; leave it out."
        )
    folder = Path(str(master.hydra[kind].dir)).absolute()
    if any(word.lstrip("+").startswith(f"hydra.{kind}.dir=") for word in overrides):
        refuse_used(folder)
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


def refuse_used(
    folder: Path, signs: tuple[str, ...] = (".hydra", "metrics.jsonl", "multirun.yaml")
) -> None:
    # os.path: a name that is too long for a folder is no error here, but where it is made.
    if any(os.path.exists(folder / name) for name in signs):
        raise UserError(
            f"{folder}: holds a run already, which would be overwritten.\n"
            f"Continue it with `python -m trainer resume {folder}`, or choose another folder."
        )


def remove_if_empty(folder: Path) -> None:
    """Hydra may still refuse to start; then nothing is left behind."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def task(cfg: DictConfig) -> None:
    """One job, in the folder that Hydra has made. A failure is told in the job's own log; a job of
    a sweep then raises, so that Hydra goes on with the next."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from trainer import job, lock

    hydra = HydraConfig.get()
    folder, in_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    try:
        with lock.locked(folder):
            refuse_used(folder, ("metrics.jsonl", "summary.json"))  # hydra.sweep.subdir may repeat
            job.run(plain(cfg), folder, dict(hydra.runtime.choices), in_sweep)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None  # ends a sweep, too
    except Exception as error:
        job.tell(error, folder)
        if in_sweep:
            raise
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None
