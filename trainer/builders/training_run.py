"""From a configuration to plain objects, top to bottom. Below this file nobody sees a config.

Wrong values die here by name, before a run's folder exists: `check` makes all that can be wrong
(device, data, model, optimizer) once, and `build` makes it again inside the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.loading.batches import Batches, fits
from data.loading.preprocess import Preprocess
from data.memory import free_bytes
from data.seeds import derive_seed
from data.types import Split
from trainer.builders import pretrained
from trainer.builders.factories import (
    Shape,
    describe,
    enlargement,
    evaluation_batches,
    found_weights,
    input_size,
    known_size,
    load_data,
    make_evaluation_loss,
    make_loss,
    make_model,
    make_optimizer,
    make_schedule,
    measure,
    memory_format,
    min_size,
    on_layers,
    place,
    start_model,
    trainable,
)
from trainer.checkpoints import CheckpointFolder, describable
from trainer.config import knobs
from trainer.config.targets import check_options, make
from trainer.errors import UserError
from trainer.monitoring.profiling import profiled
from trainer.monitoring.run_logger import MUTE, RunLog, event_writer
from trainer.monitoring.visualizer import Gallery
from trainer.runs.progress import CompileTime, Pace, Progress
from trainer.system.device import autocast, check_precision, float_dtype, pick_device
from trainer.system.memory import keep_freed_memory
from trainer.system.seeds import seed_generators, set_deterministic
from trainer.system.signals import StopSignals
from trainer.system.threads import pick_num_threads, set_num_threads
from trainer.system.torch_internals import leave_compiler_unimported
from trainer.training import loop
from trainer.training.compiling import compiled
from trainer.training.run import Plan, Run
from trainer.training.sizes import check_memory
from trainer.training.snapshot import About
from trainer.training.step import Guard, ScalingGuard


def check(config: Mapping[str, Any]) -> None:
    """Make everything that wrong input can break, but for the data, which may have to be fetched or
    packed; the number of classes is known before. Raises UserError; leaves nothing behind."""
    leave_compiler_unimported()
    device = pick_device(config["device"], config["layers"])
    check_precision(config["precision"], device)
    compiled.check(config["compile"], device, config["precision"])
    for group in knobs.GROUPS:
        check_options(group, config[group])
    describable.check_options(config["data"])
    make_schedule(config["scheduler"], total_steps=1, steps_per_epoch=1)
    make_loss(config)
    make("augment", config["augment"], num_classes=2, hflip=False)
    if (size := known_size(config["data"])) is not None:
        check_model(config, *size)


def check_model(config: Mapping[str, Any], shape: Shape, num_classes: int) -> None:
    """The model, its weights and its optimizer, on the meta device: no memory, no arithmetic."""
    describable.check_number(num_classes)
    with torch.device("meta"):
        model = make_model(config, shape, num_classes)
    if config["weights"]:
        start = found_weights(config, model)
        source = f"weights={config['weights']}"
        pretrained.check_fit(model, start.state_dict, config["replace_head"], source)
    if config["freeze"]:
        pretrained.freeze(model, config["freeze"])
    if config["batch_size"] == 1:
        check_batch_of_one(model, shape)
    on_layers(config["layers"], model)
    optimizer = make_optimizer(config["optimizer"], model)
    compiled.check_optimizer(config["compile"], optimizer)
    device = pick_device(config["device"], config["layers"])
    check_memory(model, optimizer, shape, free_bytes(device), device)


def check_batch_of_one(model: nn.Module, shape: Shape) -> None:
    """Batch norm over a map of one pixel has nothing to norm in a batch of one."""
    try:
        model.train()(torch.empty(1, shape[0], *input_size(model, shape), device="meta"))
    except ValueError as error:
        raise UserError(f"batch_size=1: too few for this net's batch norm: {error}") from error


def check_data(config: Mapping[str, Any]) -> None:
    """The data, fetched or packed if need be; and the model, where only they tell its size."""
    dataset = load_data(config["data"])
    describable.check_description(describe(config, dataset))
    if known_size(config["data"]) is None:
        check_model(config, dataset.shape, len(dataset.classes))


def build(
    config: Mapping[str, Any],
    folder: Path,
    signals: StopSignals,
    progress: Progress | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Run:
    """A run from a checked configuration, writing into `folder`. What its log holds beyond
    `progress`, from a training that was cut off, is dropped.

    Args:
        choices: the name of each group's choice, for TensorBoard.
    """
    keep_freed_memory()
    set_deterministic(config["deterministic"])
    device = pick_device(config["device"], config["layers"])
    precision, seed = config["precision"], config["seed"]

    dataset = load_data(config["data"])
    seed_generators(derive_seed(seed, "weights"), device)
    model, dataset = start_model(config, dataset)
    cost = measure(model, dataset.shape)
    set_num_threads(
        pick_num_threads(config["num_threads"], cost.macs * config["batch_size"]),
        config["layers"],
    )
    layout = memory_format(config, model)
    place(model, device, float_dtype(precision), layout)
    model = on_layers(config["layers"], model)

    preprocess = Preprocess(
        dataset.mean, dataset.std, min_size(model), device, float_dtype(precision), layout
    )
    stays: dict[str, Any] = {
        "resident": fits(device, dataset.num_bytes),
        "num_workers": config["num_workers"],
    }
    train = Batches(
        dataset.train, config["batch_size"], preprocess, device,
        shuffle=True, seed=seed, limit=config["limit_batches"],
        augment=make("augment", config["augment"], num_classes=len(dataset.classes),
                     hflip=dataset.hflip),
        **stays,
    )  # fmt: skip

    def evaluation(split: Split) -> Batches:
        return evaluation_batches(config, preprocess, device, split, **stays)

    optimizer = make_optimizer(config["optimizer"], model)
    schedule = make_schedule(
        config["scheduler"], total_steps=config["epochs"] * len(train), steps_per_epoch=len(train)
    )
    stepper = (ScalingGuard if precision == "fp16" else Guard)(
        optimizer, trainable(model), config["clip_grad_norm"]
    )
    loss, context = make_loss(config), autocast(precision, device)
    description = describe(config, dataset)
    val = evaluation(dataset.val)
    timer = CompileTime()
    if config["compile"] == "model":
        compiled.compile_model(model, full_size(train), full_size(val), timer)
    update: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    if config["compile"] == "step":
        update = compiled.CompiledStep(model, loss, stepper, context, full_size(train), timer)
    else:
        update = functools.partial(loop.update, model, loss, stepper, context)
    first_step = rows_up_to(progress, len(train))
    writer = event_writer(folder / "tensorboard", first_step) if config["tensorboard"] else None
    run = Run(
        model=model,
        update=update,
        stepper=stepper,
        schedule=schedule,
        eval_loss=make_evaluation_loss(config),
        autocast=context,
        seed_step=lambda step: seed_generators(derive_seed(seed, "step", step), device),
        train=train,
        val=val,
        test=evaluation(dataset.test),
        plan=Plan(
            config["epochs"],
            config["batch_size"],
            config["eval_every_epochs"],
            config["log_interval"],
            Pace(config["save_every_steps"], config["save_every_minutes"]),
        ),
        about=About(
            description,
            dataset,
            cost,
            device,
            resize_note=enlargement(dataset.shape, min_size(model)),
        ),
        checkpoints=CheckpointFolder(folder / "checkpoints"),
        signals=signals,
        compile_time=timer,
        watchers=(
            RunLog(
                folder,
                writer or MUTE,
                config["batch_size"],
                first_step,
                progress.epoch if progress else 0,
                hparams(config, choices or {}),
                is_over=signals.is_received,
            ),
            Gallery(folder, writer, config["histograms"], description.probabilities),
        ),
    )
    return profiled(run, writer or MUTE, folder / "profile") if config["profile"] else run


def hparams(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys in every run: TensorBoard shows only those of the first one that it reads."""
    return {
        **{group: str(choices.get(group)) for group in knobs.GROUPS},
        **{key: config[key] for key in ("epochs", "batch_size", "seed", "precision")},
        "lr": config["optimizer"].get("lr", 0.0),
        "weight_decay": config["optimizer"].get("weight_decay", 0.0),
    }


def full_size(batches: Batches) -> int:
    """Pictures of all batches but, perhaps, the last one."""
    return min(batches.batch_size, batches.num_images)


def rows_up_to(progress: Progress | None, num_steps: int) -> int:
    """The last step whose rows are kept. A state from after an epoch's last step but before its
    validation has the step of that epoch's rows, which come again."""
    if progress is None:
        return 0
    return progress.step - (progress.batch >= num_steps)
