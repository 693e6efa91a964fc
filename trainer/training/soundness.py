"""Checks for NaN and infinity during training: a state that holds one is never saved, nor resumed
from."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainer.checkpoints.finite import not_finite
from trainer.errors import TrainingError
from trainer.text.values import listed
from trainer.training.step import Stepper

SMALLER_STEPS = (
    "Try a smaller optimizer.lr, a warm-up (scheduler.warmup_steps=500) or clip_grad_norm=1."
)


class Soundness:
    """Finiteness checks of a training, made where a sync is due anyway.

    Attributes:
        since: last step after which weights and optimizer state were found finite.
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
        # A step with a finite gradient can overflow a weight, which shows in the next loss.
        # Buffers are not checked: batch norm has processed the bad batch before its loss is known.
        weights = dict(self.model.named_parameters())
        entries = {"model": weights, "optimizer": self.stepper.optimizer.state_dict()}
        self.refuse(entries, step - bad, where)
        raise TrainingError(
            f"The loss or a gradient became NaN or infinite at step {step - bad + 1} ({where}). "
            f"The weights were not updated; they are those of step {step - bad}.\n{SMALLER_STEPS}"
        )

    def checked(self, entries: dict[str, Any], step: int, where: str) -> dict[str, Any]:
        """The entries, unchanged, after a check. Raises TrainingError if a weight, a statistic or
        the optimizer state is NaN or infinite after `step`. A sync."""
        self.refuse(entries, step, where)
        self.since = step
        return entries

    def refuse(self, entries: dict[str, Any], step: int, where: str) -> None:
        """Raises TrainingError if a tensor in `entries` is not finite. A sync."""
        if names := not_finite(entries):
            raise TrainingError(overflow(names, self.since, step, where))


def overflow(names: list[str], since: int, step: int, where: str) -> str:
    """Message for tensors that are not finite after `step` steps and were after `since`: an update
    with a finite loss and finite gradients overflowed them."""
    when = f"step {step}" if since + 1 >= step else f"one of the steps {since + 1} to {step}"
    if step == 0:
        when = "the start, before any step"
    names = [name.removeprefix("model.") for name in names]
    return (
        f"Weights, statistics or optimizer state became NaN or infinite at {when} ({where}), "
        f"though loss and gradients were finite: {listed(names)}.\nThey were not saved; earlier "
        f"checkpoints are intact. {SMALLER_STEPS}"
    )
