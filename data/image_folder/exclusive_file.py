"""A file that one process makes while others wait, and that is renamed when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: there, two that start together both make it
    fcntl = None  # type: ignore[assignment]


@contextmanager
def making(path: Path) -> Iterator[BinaryIO | None]:
    """The file to write to, locked, once no other process has it. None if the other one, or its
    end, has taken it away: then all is to be looked at again.

    What has not been renamed at the end is removed, with the folders that were made for it.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except FileNotFoundError:  # another process has removed the folder that it had made
            yield None
            return
        with file:
            _lock(file, path)
            if not _is_at(file, path):
                yield None
                return
            try:
                yield file
            finally:
                if _is_at(file, path):
                    path.unlink()
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        print(f"{path}: another process is packing these pictures. Waiting.", file=sys.stderr)
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:  # a network drive without locks; the rename at the end is atomic
        pass


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
