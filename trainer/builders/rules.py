"""Rules of a run: what it does beside its steps, each by a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.config.targets import instantiate_group
from trainer.training.rules.averaging import Average
from trainer.training.rules.rule import Rule


def build_rules(config: Mapping[str, Any], model: nn.Module) -> tuple[Rule, ...]:
    """Rules that the configuration asks for, in the order in which a run calls them; off, a key
    adds none.

    Args:
        model: that is trained, on its device, not yet compiled.
    """
    asked: tuple[Rule | None, ...] = (make_average(config, model),)
    return tuple(rule for rule in asked if rule is not None)


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
