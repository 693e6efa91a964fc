"""Pooling: one number for each window of each channel.

All loops here run over the taps of the window, not over the windows: tap (r, s) of all windows at
once is a strided slice of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.numpy_nn.functional.checks import IMAGES, check_array, check_grad
from models.numpy_nn.functional.shapes import Array, Cache, Size, Windows, pair, place_windows


def max_pool2d_forward(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Cache]:
    """The largest value under each window; padding is -infinity and never wins.

    Args:
        x: (N, C, H, W).
        stride: None means the kernel size: windows side by side.
        ceil_mode: round the output size up (see `num_windows`).

    Returns:
        (N, C, OH, OW) and the cache.
    """
    check_array("max_pool2d", "x", x, IMAGES)
    stride = kernel_size if stride is None else stride
    windows = place_windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    padded = _pad(x, windows, -np.inf)
    under_taps = [padded[:, :, rows, cols] for rows, cols in windows.taps()]
    out = under_taps[0].copy("K")
    for values in under_taps[1:]:
        np.maximum(out, values, out=out)
    return out, (padded, out, windows, x.shape)


def max_pool2d_backward(grad_out: Array, cache: Cache) -> Array:
    """Only the winner of each window moves its output: it alone gets the gradient.

    Of equal values the first in reading order wins. A pixel that won several windows gets the sum.
    """
    padded, out, windows, shape = cache
    check_grad("max_pool2d", grad_out, out.shape, out.dtype)
    grad_padded = np.zeros_like(padded)
    undecided = np.ones_like(out, dtype=bool)
    for rows, cols in windows.taps():
        won = undecided & (padded[:, :, rows, cols] == out)
        grad_padded[:, :, rows, cols] += grad_out * won
        undecided &= ~won
    return _crop(grad_padded, windows, shape)


def avg_pool2d_forward(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Array, Cache]:
    """The mean under each window.

    Args:
        x: (N, C, H, W).
        stride: None means the kernel size: windows side by side.
        ceil_mode: round the output size up. What hangs over beyond the padding never counts.
        count_include_pad: whether the zeros of the padding count in the mean.

    Returns:
        (N, C, OH, OW) and the cache.
    """
    check_array("avg_pool2d", "x", x, IMAGES)
    stride = kernel_size if stride is None else stride
    windows = place_windows(x.shape, kernel_size, stride, padding, ceil_mode=ceil_mode)
    padded = _pad(x, windows, 0)
    out = np.zeros_like(x, shape=(*x.shape[:2], *windows.out))
    for rows, cols in windows.taps():
        out += padded[:, :, rows, cols]
    counts = (_window_counts(x.shape, windows, axis, count_include_pad) for axis in (0, 1))
    divisor = np.outer(*counts).astype(x.dtype)
    out /= divisor
    return out, (divisor, padded.shape, windows, x.shape)


def avg_pool2d_backward(grad_out: Array, cache: Cache) -> Array:
    """Every pixel under a window gets an equal share of its gradient."""
    divisor, padded_shape, windows, shape = cache
    check_grad("avg_pool2d", grad_out, (*shape[:2], *windows.out), divisor.dtype)
    share = grad_out / divisor
    grad_padded = np.zeros_like(share, shape=padded_shape)
    for rows, cols in windows.taps():
        grad_padded[:, :, rows, cols] += share
    return _crop(grad_padded, windows, shape)


def adaptive_avg_pool2d_forward(x: Array, output_size: Size) -> tuple[Array, Cache]:
    """The mean over windows that divide the image into `output_size` parts as evenly as it goes.

    Window i of `out` along a side of `length` pixels runs from floor(i length / out) to
    ceil((i + 1) length / out). A mean over rows, then over columns, is linear in each:
    out = P x Q^T for each channel, where row i of P holds 1 / window length on window i.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, C, OH, OW) and the cache.
    """
    check_array("adaptive_avg_pool2d", "x", x, IMAGES)
    out_h, out_w = pair("output_size", output_size, least=1)
    over_rows = _averaging_matrix(x.shape[2], out_h, x.dtype)
    over_cols = _averaging_matrix(x.shape[3], out_w, x.dtype)
    return over_rows @ x @ over_cols.T, (over_rows, over_cols, x.shape[:2])


def adaptive_avg_pool2d_backward(grad_out: Array, cache: Cache) -> Array:
    """out = P x Q^T, so grad_x = P^T grad_out Q."""
    over_rows, over_cols, leading = cache
    shape = (*leading, len(over_rows), len(over_cols))
    check_grad("adaptive_avg_pool2d", grad_out, shape, over_rows.dtype)
    return over_rows.T @ grad_out @ over_cols


def _averaging_matrix(length: int, out: int, dtype: np.dtype) -> Array:
    """(out, length): row i has 1 / window length on the pixels of window i, else 0."""
    matrix = np.zeros((out, length), dtype)
    for i in range(out):
        start, end = i * length // out, -(-(i + 1) * length // out)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _window_counts(
    shape: tuple[int, ...], windows: Windows, axis: int, include_pad: bool
) -> NDArray[np.intp]:
    """Along one side, (OH,) or (OW,): how many pixels of each window count in its mean."""
    padding, length = windows.padding[axis], shape[2 + axis]
    margin = padding if include_pad else 0
    first = np.arange(windows.out[axis]) * windows.stride[axis] - padding
    end = first + windows.kernel[axis]
    return np.minimum(end, length + margin) - np.maximum(first, -margin)


def _pad(x: Array, windows: Windows, value: float) -> Array:
    """x with `value` around it, as far as windows reach; x itself if they reach no further."""
    (top, left), (span_h, span_w), (height, width) = windows.padding, windows.span, x.shape[2:]
    if 2 * top > span_h or 2 * left > span_w:
        raise ValueError(
            f"pooling: padding {windows.padding} is more than half a window {windows.span}: some "
            "windows would see nothing but padding"
        )
    bottom = max(top + height, windows.extent[0])
    right = max(left + width, windows.extent[1])
    if (bottom, right) == (height, width):
        return x
    padded = np.full_like(x, value, shape=(*x.shape[:2], bottom, right))
    padded[:, :, top : top + height, left : left + width] = x
    return padded


def _crop(grad_padded: Array, windows: Windows, shape: tuple[int, ...]) -> Array:
    """The inverse of `_pad`."""
    (top, left), (height, width) = windows.padding, shape[2:]
    return grad_padded[:, :, top : top + height, left : left + width]
