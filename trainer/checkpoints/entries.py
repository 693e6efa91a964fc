"""Table of a checkpoint's entries with their allowed values, checked before any is used.

`file.py` verifies that a file is as it was written; this module, that its content can be used: a
script, another version or an attacker can write any content with a valid digest. A new entry of
checkpoints needs a row here, with the default for older files.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer import checkpoints
from trainer.checkpoints import kinds
from trainer.errors import UserError
from trainer.runs.progress import Best, Progress

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


_STATE = {"of_state": True}
_DESCRIBED = "a dict from names to texts"

TABLE: dict[str, Row] = {
    "model": Row(kinds.is_weights, "a dict from names to dense tensors"),
    "config": Row(
        lambda v: kinds.is_text(v, kinds.LONGEST_TEXT),
        f"a text of at most {kinds.LONGEST_TEXT:,} characters",
    ),
    "classes": Row(kinds.is_names, "a list of class names"),
    "shape": Row(
        kinds.is_shape,
        f"three integers, (C, H, W), each from 1 to {kinds.LARGEST_SIDE:,}, their product at most "
        f"{kinds.MOST_VALUES:,}",
    ),
    "mean": Row(kinds.is_mean, "a list of numbers from -3e38 to 3e38, one per channel"),
    "std": Row(kinds.is_std, "a list of numbers from 1e-30 to 3e38, one per channel"),
    "resize": Row(
        lambda v: kinds.is_int(v, 1, kinds.LARGEST_SIDE),
        f"an integer from 1 to {kinds.LARGEST_SIDE:,}",
    ),
    "versions": Row(kinds.is_texts, _DESCRIBED),
    "step": Row(kinds.is_int, "an integer >= 0"),
    "epoch": Row(kinds.is_int, "an integer >= 0"),
    "pixel_range": Row(
        kinds.is_pixel_range, "two finite numbers, the smaller first, or None", optional=True
    ),
    "data": Row(kinds.is_text, "a text, the fingerprint of the data", optional=True),
    "fit": Row(
        lambda v: isinstance(v, str) and v in ("crop", "squash"), "crop or squash", optional=True
    ),
    "probabilities": Row(
        lambda v: v in ("softmax", "sigmoid", "clip"), "softmax, sigmoid or clip", optional=True
    ),
    "optimizer": Row(kinds.is_optimizer, "the state_dict of a torch optimizer", **_STATE),
    "optimizer_class": Row(kinds.is_text, "the name of a class", **_STATE),
    "trained": Row(
        kinds.is_names, "a list of the trained parameters' names", optional=True, **_STATE
    ),
    "guard": Row(kinds.is_scale, "empty, or the scale of an fp16 training", **_STATE),
    "schedule": Row(kinds.is_plain, "a dict from names to numbers", **_STATE),
    "progress": Row(kinds.is_progress, f"numbers >= 0: {', '.join(vars(Progress()))}", **_STATE),
    "best": Row(kinds.is_best, f"numbers: {', '.join(vars(Best()))}", **_STATE),
    "meter": Row(kinds.is_meter, "the sums of a meter", **_STATE),
    "machine": Row(kinds.is_texts, _DESCRIBED, **_STATE),
    "early_stopping": Row(
        kinds.is_early_stopping, "the best value and a count", optional=True, **_STATE
    ),
    "time_budget": Row(kinds.is_time_budget, "numbers of seconds", optional=True, **_STATE),
    "teacher": Row(kinds.is_teacher, "the digest of a teacher's weights", optional=True, **_STATE),
    "average": Row(kinds.is_average, "averaged weights and their number", optional=True, **_STATE),
}

# Entries that only a training with that rule has.
OF_RULES = {"average", "early_stopping", "teacher", "time_budget"}


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
