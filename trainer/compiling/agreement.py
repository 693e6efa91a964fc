"""Whether two ways to compute the same training steps agree, up to rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Relative differences of an update that are not rounding any more, by the arithmetic of the step.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.2}


@dataclass(frozen=True)
class Trial:
    """What some steps did.

    losses: of each. is_bad: one of them, or a gradient, was not finite. changes: of each weight
    and buffer, over all of the steps. gradients: of the last step, of those weights that have any.
    """

    losses: list[float]
    is_bad: bool
    changes: dict[str, Tensor]
    gradients: dict[str, Tensor]


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
    sizes, errors = {}, {}
    for name, change in reference.changes.items():
        weight = reference.gradients.get(name, torch.ones_like(change))
        sizes[name] = (weight * change).abs().sum().item()
        errors[name] = (weight * (other.changes[name] - change)).abs().sum().item()
    trained = reference.gradients.keys()
    for names in (trained, sizes.keys() - trained):
        # A tensor that has no part in the whole update has nothing but rounding in it.
        little = 1e-3 * sum(sizes[name] for name in names)
        for name in sorted(names):
            if not errors[name] <= tolerance * (sizes[name] + little) + rounding:
                return f"what becomes of {name}"
    return ""
