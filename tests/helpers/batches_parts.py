"""For tests: a small set of images, what prepares them, and batches compared."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.augment.policy import Augment
from data.loading.preprocess import Preprocess
from data.types import Split

CPU = torch.device("cpu")
STRONG = Augment(
    23, hflip=True, flip=0.5, rotation=10, crop_padding=0.2, brightness=0.2, contrast=0.2,
    saturation=0.2, hue=0.05, cutout=0.3, mixup=0.4, cutmix=1.0,
)  # fmt: skip


def split(number: int = 23, side: int = 6, channels: int = 1) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (number, channels, side, side)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(number))


def plain(channels: int = 1, min_size: int = 1) -> Preprocess:
    return Preprocess((0.0,) * channels, (1.0,) * channels, min_size, CPU)


def same(ours: Iterator[tuple[Tensor, Tensor]], theirs: Iterator[tuple[Tensor, Tensor]]) -> bool:
    """As many batches, bit for bit."""
    pairs = list(zip(ours, theirs, strict=True))
    assert pairs
    return all(torch.equal(a, b) for mine, other in pairs for a, b in zip(mine, other, strict=True))
