"""Early stopping and a time budget: rules that end a training before its last epoch."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from trainer.evaluation.metrics import Metrics
from trainer.text.values import count, format_value
from trainer.training.rules.rule import Rule

if TYPE_CHECKING:
    from trainer.training.run import Run


class EarlyStopping(Rule):
    """Early stopping: the training ends after `patience` validations in a row without a new best
    value, which is better than the best so far by more than `min_delta`.

    Args:
        on: accuracy or loss, of the validation. A loss of NaN is no best one.
    """

    name = "early_stopping"

    def __init__(self, patience: int, min_delta: float = 0.0, on: str = "accuracy") -> None:
        self.patience, self.min_delta, self.on = patience, min_delta, on
        self.sign = 1.0 if on == "accuracy" else -1.0
        self.best, self.num_worse = -math.inf, 0  # the larger the better

    def end_epoch(self, run: Run, val: Metrics | None) -> None:
        if val is None:
            return
        now = self.sign * float(getattr(val, self.on))
        if now > self.best + self.min_delta:
            self.best, self.num_worse = now, 0
        else:
            self.num_worse += 1

    def is_over(self, run: Run) -> str:
        if self.num_worse < self.patience:
            return ""
        by = f" by more than {format_value(self.min_delta)}" if self.min_delta else ""
        return (
            f"patience={self.patience}: the validation {self.on} has not improved on "
            f"{self.sign * self.best:.4f}{by} for {count(self.num_worse, 'validation')}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "num_worse": self.num_worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.num_worse = float(state["best"]), state["num_worse"]


class TimeBudget(Rule):
    """Time budget: the training ends after the epoch after which the next one, as long as the
    longest so far, would not fit into `minutes` of wall time. One epoch is always trained. The time
    of epochs with their validations counts, of a resumed run that of all its parts, and that of the
    first process, which tells the others.

    Attributes:
        spent: seconds of the complete epochs.
        reached: seconds up to the latest decision, which is made after an epoch's last step, so
            that a last epoch is validated, and after its validation.
        longest: seconds of the longest epoch, without compilation.
    """

    name = "time_budget"

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.spent = self.reached = self.longest = self.before = 0.0
        self.started_at: float | None = None

    def start_epoch(self, run: Run) -> None:
        self.started_at = time.monotonic() - self.before
        self.compiled_s, self.before = run.compile_time.seconds, 0.0

    def step(self, run: Run) -> None:
        if run.progress.batch == len(run.train):
            self.decide(run)

    def end_epoch(self, run: Run, val: Metrics | None) -> None:
        if val is not None:  # else the training could end without one
            self.decide(run)
        self.spent, self.started_at = self.reached, None

    def decide(self, run: Run) -> None:
        def told() -> tuple[float, float]:
            return self.elapsed(), run.compile_time.seconds - self.compiled_s

        elapsed, compiled_s = run.world.from_main(told)
        self.reached = self.spent + elapsed
        self.longest = max(self.longest, elapsed - compiled_s)

    def elapsed(self) -> float:
        """Seconds of the current epoch so far."""
        return 0.0 if self.started_at is None else time.monotonic() - self.started_at

    def is_over(self, run: Run) -> str:
        if self.reached + self.longest <= 60 * self.minutes or not self.longest:
            return ""
        return (
            f"max_minutes={format_value(self.minutes)}: {self.reached / 60:.2f} minutes are spent, "
            f"and another epoch of up to {self.longest / 60:.2f} minutes would not fit"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent, "reached": self.reached, "longest": self.longest,
                "epoch_s": self.elapsed()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.spent, self.reached = float(state["spent"]), float(state["reached"])
        self.longest, self.before = float(state["longest"]), float(state["epoch_s"])
