"""Progress of a run: counters, best epoch, compilation time, save interval."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from trainer.evaluation.measures import score_of
from trainer.evaluation.metrics import Metrics


class Counters:
    """Base class of dataclasses of plain values that are part of a run's state."""

    def state_dict(self: Any) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values; those missing in an older state get their default."""
        for name, value in dataclasses.asdict(type(self)(**state)).items():  # type: ignore[call-overload]
            setattr(self, name, value)


@dataclass
class Progress(Counters):
    """Progress of a training.

    Attributes:
        epoch: number of complete epochs.
        batch: number of batches done in the current epoch.
        step: number of steps in all.
        train_s, num_images: seconds and images of the complete training epochs.
        epoch_s: seconds of the current epoch up to its latest saved state.
        val_is_finite: False if the latest validation loss was NaN or infinite.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    train_s: float = 0.0
    num_images: int = 0
    epoch_s: float = 0.0
    val_is_finite: bool = True

    def with_batch_size(self, before: int, now: int) -> Progress:
        """Progress with the same position in the current epoch after a change of the batch size.
        The order of the images does not depend on batches; the position is rounded up to a whole
        batch, so that no image is used twice and fewer than one batch is skipped. `step` does not
        change; the schedule uses epoch and batch, see `Run.set_lr`."""
        return dataclasses.replace(self, batch=math.ceil(self.batch * before / now))


@dataclass
class Best(Counters):
    """Best epoch: highest validation accuracy, or another measure; ties: lower loss, then the
    earlier one. An epoch with a NaN loss is never the best.

    Attributes:
        epoch: counted from 1; 0: none.
        lost_epoch: a better one whose weights were lost, see best_weights.py; 0: none.
        by: the measure, one of MEASURES.
        score: by it, see `score_of`.
    """

    epoch: int = 0
    accuracy: float = -1.0
    loss: float = math.inf
    lost_epoch: int = 0
    by: str = "accuracy"
    score: float = -math.inf

    def __post_init__(self) -> None:
        if self.epoch and self.score == -math.inf:  # of a state older than the measure
            self.score = self.accuracy

    @property
    def counts_classes(self) -> bool:
        """True if validations must count the images of each class."""
        return self.by in ("balanced_accuracy", "macro_f1")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values. By another measure than now no epoch was the best."""
        by = self.by
        super().load_state_dict(state)
        if self.by != by:
            super().load_state_dict({"by": by})

    def beaten_by(self, val: Metrics) -> bool:
        if not math.isfinite(val.loss):
            return False
        return (score_of(self.by, vars(val)), -val.loss) > (self.score, -self.loss)

    def take(self, epoch: int, val: Metrics) -> bool:
        """Record this epoch if it is the best so far. Returns True if it is."""
        if not self.beaten_by(val):
            return False
        self.epoch, self.accuracy, self.loss = epoch, val.accuracy, val.loss
        self.score = score_of(self.by, vars(val))
        return True


@dataclass
class CompileTime:
    """Seconds spent compiling so far, which do not count as training time.

    Attributes:
        around: makes a context that is entered around each compilation.
    """

    seconds: float = 0.0
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            with self.around():
                yield
        finally:
            self.seconds += time.monotonic() - start


class SaveInterval:
    """Interval at which states are saved within an epoch.

    Args:
        steps, minutes: between two states; 0: only at the end of an epoch.
    """

    def __init__(self, steps: int = 0, minutes: float = 0.0) -> None:
        self.steps, self.seconds = steps, 60 * minutes
        self.saved()

    def is_at(self, step: int) -> bool:
        """True if a state is due after this step."""
        return bool(self.steps) and step % self.steps == 0

    def time_is_up(self) -> bool:
        """True if a state is due by the clock."""
        return bool(self.seconds) and time.monotonic() - self.saved_at >= self.seconds

    def saved(self) -> None:
        self.saved_at = time.monotonic()
