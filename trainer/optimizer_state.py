"""What an optimizer keeps beside the weights: of which kinds, and how it goes on from a file."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.errors import UserError
from trainer.guard import bare_step


def trial_state(optimizer: Optimizer) -> dict[str, Any]:
    """What the optimizer keeps of a parameter of two numbers, after a step on it; nothing if one
    of the user's own does not take it: it may want matrices, a GPU, or a closure."""
    number = nn.Parameter(torch.zeros(2))
    number.grad = torch.zeros(2)
    takes = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    options = {k: v for k, v in optimizer.param_groups[0].items() if k in takes}
    with contextlib.suppress(Exception), torch.no_grad():
        trial = type(optimizer)([number], **options)
        bare_step(trial)(trial)
        return dict(trial.state[number])
    return {}


def check_kinds(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Raises UserError if the optimizer's options need what the state from a file does not have."""
    kept = next(iter(state["state"].values()), None)
    missing = trial_state(optimizer).keys() - kept.keys() if kept else set()
    if missing and not isinstance(optimizer, torch.optim.SGD):  # which makes its momentum then
        raise UserError(
            f"optimizer: with these options it needs {', '.join(sorted(missing))}, which the state "
            "does not have. Leave the changed keys of optimizer out."
        )


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """What the optimizer has gathered, from a file; its options stay those of this run, which
    torch would take from the file, too. The current rate is the schedule's share of this run's."""
    groups = []
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        rate = saved["lr"] * (own["initial_lr"] / saved["initial_lr"])
        groups.append({**saved, **own, "lr": rate, "params": saved["params"]})
    optimizer.load_state_dict({**state, "param_groups": groups})
