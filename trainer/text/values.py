"""Values and names as messages spell them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST_NAME = 100  # characters of a name that nobody knows, in a message


def unknown_name_message(what: str, name: str, valid: Iterable[str]) -> str:
    """A message that names the nearest valid name first, then all of them."""
    valid = sorted(set(valid))
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    group = name[: name.rfind(".") + 1]  # the same in all; what follows tells near from far
    short = {one.removeprefix(group): one for one in valid}
    near = difflib.get_close_matches(name.removeprefix(group), short, n=1, cutoff=0.5)
    hint = f" Did you mean {short[near[0]]}?" if near else ""
    return f"There is no {what} '{name}'.{hint}\nValid: {', '.join(valid)}."


def format_value(value: Any) -> str:
    """A value as the user would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    return str(value)
