"""Messages on images that cannot be used: all by name, or so many and a file that has all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from data.types import count, printable

MOST_NAMED = 1000  # in one message; with more, they are listed in a file

Bad = Mapping[str, str]  # name below the root -> what is wrong


def cannot_be_used(root: Path, bad: Bad, num_files: int, pack_folder: Path) -> str:
    lines = [
        f"{len(bad):,} of {count(num_files, 'image')} cannot be used:",
        *named(root, bad, pack_folder),
    ]
    return (
        "\n  ".join(lines)
        + f"\nThe others are kept in {printable(pack_folder)} and not read again. Repair or remove "
        "these, or leave them out with data.on_bad_image=skip."
    )


def left_out(root: Path, bad: Bad, num_files: int, pack_folder: Path) -> list[str]:
    return [
        f"{len(bad):,} of {count(num_files, 'image')} cannot be used and "
        f"{'is' if len(bad) == 1 else 'are'} left out:",
        *named(root, bad, pack_folder),
    ]


def named(root: Path, bad: Bad, pack_folder: Path) -> list[str]:
    """A line for each; with more than MOST_NAMED, the last line says where all of them stand."""
    lines = [printable(f"{root / name}: {reason}") for name, reason in bad.items()]
    rest = len(lines) - MOST_NAMED
    if rest <= 0:
        return lines
    path = pack_folder / "bad_pictures.txt"
    where = f"; all are listed in {printable(path)}" if _write(path, lines) else ""
    return [*lines[:MOST_NAMED], f"and {rest:,} more{where}"]


def _write(path: Path, lines: list[str]) -> bool:
    """Whole or not at all. False where nothing may be written: the pack may be someone else's."""
    half = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        half.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        half.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # on a disk that is only read, this is one, too
            half.unlink()
        return False
    return True
