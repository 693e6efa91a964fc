"""Readers of the small files in a run's folder. The files may be damaged, truncated by a kill or
edited by hand: no value in them is trusted, and the training needs none of them."""

from __future__ import annotations

import bisect
import json
import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trainer.config import plain_yaml

MOST_BYTES, MOST_YAML = 2**26, 2**20  # larger files are not read
LARGEST_COUNT = 2**53
SPLITS = ("train", "val", "test")  # in the order of their rows
# Exceptions that reading such a file can raise.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
    RecursionError, MemoryError,
)  # fmt: skip

Row = dict[str, Any]
T = TypeVar("T")


def content(file: Path) -> bytes:
    """Bytes of a file. Raises OSError, or ValueError if it is no regular file or larger than
    MOST_BYTES."""
    found = file.stat()
    size = found.st_size
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("a folder, a pipe or a device, not a file")
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes; at most {MOST_BYTES:,} are allowed")
    return file.read_bytes()


def read_text(file: Path) -> str:
    """Content of a UTF-8 file. Raises one of UNREADABLE."""
    return content(file).decode("utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """JSON object in a file. Raises one of UNREADABLE."""
    found = json.loads(read_text(file))
    if not isinstance(found, dict):
        raise TypeError(f"{file}: not a JSON object")
    return found


def readable(otherwise: Any, read: Callable[..., T], *arguments: Any) -> T:
    """Readable part of a run, which may have been killed while it wrote."""
    try:
        return read(*arguments)
    except UNREADABLE:
        return otherwise


def status_of(folder: Path) -> str | None:
    """Status in a run's summary.json; None if it is missing or unreadable."""
    status = readable({}, read_json, folder / "summary.json").get("status")
    return status if isinstance(status, str) else None


def read_yaml(file: Path) -> Any:
    """Value of a YAML file, of plain types. Raises one of UNREADABLE."""
    return plain_yaml.load(read_text(file), MOST_YAML)


def is_number(value: Any) -> bool:
    """True for a finite int or float that fits a float, not for a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT


def as_row(line: bytes) -> Row | None:
    """Row of a line of metrics.jsonl; None if the line has another form."""
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
    """Rows of metrics.jsonl as (line number from 1, row, line), and the numbers of the lines that
    cannot be used: unreadable, or out of order in step or epoch. A last line without a newline,
    from a killed run, is in neither."""
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
    """Longest subsequence with increasing keys: it drops the few items that are out of order."""
    keys: list[Any] = []  # the smallest last key of a subsequence of each length
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


def set_aside(file: Path) -> Path:
    """Rename a file to an unused name FILE.damaged[.N] beside it. Returns the new path."""
    aside, number = file.with_name(f"{file.name}.damaged"), 2
    while os.path.lexists(aside):
        aside, number = file.with_name(f"{file.name}.damaged.{number}"), number + 1
    return file.replace(aside)


def kept(file: Path) -> str:
    """Set a file aside. Returns a sentence that says where it is now; an OSError, such as of a name
    that is too long, is part of it, since the program continues without the file."""
    try:
        return f"It is kept as {set_aside(file).name}."
    except OSError as error:
        return f"It could not be renamed: {error.strerror}."


def is_no_file(path: Path) -> bool:
    """True if the path is a folder, a pipe or a device; opening a pipe can block."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
