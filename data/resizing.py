"""Images of a dataset in another size and number of channels, all at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from data.memory import check_memory
from data.types import DataError

# Weights of red, green and blue in grey: ITU-R BT.601, as in PIL's mode "L".
LUMA = (0.299, 0.587, 0.114)
_CHUNK = 1024  # images resized at a time; bounds the float32 copies


def to_shape(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Resizes images and changes their number of channels.

    Both sides are resized, bilinear with antialiasing, the aspect ratio left to the caller.

    Args:
        images: (N, C, H, W) uint8.
        shape: (C, H, W) wanted; C as it is, 1 from 3 (grey, ITU-R BT.601) or 3 from 1 (repeated).

    Returns:
        (N, *shape) uint8; `images` itself if nothing is to be done.

    Raises:
        DataError: no rule leads from the one number of channels to the other.
    """
    own_channels, (channels, height, width) = images.shape[1], shape
    check_channels(own_channels, shape)
    if tuple(images.shape[1:]) == tuple(shape):
        return images
    check_memory(len(images), shape)
    done = torch.empty((len(images), channels, height, width), dtype=torch.uint8)
    for source, target in zip(images.split(_CHUNK), done.split(_CHUNK), strict=True):
        pixels = source.float()
        if channels < own_channels:
            pixels = torch.einsum("nchw,c->nhw", pixels, torch.tensor(LUMA)).unsqueeze(1)
        if pixels.shape[2:] != (height, width):
            pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        target.copy_(pixels.round().clamp(0, 255))  # one channel is repeated by broadcasting
    return done


def check_channels(own: int, shape: Sequence[int]) -> None:
    if (own, shape[0]) not in ((1, 3), (3, 1)) and own != shape[0]:
        raise DataError(
            f"data.shape={list(shape)}: the images have {own} channels; only 1 and 3 can be made "
            f"of each other. Use {own}."
        )
