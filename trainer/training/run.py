"""One training: what `fit` works on, and what looks on."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checkpoints import CheckpointFolder
from trainer.errors import Stopped, TrainingError
from trainer.evaluation.metrics import Meter, Metrics
from trainer.runs.progress import Best, CompileTime, Pace, Progress
from trainer.schedules import Schedule
from trainer.system.signals import StopSignals
from trainer.training import snapshot
from trainer.training.batches import BarredBatches, BatchSource, WatchedBatches
from trainer.training.optimizer_state import StoredOptimizer
from trainer.training.snapshot import About, Part
from trainer.training.soundness import SMALLER_STEPS, Soundness
from trainer.training.step import Stepper
from trainer.training.world import World

Update = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Watcher:
    """Looks on while a run goes its way, and changes nothing of what is trained. A subclass has
    those of these methods that it needs."""

    def start(self, run: Run) -> None:
        """Before the first step of this process."""

    def step(self, run: Run) -> None:
        """After each step. Must not wait for the device, but at the log interval."""

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        """After an epoch's training and validation (None: not validated), before its state is
        saved: what is told here reaches the disk first."""

    def save(self, run: Run) -> None:
        """Before any state is saved: what has been told must be on the disk."""

    def best(self, run: Run) -> None:
        """After an epoch that is the best so far, whose weights have been saved."""

    def finish(self, run: Run, test: Metrics) -> None:
        """After the test; the model has the best weights."""

    def meter(self, split: str) -> Meter | None:
        """What the evaluation of "val" or "test" is to collect into; None: nothing beyond loss and
        accuracy."""
        return None

    def close(self) -> None:
        """At the end, however the run ended."""


@dataclass(frozen=True)
class Plan:
    """How long, and how often what: see configs/config.yaml."""

    epochs: int
    batch_size: int
    eval_every_epochs: int = 1
    log_interval: int = 50
    pace: Pace = field(default_factory=Pace)


@dataclass
class Run:
    """Everything that `fit` works on. `build` makes it; nothing in it knows the configuration.

    Attributes:
        update: one step, loop.update or a graph of it.
        eval_loss: what validation and test report, and the best weights and the schedule go by.
        seed_step: seeds all generators for a step.
        watchers: told in this order, at the end in the reverse one.
        parts: by name, all that a state holds so that the training can go on from it. What is
            given here comes beside the parts that every run has.
        soundness: whether the numbers are numbers.
    """

    model: nn.Module
    update: Update
    stepper: Stepper
    schedule: Schedule
    eval_loss: nn.Module
    autocast: AbstractContextManager[Any]
    seed_step: Callable[[int], None]
    train: BatchSource
    val: BatchSource
    test: BatchSource
    plan: Plan
    about: About
    checkpoints: CheckpointFolder
    signals: StopSignals
    compile_time: CompileTime = field(default_factory=CompileTime)
    watchers: tuple[Watcher, ...] = ()
    world: World = field(default_factory=World)
    parts: dict[str, Part] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        self.soundness = Soundness(self.model, self.stepper)
        self.parts = {
            "model": self.model,
            "optimizer": StoredOptimizer(self.optimizer),
            "guard": self.stepper,
            "schedule": self.schedule,
            "progress": self.progress,
            "best": self.best,
            "meter": self.meter,
            **self.parts,
        }

    @property
    def optimizer(self) -> Optimizer:
        return self.stepper.optimizer

    @property
    def evaluated_model(self) -> nn.Module:
        """What validation, test and pictures use, and what best.pth holds."""
        return self.model

    @property
    def is_done(self) -> bool:
        return self.progress.epoch >= self.plan.epochs

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self) -> None:
        """The learning rate of the coming step: a function of the epoch and the batch alone, which
        are the images seen. The number of steps says the same until `resume --force` has changed
        how many an epoch has; from then on the schedule goes on from the same share of its way."""
        done = self.progress.epoch * self.schedule.steps_per_epoch + self.progress.batch
        factor = self.schedule.factor(done)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def start(self) -> None:
        for watcher in self.watchers:
            watcher.start(self)

    def start_epoch(self) -> None:
        """Or go on with one that was stopped in its middle."""
        self.model.train()
        self.started_at = time.monotonic() - self.progress.epoch_s - self.compile_time.seconds

    def seconds_of_epoch(self) -> float:
        seconds = time.monotonic() - self.started_at - self.compile_time.seconds
        return max(0.0, seconds)  # a difference of differences, rounded

    def step_done(self) -> None:
        """After each step: tell of it, and save or stop if that is due."""
        self.progress.batch += 1
        self.progress.step += 1
        if self.is_interval:
            self.check_steps()
        for watcher in self.watchers:
            watcher.step(self)
        if self.signals.received is not None or self.plan.pace.is_due(self.progress.step):
            self.check_steps()
            self.progress.epoch_s = self.seconds_of_epoch()
            self.save()
            self.stop_if_asked()

    @property
    def is_interval(self) -> bool:
        """Whether the latest step is one after which the device is waited for."""
        return self.progress.step % self.plan.log_interval == 0

    def stop_if_asked(self) -> None:
        if self.signals.received is not None:
            raise Stopped(self.signals.received)

    def end_training_epoch(self) -> Metrics:
        """What the epoch's steps came to. A sync, so that the seconds are whole."""
        self.check_steps()
        self.progress.epoch_s = self.seconds_of_epoch()
        # Before time is spent on validating them.
        self.checked({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        return self.meter.read(self.progress.epoch_s)

    @property
    def validates(self) -> bool:
        """Whether the running epoch ends with a validation; the last one always does."""
        epoch = self.progress.epoch + 1
        return epoch % self.plan.eval_every_epochs == 0 or epoch == self.plan.epochs

    def interruptible(self, batches: BatchSource) -> BatchSource:
        """The same batches for evaluation, between which the run can be stopped: the training
        stands still meanwhile, so its state is whole at any of them."""

        def pause() -> bool:
            if self.signals.received is not None and self.progress.batch:
                self.save()  # not during the test, when the best weights are in the model
            self.stop_if_asked()
            return False

        what = "test" if batches is self.test else "validation"
        return BarredBatches(WatchedBatches(batches, pause), what, self.signals.is_received)

    def meter_of(self, split: str) -> Meter:
        """What the evaluation of "val" or "test" collects into: that of the watcher who wants more
        than loss and accuracy."""
        meters = (watcher.meter(split) for watcher in self.watchers)
        return next((meter for meter in meters if meter is not None), Meter())

    def end_epoch(self, train: Metrics, val: Metrics | None) -> None:
        """Count the epoch, write the state, keep the best weights."""
        progress = self.progress
        progress.epoch += 1
        progress.batch, progress.epoch_s = 0, 0.0
        progress.train_s += train.seconds
        progress.num_images += train.num_images
        self.meter.reset()
        if val is not None:
            progress.val_is_finite = math.isfinite(val.loss)
        is_best = val is not None and self.best.take(progress.epoch, val)
        # The rows before the state: a resumed run drops rows that its state does not know, but it
        # could not make up for missing ones. The state before the best weights: they lie in it,
        # so that `load` can write them if the process ended between the two.
        for watcher in self.watchers:
            watcher.epoch(self, train, val)
        self.save()
        if is_best:
            if self.world.is_main:
                self.checkpoints.save_best(self.checked(snapshot.portable(self)))
            for watcher in self.watchers:
                watcher.best(self)
        if not self.is_done:
            self.stop_if_asked()

    def save(self) -> None:
        for watcher in self.watchers:
            watcher.save(self)
        if self.world.is_main:
            self.checkpoints.save_state(self.progress.step, self.checked(snapshot.full(self)))
        self.plan.pace.saved()

    def finish(self, test: Metrics) -> None:
        for watcher in reversed(self.watchers):
            watcher.finish(self, test)

    def close(self) -> None:
        """All watchers, also where one fails; what a full disk does not take is said elsewhere."""
        for watcher in reversed(self.watchers):
            with contextlib.suppress(OSError):
                watcher.close()

    def check_steps(self) -> None:
        """Raises TrainingError if a loss or a gradient was not finite. A sync."""
        self.soundness.check_steps(self.progress.step, self.where())

    def checked(self, entries: dict[str, Any]) -> dict[str, Any]:
        """The same, which are about to be saved. Raises TrainingError if they are not finite: such
        a state is never written. A sync."""
        return self.soundness.checked(entries, self.progress.step, self.where())

    def check_validated(self) -> None:
        """Raises TrainingError if the last validation gave no finite loss: batch norm can hide in
        training, by each batch's own statistics, that the weights are of no use."""
        if not self.progress.val_is_finite:
            best = f" The best weights, of epoch {self.best.epoch}, are in {self.checkpoints.best}."
            raise TrainingError(
                f"The validation loss after epoch {self.progress.epoch} is NaN or infinite, so the "
                f"test split was not read.{best if self.best.epoch else ''}\n{SMALLER_STEPS}"
            )

    def where(self) -> str:
        """The epoch of the latest step, and its learning rate, for a message."""
        epoch = self.progress.epoch + bool(self.progress.batch)
        return f"epoch {max(1, epoch)}, learning rate {self.lr:.3g}"
