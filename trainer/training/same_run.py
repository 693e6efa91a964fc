"""Check that a state fits the network, optimizer and schedule that resume from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainer.checkpoints import entries
from trainer.checkpoints.kinds import is_number
from trainer.checkpoints.tensors import differences
from trainer.errors import UserError
from trainer.schedules import Schedule
from trainer.training.optimizer_state import check_names, check_state, trained_names


def check(
    state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, schedule: Schedule
) -> None:
    """Raises UserError if the state is of another model, optimizer or schedule; torch would load
    Adam's state into SGD without an error."""
    own = type(optimizer).__name__
    if state["optimizer_class"] != own:
        raise UserError(
            f"optimizer: the state is of {state['optimizer_class']}, the run uses {own}."
        )
    check_names(entries.value_of(state, "trained"), trained_names(optimizer, model))
    check_state(optimizer, state["optimizer"])
    average = entries.value_of(state, "average") or {}
    for part, weights in (("model", state["model"]), ("average", average.get("model"))):
        if weights is not None and (differing := differences(weights, model.state_dict())):
            names = ", ".join(name for name, _, _ in differing[:10])
            raise UserError(f"{part}: the state is of another network: {names} differ.")
    check_schedule(schedule.state_dict(), state["schedule"])


def check_schedule(own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Raises UserError if the saved state of a schedule has other entries than `own`. Most
    schedules have no state; --force may replace one by another."""
    if own and saved:
        numbers = all(is_number(v) or v == math.inf for v in saved.values())
        if own.keys() != saved.keys() or not numbers:
            raise UserError("scheduler: the state is of another schedule, or damaged.")
