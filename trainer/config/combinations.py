"""Values of keys that are wrong only in combination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.text.values import format_value

# They compute on the CPU, in float32 or float64, and choose the order in memory themselves.
NUMPY_TAKES = {
    "device": ("auto", "cpu"), "precision": ("fp32", "fp64"), "channels_last": ("auto", False),
    "compile": ("none",), "teacher": (None,),
}  # fmt: skip

# Each process of several has a device of its own, which it chooses itself.
PROCESSES_TAKE = {"compile": ("none",), "layers": ("torch",), "device": ("auto", "cpu", "cuda")}

# Shapes of a fall that a schedule has.
ANNEALS = {
    "trainer.schedules.OneCycle": ("cosine", "linear"),
    "trainer.schedules.WSD": ("linear", "1-sqrt"),
}
CLIPS = ("clip_grad_norm", "clip_grad_value", "clip_grad_adaptive")

# The whole step is one graph, of one pass through the model.
STEP_TAKES: dict[str, tuple[Any, ...]] = {
    "micro_batch_size": (0,), "unfreeze_epoch": (0,), "teacher": (None,),
    "clip_grad_adaptive": (0,),  # torch's compiler fails at its graph (KeyError, with torch 2.14)
}  # fmt: skip


def check_together(config: Mapping[str, Any]) -> None:
    """Raises UserError that names the keys, their values, and what is allowed."""
    for check in (check_step, check_data, check_lengths, check_classes, check_engine):
        check(config)


def check_step(config: Mapping[str, Any]) -> None:
    """Optimizer, schedule and clipping."""
    optimizer = config["optimizer"]
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise UserError(
            "optimizer.nesterov=true needs optimizer.momentum greater than 0; "
            "add optimizer.nesterov=false for plain gradient descent."
        )
    anneal, shapes = config["scheduler"].get("anneal"), ANNEALS.get(config["scheduler"]["_target_"])
    if shapes is not None and anneal not in shapes:
        raise UserError(
            f"scheduler.anneal={anneal}: must be {' or '.join(shapes)} in this schedule."
        )
    clips = [key for key in CLIPS if config[key]]
    if len(clips) > 1:
        values = " and ".join(f"{key}={format_value(config[key])}" for key in clips)
        raise UserError(f"{values}: gradients are clipped in one way. Leave out all but one.")


def check_data(config: Mapping[str, Any]) -> None:
    channels = config["data"].get("shape", [0])[0]
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


def check_lengths(config: Mapping[str, Any]) -> None:
    """What begins at an epoch begins before the last one has ended, and has something to do."""
    start = config["average"].get("start_epoch", 0)
    if start >= config["epochs"]:
        raise UserError(
            f"average.start_epoch={start} with epochs={config['epochs']}: no weights would be "
            "averaged. Set average.start_epoch smaller than epochs."
        )
    if config["unfreeze_epoch"] > config["epochs"]:
        raise UserError(
            f"unfreeze_epoch={config['unfreeze_epoch']} with epochs={config['epochs']}: nothing "
            "would be unfrozen. Set a smaller one, or 0 for never."
        )
    if config["replace_head"] and config["weights"] is None:
        raise UserError("replace_head=true: replaces the head of given weights; add weights=...")


def check_classes(config: Mapping[str, Any]) -> None:
    """Weights of classes: balanced once, and in means over whole batches."""
    weights = config["loss"].get("class_weights", "none")
    if config["sampling"] == "balanced" and weights == "balanced":
        raise UserError(
            "sampling=balanced with loss.class_weights=balanced: would balance the classes twice. "
            "Leave one of them out."
        )
    if weights == "none":
        return
    for key, off in (("micro_batch_size", 0), ("processes", 1)):
        if config[key] != off:
            raise UserError(
                f"loss.class_weights={format_value(weights)} with {key}={config[key]}: not "
                "supported; a batch's mean is over the weights of all its images, and each part "
                f"of it knows its own. sampling=balanced weighs classes, too."
            )


def check_engine(config: Mapping[str, Any]) -> None:
    """What several processes, a compiled step and layers written in NumPy can do."""
    if config["processes"] > 1:
        check_processes(config)
    if config["compile"] == "step":
        for key, possible in STEP_TAKES.items():
            if config[key] not in possible:
                raise UserError(
                    f"{key}={format_value(config[key])} with compile=step: not supported; the step "
                    f"as one graph takes {key}={' or '.join(map(format_value, possible))}. "
                    "compile=model and compile=none take all."
                )
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
    if config["batch_size"] < 2 * number:
        raise UserError(
            f"batch_size={config['batch_size']} with processes={number}: a batch is divided among "
            f"the processes, and each needs two images or more. Use batch_size={2 * number} or "
            "larger, or fewer processes."
        )
