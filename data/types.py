"""What every data set hands over, and the one error it raises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hflip: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
