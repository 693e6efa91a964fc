"""Types of the layers, and the geometry that all sliding windows share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]  # float32 or float64
Cache: TypeAlias = tuple[Any, ...]  # what a forward keeps for its backward
Size: TypeAlias = "int | tuple[int, int]"  # one number for both sides, or (vertical, horizontal)


class Windows(NamedTuple):
    """Geometry of the windows of a convolution or pooling; pairs are (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    out: tuple[int, int]  # number of windows

    @property
    def span(self) -> tuple[int, int]:
        """Pixels from the first to the last tap of one window, both included."""
        (kernel_h, kernel_w), (gap_h, gap_w) = self.kernel, self.dilation
        return gap_h * (kernel_h - 1) + 1, gap_w * (kernel_w - 1) + 1

    @property
    def extent(self) -> tuple[int, int]:
        """Pixels from the first to the last that any window reads, both included."""
        (span_h, span_w), (step_h, step_w) = self.span, self.stride
        return (self.out[0] - 1) * step_h + span_h, (self.out[1] - 1) * step_w + span_w

    def taps(self, rows: range | None = None) -> Iterator[tuple[slice, slice]]:
        """For each tap of the kernel in reading order: the pixels of the padded image, as
        (vertical, horizontal) slices, that the windows of those output rows (default: all) have
        under it."""
        rows = range(self.out[0]) if rows is None else rows
        (span_h, span_w), (step_h, step_w) = self.span, self.stride
        height, width = (len(rows) - 1) * step_h + 1, (self.out[1] - 1) * step_w + 1
        start = rows.start * step_h
        for top in range(start, start + span_h, self.dilation[0]):
            for left in range(0, span_w, self.dilation[1]):
                yield slice(top, top + height, step_h), slice(left, left + width, step_w)


def place_windows(
    picture: tuple[int, ...],
    kernel: Size,
    stride: Size,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Windows:
    """The windows on an image of shape (..., H, W); `num_windows` says how many."""
    sizes = (
        pair("kernel", kernel, least=1),
        pair("stride", stride, least=1),
        pair("padding", padding, least=0),
        pair("dilation", dilation, least=1),
    )
    vertical, horizontal = zip(*sizes, strict=True)
    out_h = num_windows(picture[-2], *vertical, ceil_mode=ceil_mode)
    out_w = num_windows(picture[-1], *horizontal, ceil_mode=ceil_mode)
    return Windows(*sizes, (out_h, out_w))


def num_windows(
    length: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool
) -> int:
    """Number of windows along a side: (length + 2 padding - span) / stride + 1, rounded down.

    `ceil_mode` rounds up: a last window may hang over the end, if it starts inside the image or
    its left padding (PyTorch's rule).
    """
    room = length + 2 * padding - dilation * (kernel - 1) - 1
    windows = (-(-room // stride) if ceil_mode else room // stride) + 1
    if windows < 1:
        raise ValueError(
            f"a window of {kernel} taps (dilation {dilation}) does not fit into {length} pixels "
            f"padded by {padding} on each side: take a larger input or a smaller kernel"
        )
    if ceil_mode and (windows - 1) * stride >= length + padding:
        windows -= 1
    return windows


def pair(name: str, size: Size, least: int) -> tuple[int, int]:
    """(vertical, horizontal). Raises ValueError unless both are whole numbers from `least` on."""
    sizes = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sizes) != 2 or not all(isinstance(n, int | np.integer) and n >= least for n in sizes):
        raise ValueError(
            f"{name}={size!r} must be a whole number of at least {least}, or two of them"
        )
    return int(sizes[0]), int(sizes[1])
