"""What a run consists of, and which of it a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data.types import Dataset
from trainer import same_run
from trainer.batches import BarredBatches, BatchSource, WatchedBatches
from trainer.checkpoint import CheckpointFolder
from trainer.description import Cost, Description
from trainer.errors import Stopped, TrainingError, UserError
from trainer.guard import Stepper
from trainer.log import RunLog
from trainer.metrics import Meter, Metrics
from trainer.optimizer_state import load_optimizer, trained_names
from trainer.progress import Best, CompileTime, Pace, Progress
from trainer.runtime import versions
from trainer.schedules import Schedule
from trainer.signals import StopSignals
from trainer.soundness import SMALLER_STEPS, not_finite, overflow


class Gallery(Protocol):
    """Pictures of a run, and what its report shows; see trainer/display/gallery.py."""

    def meter(self, split: str) -> Meter: ...

    def start(self, run: Run) -> None: ...

    def epoch(self, run: Run) -> None: ...

    def best(self, run: Run) -> None: ...

    def finish(self, run: Run) -> None: ...


@dataclass
class Run:
    """Everything that `fit` works on. `build` makes it; nothing in it knows the configuration."""

    model: nn.Module
    loss: nn.Module  # what is trained
    eval_loss: nn.Module  # what validation and test report, and best and schedule go by
    guard: Stepper
    schedule: Schedule
    update: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # loop.update, or one graph of it
    train: BatchSource
    val: BatchSource
    test: BatchSource
    epochs: int
    autocast: AbstractContextManager[Any]
    seed_step: Callable[[int], None]
    signals: StopSignals
    checkpoints: CheckpointFolder
    log: RunLog
    gallery: Gallery
    description: Description
    data: Dataset
    device: torch.device
    cost: Cost
    enlarges: str = ""  # what the net does to pictures that are too small for it, if it does
    log_interval: int = 50
    eval_every_epochs: int = 1
    pace: Pace = field(default_factory=Pace)
    compile_time: CompileTime = field(default_factory=CompileTime)
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    meter: Meter = field(default_factory=Meter)
    sound_step: int = 0  # at which weights and optimizer were last seen to be finite

    @property
    def optimizer(self) -> Optimizer:
        return self.guard.optimizer

    def set_lr(self) -> None:
        """The learning rate of the coming step: a function of the epoch and the batch alone, which
        are the pictures seen. The number of steps says the same until `resume --force` has changed
        how many an epoch has; from then on the schedule goes on from the same share of its way."""
        done = self.progress.epoch * self.schedule.steps_per_epoch + self.progress.batch
        factor = self.schedule.factor(done)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def start_epoch(self) -> None:
        """Or go on with one that was stopped in its middle."""
        self.model.train()
        self.started_at = time.monotonic() - self.progress.epoch_s - self.compile_time.seconds

    def step_done(self) -> None:
        """After each step: at the log interval read what has gathered; save or stop if due."""
        self.progress.batch += 1
        self.progress.step += 1
        if self.progress.step % self.log_interval == 0:
            self.check_finite()
            self.log.interval(self.progress, self.meter.read(), self.lr)
        else:
            self.log.tick(self.progress)
        if self.signals.received is not None or self.pace.is_due(self.progress.step):
            self.check_finite()
            self.progress.epoch_s = self.seconds_of_epoch()
            self.save()
            self.stop_if_asked()

    def stop_if_asked(self) -> None:
        if self.signals.received is not None:
            raise Stopped(self.signals.received)

    def seconds_of_epoch(self) -> float:
        seconds = time.monotonic() - self.started_at - self.compile_time.seconds
        return max(0.0, seconds)  # a difference of differences, rounded

    def trained(self) -> Metrics:
        """What the epoch's steps came to. A sync, so that the seconds are whole."""
        self.check_finite()
        self.progress.epoch_s = self.seconds_of_epoch()
        # Before time is spent on validating them.
        self.sound({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        return self.meter.read(self.progress.epoch_s)

    @property
    def validates(self) -> bool:
        """Whether the running epoch ends with a validation; the last one always does."""
        epoch = self.progress.epoch + 1
        return epoch % self.eval_every_epochs == 0 or epoch == self.epochs

    def pausing(self, batches: BatchSource) -> BatchSource:
        """The same batches for evaluation, between which the run can be stopped: the training
        stands still meanwhile, so its state is whole at any of them."""

        def pause() -> bool:
            if self.signals.received is not None and self.progress.batch:
                self.save()  # not during the test, when the best weights are in the net
            self.stop_if_asked()
            return False

        what = "test" if batches is self.test else "validation"
        return BarredBatches(WatchedBatches(batches, pause), what, self.signals.is_received)

    def check_finite(self) -> None:
        """Raises TrainingError if a loss or gradient was not finite. A sync."""
        bad = self.guard.bad_steps()
        if not bad:
            return
        step = self.progress.step - bad
        # A finite gradient can still take a weight beyond its range, which the next loss tells.
        # Buffers are not asked: a batch norm has seen the bad batch before its loss is known.
        weights = dict(self.model.named_parameters())
        self.refuse({"model": weights, "optimizer": self.optimizer.state_dict()}, step)
        raise TrainingError(
            f"The loss or a gradient became NaN or infinite at step {step + 1} ({self.where()}). "
            f"It has reached no weight: they are those of step {step}.\n{SMALLER_STEPS}"
        )

    def sound(self, entries: dict[str, Any]) -> dict[str, Any]:
        """The same, which are about to be saved. Raises TrainingError if a weight, a statistic or
        what the optimizer keeps is NaN or infinite: such a state is never written. A sync."""
        self.refuse(entries, self.progress.step)
        self.sound_step = self.progress.step
        return entries

    def refuse(self, entries: dict[str, Any], step: int) -> None:
        """Raises TrainingError if these, as they are after `step` steps, are not finite."""
        if names := not_finite(entries):
            raise TrainingError(overflow(names, self.sound_step, step, self.where()))

    def where(self) -> str:
        """The epoch of the latest step, and its learning rate, for a message."""
        epoch = self.progress.epoch + bool(self.progress.batch)
        return f"epoch {max(1, epoch)}, learning rate {self.lr:.3g}"

    def check_validated(self) -> None:
        """Raises TrainingError if the last validation gave no finite loss: batch norm can hide in
        training, by each batch's own statistics, that the weights are of no use."""
        if not self.progress.val_is_finite:
            best = f" The best weights, of epoch {self.best.epoch}, are in {self.checkpoints.best}."
            raise TrainingError(
                f"The validation loss after epoch {self.progress.epoch} is NaN or infinite, so the "
                f"test split was not read.{best if self.best.epoch else ''}\n{SMALLER_STEPS}"
            )

    def epoch_done(self, train: Metrics, val: Metrics | None) -> None:
        """Count the epoch, write the state, keep the best weights."""
        self.progress.epoch += 1
        self.progress.batch, self.progress.epoch_s = 0, 0.0
        self.progress.train_s += train.seconds
        self.progress.num_images += train.num_images
        self.meter.reset()
        if val is not None:
            self.progress.val_is_finite = math.isfinite(val.loss)
        is_best = val is not None and self.best.beaten_by(val)
        if is_best and val is not None:
            self.best = Best(self.progress.epoch, val.accuracy, val.loss, self.best.lost_epoch)
        # The rows before the state: a resumed run drops rows that its state does not know, but it
        # could not make up for missing ones. The state before the best weights: they lie in it,
        # so that `load` can write them if the process ended between the two.
        self.log.epoch(self.progress, self.epochs, train, val, self.lr, is_best)
        self.save()
        self.gallery.epoch(self)
        if is_best:
            self.checkpoints.save_best(self.sound(self.portable()))
            self.gallery.best(self)
        if self.progress.epoch < self.epochs:
            self.stop_if_asked()

    def save(self) -> None:
        self.log.flush()
        self.checkpoints.save_state(self.progress.step, self.sound(self.full_state()))
        self.pace.saved()

    def portable(self) -> dict[str, Any]:
        """Weights and description: what using the model needs."""
        return {
            "model": self.model.state_dict(),
            **asdict(self.description),
            "step": self.progress.step,
            "epoch": self.progress.epoch,
            "data": self.data.fingerprint,
        }

    def full_state(self) -> dict[str, Any]:
        """The same, and all that continuing the training needs."""
        return {
            **self.portable(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_class": type(self.optimizer).__name__,
            "trained": trained_names(self.optimizer, self.model),
            "guard": self.guard.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": asdict(self.progress),
            "best": asdict(self.best),
            "meter": self.meter.state_dict(),
            "machine": self.machine(),
        }

    def machine(self) -> dict[str, str]:
        """What the last bits of a result depend on beside the configuration."""
        return {
            **versions(),
            "device": self.device.type,
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "num_threads": str(torch.get_num_threads()),
        }

    def load(self, state: dict[str, Any]) -> list[str]:
        """Go on from what `full_state` gave. Returns what differs from the machine that wrote it,
        as lines for the log. Raises UserError, with nothing changed, if it is of another run."""
        self.check_same_run(state)
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.guard.load_state_dict(state["guard"])
        self.schedule.load_state_dict(state["schedule"])
        self.meter.load_state_dict(state["meter"])
        self.progress, self.best = Progress(**state["progress"]), Best(**state["best"])
        self.progress.batch = min(self.progress.batch, len(self.train))
        self.sound_step = self.progress.step
        if self.best.epoch and self.best.epoch == self.progress.epoch and not self.progress.batch:
            self.checkpoints.save_best(self.portable())
        now = self.machine()
        return [
            f"{key} was {before}, is {now.get(key)}: the last bits of the result may differ."
            for key, before in state["machine"].items()
            if now.get(key) != before and (key != "pillow" or self.data.sums is not None)
        ]

    def check_same_run(self, state: dict[str, Any]) -> None:
        """Before anything is overwritten: a failed load_state_dict leaves half of the old."""
        same_run.check(state, self.model, self.optimizer, self.schedule)
        if not self.data.has_fingerprint(state["data"]):
            before, now = state["machine"].get("pillow"), versions()["pillow"]
            other = f"; they were decoded by Pillow {before}, this is {now}" if before else ""
            raise UserError(
                "data: the pictures or labels are not those that the training began with"
                f"{other if before != now else ''}.\n"
                "Put the old ones back, or start a new run with weights=FILE from this one."
            )
