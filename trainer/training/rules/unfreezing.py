"""Frozen parameters that are trained from an epoch on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from trainer.training.rules.rule import Rule

if TYPE_CHECKING:
    from trainer.training.run import Run

log = logging.getLogger("trainer")


class Unfreezing(Rule):
    """Parameters that are frozen now, with the statistics of their batch norms, are trained from an
    epoch on. The optimizer has them from the start; its state of them begins with their first step,
    and follows from the run's progress, so that this rule has none of its own.

    Args:
        epoch: first one in which they are trained, counted from 1.
    """

    def __init__(self, epoch: int, model: nn.Module) -> None:
        self.epoch = epoch
        self.parameters = [p for p in model.parameters() if not p.requires_grad]
        self.layers = [layer for layer in model.modules() if "train" in vars(layer)]

    def start_epoch(self, run: Run) -> None:
        if run.progress.epoch + 1 < self.epoch or not self.parameters:
            return
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for layer in self.layers:  # their own `train` does nothing
            del layer.train
            layer.train()
        begin_momentum(run.optimizer, self.parameters)
        log.info("epoch %d: what was frozen is trained from here on", run.progress.epoch + 1)
        self.parameters, self.layers = [], []


def begin_momentum(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Momentum of zero for parameters that have none yet, beside others that have: the fused step
    of torch's SGD fails on such a group, while its other forms take the first gradient."""
    if not isinstance(optimizer, SGD) or not optimizer.state:
        return
    for parameter in parameters:
        if optimizer.state[parameter].get("momentum_buffer") is None:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
