"""Formatting of values and names in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST_NAME = 100  # characters of an unknown name in a message


def unknown_name_message(what: str, name: str, valid: Iterable[str]) -> str:
    """Message for an unknown name, with the nearest valid name first, then all of them.

    Args:
        what: kind of the name, such as "key".
    """
    valid = sorted(set(valid))
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    group = name[: name.rfind(".") + 1]  # a common prefix, left out of the comparison
    short = {one.removeprefix(group): one for one in valid}
    near = difflib.get_close_matches(name.removeprefix(group), short, n=1, cutoff=0.5)
    hint = f" Did you mean {short[near[0]]}?" if near else ""
    return f"There is no {what} '{name}'.{hint}\nValid: {', '.join(valid)}."


def listed(items: Sequence[object], most: int = 4) -> str:
    """The first of some names or numbers, and how many more: "3, 4 and 5 more"."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more:,} more" if more > 0 else "")


def format_value(value: Any) -> str:
    """The value as typed on the command line: null, true, [1,2]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    return str(value)


def count(number: int, one: str, several: str = "") -> str:
    """As "1 run" or "1,000 runs".

    Args:
        several: words for another number than one; "": `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
