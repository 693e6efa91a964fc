"""What every data set hands over, and the one error it raises."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

_SAMPLE = 256  # pictures of a split that its fingerprint reads


class DataError(ValueError):
    """The user's files or data settings are wrong. The message is written for the user: it names
    the key or the file, what was found, what is allowed and the way out."""


@dataclass(frozen=True)
class Split:
    """One part of a data set, in memory.

    Attributes:
        images: (N, C, H, W) uint8, 0..255.
        labels: (N,) int64, 0..num_classes-1.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set as the trainer takes it: three splits of one shape, and what they mean.

    Attributes:
        train, val, test: the splits; all images have the same (C, H, W).
        classes: the name of each label, in order.
        mean, std: per channel, in units of pixel / 255; an image becomes (x / 255 - mean) / std.
        hflip: a picture mirrored left to right keeps its label, so augmentation may flip it.
        notes: what the user should know of how it was read, for the log.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hflip: bool = False
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_bytes(self) -> int:
        """Of all pictures."""
        return sum(split.images.nbytes for split in (self.train, self.val, self.test))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, hex, that tells this data from other: classes, all labels, and the bytes of
        up to 256 pictures of each split, spread evenly. Milliseconds, however large the set."""
        sha = hashlib.sha256(repr((self.classes, self.shape)).encode())
        for split in (self.train, self.val, self.test):
            sha.update(f"{len(split)}".encode())
            sha.update(split.labels.numpy().tobytes())
            some = torch.linspace(0, len(split) - 1, min(len(split), _SAMPLE), dtype=torch.float64)
            sha.update(split.images.index_select(0, some.long()).numpy().tobytes())
        return sha.hexdigest()
