"""What the words of a training ask for: composed, checked, and checked again with torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from omegaconf import DictConfig

from trainer.builders import idle_keys
from trainer.config import knobs
from trainer.config.compose import Composer, plain
from trainer.config.folds import each
from trainer.errors import UserError
from trainer.text.values import format_value

T = TypeVar("T")
Config = dict[str, Any]

CHECKED_WITH_TORCH = (
    "device", "precision", "layers", "compile", "weights", "replace_head", "freeze",
    "lr_factors", "layer_decay", "decay_norms_and_biases", *knobs.GROUPS
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A training or a sweep that is asked for.

    Attributes:
        master: configuration with Hydra's node; of a sweep, what all jobs share.
        jobs: configuration of each job; of a large sweep enough of them to have each value in one.
        typed: keys that were typed.
    """

    args: argparse.Namespace
    composer: Composer
    master: DictConfig
    jobs: list[Config]
    typed: Collection[str]


def compose(args: argparse.Namespace) -> Asked:
    """Raises UserError. Imports no torch."""
    composer = Composer(args)
    master = composer.master()
    knobs.check_sweep(master)
    jobs = [one for job in composer.jobs(master) for one in each(plain(job), args.overrides)]
    for job in jobs:
        knobs.check(job)
    typed = idle_keys.keys_in(args.overrides)
    refuse_trust(typed, jobs)
    if not args.multirun and not (args.cfg or args.info):
        refuse_sweep(typed, master)
    return Asked(args, composer, master, jobs, typed)


def refuse_sweep(typed: Collection[str], master: DictConfig) -> None:
    """Raises UserError for what asks for a sweep, where --multirun is missing."""
    of_sweeps = [key for key in typed if key.partition(".")[0] in knobs.OF_SWEEPS]
    if of_sweeps:
        raise UserError(f"{of_sweeps[0]}: is a key of sweeps, and this is a single training. Add "
                        "--multirun, or leave the key out.")  # fmt: skip
    sweeper = master.hydra.sweeper
    params: Any = sweeper.get("params") if isinstance(sweeper, DictConfig) else None
    given = params if isinstance(params, DictConfig) else {}
    swept = [f"{key!s}={given[key]}" for key in given if key not in typed]
    if swept:
        raise UserError(f"{swept[0]}: is to be swept, says hydra.sweeper.params, and this is a "
                        "single training. Add --multirun, or give the key one value.")  # fmt: skip


def refuse_trust(typed: Collection[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError: here it would change nothing."""
    given = [job["trust"] for job in jobs if job["trust"] and job["teacher"] is None]
    if given and "trust" in typed:
        raise UserError(
            f"trust={format_value(given[0])}: plays no part in a training, which takes what its "
            "own command names. Give it to the command that uses the checkpoint."
        )


def own_modules(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Modules of the user's own that the jobs take their classes from, as `trust` names them."""
    from trainer.config import stored  # torch, which takes seconds

    targets = {(group, str(job[group]["_target_"])) for job in jobs for group in knobs.GROUPS}
    others = {target for group, target in targets if not stored.is_own(group, target)}
    return sorted({target.rpartition(".")[0] for target in others})


def check_with_torch(
    jobs: Sequence[Config], typed: Collection[str], before_forks: bool = False
) -> list[str]:
    """Checks that need torch, the data and the model: first all that need no files, so that a wrong
    value in any job of a sweep is reported before anything is downloaded. Raises UserError.

    Args:
        before_forks: leave CUDA alone, which forked jobs could not use any more.

    Returns what tells each of the jobs' datasets from another.
    """
    from trainer.builders import training_run

    on_cuda = not before_forks
    check_once(partial(training_run.check, asks_cuda=on_cuda), CHECKED_WITH_TORCH, jobs)
    idle_keys.refuse_in_training(typed, jobs)
    return check_once(partial(training_run.check_data, asks_cuda=on_cuda), ("data",), jobs)


def check_once(
    check: Callable[[Config], T], keys: Sequence[str], jobs: Sequence[Config]
) -> list[T]:
    """Of jobs that these keys do not tell apart, the first alone."""
    seen: list[Config] = []
    found = []
    for job in jobs:
        parts = {key: job[key] for key in keys}
        if parts not in seen:
            seen.append(parts)
            found.append(check(job))
    return found
