"""Content of a run's checkpoints, and resuming a run from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from data.types import Dataset
from trainer.checkpoints import CheckpointFolder
from trainer.checkpoints.description import Cost, Description
from trainer.errors import UserError
from trainer.evaluation.metrics import Meter
from trainer.runs.progress import Best, Progress
from trainer.schedules import Schedule
from trainer.system.versions import versions
from trainer.training import same_run
from trainer.training.batches import BatchSource
from trainer.training.optimizer_state import trained_names
from trainer.training.soundness import Soundness
from trainer.training.world import World


class Part(Protocol):
    """Object whose state a checkpoint holds under its name in `Run.parts`."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


@dataclass(frozen=True)
class About:
    """Description of a run, for its log and its checkpoints.

    Attributes:
        resize_note: line for the log if images are too small for the model and are enlarged; else
            empty.
    """

    description: Description
    data: Dataset
    cost: Cost
    device: torch.device
    resize_note: str = ""


class Saved(Protocol):
    """Interface of a run as far as checkpoints need it."""

    model: nn.Module
    schedule: Schedule
    train: BatchSource
    about: About
    checkpoints: CheckpointFolder
    parts: dict[str, Part]
    progress: Progress
    best: Best
    meter: Meter
    soundness: Soundness
    world: World

    @property
    def evaluated_model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> Optimizer: ...


def portable(run: Saved) -> dict[str, Any]:
    """Entries of best.pth: the weights, and the description needed to use the model."""
    return {
        "model": run.evaluated_model.state_dict(),
        **asdict(run.about.description),
        "step": run.progress.step,
        "epoch": run.progress.epoch,
        "data": run.about.data.fingerprint,
    }


def portable_of(state: dict[str, Any], run: Saved) -> dict[str, Any]:
    """The same entries out of a full state of the run, in which "model" is the trained weights."""
    found = {key: state[key] for key in portable(run)}
    if run.evaluated_model is not run.model and "average" in state:
        found["model"] = state["average"]["model"]
    return found


def full(run: Saved) -> dict[str, Any]:
    """Entries of a full state: those of `portable`, and the state of each part of the run."""
    return {
        **portable(run),
        **{name: part.state_dict() for name, part in run.parts.items()},
        "optimizer_class": type(run.optimizer).__name__,
        "trained": trained_names(run.optimizer, run.model),
        "machine": machine(run),
    }


def machine(run: Saved) -> dict[str, str]:
    """Versions and hardware on which the last bits of a result depend."""
    return {
        **versions(),
        "device": run.about.device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "num_threads": str(torch.get_num_threads()),
        "processes": str(run.world.size),
    }


def load(run: Saved, state: dict[str, Any]) -> list[str]:
    """Load a full state into a run; a part that the state lacks keeps its initial state. Returns
    the differences to the machine that saved it, as lines for the log.

    Raises:
        UserError: the state is of another run; nothing was changed.
    """
    # Before anything is overwritten: a failed load_state_dict leaves a half-loaded model.
    same_run.check(state, run.model, run.optimizer, run.schedule)
    if not run.about.data.has_fingerprint(state["data"]):
        then, today = state["machine"].get("pillow"), versions()["pillow"]
        other = f"; they were decoded by Pillow {then}, now by {today}" if then else ""
        raise UserError(
            "data: the images or labels are not those that the training started with"
            f"{other if then != today else ''}.\n"
            "Restore them, or start a new run with weights=FILE from this one."
        )
    for name, part in run.parts.items():
        if name in state:
            part.load_state_dict(state[name])
    if not run.world.is_main:  # all together hold the epoch's sums once
        run.meter.reset()
    run.progress.batch = min(run.progress.batch, len(run.train))
    run.soundness.since = run.progress.step
    is_best = run.best.epoch and run.best.epoch == run.progress.epoch and not run.progress.batch
    if is_best and run.world.is_main:
        run.checkpoints.save_best(portable(run))
    now = machine(run)
    return [
        f"{key} was {before}, now {now.get(key)}: the last bits of the result may differ."
        for key, before in state["machine"].items()
        if now.get(key) != before and (key != "pillow" or run.about.data.sums is not None)
    ]
