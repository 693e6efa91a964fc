"""Values of keys that are wrong only in combination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.text.values import format_value

# They compute on the CPU, in float32 or float64, and choose the order in memory themselves.
NUMPY_TAKES = {
    "device": ("auto", "cpu"), "precision": ("fp32", "fp64"), "channels_last": ("auto", False),
    "compile": ("none",),
}  # fmt: skip

# Each process of several has a device of its own, which it chooses itself.
PROCESSES_TAKE = {"compile": ("none",), "layers": ("torch",), "device": ("auto", "cpu", "cuda")}


def check_together(config: Mapping[str, Any]) -> None:
    """Raises UserError that names the keys, their values, and what is allowed."""
    optimizer, channels = config["optimizer"], config["data"].get("shape", [0])[0]
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise UserError(
            "optimizer.nesterov=true needs optimizer.momentum greater than 0; "
            "add optimizer.nesterov=false for plain gradient descent."
        )
    for key in ("mean", "std"):
        values = config["data"].get(key)
        if values is not None and len(values) not in (1, 3, channels):
            raise UserError(f"data.{key}={format_value(values)}: must have one value per channel.")
    if config["data"].get("fraction", 1) < 1 and config["data"].get("folds"):
        raise UserError(
            f"data.fraction={config['data']['fraction']:g} with data.folds="
            f"{config['data']['folds']}: not supported. Leave one of them out."
        )
    folds, fold = (config["data"].get(key, 0) for key in ("folds", "fold"))
    if folds == 1:
        raise UserError("data.folds=1: must be 2 or more, or 0 for none.")
    if fold >= max(folds, 1):
        allowed = f"0 to {folds - 1} with data.folds={folds}" if folds else "0 without data.folds"
        raise UserError(f"data.fold={fold}: must be {allowed}.")
    if config["replace_head"] and config["weights"] is None:
        raise UserError("replace_head=true: replaces the head of given weights; add weights=...")
    if config["sampling"] == "balanced" and config["loss"].get("class_weights") == "balanced":
        raise UserError(
            "sampling=balanced with loss.class_weights=balanced: would balance the classes twice. "
            "Leave one of them out."
        )
    if config["processes"] > 1:
        check_processes(config)
    if config["layers"] == "numpy":
        for key, possible in NUMPY_TAKES.items():
            if config[key] not in possible:
                raise UserError(
                    f"{key}={format_value(config[key])} with layers=numpy: the layers written in "
                    f"NumPy take {key}={' or '.join(map(format_value, possible))}. "
                    "layers=torch takes all."
                )


def check_processes(config: Mapping[str, Any]) -> None:
    """Raises UserError for what cannot be done by several processes together."""
    number = config["processes"]
    for key, possible in PROCESSES_TAKE.items():
        if config.get(key) not in (None, *possible):
            raise UserError(
                f"{key}={format_value(config[key])} with processes={number}: not supported; "
                f"several processes take {key}={' or '.join(map(format_value, possible))}."
            )
    if config["loss"].get("class_weights", "none") != "none":
        raise UserError(
            f"loss.class_weights={format_value(config['loss']['class_weights'])} with "
            f"processes={number}: not supported; a batch's mean is over the weights of all its "
            "images, and each process knows those of its part. sampling=balanced weighs classes, "
            "too."
        )
    if config["batch_size"] < 2 * number:
        raise UserError(
            f"batch_size={config['batch_size']} with processes={number}: a batch is divided among "
            f"the processes, and each needs two images or more. Use batch_size={2 * number} or "
            "larger, or fewer processes."
        )
