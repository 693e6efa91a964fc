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


def squashed(picture: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Both sides resized, to the last bit as the images of a set are, see `resizing.to_shape`.

    Args:
        picture: (H, W, 3), grey if the three are the same everywhere.
        shape: (C, H, W) wanted.
    """
    is_grey = (picture == picture[:, :, :1]).all()
    channels = picture[:, :, :1] if is_grey else picture
    images = torch.from_numpy(np.ascontiguousarray(channels.transpose(2, 0, 1))[None])
    done: NDArray[np.uint8] = to_shape(images, shape)[0].numpy()
    return done


def fitted(picture: Image.Image, size: tuple[int, int], resize: int, fit: Fit) -> Image.Image:
    """A picture brought to (H, W) = size, bilinear with antialiasing; untouched if it has it.

    "crop" brings the shorter side to `resize`, or to more where that would not cover `size`, and
    takes the centre, as torchvision's Resize and CenterCrop do; "squash" resizes both sides.
    """
    height, width = size
    if picture.size == (width, height):
        return picture
    if fit == "squash":
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    short = min(picture.size)
    covering = (-(-n * short // own) for n, own in zip((width, height), picture.size, strict=True))
    resize = max(resize, *covering)
    resized = (resize * picture.width // short, resize * picture.height // short)
    if resized[0] * resized[1] > MAX_PIXELS:
        raise UnusableError(
            f"its {picture.width} x {picture.height} pixels are too long a strip to be resized to "
            f"{resized[0]} x {resized[1]}; cut it into shorter ones. Only predict takes it whole, "
            "with --fit squash."
        )
    if resized != picture.size:
        picture = picture.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def over(background: int, picture: Image.Image) -> Image.Image:
    """RGBA -> RGB: the colour where it is opaque, `background` where it is not.

    If what can be seen is, on average, within VANISHES grey values of the background, the opposite
    (255 - background) lies behind it: black lines on nothing would be lost on black.
    """
    seen = _on(background, picture)
    opaque = ImageStat.Stat(picture.getchannel("A")).mean[0] / 255
    difference = ImageStat.Stat(seen.convert("L")).mean[0] - background
    if opaque and abs(difference) < VANISHES * opaque:
        return _on(255 - background, picture)
    return seen


def _on(background: int, picture: Image.Image) -> Image.Image:
    below = Image.new("RGB", picture.size, (background,) * 3)
    below.paste(picture, mask=picture.getchannel("A"))
    return below


def converted(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode == MODES[channels]:
        return picture
    # By way of RGB: Pillow takes CMYK and others to grey by no formula of BT.601.
    if picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")
    return picture.convert(MODES[channels])
