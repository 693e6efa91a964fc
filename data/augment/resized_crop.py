"""Random resized crop: a part of the image, of random area and shape, brought to the old size.

Szegedy et al. 2015, "Going deeper with convolutions", section 6; with the parameters of
torchvision's RandomResizedCrop.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from data.augment.ops import drawn, send, to_bytes

RATIOS = (3 / 4, 4 / 3)  # of width to height
TRIES = 10  # before the middle is taken


def random_resized_crop(images: Tensor, generator: Generator, smallest: float) -> Tensor:
    """A box of each image, its area from `smallest` to 1 as a share of the image's, brought to the
    old size, bilinear. (N, C, H, W) uint8 -> the same."""
    height, width = images.shape[-2:]
    boxes = drawn_boxes(len(images), height, width, smallest, generator)
    return cropped(images, send(boxes.float(), images.device))


def drawn_boxes(
    number: int, height: int, width: int, smallest: float, generator: Generator
) -> Tensor:
    """(number, 4) int64 on the CPU: top, left, height, width. Of ten draws the first that lies
    within the image; of none, the largest box in its middle whose shape is allowed."""
    random = drawn(
        lambda n: torch.rand(n, 4, TRIES, generator=generator, dtype=torch.float64),
        number, generator,
    )  # fmt: skip
    of_area, of_ratio, of_top, of_left = random.unbind(1)
    area = height * width * (smallest + (1 - smallest) * of_area)
    low, high = map(math.log, RATIOS)
    ratio = (low + (high - low) * of_ratio).exp()
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    top, left = (of_top * (height - h + 1)).long(), (of_left * (width - w + 1)).long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    boxes = torch.stack([value.gather(1, first).squeeze(1) for value in (top, left, h, w)], dim=1)
    middle_w = min(width, round(height * RATIOS[1]))
    middle_h = min(height, round(width / RATIOS[0]))
    middle = [(height - middle_h) // 2, (width - middle_w) // 2, middle_h, middle_w]
    return torch.where(fits.any(1, keepdim=True), boxes, torch.tensor(middle))


def cropped(images: Tensor, boxes: Tensor) -> Tensor:
    """The boxes (N, 4) float of the images, brought to the images' size."""

    def places(start: Tensor, length: Tensor, side: int) -> Tensor:
        """(N, side) where the pixels come from, -1 and 1 being the centres of the outer ones."""
        along = (torch.arange(side, device=images.device) + 0.5) * (length / side) - 0.5
        along = torch.minimum(along.clamp_min(0), length - 1) + start
        return along * (2 / max(1, side - 1)) - 1

    top, left, h, w = boxes.unsqueeze(2).unbind(1)
    height, width = images.shape[-2:]
    y = places(top, h, height).unsqueeze(2).expand(-1, -1, width)
    x = places(left, w, width).unsqueeze(1).expand(-1, height, -1)
    grid = torch.stack((x, y), dim=-1)
    return to_bytes(F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=True))
