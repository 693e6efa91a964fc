"""Watcher: an observer of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.evaluation.metrics import Meter, Metrics

if TYPE_CHECKING:
    from trainer.training.run import Run


class Watcher:
    """Observer of a run. It changes nothing that is trained; a subclass overrides the methods that
    it needs."""

    def start(self, run: Run) -> None:
        """Called before the first step of this process."""

    def step(self, run: Run) -> None:
        """Called after each step. Must not wait for the device, except at the log interval."""

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        """Called after an epoch's training and validation (None: not validated), before its state
        is saved, so that rows reach the disk before the state."""

    def save(self, run: Run) -> None:
        """Called before any state is saved; must flush everything written so far to disk."""

    def best(self, run: Run) -> None:
        """Called after an epoch that is the best so far, once its weights are saved."""

    def finish(self, run: Run, test: Metrics | None) -> None:
        """Called after the test (None: the test split was not read); the model has the best
        weights."""

    def meter(self, split: str) -> Meter | None:
        """Meter for the evaluation of "val" or "test"; None: loss and accuracy suffice."""
        return None

    def close(self) -> None:
        """Called at the end, however the run ended."""
