"""The parts that a configuration names, made one by one and placed where they compute."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer

from data.loading.batches import Batches
from data.loading.preprocess import Preprocess, enlarged, pads
from data.types import Dataset, Split
from models.numpy_nn.bridge import convert
from trainer.builders import pretrained
from trainer.builders.numpy_losses import convert_loss
from trainer.checkpoints.description import Cost, Description
from trainer.config.targets import constructor_errors, locate, make
from trainer.errors import UserError
from trainer.schedules import Schedule
from trainer.system.device import is_convolutional
from trainer.system.torch_internals import counting_flops
from trainer.text.values import format_value

log = logging.getLogger("trainer")

Shape = tuple[int, int, int]  # (C, H, W)


def load_data(options: Mapping[str, Any]) -> Dataset:
    """The data set, on the CPU. The last one is kept: `check` and `build` want the same."""
    return _load_data(OmegaConf.to_yaml(OmegaConf.create(dict(options))))


@functools.lru_cache(maxsize=1)
def _load_data(options: str) -> Dataset:
    dataset: Dataset = make("data", OmegaConf.create(options))  # type: ignore[arg-type]
    return dataset


def make_model(
    config: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """The network, sized by the data set as it was found: a folder's classes are counted."""
    options = dict(config["model"])
    for key, found in (("shape", list(shape)), ("num_classes", num_classes)):
        if options.get(key, found) not in (found, None):
            raise UserError(
                f"model.{key}={format_value(options[key])}: the data has {format_value(found)}. "
                f"Leave the key out, or set data.{key}."
            )
        options[key] = found
    model: nn.Module = make("model", options)
    return model


def start_model(config: Mapping[str, Any], dataset: Dataset) -> tuple[nn.Module, Dataset]:
    """The network as training starts: fresh or with given weights, some of it frozen. Weights
    bring the normalisation that they were trained with, if it has as many channels."""
    model = make_model(config, dataset.shape, len(dataset.classes))
    if config["weights"]:
        start = found_weights(config, model)
        _found.clear()
        fresh = pretrained.load_into(
            model, start.state_dict, config["replace_head"], f"weights={config['weights']}"
        )
        for note in (*start.notes, *(f"{name} starts afresh" for name in fresh)):
            log.info("weights: %s", note)
        if start.mean and start.std and len(start.mean) == dataset.shape[0]:
            dataset = dataclasses.replace(dataset, mean=start.mean, std=start.std)
            log.info("weights: pictures are normalised as theirs: mean %s, std %s", *(
                format_value([round(value, 5) for value in values])
                for values in (start.mean, start.std)
            ))  # fmt: skip
        else:
            log.info("weights: the file tells no mean and std; those of the data are taken")
    if config["freeze"]:
        left = pretrained.freeze(model, config["freeze"])
        log.info("freeze: %s parameters are left to train; frozen batch norms keep their "
                 "statistics", f"{left:,}")  # fmt: skip
    return model, dataset


def on_layers(layers: str, model: nn.Module) -> nn.Module:
    """The network on torch's layers, as it is, or each of them in its NumPy form, in place."""
    if layers == "torch":
        return model
    try:
        return convert(model)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


def make_loss(config: Mapping[str, Any]) -> nn.Module:
    loss: nn.Module = make("loss", config["loss"])
    if config["layers"] == "torch":
        return loss
    try:
        return convert_loss(loss)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


def make_evaluation_loss(config: Mapping[str, Any]) -> nn.Module:
    """The loss as validation, test and `evaluate` report it: without label smoothing, which is a
    means of training, so that values of runs with and without it can be compared."""
    smooths = "label_smoothing" in config["loss"]
    plain = {**config["loss"], "label_smoothing": 0.0} if smooths else config["loss"]
    return make_loss({**config, "loss": plain})


# The last weights read, with what they were read for: `check` and `build` want the same file, which
# may have half a gigabyte.
_found: dict[Any, pretrained.Start] = {}


def found_weights(config: Mapping[str, Any], model: nn.Module) -> pretrained.Start:
    key = (config["weights"], getattr(model, "torchvision_name", None),
           tuple(pretrained.shapes_of(model).items()))  # fmt: skip
    if key not in _found:
        _found.clear()
        _found[key] = pretrained.find(config["weights"], model)
    return _found[key]


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the set's classes before it is loaded, told by the function `class_names` beside
    the loader, which takes the same keys; None if there is no such function. Raises UserError."""
    module = str(options["_target_"]).rpartition(".")[0]
    locate("data", options["_target_"])
    if not inspect.isfunction(getattr(sys.modules[module], "class_names", None)):
        return None
    return tuple(make("data", {**options, "_target_": f"{module}.class_names"}))


def load_whole(options: Mapping[str, Any]) -> Dataset | None:
    """All images of a set as its test split, by the function `load_whole` beside the loader, which
    takes the same keys; None if there is no such function, or the set has a test split of its own.
    For a net that was trained on none of them. Raises UserError."""
    module = str(options["_target_"]).rpartition(".")[0]
    locate("data", options["_target_"])
    if not inspect.isfunction(getattr(sys.modules[module], "load_whole", None)):
        return None
    dataset: Dataset | None = make("data", {**options, "_target_": f"{module}.load_whole"})
    return dataset


def known_size(options: Mapping[str, Any]) -> tuple[Shape, int] | None:
    """Shape and number of classes as the configuration or the names of the classes tell them; None
    if only the data set itself does."""
    num_classes, shape = options.get("num_classes"), options.get("shape")
    if shape is None:
        return None
    if num_classes is None:
        names = class_names(options)
        if names is None:
            return None
        num_classes = len(names)
    channels, height, width = shape
    return (channels, height, width), num_classes


def announced_size(options: Mapping[str, Any]) -> tuple[Shape, int]:
    """Shape and number of classes, without loading the data set if they can be known without."""
    size = known_size(options)
    if size is None:
        dataset = load_data(options)
        return dataset.shape, len(dataset.classes)
    return size


def input_size(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """(H, W) as the net sees pictures of this shape."""
    return enlarged(shape[1:], min_size(model))


def make_optimizer(options: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """The optimizer over the parameters that are to be trained, in its fused form if there is one:
    one kernel per step instead of several per parameter."""
    create = make("optimizer", options)
    parameters = trainable(model)
    with constructor_errors("optimizer"):
        on_mps = any(parameter.device.type == "mps" for parameter in parameters)
        if "fused" not in options and takes_fused(create, on_mps):
            with contextlib.suppress(RuntimeError):  # this device has no fused form
                return with_initial_lr(create(parameters, fused=True))
        return with_initial_lr(create(parameters))


def make_schedule(options: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    create = make("scheduler", options)
    with constructor_errors("scheduler"):
        schedule: Schedule = create(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        return schedule


def takes_fused(create: Callable[..., Optimizer], on_mps: bool = False) -> bool:
    """Of Adagrad there is no fused kernel for mps, and torch says so at the first step only."""
    has_kernel = not (on_mps and getattr(create, "func", create) is torch.optim.Adagrad)
    return has_kernel and "fused" in inspect.signature(create).parameters


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """The rate that schedules multiply, kept apart from the current one as torch does."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def min_size(model: nn.Module) -> int:
    return int(getattr(model, "min_size", 1))


def enlargement(shape: tuple[int, int, int], smallest: int) -> str:
    """What happens to pictures below the net's smallest side, as a line for the log."""
    size = enlarged(shape[1:], smallest)
    if size == shape[1:]:
        return ""
    how = "padded" if pads(shape[1:], smallest) else "resized"
    return f"pictures are {how} from {shape[1]}x{shape[2]} to {size[0]}x{size[1]} for this net"


def memory_format(config: Mapping[str, Any], model: nn.Module) -> torch.memory_format:
    wanted = config["channels_last"]
    if wanted == "auto":
        wanted = config["layers"] == "torch" and is_convolutional(model)
    return torch.channels_last if wanted else torch.contiguous_format


def place(
    model: nn.Module, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> nn.Module:
    """Moves the model, in place; the layout is that of its four-dimensional weights."""
    return model.to(device=device, dtype=dtype).to(memory_format=layout)


def evaluation_batches(
    config: Mapping[str, Any],
    preprocess: Preprocess,
    device: torch.device,
    split: Split,
    resident: bool = True,
    num_workers: int = 0,
) -> Batches:
    """Large batches, without gradients to keep: 256 small pictures, fewer as they grow, so that
    the activations of a deep net at 224 px stay under a gigabyte or two."""
    height, width = enlarged(split.images.shape[-2:], preprocess.min_size)
    batch_size = max(1, min(256, 2**20 // (height * width)))
    return Batches(
        split, batch_size, preprocess, device, limit=config["limit_batches"],
        resident=resident, num_workers=num_workers,
    )  # fmt: skip


def measure(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Counts with torch's FLOP counter on one picture; a multiply-add is two of its FLOPs."""
    height, width = input_size(model, shape)
    was_training = model.training
    with torch.no_grad(), counting_flops() as counter:
        picture = torch.zeros(1, shape[0], height, width, dtype=next(model.parameters()).dtype)
        model.eval()(picture)
    model.train(was_training)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, counter.get_total_flops() // 2)


def describe(config: Mapping[str, Any], dataset: Dataset) -> Description:
    return Description(
        config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        classes=list(dataset.classes),
        shape=list(dataset.shape),
        mean=list(dataset.mean),
        std=list(dataset.std),
        resize=dataset.resize or min(dataset.shape[1:]),
        pixel_range=None if dataset.pixel_range is None else list(dataset.pixel_range),
        fit=dataset.fit,
        probabilities=getattr(make("loss", config["loss"]), "probabilities", "softmax"),
    )
