"""Preprocessing on the device: cast, scaled, normalised, enlarged."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Preprocess:
    """uint8 images -> what a model sees: (x / 255 - mean) / std, sides brought to `min_size`.

    Images of 28 px for a network that needs 32 get a black border of 2 px, as LeNet-5's digits had;
    any others that are too small are resized.

    Args:
        mean, std: per channel, in units of pixel / 255.
        min_size: the smallest side in pixels that the network works with.
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
        # Several channels are reordered last: bytes take twice as long to reorder, and arithmetic
        # along channels of three ten times as long.
        self.first_format = memory_format if len(mean) == 1 else torch.contiguous_format
        # One multiplication and one addition per pixel: x * scale - offset.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.to(device, dtype).view(-1, 1, 1)
        self.offset = offset.to(device, dtype).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 -> (N, C, max(H, min_size), max(W, min_size)) float."""
        return self.lay_out(self.normalize(images))

    def lay_out(self, x: Tensor) -> Tensor:
        """The same in the memory format that the network takes."""
        return x.to(memory_format=self.memory_format)

    def normalize(self, images: Tensor) -> Tensor:
        """All of it but the memory format."""
        size = images.shape[-2:]
        too_small = min(size) < self.min_size
        if too_small and pads(size, self.min_size):
            images, too_small = F.pad(images, (2, 2, 2, 2)), False
        x = images.to(self.dtype, memory_format=self.first_format)
        x = x.mul_(self.scale).sub_(self.offset)
        if too_small:
            x = F.interpolate(x, enlarged(size, self.min_size), mode="bilinear", antialias=True)
        return x


def enlarged(size: tuple[int, ...], min_size: int) -> tuple[int, int]:
    """(H, W) as a network with this min_size sees it."""
    height, width = size
    return max(height, min_size), max(width, min_size)


def pads(size: tuple[int, ...], min_size: int) -> bool:
    """True if images of this (H, W) get a border instead of being resized."""
    return tuple(size) == (28, 28) and min_size == 32
