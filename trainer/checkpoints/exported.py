"""Description of a model in a file that `export` wrote: JSON, and anybody's text until checked."""

from __future__ import annotations

import json
from typing import Any

from trainer.checkpoints.entries import TABLE, shown

NAMES = ("classes", "shape", "resize", "mean", "std", "fit", "probabilities")
LONGEST_INT = 20  # digits; Python takes quadratic time for an int, and none here has more


def entries_in(text: str) -> tuple[dict[str, Any], str]:
    """Entries of a checkpoint as a description has them, checked as those of a checkpoint are; and
    a sentence on why they are ignored. Both are empty for a text that is no such description."""
    try:
        told = json.loads(text, parse_int=_number)
    except (ValueError, RecursionError):
        return {}, ""
    if not isinstance(told, dict) or not set(NAMES) <= told.keys():
        return {}, ""
    entries = {name: told[name] for name in (*NAMES, "pixel_range") if name in told}
    for name, value in entries.items():
        if not TABLE[name].fits(value):
            return {}, _ignored(name, value, f"it must be {TABLE[name].allowed}")
    channels = entries["shape"][0]
    for name in ("mean", "std"):
        if len(entries[name]) != channels:
            return {}, _ignored(name, entries[name], f"its images have {channels} channels")
    return entries, ""


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INT else float(digits)


def _ignored(name: str, value: Any, why: str) -> str:
    return f"the file's own description is ignored: its {name!r} is {shown(value)}; {why}"
