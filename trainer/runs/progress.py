"""How far a run is, and the best it has seen."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from trainer.evaluation.metrics import Metrics


class Counters:
    """Plain values of a dataclass as a part of a run's state."""

    def state_dict(self: Any) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What an older state does not have takes its default."""
        for name, value in dataclasses.asdict(type(self)(**state)).items():  # type: ignore[call-overload]
            setattr(self, name, value)


@dataclass
class Progress(Counters):
    """How far the training is: complete epochs, batches done in the running one, steps in all,
    seconds and pictures inside complete training epochs, seconds inside the running one up to
    its latest saved state, and whether the latest validation's loss was a number."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    train_s: float = 0.0
    num_images: int = 0
    epoch_s: float = 0.0
    val_is_finite: bool = True

    def with_batch_size(self, before: int, now: int) -> Progress:
        """The same place in the running epoch, whose order of pictures knows no batches: rounded up
        to a whole batch, so that none is seen twice and fewer than one batch are left out. Steps
        stay those that were made; the schedule goes by epochs and batches, see `Run.set_lr`."""
        return dataclasses.replace(self, batch=math.ceil(self.batch * before / now))


@dataclass
class Best(Counters):
    """The epoch (from 1) whose weights are kept: highest validation accuracy; ties: lower loss,
    then earlier. A NaN never wins. lost_epoch: one that was better and whose weights the disk has
    lost, see best_weights.py; 0 = none."""

    epoch: int = 0
    accuracy: float = -1.0
    loss: float = math.inf
    lost_epoch: int = 0

    def beaten_by(self, val: Metrics) -> bool:
        if not math.isfinite(val.loss):
            return False
        return (val.accuracy, -val.loss) > (self.accuracy, -self.loss)

    def take(self, epoch: int, val: Metrics) -> bool:
        """Whether this epoch is the best so far, which it then becomes."""
        if not self.beaten_by(val):
            return False
        self.epoch, self.accuracy, self.loss = epoch, val.accuracy, val.loss
        return True


@dataclass
class CompileTime:
    """Seconds spent in compiling so far; they are not those of training."""

    seconds: float = 0.0
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext  # each compiling

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            with self.around():
                yield
        finally:
            self.seconds += time.monotonic() - start


class Pace:
    """When a state is due between the ends of two epochs.

    Args:
        steps, minutes: between two states; 0 = only at the ends of epochs.
    """

    def __init__(self, steps: int = 0, minutes: float = 0.0) -> None:
        self.steps, self.seconds = steps, 60 * minutes
        self.saved()

    def is_due(self, step: int) -> bool:
        if self.seconds and time.monotonic() - self.saved_at >= self.seconds:
            return True
        return bool(self.steps) and step % self.steps == 0

    def saved(self) -> None:
        self.saved_at = time.monotonic()
