"""Run: one training."""

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
from trainer.errors import Paused, Stopped, TrainingError
from trainer.evaluation.metrics import Meter, Metrics
from trainer.runs.progress import Best, CompileTime, Progress, SaveInterval
from trainer.schedules import Schedule
from trainer.system.signals import StopSignals
from trainer.training import snapshot
from trainer.training.batches import BatchesWithBar, BatchSource, StoppableBatches
from trainer.training.optimizer_state import StoredOptimizer
from trainer.training.rules.rule import Rule
from trainer.training.snapshot import About, Part
from trainer.training.soundness import SMALLER_STEPS, Soundness
from trainer.training.step import Stepper
from trainer.training.watcher import Watcher
from trainer.training.world import World

Update = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Plan:
    """Length of a run, its intervals, and the reading of its test; see configs/config.yaml."""

    epochs: int
    batch_size: int
    eval_every_epochs: int = 1
    log_interval: int = 50
    test: str = "selected"
    stop_epoch: int = 0
    save_interval: SaveInterval = field(default_factory=SaveInterval)


@dataclass
class Run:
    """Run: one training, which `fit` works on. Nothing in it depends on the configuration.

    Attributes:
        update: one step, loop.update or a compiled graph of it.
        eval_loss: loss of validation and test; selects the best weights, drives the schedule.
        seed_step: seeds all generators for a step.
        rules: what the training does beside its steps; called in this order, before the watchers.
        watchers: called in this order, at the end in reverse order.
        parts: objects whose state a full checkpoint holds, by name. Those given to the constructor
            are added to the parts that every run has.
        average: model that validation and test use, and that best.pth holds, in place of the one
            that is trained; its weights follow from that one's. None: the trained model itself.
        soundness: checks for NaN and infinity.
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
    rules: tuple[Rule, ...] = ()
    watchers: tuple[Watcher, ...] = ()
    world: World = field(default_factory=World)
    parts: dict[str, Part] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    meter: Meter = field(default_factory=Meter)
    average: nn.Module | None = None

    def __post_init__(self) -> None:
        self.soundness = Soundness(self.model, self.stepper)
        self.parts = {
            "model": self.model,
            "optimizer": StoredOptimizer(self.optimizer),
            "guard": self.stepper,  # its name in files of all versions
            "schedule": self.schedule,
            "progress": self.progress,
            "best": self.best,
            "meter": self.meter,
            **{rule.name: rule for rule in self.rules if rule.name},
            **self.parts,
        }

    @property
    def optimizer(self) -> Optimizer:
        return self.stepper.optimizer

    @property
    def evaluated_model(self) -> nn.Module:
        """Model for validation, test and plots; its weights are saved in best.pth."""
        return self.model if self.average is None else self.average

    @property
    def is_done(self) -> bool:
        return self.progress.epoch >= self.plan.epochs or bool(self.ended_by)

    @property
    def ended_by(self) -> str:
        """Reason of a rule by which the training ends before its last epoch; empty: none."""
        if not self.progress.epoch and not self.progress.batch:
            return ""
        return next((reason for rule in self.rules if (reason := rule.is_over(self))), "")

    @property
    def lr(self) -> float:
        """Learning rate of the latest step; of several parameter groups, the largest."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def lrs(self) -> dict[str, float]:
        """Learning rate of each parameter group, by its name, if there are several."""
        groups = self.optimizer.param_groups
        return {g["name"]: float(g["lr"]) for g in groups} if len(groups) > 1 else {}

    def set_lr(self) -> None:
        """Set the learning rate of the next step. It depends on epoch and batch, not on the number
        of steps: the two agree until `resume --force` changes the steps per epoch, after which the
        schedule continues from the same fraction of the training."""
        done = self.progress.epoch * self.schedule.steps_per_epoch + self.progress.batch
        factor = self.schedule.factor(done)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def start(self) -> None:
        for watcher in self.watchers:
            watcher.start(self)

    def start_epoch(self) -> None:
        """Start an epoch, or continue one that was interrupted."""
        self.model.train()
        for rule in self.rules:
            rule.start_epoch(self)
        self.started_at = time.monotonic() - self.progress.epoch_s - self.compile_time.seconds

    def seconds_of_epoch(self) -> float:
        seconds = time.monotonic() - self.started_at - self.compile_time.seconds
        return max(0.0, seconds)  # a difference of differences, rounded

    def step_done(self) -> None:
        """Count a step and call the watchers; save the state or stop if that is due. A sync at the
        log interval and before saving."""
        self.progress.batch += 1
        self.progress.step += 1
        if self.is_interval:
            self.check_steps()
        for rule in self.rules:
            rule.step(self)
        for watcher in self.watchers:
            watcher.step(self)
        if self.is_save_due() or self.signals.received is not None:
            self.check_steps()
            self.progress.epoch_s = self.seconds_of_epoch()
            self.save()
            self.stop_if_asked()

    def is_save_due(self) -> bool:
        due = self.plan.save_interval
        return self.world.exchange(self.signals, due.time_is_up()) or due.is_at(self.progress.step)

    @property
    def is_interval(self) -> bool:
        """True if the latest step ends a log interval, where a sync is allowed."""
        return self.progress.step % self.plan.log_interval == 0

    def stop_if_asked(self) -> None:
        if self.signals.received is not None:
            raise Stopped(self.signals.received)

    def end_training_epoch(self) -> Metrics:
        """Metrics of the epoch's training. A sync, so that the seconds cover all steps."""
        self.check_steps()
        self.progress.epoch_s = self.seconds_of_epoch()
        # Checked here, so that no time is spent on validating weights that are not finite.
        self.checked({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        self.world.collect(self.meter)
        return self.meter.read(self.progress.epoch_s)

    @property
    def validates(self) -> bool:
        """True if the current epoch ends with a validation; the last one always does."""
        epoch = self.progress.epoch + 1
        is_last = epoch == self.plan.epochs or bool(self.ended_by)
        return is_last or epoch % self.plan.eval_every_epochs == 0

    def interruptible(self, batches: BatchSource) -> BatchSource:
        """The batches of an evaluation, with a progress bar and a stop check after each. The
        training does not change during an evaluation, so its state is consistent at any batch."""

        def pause() -> bool:
            self.world.exchange(self.signals)
            if self.signals.received is not None and self.progress.batch:
                self.save()  # not during the test, when the best weights are in the model
            self.stop_if_asked()
            return False

        what = "test" if batches is self.test else "validation"
        return BatchesWithBar(StoppableBatches(batches, pause), what, self.signals.is_received)

    def meter_of(self, split: str) -> Meter:
        """Meter for the evaluation of "val" or "test": the first one that a watcher provides, else
        a plain one."""
        meters = (watcher.meter(split) for watcher in self.watchers)
        meter = next((meter for meter in meters if meter is not None), Meter())
        if split == "val" and self.best.counts_classes:
            meter.num_classes = len(self.about.description.classes)
        return meter

    def end_epoch(self, train: Metrics, val: Metrics | None) -> None:
        """Count the epoch, save the state, and save the weights if they are the best so far."""
        progress = self.progress
        progress.epoch += 1
        progress.batch, progress.epoch_s = 0, 0.0
        progress.train_s += train.seconds
        progress.num_images += train.num_images
        self.meter.reset()
        if val is not None:
            progress.val_is_finite = math.isfinite(val.loss)
        is_best = val is not None and self.best.take(progress.epoch, val)
        for rule in self.rules:
            rule.end_epoch(self, val)
        # Rows are written before the state: a resumed run drops rows newer than its state, but
        # could not recover missing ones. The state is written before the best weights, which it
        # contains, so that `load` can write them if the process ended between the two.
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
            if progress.epoch == self.plan.stop_epoch:
                raise Paused(progress.epoch)

    def save(self) -> None:
        """Write the full state. Raises TrainingError if it is not finite. A sync."""
        self.world.collect(self.meter)
        for watcher in self.watchers:
            watcher.save(self)
        if self.world.is_main:
            self.checkpoints.save_state(self.progress.step, self.checked(snapshot.full(self)))
        self.plan.save_interval.saved()

    def finish(self, test: Metrics | None) -> None:
        for watcher in reversed(self.watchers):
            watcher.finish(self, test)

    def close(self) -> None:
        """Close all watchers, even if one fails; errors of the disk are reported elsewhere."""
        for watcher in reversed(self.watchers):
            with contextlib.suppress(OSError):
                watcher.close()

    def check_steps(self) -> None:
        """Raises TrainingError if a loss or a gradient was not finite. A sync."""
        self.soundness.check_steps(self.progress.step, self.where())

    def checked(self, entries: dict[str, Any]) -> dict[str, Any]:
        """The entries, unchanged, after a check before saving. Raises TrainingError if they are not
        finite. A sync."""
        return self.soundness.checked(entries, self.progress.step, self.where())

    def check_validated(self) -> None:
        """Raises TrainingError if the last validation loss is not finite. In training, batch norm
        uses each batch's own statistics, which can hide useless weights."""
        if not self.progress.val_is_finite:
            best = f" The best weights, of epoch {self.best.epoch}, are in {self.checkpoints.best}."
            raise TrainingError(
                f"The validation loss after epoch {self.progress.epoch} is NaN or infinite, so the "
                f"test split was not evaluated.{best if self.best.epoch else ''}\n{SMALLER_STEPS}"
            )

    def where(self) -> str:
        """Epoch and learning rate of the latest step, for a message."""
        epoch = self.progress.epoch + bool(self.progress.batch)
        return f"epoch {max(1, epoch)}, learning rate {self.lr:.3g}"
