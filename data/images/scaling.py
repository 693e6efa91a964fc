"""One range for all deep grey images of a dataset: which numbers become 0 and 255.

A file of 16 bits says how many bits a number takes, not how many are used: cameras of 10, 12 or 14
bits write such files, and so do programs with 8. By the high byte alone they would be black. So the
dataset is asked, once, and its answer goes with the pack and with the checkpoint: whatever reads
one more image scales it just so.

    whole numbers from 0 on   0 to 2**b - 1, with the fewest bits b, at least 8, that hold the
                              greatest of the dataset: the high 8 of b bits stay
    fractions                 0 to 1, or 0 to 255, where all lie in that
    all others                the dataset's least to its greatest number; also whole ones from 0 on
                              that take less than an eighth of the range above, such as temperatures
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.types import count

Range = tuple[float, float]  # least and greatest number; two ints of whole numbers

FLAT, MANY = 16, 0.1  # grey values; the part of all images from which on it is said
SPARSE = 8  # a range of which less than one part in so many is used is not taken whole


class UnscaledError(Exception):
    """A deep image was met, and the dataset's range is not known yet. Has the image's own."""

    def __init__(self, own: Range) -> None:
        super().__init__(own)
        self.own = own


def range_of_set(owns: Iterable[Range]) -> Range:
    """From the range of each image, of which there is at least one."""
    lows, highs = zip(*owns, strict=True)
    low, high = min(lows), max(highs)
    if isinstance(low, int) and isinstance(high, int):
        full = 2 ** max(8, high.bit_length()) - 1
        if low >= 0 and SPARSE * (high - low) >= full:
            return 0, full
    elif low >= 0 and high <= 255:
        return (0, 1) if high <= 1 else (0, 255)
    return low, high


def scaled(pixels: NDArray[Any], scale: Range) -> NDArray[np.uint8]:
    """Deep pixels in 8 bits; what lies outside the range becomes 0 or 255."""
    low, high = scale
    if np.issubdtype(pixels.dtype, np.integer) and low == 0 and high in _FULL:
        bits = int(high).bit_length()
        return (np.clip(pixels, 0, int(high)) >> (bits - 8)).astype(np.uint8)
    values = np.clip(pixels.astype(np.float64), low, high) - low
    return np.rint(values * (255 / max(high - low, 1e-300))).astype(np.uint8)


_FULL = {2**bits - 1 for bits in range(8, 17)}


def is_flat(image: NDArray[np.uint8]) -> bool:
    """True if pixels, (C, H, W), are nearly one colour: in no channel do two differ by more than
    FLAT."""
    return bool((np.ptp(image.reshape(len(image), -1), axis=1) <= FLAT).all())


def notes(num_deep: int, scale: Range | None, num_flat: int, num_all: int) -> list[str]:
    """Notes for the user on a dataset's images."""
    lines = [_of_scale(scale, num_deep, num_all)] if scale else []
    if num_flat > MANY * num_all:
        lines.append(
            f"{num_flat:,} of {count(num_all, 'image')} {'is' if num_flat == 1 else 'are'} nearly "
            f"one colour (no pixels differ by more than {FLAT} of 255): look whether "
            "they show what they should"
        )
    return lines


def _of_scale(scale: Range, num_deep: int, num_all: int) -> str:
    low, high = (f"{value:g}" if isinstance(value, float) else f"{value:,}" for value in scale)
    return (
        f"{num_deep:,} of {count(num_all, 'image')} {'is' if num_deep == 1 else 'are'} grey of "
        f"more than 8 bits: their numbers from {low} to {high} become 0 to 255, and so in predict "
        "and evaluate (data.pixel_range)"
    )
