"""Steps of a run: how a batch becomes an update of the weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from data.loading.batches import Batches
from data.loading.part import Part
from trainer.builders import optimizers
from trainer.runs.progress import CompileTime
from trainer.training import loop
from trainer.training.clipping import ClipAdaptive, ClipNorm, ClipValue, last_layer
from trainer.training.compiling import compiled
from trainer.training.distillation import Taught, Teacher
from trainer.training.run import Update
from trainer.training.step import CheckedStep, Clip, ScaledStep
from trainer.training.world import World


def build_stepper(config: Mapping[str, Any], model: nn.Module, world: World) -> CheckedStep:
    """Optimizer over the model's trainable parameters, with its checks and clipping."""
    step = ScaledStep if config["precision"] == "fp16" else CheckedStep
    optimizer = optimizers.make_optimizer(config, model)
    processes = world if world.size > 1 else None
    parameters = optimizers.trainable(model)
    return step(optimizer, parameters, make_clip(config, model, parameters), processes)


def make_clip(
    config: Mapping[str, Any], model: nn.Module, parameters: Sequence[nn.Parameter]
) -> Clip | None:
    """Gradient clipping of the trained parameters; None: there is none."""
    if limit := config["clip_grad_norm"]:
        return ClipNorm(limit)
    if limit := config["clip_grad_value"]:
        return ClipValue(limit)
    if limit := config["clip_grad_adaptive"]:
        return ClipAdaptive(limit, last_layer(model, parameters))
    return None


def build_update(
    config: Mapping[str, Any],
    model: nn.Module,
    loss: nn.Module,
    stepper: CheckedStep,
    context: AbstractContextManager[Any],
    batches: tuple[Batches, Batches],
    timer: CompileTime,
    teacher: Teacher | None = None,
) -> Update:
    """Training step according to the key compile: eager, with a compiled model, or as one graph.

    Args:
        batches: of the train and validation splits, whose batch sizes run compiled.
        timer: counts the seconds of compilation.
        teacher: whose logits the loss takes as the last of the outputs; None: there is none.
    """
    train, val = (min(split.batch_size, split.num_images) for split in batches)
    if config["compile"] == "step":
        return compiled.CompiledStep(model, loss, stepper, context, train, timer)
    if config["compile"] == "model":
        if micro := config["micro_batch_size"]:
            train = math.ceil(train / math.ceil(train / micro))
        compiled.compile_model(model, train, val, timer)
    shown = model if teacher is None else Taught(model, teacher)
    if config["micro_batch_size"]:
        count = functools.partial(number_of_parts, config["micro_batch_size"], batches[0].part)
        return functools.partial(loop.update_in_parts, shown, loss, stepper, context, count=count)
    return functools.partial(loop.update, shown, loss, stepper, context)


def number_of_parts(most: int, part: Part | None, num_images: int) -> int:
    """Number of parts of a batch, as few as possible with at most so many images. Processes that
    share a batch divide theirs alike, though they may differ by one image: their batch norms wait
    for each other. (Then a part may have one image more than `most`.)"""
    if part is None or part.is_whole:
        return math.ceil(num_images / most)
    whole = round(num_images / part.share)
    return min(math.ceil(math.ceil(whole / part.size) / most), whole // part.size)
