"""What a checkpoint says of its inputs and outputs beyond numbers, and what older ones stand for,
which do not say it: told from the configuration inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Fit = Literal["crop", "squash"]
Probabilities = Literal["softmax", "sigmoid", "clip"]

# What is said where probabilities are not the usual ones.
EXPLAINED = {
    "sigmoid": "Probabilities are those of each class by itself, a sigmoid of its output, as the "
    "loss had it in training (bce); they need not add up to 1.",
    "clip": "Probabilities are the model's outputs themselves, cut to 0..1, since its loss brought "
    "these towards 1 for the right class and 0 for the others (mse or l1 on logits); they need "
    "not add up to 1.",
}


def fit_of(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Fit:
    """How images of another size come to the model's shape, as the data set of its training did it:
    "crop" (the shorter side resized, the centre taken) or "squash" (both sides resized).

    Args:
        config: the one inside the checkpoint.
    """
    if "fit" in entries:
        fit: Fit = entries["fit"]
        return fit
    target = str(config["data"].get("_target_"))  # import-weights names none
    return "squash" if target.startswith(("data.mnist.", "data.cifar.", "data.synth")) else "crop"


def probabilities_of(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Probabilities:
    """What makes probabilities of the model's outputs, see `losses.probabilities`.

    Args:
        config: the one inside the checkpoint.
    """
    if "probabilities" in entries:
        how: Probabilities = entries["probabilities"]
        return how
    loss = config["loss"]
    if loss.get("_target_") == "trainer.losses.BCE":
        return "sigmoid"
    return "clip" if loss.get("on") == "logits" else "softmax"
