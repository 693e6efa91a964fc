"""Optimizer and learning-rate schedule of a run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.builders import param_groups
from trainer.config.targets import constructor_errors, instantiate_group, locate, parameters_of
from trainer.errors import UserError
from trainer.schedules import Schedule


def make_optimizer(config: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """Optimizer over the trainable parameters, in the groups of the configuration, and in its fused
    form if there is one: one kernel per step instead of several per parameter."""
    options = options_of(config["optimizer"])
    if "betas" in options:  # of whole numbers, such as [0,0], torch says that they are no floats
        options = {**options, "betas": [float(beta) for beta in options["betas"]]}
    create = instantiate_group("optimizer", options)
    splits_hidden = getattr(getattr(create, "func", create), "splits_hidden", False)
    groups = param_groups.make(config, model, splits_hidden)
    parameters: Any = groups if len(groups) > 1 or splits_hidden else groups[0]["params"]
    with constructor_errors("optimizer", options):
        on_mps = any(parameter.device.type == "mps" for parameter in trainable(model))
        if "fused" not in options and takes_fused(create, on_mps):
            with contextlib.suppress(RuntimeError):  # no fused form on this device
                return in_groups(create(parameters, fused=True), groups)
        return in_groups(create(parameters), groups)


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


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without switches that are off and that another class, named by
    optimizer._target_, does not have."""
    parameters, takes_any = parameters_of(locate("optimizer", options["_target_"]))
    return {
        key: value for key, value in options.items()
        if value is not False or takes_any or key in parameters
    }  # fmt: skip


def in_groups(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]) -> Optimizer:
    """The optimizer with rate and decay of each group, and `initial_lr` set, as torch's schedulers
    do. Raises UserError if its class has no weight decay to be left out."""
    for group, wanted in zip(optimizer.param_groups, groups, strict=True):
        group["lr"] *= wanted["lr_factor"]
        group["initial_lr"] = group["lr"]
        if not wanted["decays"]:
            if "weight_decay" not in group:
                raise UserError(
                    f"decay_norms_and_biases=false: {type(optimizer).__name__} has no weight_decay "
                    "of its parameter groups. Leave the key out."
                )
            group["weight_decay"] = 0.0
    return optimizer


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
