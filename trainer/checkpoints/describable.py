"""Check of a checkpoint's description before training: its entries must be such that commands can
read the file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.checkpoints.entries import TABLE, shown
from trainer.checkpoints.kinds import LONGEST_NAME, MOST_NAMES
from trainer.errors import UserError
from trainer.text.values import format_value

KEYS = ("shape", "mean", "std", "resize", "pixel_range", "fit")  # entries that are keys of data


def check_options(options: Mapping[str, Any]) -> None:
    """Raises UserError if a key of a dataset has a value that a checkpoint cannot hold."""
    check({name: options[name] for name in KEYS if options.get(name) is not None}, is_whole=False)


def check_number(num_classes: int) -> None:
    """Raises UserError for more classes than a checkpoint can hold."""
    if num_classes > MOST_NAMES:
        raise UserError(
            f"data.num_classes={num_classes}: a checkpoint holds at most {MOST_NAMES:,} classes. "
            "Train on fewer."
        )


def check(entries: Mapping[str, Any], is_whole: bool = True) -> None:
    """Raises UserError, naming the key, for the first of these entries that is not allowed.

    Args:
        is_whole: mean and std must have one value per channel; on the command line a single value
            stands for all channels.
    """
    for name, value in entries.items():
        if name not in TABLE or TABLE[name].fits(value):
            continue
        if name == "classes":
            check_names(value)
        raise UserError(f"{said(name, value)}: must be {TABLE[name].allowed}.")
    for name in ("mean", "std") if is_whole else ():
        if len(entries[name]) != entries["shape"][0]:
            raise UserError(
                f"{said(name, entries[name])}: must have one value per channel; images have "
                f"{entries['shape'][0]}."
            )


def said(name: str, value: Any) -> str:
    """Key and value as typed on the command line; for an entry without a key, its name and
    value."""
    if name in KEYS:
        return f"data.{name}={format_value(value):.300}"
    if name == "config":
        return f"the configuration has {len(value):,} characters as YAML"
    return f"{name}: {shown(value)}"


def check_names(names: Any) -> None:
    """Raises UserError if there are too many class names, or one is too long."""
    if not isinstance(names, list):
        return
    check_number(len(names))
    for number, name in enumerate(names):
        if isinstance(name, str) and len(name) > LONGEST_NAME:
            raise UserError(
                f"data: the name of class {number}, {shown(name)}, has {len(name):,} characters; "
                f"at most {LONGEST_NAME:,} are allowed. Use a shorter name."
            )
