"""Small images written in many formats, and what is decoded from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.images.decode import read_image

H, W = 12, 20
COLOUR = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def read(path: Path, channels: int = 3, height: int = H, width: int = W) -> np.ndarray:
    """(H, W, C) of an image that has the input's size, so that nothing is resized."""
    image = read_image(path, (channels, height, width), resize=height)
    assert (image.shape, image.dtype) == ((channels, height, width), np.uint8)
    return image.transpose(1, 2, 0)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)
