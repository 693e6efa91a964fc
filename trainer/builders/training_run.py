"""Builder of a run from a configuration; the run and its parts do not depend on the configuration.

Wrong values are reported here, with their keys, before a run's folder exists: `check` creates
everything that can fail (device, data, model, optimizer) once, and `build` creates it again inside
the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.loading.batches import Batches, fits
from data.loading.part import Part
from data.memory import free_bytes
from data.seeds import derive_seed
from data.types import Dataset
from trainer.builders import losses, networks, optimizers, pretrained, teachers
from trainer.builders.datasets import (
    Shape,
    evaluation_batches,
    first_batches,
    known_size,
    load_data,
)
from trainer.builders.rules import average_of, build_rules, make_average
from trainer.builders.steps import build_stepper, build_update
from trainer.checkpoints import CheckpointFolder, describable
from trainer.checkpoints.description import Cost
from trainer.config import knobs
from trainer.config.targets import check_options, instantiate_group
from trainer.errors import UserError
from trainer.monitoring.hparams import hparams
from trainer.monitoring.profiling import profiled
from trainer.monitoring.run_logger import MUTE, RunLogger
from trainer.monitoring.visualizer import Visualizer
from trainer.runs.progress import Best, CompileTime, Progress, SaveInterval
from trainer.system.device import autocast, check_precision, pick_device
from trainer.system.memory import keep_freed_memory
from trainer.system.seeds import seed_generators, set_deterministic
from trainer.system.signals import StopSignals
from trainer.system.start import torch_is_imported
from trainer.system.threads import pick_num_threads, set_num_threads
from trainer.training import batch_norm
from trainer.training.compiling import compiled
from trainer.training.run import Plan, Run
from trainer.training.sizes import check_memory
from trainer.training.snapshot import About
from trainer.training.watcher import Watcher
from trainer.training.world import World, meter_for


def check(config: Mapping[str, Any], asks_cuda: bool = True) -> None:
    """Create everything that wrong input can break, except the data, which may have to be
    downloaded or packed. Raises UserError; writes nothing.

    Args:
        asks_cuda: False: a GPU is not asked for its memory, which would initialise CUDA.
    """
    torch_is_imported()
    device = pick_device(config["device"], config["layers"])
    check_precision(config["precision"], device)
    compiled.check(config["compile"], device, config["precision"])
    for group in knobs.GROUPS:
        check_options(group, config[group])
    describable.check_options(config["data"])
    optimizers.make_schedule(config["scheduler"], total_steps=1, steps_per_epoch=1)
    losses.make_loss(config)
    instantiate_group("augment", config["augment"], num_classes=2, hflip=False)
    make_average(config)
    teachers.check(config)
    if (size := known_size(config["data"])) is not None:
        check_model(config, *size, asks_cuda=asks_cuda)


def check_model(
    config: Mapping[str, Any], shape: Shape, num_classes: int, asks_cuda: bool = True
) -> None:
    """Raises UserError if the model, its weights or its optimizer cannot be made. They are created
    on the meta device, without memory and arithmetic."""
    describable.check_number(num_classes)
    losses.check_class_weights(config["loss"], num_classes)
    with torch.device("meta"):
        model = networks.make_model(config, shape, num_classes)
    if config["weights"]:
        start = networks.found_weights(config, model)
        source = f"weights={config['weights']}"
        pretrained.check_fit(model, start.state_dict, config["replace_head"], source)
    if config["freeze"]:
        pretrained.freeze(model, config["freeze"])
    # A part of at most two images may have one.
    for key, smallest in (("batch_size", 1), ("micro_batch_size", 2)):
        if 0 < config[key] <= smallest:
            check_batch_of_one(model, shape, f"{key}={config[key]}")
    networks.memory_format(config, model)
    networks.on_layers(config["layers"], model)
    optimizer = optimizers.make_optimizer(config, model)
    compiled.check_optimizer(config["compile"], optimizer)
    device = pick_device(config["device"], config["layers"])
    if asks_cuda or device.type != "cuda":
        check_memory(model, optimizer, shape, free_bytes(device), device)


def check_batch_of_one(model: nn.Module, shape: Shape, what: str) -> None:
    """Raises UserError if a batch norm layer sees a single value per channel in a batch of one."""
    try:
        model.train()(torch.empty(1, shape[0], *networks.input_size(model, shape), device="meta"))
    except ValueError as error:
        raise UserError(f"{what}: too small for this model's batch norm: {error}") from error


def check_data(config: Mapping[str, Any], asks_cuda: bool = True) -> str:
    """Load the data, downloading or packing it if need be, and check the model if its size depends
    on them. Raises UserError. Returns what tells the dataset from another."""
    dataset = load_data(config["data"])
    describable.check(asdict(networks.describe(config, dataset)))
    teachers.check_data(config, dataset)
    if known_size(config["data"]) is None:
        check_model(config, dataset.shape, len(dataset.classes), asks_cuda)
    sizes = f"{len(dataset.train):,} train, {len(dataset.val):,} val images"
    return f"{sizes}, test set {dataset.test_set_id}"


def build(
    config: Mapping[str, Any],
    folder: Path,
    signals: StopSignals,
    progress: Progress | None = None,
    choices: Mapping[str, Any] | None = None,
    world: World | None = None,
) -> Run:
    """Build a run from a checked configuration.

    Args:
        folder: the run's folder, into which it writes.
        signals: stop signals that the run watches.
        progress: of the state that the run resumes from; later rows of its log are dropped. None: a
            new run.
        choices: name of the chosen option of each config group, for TensorBoard.
        world: processes that train it together; None: this one.
    """
    world = world or World()
    keep_freed_memory()
    set_deterministic(config["deterministic"])
    device = pick_device(config["device"], config["layers"])
    seed, own = config["seed"], [world.rank] if world.size > 1 else []

    model, dataset, cost = build_model(config, device)
    if world.part is not None and config["sync_batch_norm"]:
        batch_norm.synchronise(model, world.part)
    train, val, test = build_batches(config, dataset, model, device, world.part)
    stepper = build_stepper(config, model, world)
    loss = losses.training_loss(config, model, dataset, device)
    teacher = teachers.make_teacher(config, model, dataset, device)
    context, timer = autocast(config["precision"], device), CompileTime()
    description = networks.describe(config, dataset)
    if world.is_main:
        writer, watchers = build_watchers(
            config, folder, signals, progress, len(train), choices or {}, description.probabilities
        )
    else:  # the others evaluate their part for the images, and write nothing
        writer, watchers = MUTE, (Visualizer(folder, None, False, description.probabilities),)
    # After the optimizer is made, before the model is compiled.
    rules = build_rules(config, model, teacher)
    run = Run(
        model=model,
        update=build_update(config, model, loss, stepper, context, (train, val), timer, teacher),
        stepper=stepper,
        schedule=optimizers.make_schedule(
            config["scheduler"], config["epochs"] * len(train), len(train)
        ),
        eval_loss=losses.make_evaluation_loss(config),
        autocast=context,
        seed_step=lambda step: seed_generators(derive_seed(seed, "step", step, *own), device),
        train=train,
        val=val,
        test=test,
        plan=build_plan(config),
        about=About(description, dataset, cost, device, networks.enlargement(model, dataset.shape)),
        checkpoints=CheckpointFolder(folder / "checkpoints", is_reader=not world.is_main),
        signals=signals,
        compile_time=timer,
        rules=rules,
        watchers=watchers,
        world=world,
        meter=meter_for(world),
        average=average_of(rules),
        best=Best(by=config["best_by"]),
    )
    is_profiled = config["profile"] and world.is_main
    return profiled(run, writer, folder / "profile") if is_profiled else run


def build_model(config: Mapping[str, Any], device: torch.device) -> tuple[nn.Module, Dataset, Cost]:
    """Model on its device and layers, the dataset with the model's normalisation, and the cost of a
    forward pass. Sets the seed and the number of threads, which depends on the cost."""
    dataset = first_batches(config, load_data(config["data"]))
    seed_generators(derive_seed(config["seed"], "weights"), device)
    model, dataset = networks.start_model(config, dataset)
    cost = networks.measure_cost(model, dataset.shape)
    macs = cost.macs * (config["micro_batch_size"] or config["batch_size"]) / config["processes"]
    num_threads = pick_num_threads(config["num_threads"], macs)
    set_num_threads(num_threads, config["layers"])
    return networks.placed(config, model, device), dataset, cost


def build_batches(
    config: Mapping[str, Any],
    dataset: Dataset,
    model: nn.Module,
    device: torch.device,
    part: Part | None = None,
) -> tuple[Batches, Batches, Batches]:
    """Batches of the train, validation and test splits, of them the part of this process."""
    preprocess = networks.make_preprocess(config, model, dataset.mean, dataset.std, device)
    resident, num_workers = fits(device, dataset.num_bytes), config["num_workers"]
    augment = instantiate_group(
        "augment", config["augment"], num_classes=len(dataset.classes), hflip=dataset.hflip
    )
    train = Batches(
        dataset.train, config["batch_size"], preprocess, device, shuffle=True, seed=config["seed"],
        limit=config["limit_batches"], augment=augment, resident=resident, num_workers=num_workers,
        part=part, balanced=config["sampling"] == "balanced",
    )  # fmt: skip
    val, test = (
        evaluation_batches(config, preprocess, device, split, resident, num_workers, part)
        for split in (dataset.val, dataset.test)
    )
    return train, val, test


def build_plan(config: Mapping[str, Any]) -> Plan:
    interval = SaveInterval(config["save_every_steps"], config["save_every_minutes"])
    return Plan(
        config["epochs"], config["batch_size"], config["eval_every_epochs"],
        config["log_interval"], config["test"], config["stop_epoch"], interval,
    )  # fmt: skip


def build_watchers(
    config: Mapping[str, Any],
    folder: Path,
    signals: StopSignals,
    progress: Progress | None,
    num_steps: int,
    choices: Mapping[str, Any],
    probabilities: str,
) -> tuple[Any, tuple[Watcher, ...]]:
    """TensorBoard writer, and the watchers of a run: its logger and its visualizer.

    Args:
        progress: of the state that the run resumes from; None: a new run.
        num_steps: steps per epoch.
        probabilities: kind of the model's outputs, see `losses.probabilities`.
    """
    first_step = rows_up_to(progress, num_steps)
    writer = None
    if config["tensorboard"]:
        # Imported here: it takes half a second that no other command should wait for.
        from trainer.monitoring.tensorboard import Events

        writer = Events(folder / "tensorboard", first_step)
    run_log = RunLogger(
        folder, writer or MUTE, config["batch_size"], first_step,
        progress.epoch if progress else 0, hparams(config, choices, folder),
        is_over=signals.is_received,
    )  # fmt: skip
    visualizer = Visualizer(folder, writer, config["histograms"], probabilities)
    return writer or MUTE, (run_log, visualizer)


def rows_up_to(progress: Progress | None, num_steps: int) -> int:
    """Last step whose rows are kept. A state saved after an epoch's last step but before its
    validation has the step of that epoch's rows, which are written again."""
    if progress is None:
        return 0
    return progress.step - (progress.batch >= num_steps)
