"""Rules of a run: what it does beside its steps, each by a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.training.rules.rule import Rule


def build_rules(config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Rules that the configuration asks for, in the order in which a run calls them; off, a key
    adds none."""
    asked: list[Rule | None] = []
    return tuple(rule for rule in asked if rule is not None)
