"""The small files of a run's folder, read as if anybody might have written them: damaged by a disk,
cut off by a kill, edited by hand. No value in them is trusted, and the training needs none."""

from __future__ import annotations

import bisect
import json
import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**26  # of a file that is read at all
LARGEST_COUNT = 2**53
SPLITS = ("train", "val", "test")  # in the order of their rows
# What reading such a file can raise.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
    RecursionError, MemoryError, yaml.YAMLError,
)  # fmt: skip

Row = dict[str, Any]


def content(file: Path) -> bytes:
    """Raises OSError, or ValueError for what cannot be one of ours."""
    found = file.stat()
    size = found.st_size
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("no file but a folder, a pipe or a device")
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, and no such file has more than {MOST_BYTES:,}")
    return file.read_bytes()


def read_text(file: Path) -> str:
    """Raises one of UNREADABLE."""
    return content(file).decode("utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """An object. Raises one of UNREADABLE."""
    found = json.loads(read_text(file))
    if not isinstance(found, dict):
        raise TypeError(f"{file}: no JSON object")
    return found


def status_of(folder: Path) -> str | None:
    """What summary.json says of the run; None where it is missing or unreadable."""
    try:
        status = read_json(folder / "summary.json").get("status")
    except UNREADABLE:
        return None
    return status if isinstance(status, str) else None


class _Plain(yaml.SafeLoader):
    """No aliases: a few hundred bytes of them can stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def read_yaml(file: Path) -> Any:
    """Plain values. Raises one of UNREADABLE."""
    loader = _Plain(read_text(file))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def is_number(value: Any) -> bool:
    """A finite one that a float can hold. True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT


def as_row(line: bytes) -> Row | None:
    """A line of metrics.jsonl; None if it is not as we write it."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("split") not in SPLITS:
        return None
    counts = is_count(row.get("step")) and is_count(row.get("epoch"))
    known = {"step", "epoch", "split", "reason"}
    numbers = all(v is None or is_number(v) for k, v in row.items() if k not in known)
    return row if counts and numbers and "loss" in row and "accuracy" in row else None


def read_rows(text: bytes) -> tuple[list[tuple[int, Row, bytes]], list[int]]:
    """The rows of metrics.jsonl as (number of the line from 1, row, line), and the numbers of the
    lines that cannot be used: unreadable, or out of the order in which steps and epochs rise. A
    last line without its end is of a killed run, and neither."""
    lines = text.split(b"\n")[:-1]
    found = [
        (number, row, line + b"\n")
        for number, line in enumerate(lines, 1)
        if (row := as_row(line)) is not None
    ]
    for name in ("step", "epoch"):

        def place(item: tuple[int, Row, bytes], name: str = name) -> tuple[int, int]:
            return item[1][name], SPLITS.index(item[1]["split"])

        found = rising(found, place)
    used = {number for number, _, _ in found}
    return found, [number for number in range(1, len(lines) + 1) if number not in used]


def rising(items: Sequence[Any], key: Callable[[Any], Any]) -> list[Any]:
    """The longest part of them, in their order, in which the keys rise; so of many that are right
    and few that are not, the right ones."""
    keys: list[Any] = []  # the smallest key at which a part of each length ends
    ends: list[int] = []
    before: list[int] = []
    for i, item in enumerate(items):
        at = bisect.bisect_left(keys, key(item))
        keys[at : at + 1], ends[at : at + 1] = [key(item)], [i]
        before.append(ends[at - 1] if at else -1)
    part, i = [], ends[-1] if ends else -1
    while i >= 0:
        part.append(items[i])
        i = before[i]
    return part[::-1]


def numbered(numbers: Sequence[int], most: int = 8) -> str:
    """`3, 4 and 5 more`."""
    more = len(numbers) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {more:,} more" if more > 0 else "")


def set_aside(file: Path) -> Path:
    """Under another name beside it, which is given back; what was set aside before stays."""
    aside, number = file.with_name(f"{file.name}.damaged"), 2
    while os.path.lexists(aside):
        aside, number = file.with_name(f"{file.name}.damaged.{number}"), number + 1
    return file.replace(aside)


def kept(file: Path) -> str:
    """Set it aside, and say in a sentence where it is now: a name may be too long to be made
    longer, and that must not end what goes on without the file."""
    try:
        return f"It is kept as {set_aside(file).name}."
    except OSError as error:
        return f"It stays where it is: {error.strerror}."


def is_no_file(path: Path) -> bool:
    """Whether a folder, a pipe or a device is there, which can hang who opens it."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
