"""Rules of a run: what it does beside its steps, each by a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.builders import networks
from trainer.config.targets import instantiate_group
from trainer.training.distillation import SameTeacher, Teacher
from trainer.training.rules.averaging import Average
from trainer.training.rules.rule import Rule
from trainer.training.rules.stopping import EarlyStopping, TimeBudget
from trainer.training.rules.unfreezing import Unfreezing


def build_rules(
    config: Mapping[str, Any], model: nn.Module, teacher: Teacher | None = None
) -> tuple[Rule, ...]:
    """Rules that the configuration asks for, in the order in which a run calls them; off, a key
    adds none.

    Args:
        model: that is trained, on its device, not yet compiled.
        teacher: of a distillation; None: there is none.
    """
    asked: tuple[Rule | None, ...] = (
        None if teacher is None else SameTeacher(teacher.weights_sha256),
        make_unfreezing(config, model),
        make_average(config, model),
        EarlyStopping(config["patience"], config["min_delta"], config["patience_on"])
        if config["patience"] else None,
        TimeBudget(config["max_minutes"]) if config["max_minutes"] else None,
    )  # fmt: skip
    return tuple(rule for rule in asked if rule is not None)


def make_unfreezing(config: Mapping[str, Any], model: nn.Module) -> Unfreezing | None:
    """Freeze parameters after the optimizer was made, which has them all, until the epoch from
    which on they are trained; None: they are never."""
    if not config["unfreeze_epoch"]:
        return None
    networks.freeze(config, model)
    return Unfreezing(config["unfreeze_epoch"], model)


def make_average(config: Mapping[str, Any], model: nn.Module | None = None) -> Average | None:
    """Average of the model's weights; None: there is none. Raises UserError. Without a model the
    options are checked only."""
    average: Average | None = instantiate_group("average", config["average"])
    if average is not None and model is not None:
        average.attach(model)
    return average


def average_of(rules: tuple[Rule, ...]) -> nn.Module | None:
    """Model that holds the averaged weights, for `Run.average`."""
    return next((rule.model for rule in rules if isinstance(rule, Average)), None)
