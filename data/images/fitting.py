"""Decoded images at the shape that a network takes: size, channels, what lies behind them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageStat

from data.images.bit_depth import UnusableError
from data.resizing import to_shape
from data.types import Fit

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

MAX_PIXELS = 250_000_000  # of a file; the largest of a telephone's camera have 200 million
MOST_SQUASHED = 2**24  # pixels that take 200 MB in float32; more of them are Pillow's to resize
VANISHES = 32  # grey values


def squashed(image: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Both sides resized, to the last bit as the images of a dataset are, see `resizing.to_shape`.

    Args:
        image: (H, W, 3), grey if the three are the same everywhere.
        shape: (C, H, W) wanted.
    """
    is_grey = (image == image[:, :, :1]).all()
    channels = image[:, :, :1] if is_grey else image
    images = torch.from_numpy(np.ascontiguousarray(channels.transpose(2, 0, 1))[None])
    return to_shape(images, shape)[0].numpy()


def fitted(image: Image.Image, size: tuple[int, int], resize: int, fit: Fit) -> Image.Image:
    """An image brought to (H, W) = size, bilinear with antialiasing; untouched if it has it.

    "crop" brings the shorter side to `resize`, or to more where that would not cover `size`, and
    takes the centre, as torchvision's Resize and CenterCrop do; "squash" resizes both sides.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if fit == "squash":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    short = min(image.size)
    covering = (-(-n * short // own) for n, own in zip((width, height), image.size, strict=True))
    resize = max(resize, *covering)
    resized = (resize * image.width // short, resize * image.height // short)
    if resized[0] * resized[1] > MAX_PIXELS:
        raise UnusableError(
            f"its {image.width} x {image.height} pixels are too long a strip to be resized to "
            f"{resized[0]} x {resized[1]}; cut it into shorter ones. Only predict takes it whole, "
            "with --fit squash."
        )
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def over(background: int, image: Image.Image) -> Image.Image:
    """RGBA -> RGB: the colour where it is opaque, `background` where it is not.

    If what can be seen is, on average, within VANISHES grey values of the background, the opposite
    (255 - background) lies behind it: black lines on nothing would be lost on black.
    """
    seen = _on(background, image)
    opaque = ImageStat.Stat(image.getchannel("A")).mean[0] / 255
    difference = ImageStat.Stat(seen.convert("L")).mean[0] - background
    if opaque and abs(difference) < VANISHES * opaque:
        return _on(255 - background, image)
    return seen


def _on(background: int, image: Image.Image) -> Image.Image:
    below = Image.new("RGB", image.size, (background,) * 3)
    below.paste(image, mask=image.getchannel("A"))
    return below


def converted(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == MODES[channels]:
        return image
    # By way of RGB: Pillow takes CMYK and others to grey by no formula of BT.601.
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert(MODES[channels])
