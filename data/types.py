"""Dataset, its splits, and the error that every loader raises."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.digests import keys_of, sums_of

_FINGERPRINT = 2  # the version of how it is made
_ROWS = 4096  # images looked at a time
_SAMPLE = 256  # images of a split that an earlier version's fingerprint had read


class DataError(ValueError):
    """The user's files or data settings are wrong. The message is written for the user: it names
    the key or the file, what was found, what is allowed and the way out."""


def printable(text: object) -> str:
    """On one line and as it is, but for characters that would steer a terminal or be seen by
    nobody, which are escaped as Python writes them: names of files may hold any."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def count(number: int, one: str, several: str = "") -> str:
    """As "1 image" or "1,000 images".

    Args:
        several: words for another number than one; "": `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


Fit = Literal["crop", "squash"]


@dataclass(frozen=True)
class Split:
    """One part of a dataset, in memory or in a mapped file.

    Attributes:
        images: (M, C, H, W) uint8, 0..255: its images, or those of all splits, which then share
            them instead of copying their own.
        labels: (N,) int64, 0..num_classes-1.
        rows: (N,) int64: the i-th image is images[rows[i]]. None: it is images[i], and M = N.
        files: (M,) where each of `images` comes from: its path below the dataset's root, with
            slashes. None for datasets that do not keep an image in a file of its own.
        indices: (N,) int64: the place of each image in the dataset's own files, counted from 0 in
            those for training, or in those for testing; where images have files of their own, in
            the sorted list of these, of all splits. None if not known.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None
    files: Sequence[str] | None = None
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Bytes of its own images."""
        return len(self) * math.prod(self.images.shape[1:])

    def places(self) -> Tensor:
        """(N,) int64: where in its storage each of its images lies, counted in images."""
        if self.rows is not None:
            return self.rows
        first = self.images.storage_offset() // math.prod(self.images.shape[1:])
        return torch.arange(first, first + len(self))

    def own_images(self) -> Tensor:
        """(N, C, H, W) uint8; a copy only where they lie among those of other splits."""
        return self.images if self.rows is None else self.images.index_select(0, self.rows)

    def images_at(self, positions: Tensor) -> Tensor:
        """The images at (n,) int64 positions, 0..N-1: (n, C, H, W) uint8, a copy."""
        rows = positions if self.rows is None else self.rows.index_select(0, positions)
        return self.images.index_select(0, rows)

    def chunks(self) -> Iterator[Tensor]:
        """Its images in order, some at a time."""
        one = self.images.split(_ROWS) if self.rows is None else self.rows.split(_ROWS)
        yield from one if self.rows is None else (self.images.index_select(0, r) for r in one)

    def keys(self) -> NDArray[np.uint64]:
        """(N,) of each image, the same for the same pixels."""
        return keys_of(self.chunks())

    def keys_by_place(self) -> dict[int, int]:
        """Key of each image by its place, see `index_at`."""
        return {self.index_at(i): key for i, key in enumerate(self.keys().tolist())}

    def own_files(self) -> list[str]:
        """(N,) file of each image; empty where images have no files."""
        return [] if self.files is None else [self.file_at(i) or "" for i in range(len(self))]

    def file_at(self, position: int) -> str | None:
        """File of the image at this position; None if it has no file of its own."""
        row = position if self.rows is None else int(self.rows[position])
        return None if self.files is None else self.files[row]

    def index_at(self, position: int) -> int:
        """Place of an image in the dataset's own files; its position if that is not known."""
        return position if self.indices is None else int(self.indices[position])

    def place_at(self, position: int, split: str) -> Place:
        """Place of the image at this position, in the split of this name."""
        label, file = int(self.labels[position]), self.file_at(position)
        return Place(split, label, self.index_at(position) if file is None else None, file)

    def at(self, positions: Tensor) -> Split:
        """The images at (n,) int64 positions; none is copied."""
        rows = positions if self.rows is None else self.rows[positions]
        places = None if self.indices is None else self.indices[positions]
        return Split(self.images, self.labels[positions], rows, self.files, places)

    def subset(self, chosen: Tensor) -> Split:
        """The images under a mask, (N,) bool, of a split that shares no images with others and has
        no files; with their places in this one if it does not say where they come from."""
        indices = torch.arange(len(self)) if self.indices is None else self.indices
        return Split(self.images[chosen], self.labels[chosen], indices=indices[chosen])


@dataclass(frozen=True)
class Place:
    """Place of an image, as its owner finds it.

    Attributes:
        split: train, val or test.
        label: number of its class.
        index: place in the dataset's own files; None where images have files of their own.
        file: path below the dataset's root; None where they have not.
    """

    split: str
    label: int
    index: int | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.file if self.file is not None else f"{self.split} {self.index}"


@dataclass(frozen=True)
class Leaks:
    """Equal images of a dataset.

    Attributes:
        copies: groups of two or more equal images; those that were left out are among them.
        left_out: images that data.on_leak=drop left out, each with the one that it is equal to.
        known: what is published of near copies in this dataset, or empty.
    """

    copies: tuple[tuple[Place, ...], ...] = ()
    left_out: tuple[tuple[Place, Place], ...] = ()
    known: str = ""

    def pairs(self, part: str, other: str) -> list[tuple[Place, Place]]:
        """Each image of one split that is in another, too, with the first equal one there."""
        return [
            (place, next(p for p in group if p.split == other))
            for group in self.copies
            if any(p.split == other for p in group)
            for place in group
            if place.split == part
        ]

    @property
    def contradictions(self) -> list[tuple[Place, ...]]:
        """Groups of equal images under more than one label."""
        return [group for group in self.copies if len({place.label for place in group}) > 1]


@dataclass(frozen=True)
class Dataset:
    """A dataset as the trainer takes it: three splits of one shape, and what they mean.

    Attributes:
        train, val, test: the splits; all images have the same (C, H, W).
        classes: the name of each label, in order.
        mean, std: per channel, in units of pixel / 255; an image becomes (x / 255 - mean) / std.
        hflip: an image mirrored left to right keeps its label, so augmentation may flip it.
        notes: what the user should know of how it was read, for the log.
        pixel_range: which numbers of grey of more than 8 bits became 0 and 255, where files had it.
        sums: checksums of the images that all splits share, see `data.digests`, where known.
        fit: how images of another size were brought to this one: "crop" (the shorter side resized,
            the centre taken) or "squash" (both sides resized).
        resize: pixels of the shorter side before the crop; None: those of the shape.
        held_out: what `test` is: "test", the dataset's own, or a fold, "fold 2 of 5" (from 0 on).
        groups: the names of the groups in each split, by "train", "val", "test", sorted; None where
            images have none.
        leaks: its equal images.
        damaged: files that cannot be used and are left out: path below the root, and why.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hflip: bool = False
    notes: tuple[str, ...] = ()
    sums: tuple[str, ...] | None = None
    pixel_range: tuple[float, float] | None = None
    fit: Fit = "crop"
    resize: int | None = None
    held_out: str = "test"
    groups: Mapping[str, tuple[str, ...]] | None = None
    leaks: Leaks = Leaks()
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_bytes(self) -> int:
        """Bytes of all images."""
        return sum(split.num_bytes for split in (self.train, self.val, self.test))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells this data from other: classes, every byte of every image, every label, and which
        split it is in. 64 hex digits of SHA-256 after "2:". Takes 0.07 s for 100 MB, but for
        packed images, whose checksums are known."""
        sha = hashlib.sha256(repr((self.classes, self.shape)).encode())
        if self.sums is not None:
            sha.update(repr(self.sums).encode())
        for split in (self.train, self.val, self.test):
            sha.update(f"{len(split)}".encode())
            sha.update(split.labels.numpy().tobytes())
            if self.sums is None:
                sha.update(repr(sums_of(split.own_images())).encode())
            else:
                sha.update(split.places().numpy().tobytes())
        return f"{_FINGERPRINT}:{sha.hexdigest()}"

    @functools.cached_property
    def test_set_id(self) -> str:
        """Tells this test split from others, whatever shape its images are brought to: 16 hex
        digits of SHA-256 of the classes, and of each image's label and file. Of a fold in its
        place: of all images, so that the folds of one dataset have one id."""
        sha = hashlib.sha256(repr((self.classes, len(self.test))).encode())
        if self.held_out == "test":
            sha.update(self.test.labels.numpy().tobytes())
            names = self.test.own_files()
        else:
            splits = (self.train, self.val, self.test)
            sha = hashlib.sha256(repr((self.classes, "folds")).encode())
            sha.update(
                torch.cat([split.labels for split in splits]).sort().values.numpy().tobytes()
            )
            names = sorted(name for split in splits for name in split.own_files())
        sha.update("\0".join(names).encode("utf-8", "surrogatepass"))
        return sha.hexdigest()[:16]

    @functools.cached_property
    def test_pixels(self) -> str:
        """Tells the images of the test split, or with folds all, from others that were brought to
        the same shape in the same way: that way, a colon, and the sum of their keys in hex."""
        splits = (self.test,) if self.held_out == "test" else (self.train, self.val, self.test)
        total = sum(int(split.keys().sum()) for split in splits) % 2**64
        return f"{(*self.shape, self.fit, self.resize, self.pixel_range)}:{total:016x}"

    @functools.cached_property
    def test_sha256(self) -> str:
        """Digest of every byte of the test images, in order: 64 hex digits of SHA-256."""
        return hashlib.sha256(repr(sums_of(self.test.own_images())).encode()).hexdigest()

    def has_fingerprint(self, text: str) -> bool:
        """True if it is the data that has this fingerprint, which may be an earlier version's, of
        256 images of each split."""
        return text == (self.fingerprint if ":" in text else self.sampled_fingerprint)

    @functools.cached_property
    def sampled_fingerprint(self) -> str:
        """Fingerprint as earlier versions noted it in checkpoints: SHA-256, hex, of classes, all
        labels, and the bytes of up to 256 images of each split, spread evenly."""
        sha = hashlib.sha256(repr((self.classes, self.shape)).encode())
        for split in (self.train, self.val, self.test):
            sha.update(f"{len(split)}".encode())
            sha.update(split.labels.numpy().tobytes())
            some = torch.linspace(0, len(split) - 1, min(len(split), _SAMPLE), dtype=torch.float64)
            sha.update(split.images_at(some.long()).numpy().tobytes())
        return sha.hexdigest()
