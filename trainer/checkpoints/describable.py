"""What a checkpoint will say of its net, held against the table of entries before anything is
trained or written: a file that no command can read again is worth no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.checkpoints.description import Description
from trainer.checkpoints.entries import LONGEST_NAME, MOST_NAMES, TABLE, shown
from trainer.errors import UserError
from trainer.text.values import format_value

# The key of an entry, where it has one.
KEYS = {
    "shape": "data.shape", "mean": "data.mean", "std": "data.std", "resize": "data.resize",
    "pixel_range": "data.pixel_range", "fit": "data.fit",
}  # fmt: skip


def check_options(options: Mapping[str, Any]) -> None:
    """The keys of a data set, as far as they are entries. Raises UserError."""
    check({name: options[name] for name in KEYS if options.get(name) is not None}, is_whole=False)


def check_number(num_classes: int) -> None:
    """Raises UserError for more classes than a checkpoint may name."""
    if num_classes > MOST_NAMES:
        raise UserError(
            f"data.num_classes={num_classes}: a checkpoint names at most {MOST_NAMES:,} classes. "
            "Train on fewer."
        )


def check_description(description: Description) -> None:
    check(dataclasses.asdict(description))


def check(entries: Mapping[str, Any], is_whole: bool = True) -> None:
    """Raises UserError that names the key of the first of these entries that no command would take.

    Args:
        is_whole: mean and std have a number for each channel by now; on the command line one may
            stand for all of them.
    """
    for name, value in entries.items():
        if name not in TABLE or TABLE[name].fits(value):
            continue
        if name == "classes":
            check_names(value)
        raise UserError(f"{said(name, value)}: a checkpoint takes {TABLE[name].allowed}.")
    for name in ("mean", "std") if is_whole else ():
        if len(entries[name]) != entries["shape"][0]:
            raise UserError(
                f"{said(name, entries[name])}: must have one value per channel; images have "
                f"{entries['shape'][0]}."
            )


def said(name: str, value: Any) -> str:
    """A key with its value as it is typed; an entry without a key in our words."""
    if name in KEYS:
        return f"{KEYS[name]}={format_value(value):.300}"
    if name == "config":
        return f"the configuration has {len(value):,} characters as YAML"
    return f"{name}: {shown(value)}"


def check_names(names: Any) -> None:
    """Raises UserError that says what is wrong with names of classes, if it is a number."""
    if not isinstance(names, list):
        return
    check_number(len(names))
    for number, name in enumerate(names):
        if isinstance(name, str) and len(name) > LONGEST_NAME:
            raise UserError(
                f"data: the name of class {number}, {shown(name)}, has {len(name):,} characters; "
                f"a checkpoint takes at most {LONGEST_NAME:,}. Give it a shorter name."
            )
