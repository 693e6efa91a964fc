"""Rule: something that a training does beside its steps, at given moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from trainer.training.run import Run


class Rule:
    """Rule of a training. Unlike a watcher it may change what is trained and evaluated, and when
    the training ends; so what it does follows from its arguments, the run's progress and its own
    state, which a checkpoint holds. A subclass overrides the methods that it needs.

    Attributes:
        name: of its state in checkpoints; empty: it has none.
    """

    name = ""

    def start_epoch(self, run: Run) -> None:
        """Called when the model has been put into training mode, before the first step of an epoch,
        and before the next step of one that was interrupted."""

    def step(self, run: Run) -> None:
        """Called after each step, before the watchers. Must not wait for the device."""

    def evaluate(self, run: Run) -> None:
        """Called before a validation."""

    def end_epoch(self, run: Run, val: Metrics | None) -> None:
        """Called after an epoch's training and validation (None: not validated), once the epoch is
        counted and before the state is saved."""

    def is_over(self, run: Run) -> str:
        """Reason why the training ends with the current epoch, or the complete ones, before its
        last; empty: it goes on. Called after the epoch's steps, and again after its validation; the
        same in all processes."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
