"""`python -m trainer [key=value ...]`: train, validate each epoch, test the best weights once.

Imports of torch, which take seconds, stand where no wrong word can end the command any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from trainer.builders import idle_keys
from trainer.cli.resume import resume
from trainer.config import knobs, start
from trainer.config.compose import Composer, parse, plain
from trainer.config.folds import each
from trainer.errors import Stopped, UserError, named
from trainer.runs import lock, out_of_fold
from trainer.runs.folder import claim_folder, refuse_used, remove_half_made
from trainer.runs.read import read_runs, runs_and_jobs
from trainer.runs.report.table import table
from trainer.runs.selection import selected
from trainer.system.paths import shell_path
from trainer.text.values import format_value

CHECKED_WITH_TORCH = (
    "device", "precision", "layers", "compile", "weights", "replace_head", "freeze", *knobs.GROUPS
)  # fmt: skip


class JobFailedError(Exception):
    """A job of a sweep has failed, and told why."""


def main(argv: list[str]) -> int:
    logging.raiseExceptions = False  # a reader that closes the pipe, such as `head`, is no error
    args = parse(argv)
    argv = [*args.flags, *args.overrides]  # the only order that Hydra takes
    if args.hydra_help or args.shell_completion:
        start.tell(argv)
        return 0
    composer = Composer(args)
    master = composer.master()
    jobs = [one for job in composer.jobs(master) for one in each(plain(job), args.overrides)]
    for job in jobs:
        knobs.check(job)
    typed = idle_keys.keys_in(args.overrides)
    refuse_trust(typed, jobs)
    if args.info:
        start.tell(argv)
        return 0
    if args.cfg:
        start.show(composer, master, args)
        return 0
    check_with_torch(jobs, typed)
    kind = "sweep" if args.multirun else "run"
    folder = claim_folder(master, args.overrides, kind)
    failed = False
    try:
        with named(folder):
            start.run(composer, master, folder, task)
    except JobFailedError:
        failed = True
    except SystemExit:  # stopped by a signal
        if args.multirun:
            report_sweep(folder)
        raise
    except Exception:  # Hydra's own, between jobs
        if args.multirun and any(folder.glob(f"*/{lock.NAME}")):
            report_sweep(folder)
        raise
    finally:
        remove_half_made(folder)
    if not args.multirun:
        return 0
    if jobs[0]["test"] == "selected":
        failed |= not test_selected(folder, own_modules(jobs))
    return report_sweep(folder) or int(failed)


def refuse_trust(typed: Collection[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError: here it would change nothing."""
    given = [job["trust"] for job in jobs if job["trust"]]
    if given and "trust" in typed:
        raise UserError(
            f"trust={format_value(given[0])}: plays no part in a training, which takes what its "
            "own command names. Give it to the command that uses the checkpoint."
        )


def own_modules(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Modules of the user's own that the jobs take their classes from, as `trust` names them."""
    from trainer.config import stored

    targets = {(group, str(job[group]["_target_"])) for job in jobs for group in knobs.GROUPS}
    others = {target for group, target in targets if not stored.is_own(group, target)}
    return sorted({target.rpartition(".")[0] for target in others})


def test_selected(folder: Path, modules: Sequence[str]) -> bool:
    """Read the test split for the runs of a sweep that validation has selected. False: some of it
    failed, and was told why.

    Args:
        modules: of the user's own that the runs may name.
    """
    done = True
    values = {"test": "all", **({"trust": f"[{','.join(modules)}]"} if modules else {})}
    chosen = [row for one in selected(read_runs(folder)) for row in one.rows]
    for row in (row for row in chosen if row.test_accuracy is None):
        print(f"\nselected by validation: {row.folder.relative_to(folder)}")
        done &= resume(row.folder, values) == 0
    return done


def report_sweep(folder: Path) -> int:
    """The table of all jobs, the failed ones with their reason."""
    rows = runs_and_jobs(folder)
    print(f"\n{table(rows, folder)}")
    if any(row.fold is not None for row in rows) and (line := out_of_fold.write(folder, rows)):
        print(line)
    print(f"\nsweep folder  {shell_path(folder)}")
    print(f"as a page     python -m trainer report {shell_path(folder)}")
    print(f"see curves    tensorboard --logdir {shell_path(folder)}")
    return int(any(row.status != "finished" for row in rows))


def check_with_torch(jobs: list[dict[str, Any]], typed: Collection[str]) -> None:
    """Checks that need torch, the data and the model: first all that need no files, so that a wrong
    value in any job of a sweep is reported before anything is downloaded."""
    from trainer.builders import training_run

    check_once(training_run.check, CHECKED_WITH_TORCH, jobs)
    idle_keys.refuse_in_training(typed, jobs)
    check_once(training_run.check_data, ("data",), jobs)


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


def task(cfg: DictConfig) -> None:
    """One job, in the folder that Hydra has made. A failure is told in the job's own log; a job of
    a sweep then raises, so that Hydra goes on with the next."""
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
        code = job.report_error(error, folder)
        if in_sweep:
            raise JobFailedError from error
        raise SystemExit(code) from None
