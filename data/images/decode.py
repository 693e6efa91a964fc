"""One image file of anybody's as a uint8 array of the shape that a network takes.

Decoding is Pillow's, of the formats in FORMATS; a file of several images gives its first.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from data.images import metadata
from data.images.bit_depth import Depth, UnusableError, depth_of, grey_in_8_bits
from data.images.fitting import MAX_PIXELS, MOST_SQUASHED, converted, fitted, over, squashed
from data.images.looks_like import looks_like
from data.images.scaling import Range, UnscaledError
from data.memory import free_bytes
from data.types import DataError, Fit

# Not all that Pillow knows: EPS, for one, is a program that Ghostscript would run.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")

LARGE = 2**25  # of more pixels, one file at a time is decoded: it may take a gigabyte
MOST_BYTES = 2**30  # of a JPEG or PNG that is read into memory first

UNREAD = "it cannot be read: "  # so begins what is no fault of the image's, and may pass

Scale = Range | Literal["ask"] | None


def read_image(
    path: Path,
    shape: tuple[int, int, int],
    resize: int,
    fit: Fit = "crop",
    background: int = 0,
    max_pixels: int = MAX_PIXELS,
    scale: Scale = None,
) -> NDArray[np.uint8]:
    """A file as a network sees it. Several threads may read at a time.

    Args:
        shape: (C, H, W) wanted, C being 1 or 3; see `decode` for what becomes of other channels.
        resize: pixels of the shorter side before the crop; see `data.images.fitting.fitted`.
        background: grey value, 0..255, behind transparent parts; see `data.images.fitting.over`.
        max_pixels: files of more are not decoded.
        scale: which numbers of deep grey become 0 and 255, where the file does not declare it; see
            `data.images.scaling`. None: each image by itself; see
            `data.images.bit_depth.to_8_bits`.

    Returns:
        `shape` uint8, 0..255.

    Raises:
        DataError: empty, cut off, damaged, too large, or no image. The message begins with the
            file's name.
        MemoryError: it is sound, as far as it was read.
        UnscaledError: `scale` is "ask" and it is needed.
    """
    channels, height, width = shape
    try:
        # A dataset in colour becomes grey and is resized before anything is rounded.
        own = 3 if fit == "squash" else channels
        with decoded(path, own, background, max_pixels, scale) as image:
            if fit == "squash" and image.width * image.height <= MOST_SQUASHED:
                return squashed(np.asarray(image), shape)
            image = converted(fitted(image, (height, width), resize, fit), channels)
    except (MemoryError, UnscaledError):  # neither is a fault of the file's
        raise
    except Exception as error:  # decoders of damaged files raise every kind
        raise DataError(f"{path}: {_what_is_wrong(path, error)}") from error
    return np.ascontiguousarray(
        np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    )


def decode(
    path: Path,
    channels: int,
    background: int = 0,
    max_pixels: int = MAX_PIXELS,
    scale: Scale = None,
) -> Image.Image:
    """A file's image with 8 bits in each of 1 or 3 channels, upright as EXIF has it.

    Grey is repeated for 3 channels, colour becomes grey as ITU-R BT.601 weighs it, transparent
    parts lie on `background`, and deeper pixels are scaled as `read_image` says. Always at full
    size: a JPEG that is decoded smaller has other pixels.
    """
    with decoded(path, channels, background, max_pixels, scale) as image:
        return image


@contextmanager
def decoded(
    path: Path, channels: int, background: int, max_pixels: int, scale: Scale
) -> Iterator[Image.Image]:
    """The image of `decode`; while it is in use, no other large one is decoded."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise UnusableError("this is not a file.")
    known = set(Image.registered_extensions().values())
    formats = [name for name in FORMATS if name in known]
    pixels = _pixels_of(path)
    source = io.BytesIO(pixels.content) if pixels else path
    with _PILLOW, Image.open(source, formats=formats) as file:
        num_pixels = file.width * file.height
        _check_size(file, max_pixels)
        with _ONE_AT_A_TIME if num_pixels > LARGE else nullcontext():
            image, depth = _loaded(file, pixels.orientation if pixels else None)
            if image.mode.startswith(("I", "F")):
                image = grey_in_8_bits(image, depth, scale)
            elif image.has_transparency_data:
                image = over(background, image.convert("RGBA"))
            yield converted(image, channels)


def _pixels_of(path: Path) -> metadata.Pixels | None:
    """Of a JPEG or PNG of a common size; others are read as they are, by pieces."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            return None
        head = file.read(8)
        return metadata.pixels_alone(head + file.read()) if metadata.has_parts(head) else None


def _check_size(file: Image.Image, max_pixels: int) -> None:
    """By the header, before anything is unpacked. What is refused here may be read another time."""
    num_pixels = file.width * file.height
    size = f"its {file.width} x {file.height} pixels are"
    if num_pixels > max_pixels:
        raise UnusableError(
            f"{UNREAD}too large to be decoded safely: {size} more than {max_pixels:,}, the most "
            "that data.max_pixels allows (predict: --max-pixels)."
        )
    if num_pixels > LARGE:
        needed, free = 9 * num_pixels, free_bytes(torch.device("cpu"))
        if needed > free:
            raise UnusableError(
                f"{UNREAD}{size} {needed / 1e9:,.1f} GB when decoded, and {free / 1e9:,.1f} GB of "
                "memory are free."
            )


def _loaded(file: Image.Image, orientation: int | None) -> tuple[Image.Image, Depth]:
    """The image upright, and how its numbers are meant if it is deep."""
    # Pillow brings these two to 16 bits from what their headers declare.
    depth = Depth(is_declared=file.format in ("PPM", "JPEG2000"))
    if isinstance(file, TiffImageFile):
        depth = depth_of(file)
        # Pillow turns TIFFs itself, and reads all their EXIF for it; this is all that it may see.
        turned = file.tag_v2.get(metadata.ORIENTATION)
        file.info["exif"] = metadata.exif_of(
            turned if isinstance(turned, int) and turned in metadata.TURNS else 1
        )
        orientation = 1
    elif orientation is None:
        orientation = metadata.orientation_of(_bytes(file, "exif"), _bytes(file, "xmp"))
    file.load()
    image = file.transpose(metadata.TURNS[orientation]) if orientation in metadata.TURNS else file
    return image.convert("LA") if image.mode == "La" else image, depth


def _bytes(file: Image.Image, name: str) -> bytes:
    value = file.info.get(name, b"")
    return value if isinstance(value, bytes) else b""


class _Pillow:
    """Without Pillow's warnings, of damaged EXIF and the like, which hurt no pixel, and without its
    own limit of pixels, in whose stead `_check_size` stands.

    Both belong to the whole process, and threads that each saved and restored them would undo each
    other's: the first one in saves them, the last one out restores them.
    """

    def __init__(self) -> None:
        self.lock, self.num_inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.num_inside == 0:
                self.saved, self.limit = warnings.catch_warnings(), Image.MAX_IMAGE_PIXELS
                self.saved.__enter__()
                warnings.simplefilter("ignore")
                Image.MAX_IMAGE_PIXELS = None
            self.num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.num_inside -= 1
            if self.num_inside == 0:
                Image.MAX_IMAGE_PIXELS = self.limit
                self.saved.__exit__(None, None, None)


_PILLOW, _ONE_AT_A_TIME = _Pillow(), threading.Lock()


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, UnusableError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{UNREAD}{error.strerror}."
    if "out of memory" in str(error):  # a C library's word for it
        return f"{UNREAD}its decoder found no memory."
    if path.stat().st_size == 0:
        return "the file is empty."
    if isinstance(error, UnidentifiedImageError):
        return _no_picture(path)
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"damaged or cut off ({first_line})."


def _no_picture(path: Path) -> str:
    found = looks_like(path)
    if found is None:
        return f"not an image, or damaged; images are {', '.join(FORMATS)}."
    if "which is not read" in found:
        return f"not an image that is read: it is {found}."
    return f"not an image: it is {found}."
