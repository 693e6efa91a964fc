"""Whether the numbers of a training are numbers: what holds NaN or infinity is never written to
disk as a state, and never gone on from."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainer.checkpoints.finite import listed, not_finite
from trainer.errors import TrainingError
from trainer.training.step import Stepper

SMALLER_STEPS = (
    "Try a smaller optimizer.lr, a warm-up (scheduler.warmup_steps=500) or clip_grad_norm=1."
)


class Soundness:
    """Looks whether what a training computes is finite, where a sync is due anyway.

    Attributes:
        since: the step after which weights and optimizer were last seen to be finite.
    """

    def __init__(self, model: nn.Module, stepper: Stepper) -> None:
        self.model, self.stepper = model, stepper
        self.since = 0

    def check_steps(self, step: int, where: str) -> None:
        """Raises TrainingError if a loss or gradient was not finite up to `step`. A sync.

        Args:
            where: epoch and learning rate, for the message.
        """
        bad = self.stepper.num_skipped_steps()
        if not bad:
            return
        # A finite gradient can still take a weight beyond its range, which the next loss tells.
        # Buffers are not asked: a batch norm has seen the bad batch before its loss is known.
        weights = dict(self.model.named_parameters())
        entries = {"model": weights, "optimizer": self.stepper.optimizer.state_dict()}
        self.refuse(entries, step - bad, where)
        raise TrainingError(
            f"The loss or a gradient became NaN or infinite at step {step - bad + 1} ({where}). "
            f"The weights were not updated; they are those of step {step - bad}.\n{SMALLER_STEPS}"
        )

    def checked(self, entries: dict[str, Any], step: int, where: str) -> dict[str, Any]:
        """The same, as they are after `step`. Raises TrainingError if a weight, a statistic or what
        the optimizer keeps is NaN or infinite. A sync."""
        self.refuse(entries, step, where)
        self.since = step
        return entries

    def refuse(self, entries: dict[str, Any], step: int, where: str) -> None:
        if names := not_finite(entries):
            raise TrainingError(overflow(names, self.since, step, where))


def overflow(names: list[str], since: int, step: int, where: str) -> str:
    """What is to be said of tensors of these names that are not finite after `step` steps, and
    were after `since`: an update with a finite loss and finite gradients did it."""
    when = f"step {step}" if since + 1 >= step else f"one of the steps {since + 1} to {step}"
    if step == 0:
        when = "the start, before any step"
    names = [name.removeprefix("model.") for name in names]
    return (
        f"Weights, or what is kept beside them, became NaN or infinite at {when} ({where}), though "
        f"loss and gradients were finite: {listed(names)}.\nNo checkpoint holds them; what was "
        f"saved before is sound. {SMALLER_STEPS}"
    )
