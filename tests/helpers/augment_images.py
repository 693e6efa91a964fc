"""For tests: images to augment, and generators."""

from __future__ import annotations

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(number: int = 8, channels: int = 3, height: int = 12, width: int = 12) -> Tensor:
    shape = (number, channels, height, width)
    return torch.randint(0, 256, shape, generator=seeded(1), dtype=torch.uint8)


def constant(number: int, side: int = 16, width: int | None = None) -> Tensor:
    """Image i has the value i all over."""
    values = torch.arange(number, dtype=torch.float32)
    return values.view(-1, 1, 1, 1).expand(-1, 1, side, width or side).contiguous()
