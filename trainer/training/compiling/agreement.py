"""Whether two ways to compute the same training steps agree, up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

# Relative differences of an update that are not rounding any more, by the arithmetic of the step.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.2}


@dataclass(frozen=True)
class Trial:
    """What some steps did.

    losses: of each. is_bad: one of them, or a gradient, was not finite. changes: of each weight
    and buffer, over all of the steps. gradients: of the last step, of those weights that have any.
    states: the changes of what the optimizer keeps of the weights, by its name for that.
    """

    losses: list[float]
    is_bad: bool
    changes: dict[str, Tensor]
    gradients: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def disagreement(reference: Trial, other: Trial, dtype: torch.dtype) -> str:
    """What differs by more than the rounding of `dtype`, as a phrase; empty if nothing does. The
    gradients are the reference's.

    The difference of two updates is weighed by the gradient, so that it is measured by what it
    does to the loss: where a gradient is nothing but rounding (a bias before a batch norm), Adam
    makes whole steps of it that may go either way.
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
        return f"what becomes of {name}"
    for kind, changes in reference.states.items():
        if name := differs(changes, other.states[kind]):
            return f"what the optimizer keeps of {name}, its {kind}"
    return ""


def _differing(
    reference: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
    *,
    tolerance: float,
    rounding: float,
) -> str:
    """The name of a change that differs by more than rounding; empty if none does."""
    sizes, errors = {}, {}
    for name, change in reference.items():
        weight = weights[name] if weights is not None else torch.ones_like(change)
        sizes[name] = (weight * change).abs().sum().item()
        errors[name] = (weight * (other[name] - change)).abs().sum().item()
    # A tensor that has no part in the whole update has nothing but rounding in it.
    little = 1e-3 * sum(sizes.values())
    for name in sorted(sizes):
        if not errors[name] <= tolerance * (sizes[name] + little) + rounding:
            return name
    return ""
