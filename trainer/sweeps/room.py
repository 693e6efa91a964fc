"""Room for the jobs of a sweep."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trainer.builders import networks
from trainer.builders.datasets import announced_size
from trainer.errors import UserError
from trainer.runs.sweep_file import Job
from trainer.system.device import pick_device
from trainer.system.threads import pick_num_threads, threads_at_start


@dataclass
class Room:
    """Room for jobs.

    Attributes:
        at_a_time: number of jobs; 0: as many as the cores carry, or the GPUs.
        cores: of the machine.
        gpus: numbers of the GPUs over which the jobs are spread; (): none.
        threads_of: number of threads that a job computes with alone, and so in the sweep, too,
            since others would change its bits.
    """

    at_a_time: int
    cores: int
    gpus: tuple[int, ...]
    threads_of: Callable[[Job], int]
    taken: dict[int, int] = field(default_factory=dict)  # job -> its GPU, or its threads

    @property
    def is_full(self) -> bool:
        """True if there is no room for another job, whatever it is."""
        if self.at_a_time:
            return len(self.taken) >= self.at_a_time
        if self.gpus:
            return set(self.gpus) <= set(self.taken.values())
        return sum(self.taken.values()) >= self.cores

    def take(self, job: Job) -> Mapping[str, str] | None:
        """Environment for a job if there is room for it now, else None."""
        if self.at_a_time and len(self.taken) >= self.at_a_time:
            return None
        if self.gpus:
            in_use = list(self.taken.values())
            gpu = min(self.gpus, key=in_use.count)
            if gpu in in_use and not self.at_a_time:
                return None
            self.taken[job.index] = gpu
            return {"CUDA_VISIBLE_DEVICES": str(gpu)}
        threads = self.threads_of(job)
        if not self.at_a_time and self.taken and sum(self.taken.values()) + threads > self.cores:
            return None
        self.taken[job.index] = threads
        return {}

    def hold(self, job: Job) -> None:
        """Count a job that is at work already."""
        self.taken[job.index] = 0

    def leave(self, index: int) -> None:
        self.taken.pop(index, None)


def of(
    jobs: int, config_of: Callable[[Job], Mapping[str, Any]], on_gpus: bool, is_here: bool = True
) -> Room:
    """Room on this machine.

    Args:
        jobs: at a time; 0: as many as there is room for.
        config_of: composed configuration of a job.
        on_gpus: the jobs compute on GPUs if there are some.
        is_here: False: a scheduler has room for the jobs, and lets them wait.
    """
    gpus = tuple(range(torch.cuda.device_count())) if on_gpus and is_here else ()

    @functools.cache
    def threads(config: str) -> int:
        return num_threads_of(json.loads(config))

    def threads_of(job: Job) -> int:
        config = config_of(job)
        keys = ("model", "data", "batch_size", "num_threads", "layers", "weights", "replace_head",
                "processes")  # fmt: skip
        return threads(json.dumps({key: config[key] for key in keys}))

    return Room(jobs, threads_at_start() if is_here else sys.maxsize, gpus, threads_of)


def check_gpus(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError: a job has one GPU, which several processes would share."""
    for job in jobs:
        if job["processes"] > 1 and pick_device(job["device"], job["layers"]).type == "cuda":
            raise UserError(
                f"processes={job['processes']} with --multirun: each job of a sweep has one GPU, "
                "which its processes would share. Start the trainings one by one, add device=cpu, "
                "or leave the key out."
            )


def num_threads_of(config: Mapping[str, Any]) -> int:
    """Number of threads that a training computes with, in all its processes."""
    shape, num_classes = announced_size(config["data"])
    with torch.device("meta"):
        model = networks.make_model(config, shape, num_classes)
        cost = networks.measure_cost(model, shape)
    number = config["processes"]
    own = pick_num_threads(config["num_threads"], cost.macs * config["batch_size"] / number)
    if not config["num_threads"]:  # each process has its share of the cores
        own = min(own, max(1, threads_at_start() // number))
    return number * own
