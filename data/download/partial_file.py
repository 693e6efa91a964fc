"""The beginning of a file that is being fetched: kept, locked, and in place at once when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data.digests import digest_of
from data.files import replace_durably
from data.locked_files import exclusive
from data.roots import WAY_OUT
from data.types import DataError


class Part:
    """Part of `target` that has arrived, in `<target>.part` beside it.

    Attributes:
        target: the file that is to be.
        path: where its beginning lies.
    """

    def __init__(self, target: Path, path: Path, file: BinaryIO) -> None:
        self.target, self.path, self._file = target, path, file

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        self._file.truncate(0)

    def append(self, chunk: bytes) -> None:
        """Writes all of it. Raises DataError if the disk does not take it; what arrived so far then
        goes, for a full disk is no place to keep it."""
        rest = memoryview(chunk)
        self._file.seek(0, os.SEEK_END)
        try:
            while rest:  # a disk that fills up takes some bytes first
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            needed = self.size + len(rest)
            self.clear()
            what = f"{self.path} cannot be written: {error.strerror}; at least {needed:,} bytes are"
            raise self._no_room(what) from error

    def check_room(self, num_bytes: int) -> None:
        """Raises DataError if the disk has no room for so many bytes more."""
        if num_bytes > shutil.disk_usage(self.path.parent).free:
            raise self._no_room(f"No room for {self.target}: {num_bytes:,} bytes more are")

    def _no_room(self, what: str) -> DataError:
        free = shutil.disk_usage(self.path.parent).free
        return DataError(
            f"{what} needed, {free:,} are free.\n"
            f"Make room, or name a folder on another disk by data.root=FOLDER; {WAY_OUT}."
        )

    def md5(self) -> str:
        """32 hex digits, of what is there."""
        self._file.seek(0)
        return digest_of(self._file, hashlib.md5(usedforsecurity=False))

    def finish(self) -> None:
        """Makes it the target, durably: synced, then renamed, then the folder synced."""
        os.fsync(self._file.fileno())
        replace_durably(self.path, self.target)


@contextmanager
def locked_partial_file(target: Path) -> Iterator[Part]:
    """The part of `target`, for this process alone. Another one waits here, and says so.

    At the end, what has arrived stays for the next time, see `data.locked_files.exclusive`. On a
    drive without locks the checksum finds what two runs mix up.

    Raises:
        OSError: the folder or the file cannot be made.
    """
    path = target.with_name(f"{target.name}.part")
    busy = f"Another run is fetching {target}; waiting for it."
    with exclusive(path, busy, keep=True, buffering=0) as file:
        yield Part(target, path, file)
