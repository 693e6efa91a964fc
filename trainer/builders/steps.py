"""Steps of a run: how a batch becomes an update of the weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from data.loading.batches import Batches
from trainer.builders import optimizers
from trainer.runs.progress import CompileTime
from trainer.training import loop
from trainer.training.compiling import compiled
from trainer.training.run import Update
from trainer.training.step import CheckedStep, ScaledStep
from trainer.training.world import World


def build_stepper(config: Mapping[str, Any], model: nn.Module, world: World) -> CheckedStep:
    """Optimizer over the model's trainable parameters, with its checks and clipping."""
    step = ScaledStep if config["precision"] == "fp16" else CheckedStep
    optimizer = optimizers.make_optimizer(config["optimizer"], model)
    processes = world if world.size > 1 else None
    return step(optimizer, optimizers.trainable(model), config["clip_grad_norm"], processes)


def build_update(
    config: Mapping[str, Any],
    model: nn.Module,
    stepper: CheckedStep,
    context: AbstractContextManager[Any],
    batches: tuple[Batches, Batches],
    timer: CompileTime,
) -> Update:
    """Training step according to the key compile: eager, with a compiled model, or as one graph.

    Args:
        batches: of the train and validation splits, whose batch sizes run compiled.
        timer: counts the seconds of compilation.
    """
    loss = optimizers.make_loss(config)
    train, val = (min(split.batch_size, split.num_images) for split in batches)
    if config["compile"] == "step":
        return compiled.CompiledStep(model, loss, stepper, context, train, timer)
    if config["compile"] == "model":
        compiled.compile_model(model, train, val, timer)
    return functools.partial(loop.update, model, loss, stepper, context)
