"""Kinds of values that the entries of a checkpoint are, each a predicate on any object."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from trainer.evaluation.measures import MEASURES
from trainer.runs.progress import Best, Progress

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
MOST_NAMES, LONGEST_NAME, LONGEST_TEXT = 2**17, 1000, 2**16
LARGEST_SIDE, MOST_VALUES = 2**14, 2**26  # pixels and values of an image as the model sees it


def is_int(value: Any, low: int = 0, high: int = 2**63 - 1) -> bool:
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """True for a finite number that is small enough for float32."""
    return type(value) in (int, float) and abs(value) < 3e38


def is_text(value: Any, longest: int = LONGEST_NAME) -> bool:
    return isinstance(value, str) and len(value) <= longest


def is_texts(value: Any) -> bool:
    """True for a dict from str to str, such as versions."""
    return is_dict(value) and all(map(is_text, value.values()))


def is_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_text, value))


def is_tensor(value: Any) -> bool:
    """True for a dense CPU tensor of a dtype in DTYPES whose elements do not share memory: writing
    to one that is expanded changes several elements at once."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    if value.dtype not in DTYPES or value.device.type != "cpu" or value.is_conj() or value.is_neg():
        return False
    dims = sorted(
        (stride, size) for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1
    )
    if value.numel() == 0 or not dims:
        return True
    return dims[0][0] > 0 and all(
        stride * size <= larger for (stride, size), (larger, _) in pairwise(dims)
    )


def is_weights(value: Any) -> bool:
    return is_dict(value) and bool(value) and all(map(is_tensor, value.values()))


def is_average(value: Any) -> bool:
    """True for the state of an average of weights."""
    return (
        is_dict(value) and value.keys() == {"number", "model"}
        and is_int(value["number"]) and is_weights(value["model"])
    )  # fmt: skip


def is_early_stopping(value: Any) -> bool:
    """True for the state of early stopping; no value is the best one yet at -inf."""
    return (
        is_dict(value) and value.keys() == {"best", "num_worse"} and is_int(value["num_worse"])
        and type(value["best"]) is float and value["best"] < math.inf
    )  # fmt: skip


def is_time_budget(value: Any) -> bool:
    return (
        is_dict(value) and value.keys() == {"spent", "reached", "longest", "epoch_s"}
        and all(is_number(seconds) and seconds >= 0 for seconds in value.values())
    )  # fmt: skip


def is_teacher(value: Any) -> bool:
    return is_dict(value) and value.keys() == {"weights_sha256"} and is_text(*value.values())


def is_shape(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3
        and all(is_int(side, 1, LARGEST_SIDE) for side in value)
        and math.prod(value) <= MOST_VALUES
    )  # fmt: skip


def is_names(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST_NAMES and all(map(is_text, value))


def is_mean(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def is_std(value: Any) -> bool:
    return is_mean(value) and min(value) > 1e-30


def is_progress(value: Any) -> bool:
    counts = ("epoch", "batch", "step", "num_images")
    return (
        _has_fields(value, Progress, added={"val_is_finite"})
        and type(value.get("val_is_finite", True)) is bool
        and all(
            is_int(v) if k in counts else is_number(v) and v >= 0
            for k, v in value.items()
            if k != "val_is_finite"
        )
    )


def is_best(value: Any) -> bool:
    return (
        _has_fields(value, Best, added={"lost_epoch", "by", "score"})
        and value.get("by", MEASURES[0]) in MEASURES
        and type(value.get("score", 0.0)) is float
        and is_int(value["epoch"]) and is_int(value.get("lost_epoch", 0))
        and is_number(value["accuracy"]) and type(value["loss"]) is float
    )  # fmt: skip


def _has_fields(value: Any, of: type[Any], added: AbstractSet[str] = frozenset()) -> bool:
    """True for a dict with the fields of a dataclass, of which older files may lack those in
    `added`, and no others."""
    names = {field.name for field in dataclasses.fields(of)}
    return isinstance(value, dict) and names - added <= value.keys() <= names


def is_meter(value: Any) -> bool:
    """True for what `Meter.state_dict` returns now, or returned in earlier versions."""
    if not is_dict(value) or not all(is_int(value.get(k)) for k in ("num_images", "num_correct")):
        return False
    if "losses" in value:
        losses = value["losses"]
        return isinstance(losses, list) and all(type(loss) is float for loss in losses)
    if type(value.get("is_finite")) is bool:
        return _is_hex(value.get("loss_sum"))
    return type(value.get("loss_sum")) is float


def _is_hex(value: Any) -> bool:
    """True for a hexadecimal integer below 2**2096: a sum of losses in units of the smallest float,
    2**-1074."""
    if not is_text(value, longest=2 + 524) or not value.startswith("0x"):
        return isinstance(value, str) and value.startswith("-0x") and _is_hex(value[1:])
    return bool(value[2:]) and set(value[2:]) <= set("0123456789abcdef")


def is_pixel_range(value: Any) -> bool:
    """True for the range (low, high) of greyscale images of more than 8 bits, or None."""
    return value is None or (
        isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
        and value[0] <= value[1]
    )  # fmt: skip


def is_scale(value: Any) -> bool:
    """True for the state of a `Stepper`: empty, or in fp16 the loss scale and the steps since its
    last change."""
    return value == {} or (
        is_dict(value) and value.keys() == {"scale", "_growth_tracker"}
        and is_number(value["scale"]) and value["scale"] > 0
        and is_int(value["_growth_tracker"], 0, 2**31 - 1)
    )  # fmt: skip


def is_plain(value: Any) -> bool:
    """True for a dict of numbers, also infinite ones, and texts. `same_run.check_schedule` compares
    it with the run's schedule."""
    return is_dict(value) and all(type(v) in (bool, int, float, str) for v in value.values())


def is_optimizer(value: Any) -> bool:
    """True for the form of a torch optimizer's state_dict. `optimizer_state.py` compares it with
    the parameters."""
    if not isinstance(value, dict) or not {"state", "param_groups"} <= value.keys():
        return False
    state, groups = value["state"], value["param_groups"]
    return (
        isinstance(state, dict) and all(is_int(k) and is_dict(kept) for k, kept in state.items())
        and isinstance(groups, list) and bool(groups)
        and all(is_dict(group) and _is_params(group.get("params")) for group in groups)
    )  # fmt: skip


def _is_params(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_int, value))
