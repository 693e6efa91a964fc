"""The whole training on one screen. All that differs between runs is in `Run`, made by `build`."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.batches import BatchSource
from trainer.checkpoint import read
from trainer.losses import main_logits
from trainer.metrics import Meter, Metrics
from trainer.state import Run, Stepper


# Layers written in NumPy would warn of each NaN; the guard tells of the first, with its step.
@np.errstate(all="ignore")
def fit(run: Run) -> None:
    """Train to the last epoch, validating and saving after each."""
    while run.progress.epoch < run.epochs:
        run.start_epoch()
        for images, targets in run.train.epoch(run.progress.epoch, start=run.progress.batch):
            loss, logits = train_step(run, images, targets)
            run.meter.add(loss, logits, targets)
            run.step_done()
        train = run.trained()
        val = validate(run) if run.validates else None
        run.epoch_done(train, val)


def train_step(run: Run, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One step. Returns the batch's mean loss (0-dim) and its logits (N, K), without a sync."""
    run.seed_step(run.progress.step)
    run.set_lr()
    return run.update(images, targets)


def update(
    model: nn.Module,
    loss: nn.Module,
    guard: Stepper,
    autocast: AbstractContextManager[Any],
    images: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Forward, backward, update: what `compile=step` makes one graph of."""
    guard.zero_grad()
    with autocast:
        output = model(images)
        mean_loss = loss(output, targets)
    guard.backward(mean_loss)
    guard.step()
    return mean_loss, main_logits(output)


def validate(run: Run) -> Metrics:
    """The validation split, with the weights as they are; a schedule may look at its loss."""
    meter = run.gallery.meter("val")
    val = evaluate(run.model, run.eval_loss, run.pausing(run.val), run.autocast, meter)
    run.schedule.observe(val.loss)
    return val


def test_best(run: Run) -> Metrics:
    """The test split, once, with the weights of the best epoch."""
    if run.best.epoch:
        run.model.load_state_dict(read(run.checkpoints.best)["model"])
    meter = run.gallery.meter("test")
    return evaluate(run.model, run.eval_loss, run.pausing(run.test), run.autocast, meter)


@np.errstate(all="ignore")
@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loss: nn.Module,
    batches: BatchSource,
    autocast: AbstractContextManager[Any],
    meter: Meter | None = None,
) -> Metrics:
    """Mean loss and accuracy over all batches, one sync at the end; what else `meter` collects."""
    model.eval()
    meter, start = meter or Meter(), time.monotonic()
    for images, targets in batches.epoch():
        with autocast:
            output = model(images)
            batch_loss = loss(output, targets)
        meter.add(batch_loss, main_logits(output), targets)
    meter.read()  # the sync, so that the seconds are whole
    return meter.read(seconds=time.monotonic() - start)
