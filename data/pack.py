"""Pictures decoded once: a file of their bytes, which later runs map into memory.

`3x64x64.pack` holds pictures of that shape:
    N * C * H * W bytes   the pictures, (N, C, H, W) uint8
    index                 JSON: "made_by", "shape", "files" and "bad", as in `Pack`
    8 bytes               length of the index, little-endian

It appears whole, by renaming, or not at all, so that whoever has the old one mapped keeps it. Until
then it is called `3x64x64.tmp`, and its maker holds a lock on it (POSIX, so that it ends with the
process): of two that start together one packs and the other waits.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.loader import read_ahead
from data.part import sync_folder
from data.pictures import read_picture
from data.types import DataError

try:
    import fcntl
except ImportError:  # Windows: there, two that start together both pack
    fcntl = None  # type: ignore[assignment]

Shape = tuple[int, int, int]  # (C, H, W)

MADE_BY = f"1, Pillow {PIL.__version__}"  # the 1 counts changes of what is written here

_LENGTH_BYTES = 8


class File(NamedTuple):
    """A picture's file, as it was found.

    Attributes:
        name: its path below the set's folder, with slashes.
        label: of its class.
        size, mtime_ns: in bytes, and of the last change of its content; -1 if it has none to read.
        ctime_ns: of the last change of anything, its permissions included.
    """

    name: str
    label: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def row(self) -> list[str | int]:
        """What the index says of a file that is packed."""
        return [self.name, self.label, self.size, self.mtime_ns]

    @property
    def content(self) -> tuple[str, int, int]:
        """While this stays, so do the pixels."""
        return self.name, self.size, self.mtime_ns


@dataclass(frozen=True)
class Pack:
    """Packed pictures.

    Attributes:
        images: (N, C, H, W) uint8, a view of the file. Reading brings it into memory page by page;
            writing to it would end the process.
        files: `File.row` of each.
        bad: of each file that could not be read, `File` and what is wrong with it.
    """

    images: Tensor
    files: list[list[str | int]]
    bad: list[tuple[File, str]]

    def fits(self, files: Sequence[File]) -> bool:
        """Whether it was made of just these files, in this order, as they are now."""
        bad = {file.name for file, _ in self.bad}
        return [file for file, _ in self.bad] == [f for f in files if f.name in bad] and (
            self.files == [f.row for f in files if f.name not in bad]
        )


def packed(root: Path, files: Sequence[File], shape: Shape, folder: Path) -> Pack:
    """The pictures of these files, from the pack in `folder` if it fits them, else packed now.

    Each is read as `predict` reads it, its shorter side resized to that of `shape` and the centre
    taken. What an older pack has of unchanged files is copied.

    Args:
        root: where the files' names begin.
        shape: (C, H, W), C being 1 or 3.
        folder: of the pack; made if it is not there.

    Raises:
        DataError: the pack cannot be written. Nothing half-made is left.
    """
    path = folder / f"{'x'.join(map(str, shape))}.pack"
    pack = _open(path, shape)
    try:
        while pack is None or not pack.fits(files):
            with _making(path.with_suffix(".tmp")) as file:
                pack = _open(path, shape)  # another process may have made it meanwhile
                if file is not None and not (pack and pack.fits(files)):
                    _check_room(path, len(files) * math.prod(shape))
                    _announce(path, len(files))
                    _write(file, root, files, shape, pack)
                    os.replace(path.with_suffix(".tmp"), path)
                    sync_folder(folder)
                    pack = _open(path, shape)
    except OSError as error:
        raise DataError(_unwritten(path, f"{error.strerror}")) from error
    return pack


def _open(path: Path, shape: Shape) -> Pack | None:
    """The pack at `path`; None if there is none, or another version's, or a damaged one."""
    try:
        with path.open("rb") as file:
            end = file.seek(-_LENGTH_BYTES, os.SEEK_END)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            num_bytes = file.seek(end - length)
            index = json.loads(file.read(length))
            files = index["files"]
            is_ours = (index["made_by"], index["shape"]) == (MADE_BY, list(shape))
            if not is_ours or num_bytes != len(files) * math.prod(shape):
                return None
            bad = [(File(*row), reason) for *row, reason in index["bad"]]
            return Pack(_mapped(file, (len(files), *shape)), files, bad)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(file: BinaryIO, shape: tuple[int, ...]) -> Tensor:
    """The beginning of a file as a tensor that reads from it.

    Read-only and shared. A private map that may be written to counts as memory in use, and Linux
    refuses one that is larger than memory and swap.
    """
    if not shape[0]:
        return torch.empty(shape, dtype=torch.uint8)
    array = np.memmap(file, np.uint8, mode="r", shape=shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


@contextmanager
def _making(path: Path) -> Iterator[BinaryIO | None]:
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


def _announce(path: Path, num_files: int) -> None:
    if not sys.stderr.isatty():  # else there is a bar
        print(f"packing {num_files:,} pictures into {path}", file=sys.stderr)


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _write(
    out: BinaryIO, root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> None:
    """All of a pack, down to the disk."""
    kept, bad = [], []
    out.truncate(0)  # of what a killed process had left
    with closing(_pictures(root, files, shape, old)) as pictures:
        # disable=None: a bar on a terminal, nothing elsewhere.
        bar = tqdm(pictures, "packing pictures", len(files), unit=" pictures", disable=None)
        for file, picture in zip(files, bar, strict=True):
            if isinstance(picture, str):
                bad.append([*file, picture])
            else:
                kept.append(file.row)
                out.write(picture.data)
    content = {"made_by": MADE_BY, "shape": list(shape), "files": kept, "bad": bad}
    index = json.dumps(content).encode()
    out.write(index)
    out.write(len(index).to_bytes(_LENGTH_BYTES, "little"))
    out.flush()
    os.fsync(out.fileno())


def _pictures(
    root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> Generator[NDArray[np.uint8] | str, None, None]:
    """Each file's picture, or what is wrong with it, in order: copied where `old` has it, else
    read in threads, since Pillow lets others run while it decodes and resizes."""
    rows = old.files if old else []
    places = {(name, size, mtime): i for i, (name, _, size, mtime) in enumerate(rows)}
    calls = (partial(_read, root / f.name, shape) for f in files if f.content not in places)
    with closing(read_ahead(calls, num_workers=min(32, 2 * _num_cores()))) as read:
        for file in files:
            place = places.get(file.content)
            if old is None or place is None:
                yield next(read)
            else:
                yield old.images[place].numpy()


def _read(path: Path, shape: Shape) -> NDArray[np.uint8] | str:
    try:
        return read_picture(path, shape, resize=min(shape[1:]))
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_room(path: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise DataError(_unwritten(path, f"they need {num_bytes:,} bytes, and {free:,} are free"))


def _unwritten(path: Path, reason: str) -> str:
    return (
        f"{path}: the packed pictures cannot be written: {reason}.\n"
        "Name another folder for them by data.cache_dir=FOLDER, or take a smaller data.shape."
    )
