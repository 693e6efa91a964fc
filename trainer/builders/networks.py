"""Network of a run: created, given weights, measured, moved to its device and layers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from data.loading.preprocess import Preprocess, enlarged, pads
from data.types import Dataset
from models.numpy_nn.bridge import convert
from trainer.builders import losses, pretrained
from trainer.checkpoints.description import Cost, Description
from trainer.config.targets import instantiate_group
from trainer.errors import UserError
from trainer.system.device import float_dtype
from trainer.system.macs import counting_macs
from trainer.text.values import format_value

log = logging.getLogger("trainer")

NUM_LOOKED_AT = 5000  # training images that a network may look at to set itself up


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
    return instantiate_group("model", options)


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
    elif (start_from := getattr(model, "start_from", None)) is not None:
        start_from(first_inputs(config, model, dataset))
    if config["freeze"] and not config["unfreeze_epoch"]:
        freeze(config, model)
    return model, dataset


def first_inputs(config: Mapping[str, Any], model: nn.Module, dataset: Dataset) -> Tensor:
    """The first training images, (N, C, H, W) float on the CPU, as the model sees them."""
    number = min(NUM_LOOKED_AT, len(dataset.train))
    images = dataset.train.images[dataset.train.places()[:number]]
    cpu = torch.device("cpu")
    return make_preprocess(config, model, dataset.mean, dataset.std, cpu)(images)


def freeze(config: Mapping[str, Any], model: nn.Module) -> None:
    """Freeze the parameters that the key `freeze` names."""
    left = pretrained.freeze(model, config["freeze"], config["freeze_batch_norm"])
    statistics = "keep" if config["freeze_batch_norm"] else "go on with"
    log.info("freeze: %s parameters are trained; frozen batch norm layers %s their statistics",
             f"{left:,}", statistics)  # fmt: skip


def on_layers(layers: str, model: nn.Module) -> nn.Module:
    """The model on torch's layers, unchanged, or converted in place to NumPy layers. Raises
    UserError if a layer has no NumPy form."""
    if layers == "torch":
        return model
    try:
        return convert(model)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


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


def input_size(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Size (H, W) of the model's input for images of `shape` (C, H, W)."""
    return enlarged(shape[1:], min_size(model))


def min_size(model: nn.Module) -> int:
    return int(getattr(model, "min_size", 1))


def enlargement(model: nn.Module, shape: tuple[int, int, int]) -> str:
    """Line for the log about images smaller than the model's smallest side; empty if they are
    not."""
    size = input_size(model, shape)
    if size == shape[1:]:
        return ""
    how = "padded" if pads(shape[1:], min_size(model)) else "resized"
    return f"images are {how} from {shape[1]}x{shape[2]} to {size[0]}x{size[1]} for this model"


def memory_format(config: Mapping[str, Any], model: nn.Module) -> torch.memory_format:
    """Order in memory of images and 4-d weights. Raises UserError for one that torch fails at."""
    wanted = config["channels_last"]
    if wanted is True and config["layers"] == "torch" and (layer := corrupting(model)):
        raise UserError(
            f"channels_last=true: torch's backward of {layer} in that order writes beyond its "
            "memory on a CPU. Leave the key out: channels_last=auto takes the other order here."
        )
    if wanted == "auto":
        is_convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
        wanted = config["layers"] == "torch" and is_convolutional and not corrupting(model)
    return torch.channels_last if wanted else torch.contiguous_format


def corrupting(model: nn.Module) -> str:
    """Name and sizes of a convolution whose backward corrupts memory when channels come last: 1x1
    with a stride and fewer than 8 channels in (torch 2.14.1 with its oneDNN, on CPUs with AVX2 at
    least); empty: there is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and (
            module.in_channels < 8 and set(module.kernel_size) == {1} and max(module.stride) > 1
        ):
            return f"{name}, a strided 1x1 convolution of {module.in_channels} channels,"
    return ""


def move_model(
    model: nn.Module, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> nn.Module:
    """Move a model to a device, dtype and memory format (of its 4-d weights), in place."""
    return model.to(device=device, dtype=dtype).to(memory_format=layout)


def placed(config: Mapping[str, Any], model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device and layers, in its dtype and memory format. Raises UserError if a
    layer has no NumPy form."""
    dtype = float_dtype(config["precision"])
    return on_layers(
        config["layers"], move_model(model, device, dtype, memory_format(config, model))
    )


def make_preprocess(
    config: Mapping[str, Any],
    model: nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> Preprocess:
    """Preprocessing from uint8 images to the input of a placed model."""
    return Preprocess(
        tuple(mean), tuple(std), min_size(model), device, float_dtype(config["precision"]),
        memory_format(config, model),
    )  # fmt: skip


def measure_cost(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Cost of a model for one image of `shape` (C, H, W); one MAC (multiply-add) is two FLOPs."""
    height, width = input_size(model, shape)
    was_training = model.training
    with torch.no_grad(), counting_macs() as counter:
        image = torch.zeros(1, shape[0], height, width, dtype=next(model.parameters()).dtype)
        model.eval()(image)
    model.train(was_training)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters, counter.total)


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
            instantiate_group("loss", losses.plain(config["loss"])), "probabilities", "softmax"
        ),
    )
