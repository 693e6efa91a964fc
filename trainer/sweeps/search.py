"""Search: which jobs a sweep has, known when it begins (a grid, random trials) or chosen as results
come (see `halving` and `optuna_search`).

A search keeps nothing of its own that counts: what it decides follows from its keys, the jobs'
folders and what it has written there, so a sweep whose process was killed decides the same again.
Imports no torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data.seeds import derive_seed
from trainer.config.compose import MAX_LISTED_JOBS, check_size
from trainer.config.space import Dimension, Interval
from trainer.errors import UserError
from trainer.runs.selection import REPEATS
from trainer.runs.sweep_file import Job, Sweep
from trainer.text.values import count

MAX_REPEATED = 200  # draws in a row of configurations that there are


class Search:
    """Search whose jobs are all known when it begins.

    Args:
        planned: overrides of each job, in order.
    """

    def __init__(self, planned: Sequence[list[str]]) -> None:
        self.planned = planned
        self.unstarted: list[Job] = []

    def describe(self) -> str:
        """What is going to be done, in a few words."""
        return count(len(self.planned), "job")

    def begin(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Begin, or go on, with the jobs of a sweep.

        Args:
            jobs: those that may be started.
        """
        self.unstarted = list(jobs)

    def more(self, sweep: Sweep, running: Collection[int]) -> list[Job]:
        """Jobs to be started next; asked when none waits and there is room for one.

        Args:
            running: indices of the jobs that are at work.
        """
        found, self.unstarted = self.unstarted, []
        return found

    def words(self, job: Job) -> list[str]:
        """Words of the job's command beside its overrides."""
        return []

    def to_stop(self, sweep: Sweep, running: Collection[int]) -> list[int]:
        """Indices of running jobs that need not go on."""
        return []

    def ended(self, sweep: Sweep, job: Job) -> None:
        """Called when the process of a job has ended, and its state is noted."""


def check(settings: Mapping[str, Any], space: Sequence[Dimension]) -> None:
    """Raises UserError where the choice of search= and the words of the command line do not go
    together."""
    strategy, trials = settings["strategy"], settings.get("trials")
    is_grid = strategy == "grid" or (strategy == "halving" and not trials)
    intervals = [one.typed for one in space if isinstance(one, Interval)]
    if is_grid and intervals:
        way = "search.trials=N draws" if strategy == "halving" else "search=random draws"
        raise UserError(
            f"{intervals[0]}: search={strategy} takes every combination, and the numbers of an "
            f"interval cannot be listed. {way} from it."
        )
    if repeated := [o.typed for o in space if isinstance(o, Interval) and o.key in REPEATS]:
        raise UserError(f"{repeated[0]}: repeats a configuration; list the values: seed=0,1,2.")
    if is_grid:
        return
    if not trials:
        raise UserError(f"search.trials={trials}: search={strategy} needs at least 1.")
    if all(one.is_fixed or one.key in REPEATS for one in space):
        raise UserError(
            f"search={strategy}: no key has several values to choose from. For example: "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))' model=mlp,lenet5"
        )


def grid(space: Sequence[Dimension]) -> list[list[str]]:
    """Overrides of each combination, the last key fastest. Raises UserError."""
    check_size([one.words for one in space])
    return [list(words) for words in itertools.product(*(one.words for one in space))]


def drawn(space: Sequence[Dimension], trials: int, seed: int) -> list[list[str]]:
    """Overrides of random configurations, each with every combination of the keys that repeat one,
    such as seed. More trials begin with the same ones. Fewer where there are no more."""
    found: dict[tuple[str, ...], None] = {}
    repeated = 0
    for number in itertools.count():
        if len(found) == trials or repeated == MAX_REPEATED:
            break
        before = len(found)
        found[tuple(trial(space, seed, number))] = None
        repeated = 0 if len(found) > before else repeated + 1
    jobs = [job for words in found for job in with_repeats(space, words)]
    if len(jobs) > MAX_LISTED_JOBS:
        raise UserError(f"search.trials={trials}: {len(jobs):,} jobs; a sweep of more than "
                        f"{MAX_LISTED_JOBS:,} is not started.")  # fmt: skip
    return jobs


def trial(space: Sequence[Dimension], seed: int, number: int) -> list[str]:
    """Overrides of one random configuration, a function of the seed and its number alone; the keys
    that repeat one have their first values."""
    draw = random.Random(derive_seed(seed, "search", number))
    words = [one.words[0] for one in space]
    for place in sorted(range(len(space)), key=lambda i: space[i].key):
        if not space[place].is_fixed and space[place].key not in REPEATS:
            words[place] = space[place].at(draw.random())
    return words


def with_repeats(space: Sequence[Dimension], words: Sequence[str]) -> list[list[str]]:
    """A configuration with every combination of the values of the keys that repeat one."""
    values = [
        one.words if one.key in REPEATS else (word,)
        for one, word in zip(space, words, strict=True)
    ]  # fmt: skip
    return [list(job) for job in itertools.product(*values)]


def is_searched(word: str, space: Sequence[Dimension]) -> bool:
    """True for an override that is not the same in all jobs."""
    return any(not one.is_fixed and word.lstrip("+").startswith(f"{one.key}=") for one in space)


def settings_text(settings: Mapping[str, Any], space: Sequence[Dimension]) -> dict[str, Any]:
    """What decides on the jobs beside their number, to tell a change when a sweep is resumed. To a
    grid values may be added."""
    if settings["strategy"] == "grid":
        return {"search.strategy": "grid"}
    keys = {f"search.{key}": value for key, value in settings.items() if key != "trials"}
    typed = sorted(o.typed for o in space if not o.is_fixed and o.key not in REPEATS)
    return {**keys, "search.space": " ".join(typed)}
