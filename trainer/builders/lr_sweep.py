"""Builder of a sweep of the learning rate: the parts of a training, and no run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from data.seeds import derive_seed
from trainer.builders import optimizers, training_run
from trainer.system.device import autocast, pick_device
from trainer.system.memory import keep_freed_memory
from trainer.system.seeds import seed_generators, set_deterministic
from trainer.training import loop, lr_sweep
from trainer.training.step import CheckedStep, ScaledStep


def swept_losses(config: Mapping[str, Any], lrs: list[float]) -> list[float]:
    """Losses of a sweep of the learning rate over a checked configuration; see `lr_sweep`."""
    keep_freed_memory()
    set_deterministic(config["deterministic"])
    device, seed = pick_device(config["device"], config["layers"]), config["seed"]
    model, dataset, _ = training_run.build_model(config, device)
    train, _, _ = training_run.build_batches(config, dataset, model, device)
    optimizer = optimizers.make_optimizer(config, model)
    step = ScaledStep if config["precision"] == "fp16" else CheckedStep
    stepper = step(optimizer, optimizers.trainable(model), config["clip_grad_norm"])
    update = functools.partial(
        loop.update, model.train(), optimizers.make_loss(config), stepper,
        autocast(config["precision"], device),
    )  # fmt: skip
    return lr_sweep.sweep(
        update, optimizer, train,
        lambda step: seed_generators(derive_seed(seed, "step", step), device), lrs,
        config["optimizer"].get("lr", optimizer.defaults["lr"]),
    )  # fmt: skip
