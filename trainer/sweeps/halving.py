"""Successive halving over epochs (Jamieson & Talwalkar 2016): all configurations train for a few
epochs, the best by validation go on for more, and so on to the last epoch.

A job is built for all of its epochs, so that its schedule is that of the whole training; it stops
where a decision is due, and its exact resumption is the same training as one that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.evaluation.measures import score_of
from trainer.runs.read import best_by_of, best_row, read_metrics
from trainer.runs.selection import is_repeat
from trainer.runs.side_files import readable
from trainer.runs.sweep_file import ELIMINATED, FAILED, FINISHED, Job, Sweep
from trainer.sweeps.search import Search
from trainer.text.values import count

Score = tuple[float, float]  # accuracy and negative loss: larger is better


def stops(min_epochs: int, factor: int, epochs: int) -> list[int]:
    """Epochs at which configurations are compared; the last is that of the whole training."""
    found = []
    while min_epochs < epochs:
        found.append(min_epochs)
        min_epochs *= factor
    return [*found, epochs]


def sizes(configurations: int, factor: int, at: Sequence[int]) -> list[int]:
    """Number of configurations that train up to each of the stops."""
    found = [configurations]
    for _ in at[1:]:
        found.append(kept(found[-1], factor))
    return found


def kept(configurations: int, factor: int) -> int:
    return max(1, configurations // factor)


class Halving(Search):
    """Successive halving; see the module.

    Args:
        planned: overrides of each job; those that differ in nothing but seed and fold are one
            configuration, compared by their mean.
        settings: of search=halving.
        configs: of the jobs.
    """

    def __init__(
        self,
        planned: Sequence[list[str]],
        settings: Mapping[str, Any],
        configs: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(planned)
        self.factor = settings["factor"]
        epochs = check(settings["min_epochs"], configs)
        self.stops = stops(settings["min_epochs"], self.factor, epochs)
        self.next_stop = epochs

    def describe(self) -> str:
        numbers = sizes(len(self.grouped(self.planned)), self.factor, self.stops)
        steps = (f"{n} to epoch {epoch}" for n, epoch in zip(numbers, self.stops, strict=True))
        return f"{count(numbers[0], 'configuration')}: {', '.join(steps)}"

    def more(self, sweep: Sweep, running: Collection[int]) -> list[Job]:
        """The jobs that have not reached the first stop at which that is so: all that were kept."""
        if running:
            return []
        alive = [[sweep.jobs[i] for i in group] for group in self.grouped_jobs(sweep)]
        for stop in self.stops:
            jobs = [job for group in alive for job in group]
            self.next_stop = stop
            if due := [j for j in jobs if j.state != FAILED and not has_reached(sweep, j, stop)]:
                return due
            ranked = sorted(alive, key=lambda group: self.score(sweep, group, stop), reverse=True)
            alive = [
                group for group in ranked[: kept(len(alive), self.factor)]
                if self.score(sweep, group, stop) > NONE
            ]  # fmt: skip
            if stop != self.stops[-1]:
                self.drop(sweep, ranked, len(alive), stop)
        return []

    def words(self, job: Job) -> list[str]:
        return [] if self.next_stop == self.stops[-1] else [f"stop_epoch={self.next_stop}"]

    def drop(self, sweep: Sweep, ranked: Sequence[Sequence[Job]], alive: int, stop: int) -> None:
        """Note in its folder why a configuration does not go on."""
        for place, group in enumerate(ranked[alive:], alive + 1):
            for job in group:
                if job.state not in (FINISHED, FAILED):
                    why = f"{ELIMINATED} {stop}: place {place} of {len(ranked)} by validation"
                    sweep.give_up(job, why)
        sweep.save()

    def grouped(self, jobs: Sequence[Sequence[str]]) -> list[list[int]]:
        """Places of the jobs of each configuration."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, words in enumerate(jobs):
            own = tuple(sorted(word for word in words if not is_repeat(word)))
            groups.setdefault(own, []).append(place)
        return list(groups.values())

    def grouped_jobs(self, sweep: Sweep) -> list[list[int]]:
        return self.grouped([job.overrides for job in sweep.jobs])

    def score(self, sweep: Sweep, group: Sequence[Job], stop: int) -> Score:
        """Mean over a configuration's jobs of the best validation up to a stop."""
        scores = [best_until(sweep, job, stop) for job in group]
        if NONE in scores:
            return NONE
        return math.fsum(a for a, _ in scores) / len(scores), math.fsum(b for _, b in scores)


NONE: Score = (-math.inf, -math.inf)


def validations(sweep: Sweep, job: Job) -> list[dict[str, Any]]:
    rows = readable([], read_metrics, sweep.folder_of(job) / "metrics.jsonl")
    return [row for row in rows if row["split"] == "val"]


def has_reached(sweep: Sweep, job: Job, stop: int) -> bool:
    """True if a job has been validated at that epoch."""
    return job.state == FINISHED or any(row["epoch"] >= stop for row in validations(sweep, job))


def best_until(sweep: Sweep, job: Job, stop: int) -> Score:
    """Best validation of a job up to an epoch, as its best weights are chosen; NONE of one that did
    not come so far."""
    if not has_reached(sweep, job, stop):
        return NONE
    by = best_by_of(sweep.folder_of(job))
    best = best_row((row for row in validations(sweep, job) if row["epoch"] <= stop), by)
    return NONE if best is None else (score_of(by, best), -best["loss"])


def check(min_epochs: int, configs: Sequence[Mapping[str, Any]]) -> int:
    """Number of epochs of the jobs. Raises UserError where their epochs cannot be divided."""
    epochs = {config["epochs"] for config in configs}
    every = {config["eval_every_epochs"] for config in configs}
    if len(epochs) > 1:
        raise UserError(
            f"epochs={','.join(map(str, sorted(epochs)))} with search=halving: trainings of "
            "different lengths cannot be compared before their ends. Give one value."
        )
    if any(config["stop_epoch"] for config in configs):
        raise UserError("stop_epoch with search=halving, which sets it itself. Leave the key out.")
    if min_epochs >= min(epochs):
        raise UserError(f"search.min_epochs={min_epochs}: must be less than epochs={min(epochs)}.")
    if wrong := [number for number in every if min_epochs % number]:
        raise UserError(
            f"search.min_epochs={min_epochs} with eval_every_epochs={wrong[0]}: each decision "
            f"needs a validation. Give a multiple, such as search.min_epochs={wrong[0]}."
        )
    return min(epochs)
