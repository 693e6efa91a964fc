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
from PIL.TiffImagePlugin import TiffImageFile

from data.depths import Depth, UnusableError, grey_in_8_bits, prepared, why_not_read
from data.types import DataError

# Not all that Pillow knows: EPS, for one, is a program that Ghostscript would run.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

UNREAD = "it cannot be read: "  # so begins what is no fault of the picture's, and may pass

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
        MemoryError: it is sound, as far as it was read.
    """
    channels, height, width = shape
    try:
        picture = fitted(decode(path, channels, background), (height, width), resize, fit)
    except MemoryError:  # it is this machine that is at its end, not the file
        raise
    except Exception as error:  # decoders of damaged files raise every kind
        raise DataError(f"{path}: {_what_is_wrong(path, error)}") from error
    return np.ascontiguousarray(
        np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)
    )


def decode(path: Path, channels: int, background: int = 0) -> Image.Image:
    """A file's picture with 8 bits in each of 1 or 3 channels, upright as EXIF has it.

    Grey is repeated for 3 channels, colour becomes grey as ITU-R BT.601 weighs it, transparent
    parts lie on `background`, and deeper pixels are scaled as `data.depths.to_8_bits` says.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise UnusableError("this is not a file.")
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with _UNWARNED, Image.open(path, formats=formats) as file:
        if file.width * file.height > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError  # up to twice as many, Pillow only warns
        depth = prepared(file) if isinstance(file, TiffImageFile) else Depth()
        file.load()
        ImageOps.exif_transpose(file, in_place=True)  # a copy would double a large one
        if file.mode.startswith(("I", "F")):
            return _converted(grey_in_8_bits(file, depth), channels)
        picture = file.convert("LA") if file.mode == "La" else file
        if picture.has_transparency_data:
            picture = _over(background, picture.convert("RGBA"))
        return _converted(picture, channels)


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
        raise UnusableError(
            f"its {picture.width} x {picture.height} pixels are too long a strip to be resized to "
            f"{resized[0]} x {resized[1]}; cut it into shorter ones. Only predict takes it whole, "
            "with --fit squash."
        )
    if resized != picture.size:
        picture = picture.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


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
    if picture.mode == MODES[channels]:
        return picture
    # By way of RGB: Pillow takes CMYK and others to grey by no formula of BT.601.
    if picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")
    return picture.convert(MODES[channels])


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, UnusableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be decoded safely: at most {Image.MAX_IMAGE_PIXELS:,} pixels are."
    if isinstance(error, OSError) and error.errno is not None:
        return f"{UNREAD}{error.strerror}."
    if "out of memory" in str(error):  # a C library's word for it
        return f"{UNREAD}its decoder found no memory."
    if path.stat().st_size == 0:
        return "the file is empty."
    if isinstance(error, UnidentifiedImageError):
        damaged = f"not a picture, or damaged; pictures are {', '.join(FORMATS)}."
        with _UNWARNED:
            return why_not_read(path) or damaged
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"damaged or cut off ({first_line})."
