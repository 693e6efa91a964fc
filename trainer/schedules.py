"""Learning-rate schedules: factors on the optimizer's initial rate, as functions of the step.

`schedule.factor(step)` is a pure function for all but `Plateau`, so nothing is accumulated, a
resumed run needs no replay, and a longer run is the same formula with other totals. Epoch-wise
schedules agree with `torch.optim.lr_scheduler`; cosine and one-cycle move every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class Schedule:
    """Base class of the schedules. Steps count from 0; epoch e starts at step
    e * steps_per_epoch.

    Args:
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        warmup_steps: length of the warm-up, at most a tenth of the run, so that a short run is not
            all warm-up. During it the factor is multiplied by (step + 1) / warmup_steps, which is
            above 0 in the first step (Goyal et al. 2017, section 2.2).
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, warmup_steps: int = 0) -> None:
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.asked_warmup_steps = warmup_steps
        self.warmup_steps = min(warmup_steps, total_steps // 10)

    def factor(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self.factor_without_warmup(step)

    def factor_without_warmup(self, step: int) -> float:
        """Factor without warm-up, 0..1."""
        raise NotImplementedError

    def observe(self, val_loss: float) -> None:
        """Take the loss of a validation; used by `Plateau` only."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; nothing for schedules that are pure functions."""


class Constant(Schedule):
    def factor_without_warmup(self, step: int) -> float:
        return 1.0


class Step(Schedule):
    """Step decay: 1 in the first `first` epochs, then divided by `divide_by` at their end and again
    every `every` epochs."""

    def __init__(self, first: float, every: float, divide_by: float, **timing: Any) -> None:
        super().__init__(**timing)
        self.first, self.every, self.divide_by = first, every, divide_by

    def factor_without_warmup(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        divisions = 0 if epoch < self.first else 1 + (epoch - self.first) // self.every
        return self.divide_by**-divisions


class MultiStep(Schedule):
    """Multi-step decay: gamma to the power of the number of milestones (epochs) reached."""

    def __init__(self, milestones: Sequence[float], gamma: float, **timing: Any) -> None:
        super().__init__(**timing)
        if list(milestones) != sorted(milestones):
            raise ValueError(
                f"scheduler.milestones={list(milestones)} must increase, for example [10, 15]."
            )
        self.milestones, self.gamma = list(milestones), gamma

    def factor_without_warmup(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Exponential(Schedule):
    """Exponential decay: gamma ** epoch."""

    def __init__(self, gamma: float, **timing: Any) -> None:
        super().__init__(**timing)
        self.gamma = gamma

    def factor_without_warmup(self, step: int) -> float:
        return self.gamma ** (step // self.steps_per_epoch)


class Cosine(Schedule):
    """Cosine annealing from 1 to min_factor: SGDR's equation 5 with a single cycle (Loshchilov &
    Hutter 2017)."""

    def __init__(self, min_factor: float = 0.0, **timing: Any) -> None:
        super().__init__(**timing)
        self.min_factor = min_factor

    def factor_without_warmup(self, step: int) -> float:
        return _cosine(1.0, self.min_factor, step / self.total_steps)


class OneCycle(Schedule):
    """One-cycle schedule: from start_factor to 1 in the first share `rise` of the run, then to
    end_factor in the last step (Smith & Topin 2018; the two-phase form of torch's OneCycleLR)."""

    def __init__(
        self, rise: float, start_factor: float, end_factor: float, anneal: str, **timing: Any
    ) -> None:
        super().__init__(**timing)
        self.rise, self.start_factor, self.end_factor = rise, start_factor, end_factor
        self.between = {"cosine": _cosine, "linear": _linear}[anneal]

    def factor_without_warmup(self, step: int) -> float:
        last = self.total_steps - 1
        top = max(0.0, self.rise * self.total_steps - 1)
        if step < top:
            return self.between(self.start_factor, 1.0, step / top)
        return self.between(1.0, self.end_factor, (step - top) / max(1e-12, last - top))


class WSD(Schedule):
    """Warm-up, stable, decay: 1 up to the last share `decay` of the run, then down to end_factor,
    in a line or by 1 minus the root of the decay's share that is done (Hu et al. 2024, arXiv
    2404.06395; the root: Hagele et al. 2024, arXiv 2405.18392, equation 1)."""

    def __init__(self, decay: float, anneal: str, end_factor: float, **timing: Any) -> None:
        super().__init__(**timing)
        self.decay, self.end_factor = decay, end_factor
        self.shape = {"linear": float, "1-sqrt": math.sqrt}[anneal]

    def factor_without_warmup(self, step: int) -> float:
        length = max(1.0, self.decay * self.total_steps)
        share = max(0.0, (step - (self.total_steps - length)) / length)
        return _linear(1.0, self.end_factor, self.shape(share))


class Polynomial(Schedule):
    """Polynomial decay from 1 to end_factor, by (1 - step / total) ** power."""

    def __init__(self, power: float, end_factor: float, **timing: Any) -> None:
        super().__init__(**timing)
        self.power, self.end_factor = power, end_factor

    def factor_without_warmup(self, step: int) -> float:
        left = max(0.0, 1 - step / self.total_steps)
        return _linear(self.end_factor, 1.0, left**self.power)


class Plateau(Schedule):
    """Reduction on plateau: multiplied by gamma after more than `patience` validations in a row
    without a loss below lowest * (1 - threshold), down to min_factor."""

    def __init__(
        self, gamma: float, patience: int, threshold: float, min_factor: float, **timing: Any
    ) -> None:
        super().__init__(**timing)
        self.gamma, self.patience = gamma, patience
        self.threshold, self.min_factor = threshold, min_factor
        self.lowest, self.num_bad_epochs, self.current = math.inf, 0, 1.0

    def factor_without_warmup(self, step: int) -> float:
        return self.current

    def observe(self, val_loss: float) -> None:
        if val_loss < self.lowest * (1 - self.threshold):
            self.lowest, self.num_bad_epochs = val_loss, 0
            return
        self.num_bad_epochs += 1
        if self.num_bad_epochs > self.patience:
            self.current = max(self.min_factor, self.current * self.gamma)
            self.num_bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "lowest": self.lowest,
            "num_bad_epochs": self.num_bad_epochs,
            "current": self.current,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; an empty one, of a schedule without a state, resets nothing."""
        if not state:
            return
        self.lowest = state["lowest"]
        self.num_bad_epochs = state["num_bad_epochs"]
        self.current = state["current"]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _linear(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
