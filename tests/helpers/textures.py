"""For tests: pictures that look as photographs do to a search for copies, and copies of them made
by Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageEnhance


def texture(seed: int, side: int = 64) -> Image.Image:
    """Coloured noise with less of it the finer it is, as in photographs."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3))
    size = 2
    while size <= side:
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        layer = np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), float)
        pixels += layer / size**0.7
        size *= 2
    pixels -= pixels.min()
    return Image.fromarray((230 * pixels / pixels.max() + 10).astype(np.uint8))


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    """Without a twenty-fifth on each side, in the old size."""
    side = image.width
    box = (side / 25, side / 25, side - side / 25, side - side / 25)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


NEAR: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "jpeg": jpeg,
    "moved": lambda image: ImageChops.offset(image, 1, 0),
    "cropped": cropped,
}
