"""Batches from pictures that are resident on the device: indexed, cast and normalised there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from data.seeds import derive_seed
from data.types import Split


class Preprocess:
    """uint8 pictures -> what a model sees: (x / 255 - mean) / std, sides brought to `min_size`.

    Pictures of 28 px for a net that needs 32 get a black border of 2 px, as LeNet-5's digits had;
    any others that are too small are resized.

    Args:
        mean, std: per channel, in units of pixel / 255.
        min_size: the smallest side in pixels that the net works with.
        device, dtype, memory_format: of the result.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        min_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.dtype, self.memory_format, self.min_size = dtype, memory_format, min_size
        # One multiplication and one addition per pixel: x * scale - offset.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.to(device, dtype).view(-1, 1, 1)
        self.offset = offset.to(device, dtype).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 -> (N, C, max(H, min_size), max(W, min_size)) float."""
        size = enlarged(images.shape[-2:], self.min_size)
        pad = size != images.shape[-2:] and pads(images.shape[-2:], self.min_size)
        if pad:
            images = F.pad(images, (2, 2, 2, 2))
        x = images.to(self.dtype, memory_format=self.memory_format)
        x = x.mul_(self.scale).sub_(self.offset)
        if size != x.shape[-2:]:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return x


def enlarged(size: tuple[int, ...], min_size: int) -> tuple[int, int]:
    """(H, W) as a net with this min_size sees it."""
    height, width = size
    return max(height, min_size), max(width, min_size)


def pads(size: tuple[int, ...], min_size: int) -> bool:
    """Whether pictures of this (H, W) get a border instead of being resized."""
    return tuple(size) == (28, 28) and min_size == 32


class Batches:
    """One split as batches of (images float (N, C, H, W), labels int64 (N,)) on the device.

    The order of an epoch is a function of (seed, epoch) alone. Every picture comes once an epoch;
    a last batch of a single picture is left out when shuffling, since batch norm cannot train on
    it.

    Args:
        limit: at most so many batches an epoch; 0 = all.
        shuffle: the order given by (seed, epoch); False: the split's own order.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        preprocess: Preprocess,
        device: torch.device,
        shuffle: bool = False,
        seed: int = 0,
        limit: int = 0,
    ) -> None:
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.batch_size, self.preprocess, self.device = batch_size, preprocess, device
        self.shuffle, self.seed = shuffle, seed
        self.num_images = len(split)
        if shuffle and self.num_images % batch_size == 1 and self.num_images > 1:
            self.num_images -= 1
        if limit:
            self.num_images = min(self.num_images, limit * batch_size)

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(self.num_images / self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of that epoch, from batch `start` on."""
        order = self.order(epoch)
        for first in range(start * self.batch_size, self.num_images, self.batch_size):
            index = order[first : min(first + self.batch_size, self.num_images)]
            images = self.images.index_select(0, index)
            yield self.preprocess(images), self.labels.index_select(0, index)

    def order(self, epoch: int) -> Tensor:
        """(number of pictures in the split,) int64: indices in the order of that epoch.

        Drawn on the CPU, so that a GPU trains on the same batches.
        """
        if not self.shuffle:
            return torch.arange(len(self.images), device=self.device)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        return torch.randperm(len(self.images), generator=generator).to(self.device)
