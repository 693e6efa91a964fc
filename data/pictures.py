"""One picture file of anybody's as a uint8 array of the shape that a net takes.

Decoding is Pillow's, of the formats in FORMATS; a file of several pictures gives its first.
"""

from __future__ import annotations

import stat
import threading
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from data.types import DataError

# Not all that Pillow knows: EPS, for one, is a program that Ghostscript would run.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

Fit = Literal["crop", "squash"]


def read_picture(
    path: Path, shape: tuple[int, int, int], resize: int, fit: Fit = "crop", background: int = 0
) -> NDArray[np.uint8]:
    """A file as a net sees it. Several threads may read at a time.

    Args:
        shape: (C, H, W) wanted, C being 1 or 3; see `decode` for what becomes of other channels.
        resize: pixels of the shorter side before the crop; see `fitted`.
        background: grey value, 0..255, behind transparent parts.

    Returns:
        `shape` uint8, 0..255.

    Raises:
        DataError: empty, cut off, damaged, too large, or no picture. The message begins with the
            file's name.
    """
    channels, height, width = shape
    try:
        picture = fitted(decode(path, channels, background), (height, width), resize, fit)
    except Exception as error:  # decoders of damaged files raise every kind
        raise DataError(f"{path}: {_what_is_wrong(path, error)}") from error
    return np.ascontiguousarray(
        np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)
    )


def decode(path: Path, channels: int, background: int = 0) -> Image.Image:
    """A file's picture with 8 bits in each of 1 or 3 channels, upright as EXIF has it.

    Grey is repeated for 3 channels, colour becomes grey as ITU-R BT.601 weighs it, transparent
    parts lie on `background`, and deeper pixels are scaled as `to_8_bits` says.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise _UnusableError("this is not a file.")
    Image.init()
    with _UNWARNED:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
            if file.width * file.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise Image.DecompressionBombError  # up to twice as many, Pillow only warns
            picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith(("I", "F")):
            picture = Image.fromarray(to_8_bits(np.asarray(picture)))
        elif picture.has_transparency_data:
            picture = _over(background, picture.convert("RGBA"))
        return picture if picture.mode == MODES[channels] else _converted(picture, channels)


def to_8_bits(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey pixels of 16 or 32 bits scaled to 0..255 by their range, which Pillow would saturate.

    Whole numbers: the range is 0..65535, of which the high byte stays, as Pillow keeps it of
    colours in 16 bits. Fractions: 0..1, or else 0..255. Where the values leave all of these, the
    picture's own least and greatest value become 0 and 255.

    Args:
        pixels: (H, W), any integer or floating point type.

    Raises:
        ValueError: some are NaN or infinite; the message tells the user.
    """
    values = pixels.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite(high - low):
        raise _UnusableError("it holds pixels that are NaN or infinite.")
    if np.issubdtype(pixels.dtype, np.integer):
        if low >= 0 and high <= 65535:
            return (values // 256).astype(np.uint8)
    elif low >= 0 and high <= 255:
        return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


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
    if resized[0] * resized[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise _UnusableError(
            f"its {picture.width} x {picture.height} pixels are too long a strip to be resized to "
            f"{resized[0]} x {resized[1]}; --fit squash takes it."
        )
    if resized != picture.size:
        picture = picture.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


class _UnusableError(ValueError):
    """What is wrong with a picture, in words for the user; the file's name comes before them."""


class _Unwarned:
    """Without Pillow's warnings, of damaged EXIF and the like, which hurt no pixel.

    The filters of warnings belong to the whole process, and threads that each saved and restored
    them would undo each other's: the first one in saves them, the last one out restores them.
    """

    def __init__(self) -> None:
        self.lock, self.num_inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.num_inside == 0:
                self.saved = warnings.catch_warnings()
                self.saved.__enter__()
                warnings.simplefilter("ignore")
            self.num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.num_inside -= 1
            if self.num_inside == 0:
                self.saved.__exit__(None, None, None)


_UNWARNED = _Unwarned()


def _over(background: int, picture: Image.Image) -> Image.Image:
    """RGBA -> RGB: the colour where it is opaque, `background` where it is not."""
    below = Image.new("RGB", picture.size, (background,) * 3)
    below.paste(picture, mask=picture.getchannel("A"))
    return below


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    # By way of RGB: Pillow takes CMYK and others to grey by no formula of BT.601.
    if picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")
    return picture.convert(MODES[channels])


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, _UnusableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be decoded safely: at most {Image.MAX_IMAGE_PIXELS:,} pixels are."
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be read: {error.strerror}."
    if path.stat().st_size == 0:
        return "the file is empty."
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture, or damaged; pictures are {', '.join(FORMATS)}."
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"damaged or cut off ({first_line})."
