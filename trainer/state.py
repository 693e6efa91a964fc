"""What a run consists of, and which of it a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checkpoint import CheckpointFolder
from trainer.errors import Stopped, TrainingError, UserError
from trainer.log import RunLog
from trainer.metrics import Meter, Metrics
from trainer.progress import Best, Progress
from trainer.runtime import StopSignals, versions
from trainer.schedules import Schedule


class BatchSource(Protocol):
    """Batches of (images (N, C, H, W) float, targets); `epoch(e, start)` gives those of epoch e
    from batch `start` on."""

    num_images: int  # per epoch

    def __len__(self) -> int: ...

    def epoch(self, epoch: int = 0, start: int = 0) -> Any: ...


class Stepper(Protocol):
    """Backward and update; see trainer/guard.py."""

    optimizer: Optimizer

    def backward(self, loss: Tensor) -> None: ...

    def step(self) -> None: ...

    def bad_steps(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Cost:
    """num_parameters: all of them. macs: multiply-adds of one picture's forward pass."""

    num_parameters: int
    macs: int


@dataclass
class Description:
    """What a checkpoint says of itself, so that it can be used with nothing beside it."""

    config: str  # the run's configuration as YAML text
    classes: list[str]
    shape: list[int]  # (C, H, W) as the data comes
    mean: list[float]  # per channel, in pixel / 255
    std: list[float]
    resize: int  # a picture's shorter side is brought to this before the centre is cropped
    versions: dict[str, str] = field(default_factory=versions)


@dataclass
class Run:
    """Everything that `fit` works on. `build` makes it; nothing in it knows the configuration."""

    model: nn.Module
    loss: nn.Module
    guard: Stepper
    schedule: Schedule
    train: BatchSource
    val: BatchSource
    test: BatchSource
    epochs: int
    autocast: AbstractContextManager[Any]
    seed_step: Callable[[int], None]
    signals: StopSignals
    checkpoints: CheckpointFolder
    log: RunLog
    description: Description
    device: torch.device
    cost: Cost
    enlarges: str = ""  # what the net does to pictures that are too small for it, if it does
    log_interval: int = 50
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    meter: Meter = field(default_factory=Meter)

    @property
    def optimizer(self) -> Optimizer:
        return self.guard.optimizer

    def set_lr(self) -> None:
        """The learning rate of the coming step: a function of the step alone."""
        factor = self.schedule.factor(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def step_done(self) -> None:
        """After each step: at the log interval read what has gathered, and stop if asked to."""
        self.progress.batch += 1
        self.progress.step += 1
        if self.progress.step % self.log_interval == 0:
            self.check_finite()
            self.log.interval(self.progress, self.meter.read(), self.lr)
        else:
            self.log.tick(self.progress)
        if self.signals.received is not None:
            self.check_finite()
            self.save()
            raise Stopped(self.signals.received)

    def check_finite(self) -> None:
        """Raises TrainingError if a loss or gradient was not finite. A sync."""
        bad = self.guard.bad_steps()
        if bad:
            step = self.progress.step - bad
            raise TrainingError(
                f"The loss or a gradient became NaN or infinite at step {step + 1} "
                f"(epoch {self.progress.epoch + 1}, learning rate {self.lr:.3g}). "
                f"The weights of step {step} are unharmed.\n"
                "Try a smaller optimizer.lr, a warm-up (scheduler.warmup_steps=500) or "
                "clip_grad_norm=1."
            )

    def epoch_done(self, train: Metrics, val: Metrics) -> None:
        """Count the epoch, keep the best weights, write the state."""
        self.progress.epoch += 1
        self.progress.batch = 0
        self.progress.train_s += train.seconds
        self.progress.num_images += train.num_images
        self.meter.reset()
        is_best = self.best.beaten_by(val)
        if is_best:
            self.best = Best(self.progress.epoch, val.accuracy, val.loss)
            self.checkpoints.save_best(self.portable())
        # The rows before the state: a resumed run drops rows that its state does not know, but it
        # could not make up for missing ones.
        self.log.epoch(self.progress, self.epochs, train, val, self.lr, is_best)
        self.save()
        if self.signals.received is not None and self.progress.epoch < self.epochs:
            raise Stopped(self.signals.received)  # it came during validation; the state is saved

    def save(self) -> None:
        self.checkpoints.save_state(self.progress.step, self.full_state())

    def portable(self) -> dict[str, Any]:
        """Weights and description: what using the model needs."""
        return {
            "model": self.model.state_dict(),
            **asdict(self.description),
            "step": self.progress.step,
            "epoch": self.progress.epoch,
        }

    def full_state(self) -> dict[str, Any]:
        """The same, and all that continuing the training needs."""
        return {
            **self.portable(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_class": type(self.optimizer).__name__,
            "guard": self.guard.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": asdict(self.progress),
            "best": asdict(self.best),
            "meter": self.meter.state_dict(),
            "threads": torch.get_num_threads(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `full_state` gave. Raises UserError if it belongs to another run."""
        if state["optimizer_class"] != type(self.optimizer).__name__:
            raise UserError(
                f"optimizer: the state is of {state['optimizer_class']}, "
                f"and the configuration asks for {type(self.optimizer).__name__}."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.guard.load_state_dict(state["guard"])
        self.schedule.load_state_dict(state["schedule"])
        self.meter.load_state_dict(state["meter"])
        self.progress, self.best = Progress(**state["progress"]), Best(**state["best"])
