"""Writing of a pack: each file once, in order, the deep ones scaled at the end.

The range of a dataset's deep grey is known when all of it has been read, see
`data.images.scaling`: until then such an image is a black one at its place, and its own range is
noted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.digests import num_cores, sums_of
from data.image_folder.pack_file import content_digest, mapped, write_index
from data.images.decode import UNREAD, Scale, read_image
from data.images.fitting import MAX_PIXELS
from data.images.scaling import Range, UnscaledError, is_flat, range_of_set
from data.loading.prefetch import read_ahead
from data.types import DataError, Fit

Shape = tuple[int, int, int]  # (C, H, W)

MADE_BY = f"4, Pillow {PIL.__version__}"  # the 4 counts changes of what is written here


class File(NamedTuple):
    """An image's file, as it was found.

    Attributes:
        name: its path below the dataset's folder, with slashes.
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
        sums: checksums of the images, see `data.digests`.
        deep: of each file with deep grey, by its name, its least and greatest number.
        scale: which numbers of these became 0 and 255; None if there are none.
        num_flat: how many images are nearly one colour.
    """

    images: Tensor
    files: list[File]
    digests: list[str]
    bad: list[tuple[File, str]]
    bad_digests: list[str]
    sums: list[str]
    deep: dict[str, Range] = field(default_factory=dict)
    scale: Range | None = None
    num_flat: int = 0

    def fits(self, files: Sequence[File]) -> bool:
        """True if it was made of just these files, in this order, as they are now."""
        bad = {file.name for file, _ in self.bad}
        return [file for file, _ in self.bad] == [f for f in files if f.name in bad] and (
            self.files == [f for f in files if f.name not in bad]
        )


@dataclass(frozen=True)
class Reading:
    """Settings by which the files of a dataset are read.

    Attributes:
        shape: (C, H, W), C being 1 or 3.
        pixel_range: which numbers of deep grey become 0 and 255; None: as the dataset itself has
            them, see `data.images.scaling`.
        max_pixels: files of more are not decoded.
        fit: "crop" (the shorter side resized, the centre taken) or "squash" (both sides resized).
        resize: pixels of the shorter side before the crop; None: those of `shape`.
    """

    shape: Shape
    pixel_range: Range | None = None
    max_pixels: int = MAX_PIXELS
    fit: Fit = "crop"
    resize: int | None = None

    @property
    def side(self) -> int:
        """To which the shorter one is resized."""
        return self.resize or min(self.shape[1:])

    @property
    def ending(self) -> str:
        """Tells packs of the same shape apart by how images came to it, and which were refused for
        their size; empty if as usual."""
        limit = "" if self.max_pixels == MAX_PIXELS else f"-max{self.max_pixels}"
        if self.fit == "squash":
            return f"-squash{limit}"
        return ("" if self.side == min(self.shape[1:]) else f"-crop{self.side}") + limit

    @property
    def made_by(self) -> str:
        """Version and settings that a pack was made by; one of another is not used."""
        return MADE_BY + self.ending

    def read(self, path: Path, scale: Scale = "ask") -> NDArray[np.uint8] | str:
        """A file as a network sees it, or what is wrong with it. Raises UnscaledError."""
        try:
            return read_image(
                path, self.shape, self.side, self.fit, max_pixels=self.max_pixels, scale=scale
            )
        except DataError as error:
            return str(error).removeprefix(f"{path}: ")

    def scale_for(self, owns: Collection[Range]) -> Range | None:
        return (self.pixel_range or range_of_set(owns)) if owns else None


def write_pack(
    out: BinaryIO, root: Path, files: Sequence[File], how: Reading, old: Pack | None
) -> None:
    """All of a pack, down to the disk."""
    kept: list[list[Any]] = []
    bad: list[list[Any]] = []
    num_flat = 0
    deep: dict[int, Range] = {}  # by the number of their image, which is written at the end
    out.truncate(0)  # of what a killed process had left
    known = _Known(old)
    with closing(_pictures(root, files, how, known)) as pictures:
        # disable=None: a bar on a terminal, nothing elsewhere.
        bar = tqdm(pictures, "packing images", len(files), unit=" images", disable=None,
                   file=sys.__stderr__)  # fmt: skip
        for file, (digest, picture) in zip(files, bar, strict=True):
            if isinstance(picture, str):
                bad.append([*file, digest, picture])
                continue
            if isinstance(picture, tuple):
                deep[len(kept)], picture = picture, np.zeros(how.shape, np.uint8)
            else:
                num_flat += is_flat(picture)
            kept.append([*file, digest])
            out.write(picture.data)
    scale = how.scale_for(deep.values())
    if scale is not None:
        images = ((row, _scaled(root / kept[row][0], kept[row][-1], how, known, scale))
                  for row in deep)  # fmt: skip
        num_flat += _write_over(out, images)
    out.flush()
    sums = sums_of(mapped(out, (len(kept), *how.shape)))
    write_index(out, {"made_by": how.made_by, "shape": list(how.shape), "files": kept, "bad": bad,
                      "sums": sums, "deep": {kept[row][0]: own for row, own in deep.items()},
                      "scale": scale, "num_flat": num_flat})  # fmt: skip


def _write_over(out: BinaryIO, images: Iterable[tuple[int, NDArray[np.uint8]]]) -> int:
    """Each at its place. Returns how many are nearly one colour."""
    num_flat = 0
    for row, image in images:
        out.seek(row * image.nbytes)
        out.write(image.data)
        num_flat += is_flat(image)
    out.seek(0, os.SEEK_END)
    return num_flat


def _scaled(
    path: Path, digest: str, how: Reading, known: _Known, scale: Range
) -> NDArray[np.uint8]:
    """A deep image, from the old pack if it was scaled so there."""
    if known.scale == scale and digest in known.scaled:
        return known.scaled[digest]
    picture = how.read(path, scale)
    if isinstance(picture, str):
        raise DataError(f"{path}: it changed while it was packed: {picture} Start again.")
    return picture


class _Known:
    """Content of an older pack: where each content lies in it, or what is wrong with it."""

    def __init__(self, old: Pack | None) -> None:
        self.digests: dict[tuple[str, tuple[int, ...]], str] = {}
        self.found: dict[str, NDArray[np.uint8] | Range | str] = {}
        self.scaled: dict[str, NDArray[np.uint8]] = {}
        self.scale = old.scale if old else None
        if old is None:
            return
        for file, digest, image in zip(old.files, old.digests, old.images.numpy(), strict=True):
            self.digests[file.name, file.state] = digest
            self.found[digest] = old.deep.get(file.name, image)
            self.scaled[digest] = image
        for (file, why), digest in zip(old.bad, old.bad_digests, strict=True):
            if not why.startswith(UNREAD):
                self.digests[file.name, file.state] = digest
                self.found[digest] = why
        self.found.pop("", None)


def _pictures(
    root: Path, files: Sequence[File], how: Reading, known: _Known
) -> Generator[tuple[str, NDArray[np.uint8] | Range | str], None, None]:
    """The digest of each file, and its image, the range of a deep one, or what is wrong with it,
    in order: as far as they are known, else read in threads, since Pillow lets others run while it
    decodes."""
    calls = (partial(_look, root, file, how, known) for file in files)
    with closing(read_ahead(calls, num_workers=min(32, 2 * num_cores()))) as looked:
        yield from looked


def _look(
    root: Path, file: File, how: Reading, known: _Known
) -> tuple[str, NDArray[np.uint8] | Range | str]:
    path = root / file.name
    digest = known.digests.get((file.name, file.state)) or content_digest(path)
    if digest in known.found:
        return digest, known.found[digest]
    picture: NDArray[np.uint8] | Range | str
    try:
        picture = how.read(path)
    except UnscaledError as deep:
        picture = deep.own
    return (digest if file_at(path, "", 0).state == file.state else ""), picture


def file_at(path: str | os.PathLike[str], name: str, label: int) -> File:
    """The file there, as it is now."""
    try:
        found = os.stat(path)
    except OSError:  # such as a link to nowhere; reading it will say what is wrong
        return File(name, label, -1, -1, -1)
    return File(name, label, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
