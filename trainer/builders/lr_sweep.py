"""Builder of a sweep of the learning rate: the parts of a training, and no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.seeds import derive_seed
from trainer.builders import losses, teachers, training_run
from trainer.builders.steps import build_stepper, build_update
from trainer.runs.progress import CompileTime
from trainer.system.device import autocast, pick_device
from trainer.system.memory import keep_freed_memory
from trainer.system.seeds import seed_generators, set_deterministic
from trainer.training import lr_sweep
from trainer.training.world import World


def swept_losses(config: Mapping[str, Any], lrs: list[float]) -> list[float]:
    """Losses of a sweep of the learning rate over a checked configuration; see `lr_sweep`."""
    keep_freed_memory()
    set_deterministic(config["deterministic"])
    device, seed = pick_device(config["device"], config["layers"]), config["seed"]
    model, dataset, _ = training_run.build_model(config, device)
    train, val, _ = training_run.build_batches(config, dataset, model, device)
    teacher = teachers.make_teacher(config, model, dataset, device)
    stepper = build_stepper(config, model, World())
    update = build_update(
        config, model.train(), losses.training_loss(config, model, dataset, device), stepper,
        autocast(config["precision"], device), (train, val), CompileTime(),
        teacher,
    )  # fmt: skip
    optimizer = stepper.optimizer
    return lr_sweep.sweep(
        update, optimizer, train,
        lambda step: seed_generators(derive_seed(seed, "step", step), device), lrs,
        config["optimizer"].get("lr", optimizer.defaults["lr"]),
    )  # fmt: skip
