"""Grey of more than 8 bits: what its numbers mean, and how they become 8 bits.

TIFF has numbers of many kinds. Those that Pillow opens but reads as others, or that it does not
open, are refused with a sentence:

    grey, 1 to 8 bits            spread over 0..255; inverted where 0 is white, as all below
    grey, 12 and 16 bits         the high 8 bits, of as many as MaxSampleValue has or, of a dataset,
                                 `data.images.scaling` finds; big-endian, 12 bits or 0 white:
                                 refused
    grey, 16 bits with a sign    `to_8_bits`; 8 bits with a sign, or 0 being white: refused
    grey, 32 bits                `to_8_bits`; without a sign and big-endian, or 0 white: refused
    grey, 32-bit fractions       `to_8_bits`; of 16 or 64 bits: refused
    with a sign, or fractions    compressed and big-endian: refused
    RGB, RGBA, CMYK              8 bits, or the high 8 of 16; other depths: refused
    palettes, YCbCr, CIELAB      8 bits (palettes: or fewer); other depths: refused
    each channel in a plane      RGB, RGBA, CMYK of 8 bits, or of 16 if compressed; others: refused
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from data.images.scaling import Range, UnscaledError, scaled

# Tags of TIFF 6.0.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, MOST, PLANAR = 258, 259, 262, 277, 281, 284
EXTRA, FORMAT = 338, 339

SAVE_AS_PNG = "which is not read; save it as a PNG of 8 or 16 bits"

_BAND = 2**20  # pixels scaled at a time; bounds the float64 copies


class UnusableError(ValueError):
    """Fault of an image, in words for the user; the file's name comes before them."""


@dataclass(frozen=True)
class Depth:
    """Meaning of the pixels of a deep grey image, Pillow's mode "I", "I;16" or "F".

    Attributes:
        num_bits: whole numbers reach from 0 to 2**num_bits - 1.
        is_declared: the file says so, and not only how many bits it takes for each.
        unsigned: 32 bits without a sign, which Pillow takes for some with one.
        inverted: 0 is white.
    """

    num_bits: int = 16
    is_declared: bool = False
    unsigned: bool = False
    inverted: bool = False


def depth_of(file: TiffImageFile) -> Depth:
    """Depth of an opened TIFF. Raises UnusableError if Pillow would read it as another kind."""
    tags = file.tag_v2
    bits, kind = tags.get(BITS, (1,))[0], tags.get(FORMAT, (1,))[0]
    if misread := _misread(file, bits, kind):
        raise UnusableError(f"a TIFF of {misread}, {SAVE_AS_PNG}.")
    most = tags.get(MOST, 2**16 - 1)
    most = most[0] if isinstance(most, tuple) and most else most
    if (bits, kind) != (16, 1) or not isinstance(most, int) or not 255 <= most < 2**16:
        most = 2**bits - 1
    return Depth(
        num_bits=most.bit_length() if bits in (12, 16) else 16,
        is_declared=bits == 12 or (bits == 16 and most < 2**16 - 1),
        unsigned=(bits, kind) == (32, 1),
        inverted=tags.get(PHOTOMETRIC, 0) == 0,
    )


def _misread(file: TiffImageFile, bits: int, kind: int) -> str | None:
    """Kind of a TIFF that Pillow (13.0) opens and reads as another, else None."""
    tags = file.tag_v2
    is_compressed = tags.get(COMPRESSION, 1) != 1
    if (bits, kind) == (8, 2):
        return "8-bit numbers with a sign"
    if is_compressed and kind != 1 and tags.prefix == b"MM":  # the bytes are swapped twice
        return f"{bits}-bit numbers with a sign or fractions (compressed, big-endian)"
    if tags.get(PLANAR, 1) == 2 and tags.get(SAMPLES, 1) > 1:
        is_plain = file.mode in ("RGB", "RGBA", "CMYK") and tags.get(EXTRA, ()) in ((), (2,))
        if not is_plain or (bits != 8 and not is_compressed):
            return f"{bits}-bit numbers, each channel in a plane of its own"
    return None


def grey_in_8_bits(
    image: Image.Image, depth: Depth, scale: Range | Literal["ask"] | None = None
) -> Image.Image:
    """A deep grey image in Pillow's mode "L", 255 being white: scaled by what its file declares,
    else by `scale`, else, without one, as `to_8_bits` says.

    By bands of rows, of which one at a time is in memory as an array.

    Raises:
        UnscaledError: the scale is asked for, "ask", and the file does not declare it.
    """
    extremes = [(band.min(), band.max()) for _, band in _bands(image, depth)]
    whole = np.min(extremes).item(), np.max(extremes).item()  # NaN if there is one
    _check_finite(*whole)
    if depth.is_declared and isinstance(whole[1], int) and whole[1] < 2**depth.num_bits:
        scale = None
    if scale == "ask":
        raise UnscaledError(whole)
    result = Image.new("L", image.size)
    for top, band in _bands(image, depth):
        grey = scaled(band, scale) if scale else to_8_bits(band, whole, depth.num_bits)
        result.paste(Image.fromarray(255 - grey if depth.inverted else grey), (0, top))
    return result


def _check_finite(low: float, high: float) -> None:
    if not np.isfinite(high - low):
        raise UnusableError("it holds pixels that are NaN or infinite.")


def _bands(image: Image.Image, depth: Depth) -> Iterator[tuple[int, NDArray[Any]]]:
    """Numbers of rows, and the pixels from there on, (H, W)."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        yield top, band.view(np.uint32) if depth.unsigned else band


def to_8_bits(
    pixels: NDArray[Any], extremes: tuple[float, float] | None = None, num_bits: int = 16
) -> NDArray[np.uint8]:
    """Grey pixels of 16 or 32 bits scaled to 0..255 by their range, which Pillow would saturate.

    Whole numbers: the range is 0..65535, of which the high byte stays, as Pillow keeps it of
    colours in 16 bits. Fractions: 0..1, or else 0..255. Where the values leave all of these, the
    image's own least and greatest value become 0 and 255.

    Args:
        pixels: (H, W), any integer or floating point type.
        extremes: least and greatest value of the whole image, if these are a part of it.
        num_bits: whole numbers reach to 2**num_bits - 1.

    Raises:
        UnusableError: some are NaN or infinite; the message tells the user.
    """
    low, high = extremes or (float(pixels.min()), float(pixels.max()))
    _check_finite(low, high)
    if np.issubdtype(pixels.dtype, np.integer):
        if low >= 0 and high < 2**num_bits:
            return (pixels >> (num_bits - 8)).astype(np.uint8)
    elif low >= 0 and high <= 255:
        return np.rint(pixels.astype(np.float64) * (255 if high <= 1 else 1)).astype(np.uint8)
    values = pixels.astype(np.float64) - low
    return np.rint(values * (255 / max(high - low, 1e-300))).astype(np.uint8)
