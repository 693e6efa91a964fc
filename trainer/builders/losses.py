"""Losses of a run: of training, and of validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data.types import Dataset
from trainer.builders.numpy_losses import NumpyPenalised, convert_loss
from trainer.config.targets import instantiate_group
from trainer.errors import UserError
from trainer.losses import Distilled, Penalised
from trainer.system.device import float_dtype

# Options of the training alone, with their off-values.
OF_TRAINING = {"label_smoothing": 0.0, "class_weights": "none"}


def make_loss(config: Mapping[str, Any], class_weights: Sequence[float] | None = None) -> nn.Module:
    """Training loss, in its NumPy form if layers=numpy. Raises UserError if there is none.

    Args:
        class_weights: those of loss.class_weights=balanced; None: not known yet.
    """
    options = config["loss"]
    if options.get("class_weights") == "balanced":
        options = {**options, "class_weights": class_weights or "none"}
    loss: nn.Module = instantiate_group("loss", options)
    if config["layers"] == "torch":
        return loss
    try:
        return convert_loss(loss)
    except ValueError as error:
        raise UserError(f"layers=numpy: {error}") from error


def make_evaluation_loss(config: Mapping[str, Any]) -> nn.Module:
    """Loss of validation, test and `evaluate`: without label smoothing and class weights, so that
    values of runs with and without them can be compared."""
    return make_loss({**config, "loss": plain(config["loss"])})


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a loss without those of the training alone."""
    return {**options, **{key: off for key, off in OF_TRAINING.items() if key in options}}


def training_loss(
    config: Mapping[str, Any], model: nn.Module, dataset: Dataset, device: torch.device
) -> nn.Module:
    """Training loss of a placed model, on its device, with what a teacher adds, and the
    penalties on its weights."""
    weights = balanced_weights(dataset.train.labels, len(dataset.classes))
    loss = make_loss(config, weights).to(device=device, dtype=float_dtype(config["precision"]))
    if config["teacher"] is not None:
        loss = Distilled(loss, config["distill_temperature"], config["distill_weight"])
    if not (config["l1"] or config["l2"]):
        return loss
    penalised = NumpyPenalised if config["layers"] == "numpy" else Penalised
    return penalised(loss, penalised_weights(model), config["l1"], config["l2"])


def penalised_weights(model: nn.Module) -> list[nn.Parameter]:
    """Trained weights of two or more dimensions: neither biases nor scales of norms."""
    return [w for w in model.parameters() if w.requires_grad and w.ndim > 1]


def balanced_weights(labels: Tensor, num_classes: int) -> list[float]:
    """N / (K n_k) of each of K classes with n_k of N images; a class without images weighs 1.

    Args:
        labels: (N,) int64, of the images that are trained on.
    """
    counts = labels.bincount(minlength=num_classes).tolist()
    return [len(labels) / (num_classes * count) if count else 1.0 for count in counts]


def check_class_weights(options: Mapping[str, Any], num_classes: int) -> None:
    """Raises UserError for a list of another length than the number of classes."""
    weights = options.get("class_weights", "none")
    if not isinstance(weights, str) and len(weights) != num_classes:
        raise UserError(
            f"loss.class_weights={list(weights)}: has {len(weights)} numbers, and the data has "
            f"{num_classes} classes. Give one for each, or balanced."
        )
