"""The beginning of a file that is being fetched: kept, locked, and in place at once when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from data.roots import WAY_OUT
from data.types import DataError

try:
    import fcntl
except ImportError:  # Windows: there, nothing stops a second run
    fcntl = None  # type: ignore[assignment]


class Part:
    """What has arrived of `target`, in `<target>.part` beside it.

    The file is opened once and never again: closing any second descriptor of it would drop the
    POSIX lock that is on it.

    Attributes:
        target: the file that is to be.
        path: where its beginning lies.
    """

    def __init__(self, target: Path, file: FileIO) -> None:
        self.target, self.path = target, Path(file.name)
        self._file = file

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one of this name: who held the lock before may have
        renamed or removed it."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        self._file.truncate(0)

    def append(self, chunk: bytes) -> None:
        """Writes all of it. Raises DataError if the disk does not take it; what arrived so far then
        goes, for a full disk is no place to keep it."""
        rest = memoryview(chunk)
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
        digest = hashlib.md5(usedforsecurity=False)
        self._file.seek(0)
        while chunk := self._file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()

    def finish(self) -> None:
        """Makes it the target, durably: synced, then renamed, then the folder synced."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self.target)
        sync_folder(self.target.parent)


@contextmanager
def claimed(target: Path) -> Iterator[Part]:
    """The part of `target`, for this process alone. Another one waits here, and says so.

    The lock goes with the process, however it dies. At the end, what has arrived stays for the
    next time; an empty part is removed, and so are the folders made here that nothing lies in.

    Raises:
        OSError: the folder or the file cannot be made.
    """
    folder, made = target.parent, list[Path]()
    said = False
    try:
        while True:
            made += [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with FileIO(target.with_name(f"{target.name}.part"), "a+") as file:
                said = _lock(file, target, said)
                part = Part(target, file)
                if part.is_in_place:
                    try:
                        yield part
                    finally:
                        if part.size == 0 and part.is_in_place:
                            part.path.unlink()
                    return
    finally:
        for path in made:  # the innermost first
            with suppress(OSError):  # something lies in it, or another run has removed it
                path.rmdir()


def _lock(file: FileIO, target: Path, said: bool) -> bool:
    """Waits for the lock. Returns whether the user has been told that it takes a while."""
    if fcntl is None:
        return said
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not said:
            print(f"Another run is fetching {target}; waiting for it.", file=sys.stderr)
        fcntl.lockf(file, fcntl.LOCK_EX)
        return True
    except OSError:  # a network drive without locks; the checksum finds what two runs mix up
        pass
    return said


def sync_folder(folder: Path) -> None:
    """So that a rename in it outlasts a loss of power."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
