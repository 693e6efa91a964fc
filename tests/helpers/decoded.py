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
    """(H, W, C) of a picture that has the input's size, so that nothing is resized."""
    picture = read_image(path, (channels, height, width), resize=height)
    assert (picture.shape, picture.dtype) == ((channels, height, width), np.uint8)
    return picture.transpose(1, 2, 0)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)
