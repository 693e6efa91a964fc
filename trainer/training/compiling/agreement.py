"""Comparison of two computations of the same training steps, up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

# Largest relative difference of an update that counts as rounding, by the dtype of the step.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.2}


@dataclass(frozen=True)
class Trial:
    """Result of some training steps.

    Attributes:
        losses: one per step.
        is_bad: a loss or a gradient was not finite.
        changes: difference of each weight and buffer over all steps, by name.
        gradients: of the last step, for the weights that have one.
        states: differences of the optimizer's state, by kind (such as exp_avg) and weight.
    """

    losses: list[float]
    is_bad: bool
    changes: dict[str, Tensor]
    gradients: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def disagreement(reference: Trial, other: Trial, dtype: torch.dtype) -> str:
    """Phrase for the first difference beyond the rounding of `dtype`; empty if there is none.

    Differences of weights are weighted by the reference's gradient, that is by their effect on the
    loss: where a gradient is pure rounding (a bias before a batch norm), Adam takes full steps in a
    random direction.
    """
    if reference.is_bad or other.is_bad:
        return "" if reference.is_bad == other.is_bad else "the check for NaN"
    tolerance, rounding = TOLERANCES[dtype], torch.finfo(dtype).eps
    for theirs, ours in zip(reference.losses, other.losses, strict=True):
        if not abs(ours - theirs) <= tolerance * abs(theirs) + 10 * rounding:
            return f"a loss, {ours:.7g} instead of {theirs:.7g}"
    differs = partial(_differing, tolerance=tolerance, rounding=rounding)
    trained = reference.gradients.keys()
    weights = {n: c for n, c in reference.changes.items() if n in trained}
    buffers = {n: c for n, c in reference.changes.items() if n not in trained}
    if name := (
        differs(weights, other.changes, reference.gradients) or differs(buffers, other.changes)
    ):
        return f"the update of {name}"
    for kind, changes in reference.states.items():
        if name := differs(changes, other.states[kind]):
            return f"the optimizer state {kind} of {name}"
    return ""


def _differing(
    reference: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
    *,
    tolerance: float,
    rounding: float,
) -> str:
    """Name of the first tensor whose change differs by more than rounding; empty if none does."""
    sizes, errors = {}, {}
    for name, change in reference.items():
        weight = weights[name] if weights is not None else torch.ones_like(change)
        sizes[name] = (weight * change).abs().sum().item()
        errors[name] = (weight * (other[name] - change)).abs().sum().item()
    # A tensor with a negligible share of the whole update may hold rounding only.
    little = 1e-3 * sum(sizes.values())
    for name in sorted(sizes):
        if not errors[name] <= tolerance * (sizes[name] + little) + rounding:
            return name
    return ""
