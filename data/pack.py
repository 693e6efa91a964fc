"""Pictures decoded once: a file of their bytes, which later runs map into memory.

`3x64x64.pack` holds pictures of that shape:
    N * C * H * W bytes   the pictures, (N, C, H, W) uint8
    index                 JSON: "made_by", "shape", "files" and "bad", as in `Pack`
    8 bytes               length of the index, little-endian

It appears whole, by renaming, or not at all, so that whoever has the old one mapped keeps it. Until
then it is called `3x64x64.tmp`, and its maker holds a lock on it (see `data.making`): of two that
start together one packs and the other waits.

What is wrong with the machine is not taken for a fault of the pictures: where memory or threads run
out nothing is kept, and a file that could not be read is tried again.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
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
from data.making import making
from data.part import sync_folder
from data.pictures import UNREAD, read_picture
from data.types import DataError

Shape = tuple[int, int, int]  # (C, H, W)

MADE_BY = f"2, Pillow {PIL.__version__}"  # the 2 counts changes of what is written here

_LENGTH_BYTES = 8
_NO_THREAD = "can't start new thread"  # Python's words, in a RuntimeError


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

    @property
    def state(self) -> tuple[str, int, int, int]:
        """While this stays, so does what is wrong with it."""
        return *self.content, self.ctime_ns


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
        DataError: the pack cannot be written, or memory or threads run out. Nothing half-made is
            left.
    """
    path = folder / f"{'x'.join(map(str, shape))}.pack"
    try:
        while True:
            pack = _open(path, shape)
            if pack and _is_current(pack, root, files, shape):
                return pack
            with making(path.with_suffix(".tmp")) as file:
                pack = _open(path, shape)  # another process may have made it meanwhile
                if file is not None and not (pack and _is_current(pack, root, files, shape)):
                    return _made(path, file, root, files, shape, pack)
    except OSError as error:
        raise DataError(_unwritten(path, f"{error.strerror}")) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
            raise
        raise DataError(_ran_out(root, error)) from error


def _is_current(pack: Pack, root: Path, files: Sequence[File], shape: Shape) -> bool:
    """Whether it fits, and the files that could not be read still cannot: their rights, their drive
    or the user may be others now, of which their dates tell nothing."""
    unread = [file for file, reason in pack.bad if reason.startswith(UNREAD)]
    return pack.fits(files) and all(
        str(_read(root / file.name, shape)).startswith(UNREAD) for file in unread
    )


def _made(
    path: Path, file: BinaryIO, root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> Pack:
    """A new pack at `path`, written to `file`, which lies beside it. It is looked at through that
    file: another process, with other files, may replace it at once."""
    _check_room(path, len(files) * math.prod(shape))
    if not sys.stderr.isatty():  # else there is a bar
        print(f"packing {len(files):,} pictures into {path}", file=sys.stderr)
    _write(file, root, files, shape, old)
    pack = _in(file, shape)
    os.replace(path.with_suffix(".tmp"), path)
    sync_folder(path.parent)
    return pack


def _open(path: Path, shape: Shape) -> Pack | None:
    """The pack at `path`; None if there is none, or another version's, or a damaged one."""
    try:
        with path.open("rb") as file:
            return _in(file, shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in(file: BinaryIO, shape: Shape) -> Pack:
    """The pack in a file. Raises ValueError and others if it has none, MemoryError if it is more
    than this process may map."""
    end = file.seek(-_LENGTH_BYTES, os.SEEK_END)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    num_bytes = file.seek(end - length)
    index = json.loads(file.read(length))
    files = index["files"]
    is_ours = (index["made_by"], index["shape"]) == (MADE_BY, list(shape))
    if not is_ours or num_bytes != len(files) * math.prod(shape):
        raise ValueError("another version's or damaged")
    bad = [(File(*row), reason) for *row, reason in index["bad"]]
    try:
        return Pack(_mapped(file, (len(files), *shape)), files, bad)
    except OSError as error:
        raise (MemoryError if error.errno == errno.ENOMEM else error) from error


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


def _write(
    out: BinaryIO, root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> None:
    """All of a pack, down to the disk."""
    kept, bad = [], []
    out.truncate(0)  # of what a killed process had left
    with closing(_pictures(root, files, shape, old)) as pictures:
        # disable=None: a bar on a terminal, nothing elsewhere.
        bar = tqdm(pictures, "packing pictures", len(files), unit=" pictures", disable=None,
                   file=sys.__stderr__)  # fmt: skip
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
    """Each file's picture, or what is wrong with it, in order: from `old` where it has either, else
    read in threads, since Pillow lets others run while it decodes and resizes."""
    rows = old.files if old else []
    places = {(name, size, mtime): i for i, (name, _, size, mtime) in enumerate(rows)}
    bad = old.bad if old else []
    known = {file.state: why for file, why in bad if not why.startswith(UNREAD)}
    new = (f for f in files if f.content not in places and f.state not in known)
    calls = (partial(_read, root / file.name, shape) for file in new)
    with closing(read_ahead(calls, num_workers=min(32, 2 * _num_cores()))) as read:
        for file in files:
            place = places.get(file.content)
            if old is not None and place is not None:
                yield old.images[place].numpy()
            else:
                yield known[file.state] if file.state in known else next(read)


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


def _ran_out(root: Path, error: Exception) -> str:
    """Of memory or threads. Nothing tells which picture it was, or whether any is to blame."""
    of_memory = isinstance(error, MemoryError)
    what, limit = ("memory", "ulimit -v") if of_memory else ("threads", "ulimit -u")
    return (
        f"data.root={root}: the machine ran out of {what} while these pictures were packed or "
        f"mapped; nothing half-made is kept. End other programs, raise the limit if there is one "
        f"({limit}), "
        "or let fewer pictures be read at a time, which are two for each core: `taskset -c 0` "
        "before the command leaves it one core."
    )
