"""How the numbers in a picture's file are meant, and what becomes of deep ones in 8 bits.

Only TIFF has numbers of many kinds. What Pillow takes otherwise than TIFF 6.0 means it is put right
here, and what it does not know is refused in words:

    grey, 1 to 8 bits            spread over 0..255; inverted where 0 is white, as all below
    grey, 12 and 16 bits         the high 8 bits, of as many as MaxSampleValue has or, of a set,
                                 `data.images.scaling` finds; big-endian, 12 bits or 0 white:
                                 refused
    grey, 16 bits with a sign    `to_8_bits`; 8 bits with a sign, or 0 being white: refused
    grey, 32 bits                `to_8_bits`; without a sign and big-endian, or 0 white: refused
    grey, 32-bit fractions       `to_8_bits`; of 16 or 64 bits: refused
    RGB, RGBA, CMYK              8 bits, or the high 8 of 16; other depths: refused
    palettes, YCbCr, CIELAB      8 bits (palettes: or fewer); other depths: refused
    each channel in a plane      RGB, RGBA, CMYK of 8 bits, or of 16 if packed; others: refused
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import COMPRESSION_INFO, OPEN_INFO, ImageFileDirectory_v2, TiffImageFile

from data.images.scaling import Range, UnscaledError, scaled

# Tags of TIFF 6.0.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, FORMAT = 258, 259, 262, 277, 284, 339
MOST = 281  # MaxSampleValue

_FORMATS = {1: "whole numbers", 2: "numbers with a sign", 3: "fractions", 6: "complex numbers"}
_PHOTOMETRICS = {
    0: "grey, 0 being white", 1: "grey", 2: "RGB", 3: "a palette", 4: "a mask", 5: "inks",
    6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 32803: "a camera's raw pixels",
}  # fmt: skip

_BAND = 2**20  # pixels scaled at a time; bounds the float64 copies


class UnusableError(ValueError):
    """What is wrong with a picture, in words for the user; the file's name comes before them."""


@dataclass(frozen=True)
class Depth:
    """How the pixels of a deep grey picture are meant, Pillow's mode "I", "I;16" or "F".

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


def prepared(file: TiffImageFile) -> Depth:
    """Makes Pillow read an opened TIFF, not loaded yet, as it is meant. Raises UnusableError."""
    tags = file.tag_v2
    bits, kind = tags.get(BITS, (1,))[0], tags.get(FORMAT, (1,))[0]
    if (bits, kind) == (8, 2) or _has_mistaken_planes(file, bits):
        raise UnusableError(_refusal(tags))
    _swap_bytes_once(file)
    most = _most_of(tags) if (bits, kind) == (16, 1) else 2**bits - 1
    return Depth(
        num_bits=most.bit_length() if bits in (12, 16) else 16,
        is_declared=bits == 12 or (bits == 16 and most < 2**16 - 1),
        unsigned=(bits, kind) == (32, 1),
        inverted=tags.get(PHOTOMETRIC, 0) == 0,
    )


def _most_of(tags: ImageFileDirectory_v2) -> int:
    """The greatest number that a file of 16 bits says it has, 255..65535."""
    most = tags.get(MOST, 2**16 - 1)
    most = most[0] if isinstance(most, tuple) and most else most
    return most if isinstance(most, int) and 255 <= most < 2**16 else 2**16 - 1


def _has_mistaken_planes(file: TiffImageFile, bits: int) -> bool:
    """Whether each channel lies in a plane of its own, in a way that Pillow reads as another.

    Of unpacked planes it takes 8 bits a pixel, whatever they have, and knows those of one letter;
    of packed ones, grey with transparency and CIELAB, it reads the first as all.
    """
    if file.tag_v2.get(PLANAR, 1) != 2 or file.tag_v2.get(SAMPLES, 1) == 1:
        return False
    if file.mode in ("LA", "La", "PA", "LAB", "YCbCr"):
        return True
    letters = {_raw_mode(tile) for tile in file.tile if tile.codec_name == "raw"}
    return bool(letters) and (bits != 8 or not letters <= set("RGBACMYKLP"))


def _swap_bytes_once(file: TiffImageFile) -> None:
    """libtiff hands over what it unpacks in this machine's order. Pillow would swap numbers with a
    sign and fractions of a big-endian file once more."""
    native = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
    for i, tile in enumerate(file.tile):
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple):
            args = (native.get(_raw_mode(tile), _raw_mode(tile)), *tile.args[1:])
            file.tile[i] = tile._replace(args=args)


def _raw_mode(tile: ImageFile._Tile) -> str:
    """How the numbers lie in the file, as Pillow calls it."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def why_not_read(path: Path) -> str | None:
    """Of a sound TIFF that Pillow does not know: what it holds, in words. None of other files."""
    try:
        tags = _tags(path)
        return None if _is_known(tags) else _refusal(tags)
    except Exception:  # damaged ones raise every kind
        return None


def _tags(path: Path) -> ImageFileDirectory_v2:
    """Of the first picture in a TIFF. Raises SyntaxError and others where there is none."""
    with path.open("rb") as file:
        header = file.read(8)
        if header[2:4] in (b"+\0", b"\0+"):  # BigTIFF
            header += file.read(8)
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
    return tags


def _is_known(tags: ImageFileDirectory_v2) -> bool:
    """Whether pixels of this kind are not what keeps Pillow from reading it."""
    if tags.get(COMPRESSION, 1) not in COMPRESSION_INFO:
        return False
    bits, samples = tags[BITS], tags.get(SAMPLES, 1)
    bits = bits * samples if len(bits) == 1 else bits
    kind = (tags.prefix, tags.get(PHOTOMETRIC, 0), tags.get(FORMAT, (1,))[:1], bits)
    planes = tags.get(PLANAR, 1) == 2 and samples > 1
    return not planes and kind in {(key[0], key[1], key[2], key[4]) for key in OPEN_INFO}


def _refusal(tags: ImageFileDirectory_v2) -> str:
    """Such as: a TIFF of 64-bit fractions (grey), which is not read; save it as a PNG of ..."""
    bits, compression = tags.get(BITS, (1,))[0], tags.get(COMPRESSION, 1)
    photometric = tags.get(PHOTOMETRIC, 0)
    kind = _FORMATS.get(tags.get(FORMAT, (1,))[0], "values")
    details = [_PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")]
    if tags.prefix == b"MM":
        details.append("big-endian")
    if tags.get(PLANAR, 1) == 2 and tags.get(SAMPLES, 1) > 1:
        details.append("each channel in a plane of its own")
    if compression not in COMPRESSION_INFO:
        details.append(f"packed by method {compression}")
    return (
        f"a TIFF of {bits}-bit {kind} ({', '.join(details)}), which is not read; "
        "save it as a PNG of 8 or 16 bits."
    )


def grey_in_8_bits(
    picture: Image.Image, depth: Depth, scale: Range | Literal["ask"] | None = None
) -> Image.Image:
    """A deep grey picture in Pillow's mode "L", 255 being white: scaled by what its file declares,
    else by `scale`, else, without one, as `to_8_bits` says.

    By bands of rows, of which one at a time is in memory as an array.

    Raises:
        UnscaledError: the scale is asked for, "ask", and the file does not declare it.
    """
    extremes = [(band.min(), band.max()) for _, band in _bands(picture, depth)]
    whole = np.min(extremes).item(), np.max(extremes).item()  # NaN if there is one
    _check_finite(*whole)
    if depth.is_declared and isinstance(whole[1], int) and whole[1] < 2**depth.num_bits:
        scale = None
    if scale == "ask":
        raise UnscaledError(whole)
    result = Image.new("L", picture.size)
    for top, band in _bands(picture, depth):
        grey = scaled(band, scale) if scale else to_8_bits(band, whole, depth.num_bits)
        result.paste(Image.fromarray(255 - grey if depth.inverted else grey), (0, top))
    return result


def _check_finite(low: float, high: float) -> None:
    if not np.isfinite(high - low):
        raise UnusableError("it holds pixels that are NaN or infinite.")


def _bands(picture: Image.Image, depth: Depth) -> Iterator[tuple[int, NDArray[Any]]]:
    """Numbers of rows, and the pixels from there on, (H, W)."""
    rows = max(1, _BAND // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        band = np.asarray(picture.crop((0, top, picture.width, bottom)))
        yield top, band.view(np.uint32) if depth.unsigned else band


def to_8_bits(
    pixels: NDArray[Any], extremes: tuple[float, float] | None = None, num_bits: int = 16
) -> NDArray[np.uint8]:
    """Grey pixels of 16 or 32 bits scaled to 0..255 by their range, which Pillow would saturate.

    Whole numbers: the range is 0..65535, of which the high byte stays, as Pillow keeps it of
    colours in 16 bits. Fractions: 0..1, or else 0..255. Where the values leave all of these, the
    picture's own least and greatest value become 0 and 255.

    Args:
        pixels: (H, W), any integer or floating point type.
        extremes: least and greatest value of the whole picture, if these are a part of it.
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
