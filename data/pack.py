"""Images decoded once: a file of their bytes, which later runs map into memory.

`3x64x64.pack` holds images of that shape, as `data.pack_file` says. It appears whole, by renaming,
or not at all, so that whoever has the old one mapped keeps it. Until then it is called
`3x64x64.tmp`, and its maker holds a lock on it (see `data.making`): of two that start together one
packs and the other waits.

What is guaranteed:
    of the images' files   One counts as unchanged without being read if its path, size, inode and
                           the times of its last change (of its content, and of anything) are those
                           that were packed. Where one of these differs, the content decides, by a
                           BLAKE2b of all of it: the same content is copied from the old pack,
                           wherever it lay, any other is decoded. So a file that was written to,
                           replaced or swapped, by mv of it or of a folder above, with its old size
                           and date, is noticed. Not noticed is what leaves all five as they were: a
                           change on a drive that keeps no time of change (FAT), with the date set
                           back, or bits that a disk lost on its own.
    of the pack            Every byte is checked each time that it is opened, before any is used (in
                           threads; 0.07 s for 100 MB a core). A damaged one is made again, from the
                           files alone, and so is one of an earlier version; a line says so.

What is wrong with the machine is not taken for a fault of the images: where memory or threads run
out nothing is kept, and a file that could not be read is tried again.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.loader import read_ahead
from data.making import making
from data.pack_file import UnusablePackError, digest_of, read_pack, write_index
from data.part import sync_folder
from data.pictures import UNREAD, read_picture
from data.sums import RunningSums, num_cores
from data.types import DataError, printable

Shape = tuple[int, int, int]  # (C, H, W)

MADE_BY = f"3, Pillow {PIL.__version__}"  # the 3 counts changes of what is written here

_NO_THREAD = "can't start new thread"  # Python's words, in a RuntimeError


class File(NamedTuple):
    """An image's file, as it was found.

    Attributes:
        name: its path below the set's folder, with slashes.
        label: of its class.
        size, mtime_ns: in bytes, and of the last change of its content; -1 if it has none to read.
        ctime_ns: of the last change of anything, its permissions included.
        inode: the file system's number of it.
    """

    name: str
    label: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int = 0

    @property
    def state(self) -> tuple[int, ...]:
        """While this stays, at this name, the content is taken to."""
        return self[2:]


@dataclass(frozen=True)
class Pack:
    """Packed images.

    Attributes:
        images: (N, C, H, W) uint8, a view of the file. Reading brings it into memory page by page;
            writing to it would end the process.
        files: `File` of each.
        digests: BLAKE2b of the content of each, hex; empty if it changed while it was read.
        bad: of each file that could not be read, `File` and what is wrong with it.
        bad_digests: of the content of each of these.
        sums: checksums of the images, see `data.sums`.
    """

    images: Tensor
    files: list[File]
    digests: list[str]
    bad: list[tuple[File, str]]
    bad_digests: list[str]
    sums: list[str]

    def fits(self, files: Sequence[File]) -> bool:
        """Whether it was made of just these files, in this order, as they are now."""
        bad = {file.name for file, _ in self.bad}
        return [file for file, _ in self.bad] == [f for f in files if f.name in bad] and (
            self.files == [f for f in files if f.name not in bad]
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
            pack, _ = _open(path, shape)
            if pack and _is_current(pack, root, files, shape):
                return pack
            with making(path.with_suffix(".tmp")) as file:
                pack, why = _open(path, shape)  # another process may have made it meanwhile
                if file is not None and not (pack and _is_current(pack, root, files, shape)):
                    if why:
                        print(f"{printable(path)}: {why}. It is made again.", file=sys.stderr)
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
        print(f"packing {len(files):,} images into {path}", file=sys.stderr)
    _write(file, root, files, shape, old)
    pack = _in(file, shape)
    os.replace(path.with_suffix(".tmp"), path)
    sync_folder(path.parent)
    return pack


def _open(path: Path, shape: Shape) -> tuple[Pack | None, str]:
    """The pack at `path`; or None, and what is wrong with the one that lies there."""
    try:
        with path.open("rb") as file:
            return _in(file, shape), ""
    except OSError:
        return None, ""
    except UnusablePackError as error:
        return None, str(error)


def _in(file: BinaryIO, shape: Shape) -> Pack:
    """The pack in a file. Raises UnusablePackError, or MemoryError if it is more than this process
    may map."""
    images, index = read_pack(file, shape, MADE_BY)
    files = [(File(*row), digest) for *row, digest in index["files"]]
    bad = [(File(*row), digest, why) for *row, digest, why in index["bad"]]
    return Pack(
        images,
        [file for file, _ in files],
        [digest for _, digest in files],
        [(file, why) for file, _, why in bad],
        [digest for _, digest, _ in bad],
        index["sums"],
    )


def _write(
    out: BinaryIO, root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> None:
    """All of a pack, down to the disk."""
    kept, bad, sums = [], [], RunningSums(shape)
    out.truncate(0)  # of what a killed process had left
    with closing(_pictures(root, files, shape, old)) as pictures:
        # disable=None: a bar on a terminal, nothing elsewhere.
        bar = tqdm(pictures, "packing images", len(files), unit=" images", disable=None,
                   file=sys.__stderr__)  # fmt: skip
        for file, (digest, picture) in zip(files, bar, strict=True):
            if isinstance(picture, str):
                bad.append([*file, digest, picture])
            else:
                kept.append([*file, digest])
                out.write(picture.data)
                sums.add(picture.data)
    write_index(out, {"made_by": MADE_BY, "shape": list(shape), "files": kept, "bad": bad,
                      "sums": sums.sums()})  # fmt: skip


class _Known:
    """What an older pack has: where each content lies in it, or what is wrong with it."""

    def __init__(self, old: Pack | None) -> None:
        self.digests: dict[tuple[str, tuple[int, ...]], str] = {}
        self.found: dict[str, NDArray[np.uint8] | str] = {}
        if old is None:
            return
        for file, digest, image in zip(old.files, old.digests, old.images.numpy(), strict=True):
            self.digests[file.name, file.state] = digest
            self.found[digest] = image
        for (file, why), digest in zip(old.bad, old.bad_digests, strict=True):
            if not why.startswith(UNREAD):
                self.digests[file.name, file.state] = digest
                self.found[digest] = why
        self.found.pop("", None)


def _pictures(
    root: Path, files: Sequence[File], shape: Shape, old: Pack | None
) -> Generator[tuple[str, NDArray[np.uint8] | str], None, None]:
    """The digest of each file, and its picture or what is wrong with it, in order: from `old` where
    it has either, else read in threads, since Pillow lets others run while it decodes."""
    known = _Known(old)
    calls = (partial(_look, root, file, shape, known) for file in files)
    with closing(read_ahead(calls, num_workers=min(32, 2 * num_cores()))) as looked:
        yield from looked


def _look(
    root: Path, file: File, shape: Shape, known: _Known
) -> tuple[str, NDArray[np.uint8] | str]:
    path = root / file.name
    digest = known.digests.get((file.name, file.state)) or digest_of(path)
    if digest in known.found:
        return digest, known.found[digest]
    picture = _read(path, shape)
    return (digest if _state_of(path) == file.state else ""), picture


def _state_of(path: Path) -> tuple[int, ...]:
    return file_at(path, "", 0).state


def file_at(path: str | os.PathLike[str], name: str, label: int) -> File:
    """The file there, as it is now."""
    try:
        found = os.stat(path)
    except OSError:  # such as a link to nowhere; reading it will say what is wrong
        return File(name, label, -1, -1, -1)
    return File(name, label, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _read(path: Path, shape: Shape) -> NDArray[np.uint8] | str:
    try:
        return read_picture(path, shape, resize=min(shape[1:]))
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


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
