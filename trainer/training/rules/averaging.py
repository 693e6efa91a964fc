"""Averaged weights: an exponential moving average of all steps, or the mean of epochs (SWA)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from trainer.training import batch_norm
from trainer.training.rules.rule import Rule

if TYPE_CHECKING:
    from trainer.training.run import Run


def none() -> None:
    """No average."""


class Average(Rule):
    """Average of a model's weights, which `model` holds: validated, selected and tested in place of
    the weights that are trained. Until the first ones are taken it is a copy of these.

    The arithmetic is that of torch.optim.swa_utils. Its AveragedModel would wait for a GPU at each
    step, and average the counters of batch norm, too.

    Args:
        start_epoch: complete epochs before the first weights are taken.

    Attributes:
        number: weights taken so far.
    """

    name = "average"
    model: nn.Module

    def __init__(self, start_epoch: int = 0) -> None:
        self.first_epoch, self.number = start_epoch, 0

    def attach(self, model: nn.Module) -> None:
        """Make the average of this model, which is to be trained."""
        self.model = copy.deepcopy(model).requires_grad_(False)
        both = (itertools.chain(m.parameters(), m.buffers()) for m in (self.model, model))
        pairs = [(own.detach(), theirs.detach()) for own, theirs in zip(*both, strict=True)]
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def is_due(self, run: Run) -> bool:
        """True if the weights after the latest step are taken into the average."""
        return run.progress.epoch >= self.first_epoch

    def mix(self, averages: list[Tensor], current: list[Tensor]) -> None:
        """Take the current tensors into the averages of `number` ones, at least one."""
        raise NotImplementedError

    @torch.no_grad()
    def take(self) -> None:
        """Take the model's weights and buffers into the average."""
        averages, current = map(list, zip(*self.averaged, strict=True))
        if self.number:
            self.mix(averages, current)
        else:
            copy_each(self.averaged)
        copy_each(self.counters)
        self.number += 1

    def step(self, run: Run) -> None:
        if self.is_due(run):
            self.take()

    def evaluate(self, run: Run) -> None:
        if not self.number:
            copy_each((*self.averaged, *self.counters))

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        self.model.load_state_dict(state["model"])


class ExponentialAverage(Average):
    """Exponential moving average, taken after each step: a <- d a + (1 - d) w, of the batch norm
    statistics, too.

    Args:
        decay: d.
        warmup: with n weights taken before, d is at most (1 + n) / (10 + n), so that the first
            ones, which are far from trained, are soon forgotten (as in TensorFlow's).
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True, start_epoch: int = 0) -> None:
        super().__init__(start_epoch)
        self.decay, self.warmup = decay, warmup

    def mix(self, averages: list[Tensor], current: list[Tensor]) -> None:
        bound = (1 + self.number) / (10 + self.number) if self.warmup else 1.0
        get_ema_multi_avg_fn(min(self.decay, bound))(averages, current, self.number)


class StochasticWeightAverage(Average):
    """Mean of the weights at the ends of epochs (Izmailov et al. 2018). The batch norm statistics
    are those of the averaged weights: computed anew over the training images before each
    validation."""

    def is_due(self, run: Run) -> bool:
        return super().is_due(run) and run.progress.batch == len(run.train)

    def mix(self, averages: list[Tensor], current: list[Tensor]) -> None:
        get_swa_multi_avg_fn()(averages, current, self.number)

    def evaluate(self, run: Run) -> None:
        super().evaluate(run)
        layers = trained_batch_norms(run.model, self.model)
        if self.number and layers:
            recompute(layers, self.model, run)


@torch.no_grad()
def copy_each(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy the second tensor of each pair to the first."""
    for target, source in pairs:
        target.copy_(source)


def trained_batch_norms(model: nn.Module, average: nn.Module) -> list[Any]:
    """Batch norm layers of the average whose statistics are not frozen in the model."""
    return [
        own
        for own, layer in zip(average.modules(), model.modules(), strict=True)
        if isinstance(own, (*batch_norm.LAYERS, nn.SyncBatchNorm))
        and own.track_running_stats
        and "train" not in vars(layer)
    ]


@torch.no_grad()
def recompute(layers: Sequence[Any], average: nn.Module, run: Run) -> None:
    """Statistics of batch norm layers: the mean over the batches of the epoch, augmented as in
    training, as in torch.optim.swa_utils.update_bn. Random layers are seeded by the step."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    average.train()
    run.seed_step(run.progress.step)
    try:
        for images, _ in run.interruptible(run.train).epoch(run.progress.epoch):
            with run.autocast:
                average(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
