"""Table of a checkpoint's entries with their allowed values, checked before any is used.

`file.py` verifies that a file is as it was written; this module, that its content can be used: a
script, another version or an attacker can write any content with a valid digest. A new entry of
checkpoints needs a row here, with the default for older files.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoints
from trainer.errors import UserError
from trainer.runs.progress import Best, Progress

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
MOST_NAMES, LONGEST_NAME, LONGEST_TEXT = 2**17, 1000, 2**16
LARGEST_SIDE, MOST_VALUES = 2**14, 2**26  # pixels and values of an image as the model sees it
LONGEST_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class Row:
    """Rule for one entry.

    Attributes:
        fits: returns True for an allowed value.
        allowed: the allowed values, as a phrase that follows "must be".
        of_state: True if only full states, which a run resumes from, have it.
        optional: files may lack it; `value_of` then returns `default`.
    """

    fits: Callable[[Any], bool]
    allowed: str
    of_state: bool = False
    optional: bool = False
    default: Any = None


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
        _has_fields(value, Best, added={"lost_epoch"})
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
    """True for the state of a guard: empty, or in fp16 the loss scale and the steps since its last
    change."""
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


_STATE = {"of_state": True}
_DESCRIBED = "a dict from names to texts"

TABLE: dict[str, Row] = {
    "model": Row(is_weights, "a dict from names to dense tensors"),
    "config": Row(
        lambda v: is_text(v, LONGEST_TEXT), f"a text of at most {LONGEST_TEXT:,} characters"
    ),
    "classes": Row(is_names, "a list of class names"),
    "shape": Row(
        is_shape,
        f"three integers, (C, H, W), each from 1 to {LARGEST_SIDE:,}, their product at most "
        f"{MOST_VALUES:,}",
    ),
    "mean": Row(is_mean, "a list of numbers from -3e38 to 3e38, one per channel"),
    "std": Row(is_std, "a list of numbers from 1e-30 to 3e38, one per channel"),
    "resize": Row(lambda v: is_int(v, 1, LARGEST_SIDE), f"an integer from 1 to {LARGEST_SIDE:,}"),
    "versions": Row(is_texts, _DESCRIBED),
    "step": Row(is_int, "an integer >= 0"),
    "epoch": Row(is_int, "an integer >= 0"),
    "pixel_range": Row(
        is_pixel_range, "two finite numbers, the smaller first, or None", optional=True
    ),
    "data": Row(is_text, "a text, the fingerprint of the data", optional=True),
    "fit": Row(
        lambda v: isinstance(v, str) and v in ("crop", "squash"), "crop or squash", optional=True
    ),
    "probabilities": Row(
        lambda v: v in ("softmax", "sigmoid", "clip"), "softmax, sigmoid or clip", optional=True
    ),
    "optimizer": Row(is_optimizer, "the state_dict of a torch optimizer", **_STATE),
    "optimizer_class": Row(is_text, "the name of a class", **_STATE),
    "trained": Row(is_names, "a list of the trained parameters' names", optional=True, **_STATE),
    "guard": Row(is_scale, "empty, or the scale of an fp16 training", **_STATE),
    "schedule": Row(is_plain, "a dict from names to numbers", **_STATE),
    "progress": Row(is_progress, f"numbers >= 0: {', '.join(vars(Progress()))}", **_STATE),
    "best": Row(is_best, f"numbers: {', '.join(vars(Best()))}", **_STATE),
    "meter": Row(is_meter, "the sums of a meter", **_STATE),
    "machine": Row(is_texts, _DESCRIBED, **_STATE),
}


def read(path: Path, state: bool = False) -> dict[str, Any]:
    """Entries of a checkpoint, verified by digest and by the table.

    Args:
        state: require a full state, which a run can resume from.

    Raises:
        UserError: the file or an entry cannot be used; the message names both.
    """
    entries = checkpoints.read(path)
    try:
        check(entries, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return entries


def check(entries: Mapping[str, Any], state: bool = False) -> None:
    """Raises UserError for the first entry that does not fit the table, or contradicts another.
    `state`: require the entries of a full state."""
    for name, row in TABLE.items():
        if name not in entries:
            if row.optional or (row.of_state and not state):
                continue
            if row.of_state and "optimizer" not in entries:
                raise UserError("it holds weights only, no state to resume from.")
            raise UserError(f"it is incomplete: the entry {name!r} is missing.")
        if (state or not row.of_state) and not row.fits(entries[name]):
            raise UserError(
                f"its entry {name!r} cannot be used: {shown(entries[name])}; it must be "
                f"{row.allowed}."
            )
    channels = entries["shape"][0]
    for name in ("mean", "std"):
        if len(entries[name]) != channels:
            raise UserError(
                f"its entry {name!r} cannot be used: {shown(entries[name])}; its images have "
                f"{channels} channels."
            )
    if state and (entries["step"], entries["epoch"]) != (
        entries["progress"]["step"], entries["progress"]["epoch"],
    ):  # fmt: skip
        raise UserError("its entry 'progress' contradicts 'step' and 'epoch'.")


def value_of(entries: Mapping[str, Any], name: str) -> Any:
    """Value of an optional entry, or its default for older files without it."""
    return entries.get(name, TABLE[name].default)


def shown(value: Any) -> str:
    """Representation of a wrong value for a message, shortened if it is long or nested."""
    if isinstance(value, Tensor):
        return f"a tensor, {value.dtype} {tuple(value.shape)}"
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxlist = 2, 3, 6
    short.maxstring = short.maxother = LONGEST_SHOWN
    return " ".join(short.repr(value).split())
