"""Teacher of a distillation: read from a checkpoint, checked, and built for a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.types import Dataset
from trainer.builders import losses, networks, restore
from trainer.checkpoints import entries, weights_sha256
from trainer.checkpoints.finite import not_finite
from trainer.config import stored
from trainer.errors import UserError
from trainer.system.paths import at_home
from trainer.text.values import count, format_value, listed
from trainer.training.distillation import Teacher

log = logging.getLogger("trainer")

# What the training decides for its teacher, too: where and in which numbers it computes.
SHARED = ("device", "precision", "channels_last")


def check(config: Mapping[str, Any]) -> None:
    """Raises UserError if the teacher's file, or the training's loss, cannot be used."""
    if config["teacher"] is None:
        return
    kind = getattr(losses.make_evaluation_loss(config), "probabilities", "softmax")
    if kind != "softmax":
        raise UserError(
            f"teacher={config['teacher']} with this loss: not supported; distillation compares "
            "probabilities by softmax, which the loss does not use. loss=cross_entropy does."
        )
    found, own = read(config)
    try:
        restore.check_weights(found, own)
    except UserError as error:
        raise UserError(f"teacher={config['teacher']}: {error}") from error


def read(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of the teacher's checkpoint, and its configuration as far as this training leaves it.
    Raises UserError."""
    source = config["teacher"]
    path = at_home(Path(source))
    try:
        if path.is_dir():
            raise UserError("this is a folder. Give a file in it; in a run, checkpoints/best.pth.")
        found = entries.read(path)
        if names := not_finite(found["model"]):
            raise UserError(f"NaN or infinite in {count(len(names), 'tensor')}: {listed(names)}.")
        if (kind := entries.value_of(found, "probabilities") or "softmax") != "softmax":
            raise UserError(
                f"its outputs become probabilities by {kind}. Only networks trained with a softmax "
                "can teach."
            )
        trust = {"trust": format_value(config["trust"])}
        own = stored.configuration(found, trust if config["trust"] else {})
    except UserError as error:
        raise UserError(f"teacher={source}: {str(error).removeprefix(f'{path}: ')}") from error
    return found, {**own, **{key: config[key] for key in SHARED}, "layers": "torch"}


def check_data(config: Mapping[str, Any], dataset: Dataset) -> None:
    """Raises UserError if the teacher knows other classes or sees images in another way than the
    training's network."""
    if config["teacher"] is None:
        return
    found, own = read(config)
    classes = list(dataset.classes)
    ranges = [None if r is None else list(r)
              for r in (entries.value_of(found, "pixel_range"), dataset.pixel_range)]  # fmt: skip
    for what, theirs, ours in (
        ("classes", found["classes"], classes),
        ("images of shape", list(found["shape"]), list(dataset.shape)),
        ("pixels in the range", *ranges),
    ):
        if theirs != ours:
            raise UserError(
                f"teacher={config['teacher']}: knows {what} {shortened(theirs)}, and the training "
                f"has {shortened(ours)}. Give a network that was trained on such data."
            )
    with torch.device("meta"):
        student = networks.make_model(config, dataset.shape, len(classes))
        teacher = restore.check_weights(found, own)
    given, needed = (networks.input_size(model, dataset.shape) for model in (student, teacher))
    if given not in (needed, dataset.shape[1:]):
        raise UserError(
            f"teacher={config['teacher']}: sees images of {dataset.shape[1]}x{dataset.shape[2]} "
            f"brought to {needed[0]}x{needed[1]}, and the model that is trained to "
            f"{given[0]}x{given[1]}: not supported. Set data.shape to at least "
            f"{max(given)}x{max(given)} for both."
        )


def shortened(values: Any) -> str:
    if isinstance(values, list) and len(values) > 12:
        return f"{format_value(values[:12])[:-1]}, ...] ({len(values)})"
    return format_value(values)


def make_teacher(
    config: Mapping[str, Any], model: nn.Module, dataset: Dataset, device: torch.device
) -> Teacher | None:
    """Teacher of a checked configuration, for the images of `dataset` as `model` sees them; None:
    there is none."""
    if config["teacher"] is None:
        return None
    found, own = read(config)
    network: nn.Module = restore.restore(found, own)
    log.info(
        "teacher: %s of epoch %d, %s parameters, weight %s at temperature %s", config["teacher"],
        found["epoch"], f"{sum(p.numel() for p in network.parameters()):,}",
        format_value(config["distill_weight"]), format_value(config["distill_temperature"]),
    )  # fmt: skip
    given, wanted = (
        (list(mean), list(std), networks.input_size(of, dataset.shape))
        for of, mean, std in ((model, dataset.mean, dataset.std),
                              (network, found["mean"], found["std"]))
    )  # fmt: skip
    preprocess = None
    if given != wanted:
        preprocess = networks.make_preprocess(own, network, found["mean"], found["std"], device)
    digest = weights_sha256(found["model"])
    return Teacher(network, preprocess, dataset.mean, dataset.std, digest).to(device)
