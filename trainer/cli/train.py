"""`python -m trainer [key=value ...]`: train, validate each epoch, test the best weights once.

Imports of torch, which take seconds, stand where no wrong word can end the command any more.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from trainer.cli import several, sweep, together
from trainer.cli.asked import Asked, check_with_torch, compose, own_modules
from trainer.cli.resume import go_on, resume
from trainer.config import start
from trainer.config.compose import own_part, parse, plain
from trainer.errors import Paused, Stopped, UserError, named
from trainer.runs import lock
from trainer.runs.folder import (
    claim_folder,
    is_gone_on_with,
    refuse_used,
    remove_half_made,
    run_folder,
    sweep_of,
)
from trainer.system import distributed


class JobFailedError(Exception):
    """A job of a sweep of Hydra's has failed, and told why."""


def main(argv: list[str]) -> int:
    logging.raiseExceptions = False  # a reader that closes the pipe, such as `head`, is no error
    args = parse(argv)
    here = distributed.place()
    if here is not None:
        together.take_over(args, here.size)
    argv = [*args.flags, *args.overrides]  # the only order that Hydra takes
    if args.hydra_help or args.shell_completion:
        start.tell(argv)
        return 0
    asked = compose(args)
    if args.info:
        start.tell(argv)
        return 0
    if args.cfg:
        start.show(asked.composer, asked.master, args)
        return 0
    jobs, is_sweep = asked.jobs, args.multirun and start.is_plain_sweep(asked.master)
    if any(job["processes"] > 1 for job in jobs) and (here is not None or not is_sweep):
        if args.multirun:
            together.refuse_sweep(jobs, here)
        if here is None:
            return distributed.launch(argv, jobs[0]["processes"])
        with several.joined(here) as world:
            world.together(lambda: check_with_torch(jobs, asked.typed))
            modules = own_modules(jobs)
            together.train(world, here, asked.composer, asked.master, jobs[0], modules, task)
        return 0
    if is_sweep:
        return sweep.begin(asked)
    if args.multirun and asked.master.search.strategy != "grid":
        raise UserError(f"search={asked.master.search.strategy}: goes with this program's own "
                        "sweeps, and a launcher or sweeper of Hydra's was named. Leave out one of "
                        "the two.")  # fmt: skip
    if args.multirun:
        return multirun_of_hydra(asked)
    check_with_torch(jobs, asked.typed)
    folder = run_folder(asked.master, args.overrides)
    if folder is not None and is_gone_on_with(folder):
        return go_on(folder, jobs[0], own_modules(jobs))
    folder = claim_folder(asked.master, args.overrides, "run")
    try:
        with named(folder):
            start.run(asked.composer, asked.master, folder, task)
    finally:
        remove_half_made(folder)
    return 0


def multirun_of_hydra(asked: Asked) -> int:
    """A sweep by a launcher or sweeper of Hydra's plug-ins, which was named."""
    check_with_torch(asked.jobs, asked.typed)
    folder = claim_folder(asked.master, asked.args.overrides, "sweep")
    failed = False
    try:
        with named(folder):
            start.run(asked.composer, asked.master, folder, task)
    except JobFailedError:
        failed = True
    except SystemExit:  # stopped by a signal
        sweep.report(folder)
        raise
    except Exception:  # Hydra's own, between jobs
        if any(folder.glob(f"*/{lock.NAME}")):
            sweep.report(folder)
        raise
    finally:
        remove_half_made(folder)
    if asked.jobs[0]["test"] == "selected":
        failed |= not sweep.test_selected(folder, own_modules(asked.jobs), resume)
    return sweep.report(folder) or int(failed)


def task(cfg: DictConfig, world: Any = None) -> None:
    """One training, in the folder that Hydra has made. A failure is told in its own log; a job of
    a sweep of Hydra's then raises, so that Hydra goes on with the next.

    Args:
        world: processes that train it together; None: this one.
    """
    from trainer import job

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        with lock.locked(folder):
            refuse_used(folder)  # hydra.sweep.subdir may repeat
            (folder / "summary.json").unlink(missing_ok=True)  # of a start that came to nothing
            choices, in_sweep = dict(hydra.runtime.choices), sweep_of(folder) is not None
            job.run(plain(own_part(cfg)), folder, choices, in_sweep, world=world)
    except Paused:
        return
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None  # ends a sweep, too
    except Exception as error:
        code = job.report_error(error, folder)
        if hydra.mode == RunMode.MULTIRUN:
            raise JobFailedError from error
        raise SystemExit(code) from None
