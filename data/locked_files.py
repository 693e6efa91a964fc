"""Files that one process writes while others wait."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor, unlock_descriptor


@contextmanager
def exclusive(path: Path, busy: str, keep: bool = False, buffering: int = -1) -> Iterator[BinaryIO]:
    """The file at `path`, opened to read and write, for this process alone.

    Where another process has it, `busy` is printed and its end awaited. That one may have renamed
    or removed it: then a new one is made. At the end, what still lies at `path` is removed, and so
    are the folders made for it that are empty.

    Args:
        keep: a file that is not empty stays.
        buffering: as of `open`.

    Raises:
        OSError: the folder or the file cannot be made.
    """
    made: list[Path] = []
    try:
        while True:
            made += [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(descriptor, "r+b", buffering) as file, _locked(descriptor, busy):
                if not _is_at(descriptor, path):
                    continue
                try:
                    yield file
                finally:
                    if _is_at(descriptor, path) and not (keep and path.stat().st_size):
                        path.unlink()
                return
    finally:
        for folder in made:  # the innermost first
            with suppress(OSError):  # something lies in it, or another process has removed it
                folder.rmdir()


@contextmanager
def _locked(descriptor: int, busy: str) -> Iterator[None]:
    """The lock goes with the process, however it dies. It is given back explicitly, since a map of
    the file would keep it beyond the closing."""
    with suppress(OSError):  # a drive without locks; renames are atomic there, too
        if not lock_descriptor(descriptor, blocking=False):
            print(busy, file=sys.stderr)
            lock_descriptor(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            unlock_descriptor(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
