"""Optimizer and learning-rate schedule of a run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.config.targets import constructor_errors, instantiate_group
from trainer.schedules import Schedule


def make_optimizer(options: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """Optimizer over the trainable parameters, in its fused form if there is one: one kernel per
    step instead of several per parameter."""
    if "betas" in options:  # of whole numbers, such as [0,0], torch says that they are no floats
        options = {**options, "betas": [float(beta) for beta in options["betas"]]}
    create = instantiate_group("optimizer", options)
    parameters = trainable(model)
    with constructor_errors("optimizer", options):
        on_mps = any(parameter.device.type == "mps" for parameter in parameters)
        if "fused" not in options and takes_fused(create, on_mps):
            with contextlib.suppress(RuntimeError):  # no fused form on this device
                return with_initial_lr(create(parameters, fused=True))
        return with_initial_lr(create(parameters))


def make_schedule(options: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    create = instantiate_group("scheduler", options)
    with constructor_errors("scheduler", options):
        schedule: Schedule = create(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        return schedule


def takes_fused(create: Callable[..., Optimizer], on_mps: bool = False) -> bool:
    """True if an optimizer accepts fused=True. Adagrad has no fused kernel on mps, where
    torch raises an error at the first step only."""
    has_kernel = not (on_mps and getattr(create, "func", create) is torch.optim.Adagrad)
    return has_kernel and "fused" in inspect.signature(create).parameters


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """The optimizer with `initial_lr` set in each group, as torch's schedulers do."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
