"""Training loop, validation and test. All that differs between runs is in `Run`, made by
`build`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer import checkpoints
from trainer.evaluation.metrics import Meter, Metrics
from trainer.losses import Output, main_logits
from trainer.training.batches import BatchSource
from trainer.training.run import Run
from trainer.training.step import Stepper
from trainer.training.world import World


# NumPy layers would warn of each NaN; the step reports the first one, with its step.
@np.errstate(all="ignore")
def fit(run: Run) -> None:
    """Train to the last epoch, validating and saving after each. The path of a batch:

    1. `run.train` shuffles by (seed, epoch), reads, augments and normalises: images (N, C, H, W)
       float, targets (N,) int64 or (N, K) probabilities, on the device.
    2. `seed_step` seeds dropout and other random layers by (seed, step); `set_lr` sets the
       scheduled learning rate.
    3. Forward: logits (N, K), and those of auxiliary heads, under autocast.
    4. The loss: a mean over the batch, 0-dim.
    5. Backward: gradients are added to the parameters' `grad`.
    6. Check and clip: a NaN or infinity sets a flag on the device, without a sync.
    7. Step: the optimizer updates the weights, unless the flag is set.
    8. The meter collects loss and logits; `step_done` calls the watchers. At the log interval it
       waits for the device, the only sync; it saves the state or stops if that is due.
    """
    while not run.is_done:
        run.start_epoch()
        for images, targets in run.train.epoch(run.progress.epoch, start=run.progress.batch):
            loss, logits = train_step(run, images, targets)
            run.meter.add(loss, logits, targets)
            run.step_done()
        train = run.end_training_epoch()
        val = validate(run) if run.validates else None
        run.end_epoch(train, val)


def train_step(run: Run, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One training step on images (N, C, H, W) and targets (N,) or (N, K). Returns the batch's mean
    loss (0-dim) and its logits (N, K), without a sync."""
    run.seed_step(run.progress.step)
    run.set_lr()
    return run.update(images, targets)


def update(
    model: Callable[[Tensor], Output],
    loss: nn.Module,
    stepper: Stepper,
    autocast: AbstractContextManager[Any],
    images: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Forward, backward and update; `compile=step` compiles it to one graph. Returns the mean loss
    (0-dim) and the logits (N, K) of the main head."""
    stepper.zero_grad()
    with autocast:
        output = model(images)
        mean_loss = loss(output, targets)
    stepper.backward(mean_loss)
    stepper.check_and_clip()
    stepper.step()
    return mean_loss, main_logits(output)


def update_in_parts(
    model: Callable[[Tensor], Output],
    loss: nn.Module,
    stepper: Stepper,
    autocast: AbstractContextManager[Any],
    images: Tensor,
    targets: Tensor,
    *,
    count: Callable[[int], int],
) -> tuple[Tensor, Tensor]:
    """The same update with the batch in parts, one after another, whose gradients add up. The sizes
    of the parts differ by one at most; each weighs as much as it has images.

    Args:
        count: number of images to number of parts.
    """
    stepper.zero_grad()
    losses, logits = [], []
    number = count(len(images))
    pairs = zip(images.tensor_split(number), targets.tensor_split(number), strict=True)
    for some_images, some_targets in pairs:
        with autocast:
            output = model(some_images)
            share = loss(output, some_targets) * (len(some_images) / len(images))
        stepper.backward(share)
        losses.append(share.detach())
        logits.append(main_logits(output).detach())
    stepper.check_and_clip()
    stepper.step()
    return torch.stack(losses).sum(), torch.cat(logits)


def validate(run: Run) -> Metrics:
    """Evaluate the validation split with the current weights, and pass its loss to the
    schedule."""
    for rule in run.rules:
        rule.evaluate(run)
    batches, meter = run.interruptible(run.val), run.meter_of("val")
    val = evaluate(run.evaluated_model, run.eval_loss, batches, run.autocast, meter, run.world)
    run.schedule.observe(val.loss)
    return val


def load_best(run: Run) -> str | None:
    """Load the weights of the best epoch into the model, and return the digest of their checkpoint;
    if no epoch was best, it keeps its own (None)."""
    if not run.best.epoch:
        return None
    entries = run.world.from_main(lambda: checkpoints.read(run.checkpoints.best))
    run.evaluated_model.load_state_dict(entries["model"])
    return checkpoints.digest(entries)


def test(run: Run) -> Metrics:
    """Evaluate the test split with the current weights."""
    batches, meter = run.interruptible(run.test), run.meter_of("test")
    return evaluate(run.evaluated_model, run.eval_loss, batches, run.autocast, meter, run.world)


@np.errstate(all="ignore")
@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loss: nn.Module,
    batches: BatchSource,
    autocast: AbstractContextManager[Any],
    meter: Meter | None = None,
    world: World | None = None,
) -> Metrics:
    """Evaluate a model in eval mode over all batches, with one sync at the end.

    Args:
        meter: collects the results; None: loss and accuracy only.
        world: processes of which each evaluates some of the batches; None: this one all.
    """
    model.eval()
    meter, start = meter or Meter(), time.monotonic()
    for images, targets in batches.epoch():
        with autocast:
            output = model(images)
            batch_loss = loss(output, targets)
        meter.add(batch_loss, main_logits(output), targets)
    meter.read()  # the sync, so that the seconds are whole
    if world is not None:
        world.merge(meter)
    return meter.read(seconds=time.monotonic() - start)
