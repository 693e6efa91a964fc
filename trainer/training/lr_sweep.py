"""Sweep of the learning rate, from far too small to far too large, and what it proposes.

Smith 2017, "Cyclical learning rates for training neural networks" (arXiv 1506.01186), section 3.3;
with exponential steps and a smoothed loss, as fast.ai's finder has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from trainer.training.batches import BatchSource

SMOOTHING = 0.9  # share of the running mean that is kept
DIVERGED = 4.0  # times the lowest smoothed loss
LEAST_FALL = 0.02  # of the smoothed loss, as a share of it, for a proposal


@dataclass(frozen=True)
class Proposal:
    """Learning rate that a sweep proposes.

    Attributes:
        lr: a tenth of `lowest`.
        lowest: rate at the lowest smoothed loss.
        steepest: rate at which the smoothed loss falls fastest by the logarithm of the rate.
    """

    lr: float
    lowest: float
    steepest: float


def rates(low: float, high: float, steps: int) -> list[float]:
    """Rates of the steps: a geometric sequence."""
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def sweep(
    update: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    optimizer: Optimizer,
    batches: BatchSource,
    seed_step: Callable[[int], None],
    lrs: list[float],
    base: float,
) -> list[float]:
    """Train a step at each rate. Returns the losses up to the step at which they diverged.

    Args:
        base: learning rate of the configuration; parameter groups keep their ratio to it.
    """
    losses: list[float] = []
    for step, (lr, (images, targets)) in enumerate(zip(lrs, forever(batches), strict=False)):
        seed_step(step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (lr / base)
        losses.append(update(images, targets)[0].item())
        if has_diverged(losses):
            break
    return losses


def forever(batches: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def has_diverged(losses: list[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    smooth = smoothed(losses)
    return smooth[-1] > DIVERGED * min(smooth)


def smoothed(losses: list[float]) -> list[float]:
    """Exponential running mean, without the bias of its start."""
    mean, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**step))
    return found


def propose(lrs: list[float], losses: list[float]) -> Proposal | None:
    """Proposal by the losses of a sweep; None if they never fell.

    Args:
        losses: of the first steps or all, the last of which may not be finite.
    """
    smooth = smoothed([loss for loss in losses if math.isfinite(loss)])
    if len(smooth) < 3:
        return None
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    highest = max(smooth[: lowest + 1])
    if lowest < 2 or highest - smooth[lowest] < LEAST_FALL * highest:
        return None
    steepest = min(range(1, lowest + 1), key=lambda i: smooth[i] - smooth[i - 1])
    return Proposal(float(f"{lrs[lowest] / 10:.2g}"), lrs[lowest], lrs[steepest])
