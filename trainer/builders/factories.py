"""Factories of the parts of a run: dataset, model, loss, optimizer, schedule, batches."""

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
from trainer.config.targets import constructor_errors, instantiate_group, locate
from trainer.errors import UserError
from trainer.schedules import Schedule
from trainer.system.device import is_convolutional
from trainer.system.torch_internals import counting_flops
from trainer.text.values import format_value

log = logging.getLogger("trainer")

Shape = tuple[int, int, int]  # (C, H, W)


def load_data(options: Mapping[str, Any]) -> Dataset:
    """Dataset of the options data.*, on the CPU. The last one is cached, since `check` and `build`
    need the same."""
    return _load_data(OmegaConf.to_yaml(OmegaConf.create(dict(options))))


@functools.lru_cache(maxsize=1)
def _load_data(options: str) -> Dataset:
    dataset: Dataset = instantiate_group("data", OmegaConf.create(options))  # type: ignore[arg-type]
    return dataset


def make_model(
    config: Mapping[str, Any], shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Model of the configuration for images of `shape` (C, H, W) and `num_classes` classes. Raises
    UserError if model.shape or model.num_classes contradicts them."""
    options = dict(config["model"])
    for key, found in (("shape", list(shape)), ("num_classes", num_classes)):
        if options.get(key, found) not in (found, None):
            raise UserError(
                f"model.{key}={format_value(options[key])}: the data has {format_value(found)}. "
                f"Leave the key out, or set data.{key}."
            )
        options[key] = found
    model: nn.Module = instantiate_group("model", options)
    return model


def start_model(config: Mapping[str, Any], dataset: Dataset) -> tuple[nn.Module, Dataset]:
    """Model at the start of training, with fresh or given weights, partly frozen; and the dataset,
    with the normalisation of the given weights if it has as many channels."""
    model = make_model(config, dataset.shape, len(dataset.classes))
    if config["weights"]:
        start = found_weights(config, model)
        _found.clear()
        fresh = pretrained.load_into(
            model, start.state_dict, config["replace_head"], f"weights={config['weights']}"
        )
        for note in (*start.notes, *(f"{name} is initialised" for name in fresh)):
            log.info("weights: %s", note)
        if start.mean and start.std and len(start.mean) == dataset.shape[0]:
            dataset = dataclasses.replace(dataset, mean=start.mean, std=start.std)
            log.info("weights: images are normalised with mean %s, std %s of the weights", *(
                format_value([round(value, 5) for value in values])
                for values in (start.mean, start.std)
            ))  # fmt: skip
        else:
            log.info("weights: the file has no mean and std; those of the dataset are used")
    if config["freeze"]:
        left = pretrained.freeze(model, config["freeze"])
        log.info("freeze: %s parameters are trained; frozen batch norm layers keep their "
                 "statistics", f"{left:,}")  # fmt: skip
    return model, dataset


def on_layers(layers: str, model: nn.Module) -> nn.Module:
    """The model on torch's layers, unchanged, or converted in place to NumPy layers. Raises
    UserError if a layer has no NumPy form."""
    if layers == "torch":
        return model
    try:
        return convert(model)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


def make_loss(config: Mapping[str, Any]) -> nn.Module:
    """Training loss, in its NumPy form if layers=numpy. Raises UserError if there is none."""
    loss: nn.Module = instantiate_group("loss", config["loss"])
    if config["layers"] == "torch":
        return loss
    try:
        return convert_loss(loss)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


def make_evaluation_loss(config: Mapping[str, Any]) -> nn.Module:
    """Loss of validation, test and `evaluate`: without label smoothing, so that values of runs with
    and without it can be compared."""
    smooths = "label_smoothing" in config["loss"]
    plain = {**config["loss"], "label_smoothing": 0.0} if smooths else config["loss"]
    return make_loss({**config, "loss": plain})


# Cache of the last weights read: `check` and `build` need the same file, which may have half a
# gigabyte.
_found: dict[Any, pretrained.Start] = {}


def found_weights(config: Mapping[str, Any], model: nn.Module) -> pretrained.Start:
    """Weights of the key `weights` for a model; the last ones are cached. Raises UserError."""
    key = (config["weights"], getattr(model, "torchvision_name", None),
           tuple(pretrained.shapes_of(model).items()))  # fmt: skip
    if key not in _found:
        _found.clear()
        _found[key] = pretrained.find(config["weights"], model)
    return _found[key]


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names of a dataset before it is loaded, from the function `class_names` in the loader's
    module, which takes the same keys; None if there is no such function. Raises UserError."""
    module = str(options["_target_"]).rpartition(".")[0]
    locate("data", options["_target_"])
    if not inspect.isfunction(getattr(sys.modules[module], "class_names", None)):
        return None
    return tuple(instantiate_group("data", {**options, "_target_": f"{module}.class_names"}))


def load_whole(options: Mapping[str, Any]) -> Dataset | None:
    """Dataset with all its images in the test split, from the function `load_whole` in the loader's
    module, which takes the same keys; None if there is no such function, or the dataset has a test
    split of its own. For a model that was trained on none of the images. Raises UserError."""
    module = str(options["_target_"]).rpartition(".")[0]
    locate("data", options["_target_"])
    if not inspect.isfunction(getattr(sys.modules[module], "load_whole", None)):
        return None
    dataset: Dataset | None = instantiate_group(
        "data", {**options, "_target_": f"{module}.load_whole"}
    )
    return dataset


def known_size(options: Mapping[str, Any]) -> tuple[Shape, int] | None:
    """Shape (C, H, W) and number of classes from the configuration or the class names; None if they
    are known only once the dataset is loaded."""
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
    """Shape (C, H, W) and number of classes; loads the dataset only if it must."""
    size = known_size(options)
    if size is None:
        dataset = load_data(options)
        return dataset.shape, len(dataset.classes)
    return size


def input_size(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Size (H, W) of the model's input for images of `shape` (C, H, W)."""
    return enlarged(shape[1:], min_size(model))


def make_optimizer(options: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """Optimizer over the trainable parameters, in its fused form if there is one: one kernel per
    step instead of several per parameter."""
    create = instantiate_group("optimizer", options)
    parameters = trainable(model)
    with constructor_errors("optimizer"):
        on_mps = any(parameter.device.type == "mps" for parameter in parameters)
        if "fused" not in options and takes_fused(create, on_mps):
            with contextlib.suppress(RuntimeError):  # no fused form on this device
                return with_initial_lr(create(parameters, fused=True))
        return with_initial_lr(create(parameters))


def make_schedule(options: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    create = instantiate_group("scheduler", options)
    with constructor_errors("scheduler"):
        schedule: Schedule = create(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        return schedule


def takes_fused(create: Callable[..., Optimizer], on_mps: bool = False) -> bool:
    """True if an optimizer accepts fused=True. Adagrad has no fused kernel on mps, where
    torch raises an error at the first step only."""
    has_kernel = not (on_mps and getattr(create, "func", create) is torch.optim.Adagrad)
    return has_kernel and "fused" in inspect.signature(create).parameters


def with_initial_lr(optimizer: Optimizer) -> Optimizer:
    """The optimizer with `initial_lr` set in each group, as torch's schedulers do."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def min_size(model: nn.Module) -> int:
    return int(getattr(model, "min_size", 1))


def enlargement(shape: tuple[int, int, int], smallest: int) -> str:
    """Line for the log about images smaller than the model's smallest side; empty if they are
    not."""
    size = enlarged(shape[1:], smallest)
    if size == shape[1:]:
        return ""
    how = "padded" if pads(shape[1:], smallest) else "resized"
    return f"images are {how} from {shape[1]}x{shape[2]} to {size[0]}x{size[1]} for this model"


def memory_format(config: Mapping[str, Any], model: nn.Module) -> torch.memory_format:
    wanted = config["channels_last"]
    if wanted == "auto":
        wanted = config["layers"] == "torch" and is_convolutional(model)
    return torch.channels_last if wanted else torch.contiguous_format


def move_model(
    model: nn.Module, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> nn.Module:
    """Move a model to a device, dtype and memory format (of its 4-d weights), in place."""
    return model.to(device=device, dtype=dtype).to(memory_format=layout)


def evaluation_batches(
    config: Mapping[str, Any],
    preprocess: Preprocess,
    device: torch.device,
    split: Split,
    resident: bool = True,
    num_workers: int = 0,
) -> Batches:
    """Batches of a split for evaluation: 256 small images, fewer as they grow, so that the
    activations of a deep model at 224 px take less than two gigabytes."""
    height, width = enlarged(split.images.shape[-2:], preprocess.min_size)
    batch_size = max(1, min(256, 2**20 // (height * width)))
    return Batches(
        split, batch_size, preprocess, device, limit=config["limit_batches"],
        resident=resident, num_workers=num_workers,
    )  # fmt: skip


def measure_cost(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Cost of a model for one image of `shape` (C, H, W), from torch's FLOP counter: one MAC
    (multiply-add) is two FLOPs."""
    height, width = input_size(model, shape)
    was_training = model.training
    with torch.no_grad(), counting_flops() as counter:
        image = torch.zeros(1, shape[0], height, width, dtype=next(model.parameters()).dtype)
        model.eval()(image)
    model.train(was_training)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, counter.get_total_flops() // 2)


def describe(config: Mapping[str, Any], dataset: Dataset) -> Description:
    """Description for the checkpoints of a run with this configuration and dataset."""
    return Description(
        config=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        classes=list(dataset.classes),
        shape=list(dataset.shape),
        mean=list(dataset.mean),
        std=list(dataset.std),
        resize=dataset.resize or min(dataset.shape[1:]),
        pixel_range=None if dataset.pixel_range is None else list(dataset.pixel_range),
        fit=dataset.fit,
        probabilities=getattr(
            instantiate_group("loss", config["loss"]), "probabilities", "softmax"
        ),
    )
