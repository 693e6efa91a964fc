"""Preprocessing and kind of output of a checkpoint's model; in older checkpoints, which lack these
entries, they follow from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Fit = Literal["crop", "squash"]
Probabilities = Literal["softmax", "sigmoid", "clip"]

# Printed where probabilities are not a softmax.
EXPLAINED = {
    "sigmoid": "Probabilities are independent for each class, a sigmoid of its output, as in the "
    "training loss (bce); they need not add up to 1.",
    "clip": "Probabilities are the model's outputs clamped to 0..1: the training loss (mse or l1 "
    "on logits) fits the outputs to 1 for the right class and 0 for the others; they need not add "
    "up to 1.",
}


def fit_of(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Fit:
    """Method to bring images of another size to the model's shape, as the training dataset did:
    "crop" (resize the shorter side, crop the centre) or "squash" (resize both sides).

    Args:
        config: the configuration in the checkpoint.
    """
    if "fit" in entries:
        return entries["fit"]
    target = str(config["data"].get("_target_"))  # import-weights names none
    return "squash" if target.startswith(("data.mnist.", "data.cifar.", "data.synth")) else "crop"


def probabilities_of(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Probabilities:
    """Function from the model's outputs to probabilities: the argument `how` of
    `losses.probabilities`.

    Args:
        config: the configuration in the checkpoint.
    """
    if "probabilities" in entries:
        return entries["probabilities"]
    loss = config["loss"]
    if loss.get("_target_") == "trainer.losses.BCE":
        return "sigmoid"
    return "clip" if loss.get("on") == "logits" else "softmax"
