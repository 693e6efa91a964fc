"""What a checkpoint holds of a run, and how a run goes on from it."""

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
from trainer.runs.progress import Best, Progress
from trainer.schedules import Schedule
from trainer.system.versions import versions
from trainer.training import same_run
from trainer.training.batches import BatchSource
from trainer.training.optimizer_state import trained_names
from trainer.training.soundness import Soundness


class Part(Protocol):
    """A thing whose state a checkpoint holds under the part's name."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


@dataclass(frozen=True)
class About:
    """What is said of a run, in its log and its checkpoints.

    Attributes:
        resize_note: what becomes of images that are too small for the model; empty: none is.
    """

    description: Description
    data: Dataset
    cost: Cost
    device: torch.device
    resize_note: str = ""


class Saved(Protocol):
    """A run, as far as its checkpoints are concerned."""

    model: nn.Module
    schedule: Schedule
    train: BatchSource
    about: About
    checkpoints: CheckpointFolder
    parts: dict[str, Part]
    progress: Progress
    best: Best
    soundness: Soundness

    @property
    def evaluated_model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> Optimizer: ...


def portable(run: Saved) -> dict[str, Any]:
    """Weights and description: what using the model needs."""
    return {
        "model": run.evaluated_model.state_dict(),
        **asdict(run.about.description),
        "step": run.progress.step,
        "epoch": run.progress.epoch,
        "data": run.about.data.fingerprint,
    }


def full(run: Saved) -> dict[str, Any]:
    """The description, and all that going on with the training needs: the parts by name."""
    return {
        **portable(run),
        **{name: part.state_dict() for name, part in run.parts.items()},
        "optimizer_class": type(run.optimizer).__name__,
        "trained": trained_names(run.optimizer, run.model),
        "machine": machine(run),
    }


def machine(run: Saved) -> dict[str, str]:
    """What the last bits of a result depend on beside the configuration."""
    return {
        **versions(),
        "device": run.about.device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "num_threads": str(torch.get_num_threads()),
    }


def load(run: Saved, state: dict[str, Any]) -> list[str]:
    """Go on from what `full` gave; a part that it does not know yet begins afresh. Returns what
    differs from the machine that wrote it, as lines for the log. Raises UserError, with nothing
    changed, if it is of another run."""
    check_same_run(run, state)
    for name, part in run.parts.items():
        if name in state:
            part.load_state_dict(state[name])
    run.progress.batch = min(run.progress.batch, len(run.train))
    run.soundness.since = run.progress.step
    if run.best.epoch and run.best.epoch == run.progress.epoch and not run.progress.batch:
        run.checkpoints.save_best(portable(run))
    now = machine(run)
    return [
        f"{key} was {before}, is {now.get(key)}: the last bits of the result may differ."
        for key, before in state["machine"].items()
        if now.get(key) != before and (key != "pillow" or run.about.data.sums is not None)
    ]


def check_same_run(run: Saved, state: dict[str, Any]) -> None:
    """Before anything is overwritten: a failed load_state_dict leaves half of the old."""
    same_run.check(state, run.model, run.optimizer, run.schedule)
    if not run.about.data.has_fingerprint(state["data"]):
        before, now = state["machine"].get("pillow"), versions()["pillow"]
        other = f"; they were decoded by Pillow {before}, this is {now}" if before else ""
        raise UserError(
            "data: the images or labels are not those that the training began with"
            f"{other if before != now else ''}.\n"
            "Put the old ones back, or start a new run with weights=FILE from this one."
        )
