"""Two-dimensional convolution as a matrix product (im2col).

The idea: write each input patch that the kernel meets as one column of a matrix. Then the whole
convolution is a single product, weights (K, C R S) @ columns (C R S, positions), and the matrix
routines of the machine do the work (Chellapilla, Puri, Simard 2006, "High performance convolutional
neural networks for document processing", section 3.1).

Two things keep it fast without hiding it:
- In memory the batch comes last, (C, H, W, N): a kernel tap then copies long contiguous runs. The
  caller sees (N, C, H, W) all the same, as a transposed view.
- The columns are R S times larger than the input, so they are made for a few output rows at a
  time, into one buffer that stays in the processor's cache, and made again for the backward.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.numpy_nn.functional.checks import IMAGES, check_array, check_grad
from models.numpy_nn.functional.shapes import Array, Cache, Size, Windows, place_windows

BLOCK_BYTES = 4 << 20  # of columns at a time: a few megabytes, about what a cache holds


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Array, Cache]:
    """Slide K kernels over zero-padded images (cross-correlation, as every framework calls it).

        out[n, k, i, j] = bias[k] + sum_{c, r, s} weight[k, c, r, s]
                          x[n, c, i stride + r dilation - padding, j stride + s dilation - padding]

    With `groups` = G the channels split into G parts, and the g-th K/G kernels see the g-th part.

    Args:
        x: (N, C, H, W).
        weight: (K, C / groups, R, S).
        bias: (K,) or None.

    Returns:
        (N, K, OH, OW), OH = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1, and the
        cache.
    """
    check_array("conv2d", "x", x, IMAGES)
    check_array("conv2d", "weight", weight, ("K", "C / groups", "R", "S"), x.dtype)
    if bias is not None:
        check_array("conv2d", "bias", bias, (len(weight),), x.dtype)
    _check_channels(x, weight, groups)
    windows = place_windows(x.shape, weight.shape[2:], stride, padding, dilation)
    padded = _pad_batch_last(x, windows)
    flat_weight = weight.reshape(groups, len(weight) // groups, -1)
    out = np.empty((len(weight), *windows.out, len(x)), x.dtype)
    flat_out = out.reshape(groups, len(weight) // groups, -1)
    for rows, columns in _column_blocks(padded, windows):
        columns = columns.reshape(groups, flat_weight.shape[2], -1)
        np.matmul(flat_weight, columns, out=flat_out[:, :, _positions(rows, out)])
    if bias is not None:
        out += bias[:, None, None, None]
    return out.transpose(3, 0, 1, 2), (padded, weight, bias is not None, windows, groups)


def conv2d_backward(
    grad_out: Array, cache: Cache, need_grad_x: bool = True
) -> tuple[Array | None, Array, Array | None]:
    """The product out = weight @ columns + bias, differentiated.

        grad_bias    = grad_out summed over images and positions
        grad_weight  = grad_out @ columns^T
        grad_columns = weight^T @ grad_out, and each entry goes back to the pixel it was copied
                       from; a pixel that lay under several taps gets the sum (col2im).

    Args:
        grad_out: (N, K, OH, OW).
        need_grad_x: False skips grad_x, the costlier half, which a first layer has no use for.

    Returns:
        grad_x (N, C, H, W) or None, grad_weight (K, C / groups, R, S), grad_bias (K,) or None.
    """
    padded, weight, has_bias, windows, groups = cache
    check_grad("conv2d", grad_out, (padded.shape[3], len(weight), *windows.out), padded.dtype)
    grad = np.ascontiguousarray(grad_out.transpose(1, 2, 3, 0))
    flat_grad = grad.reshape(groups, len(weight) // groups, -1)
    flat_weight = weight.reshape(groups, len(weight) // groups, -1)
    grad_weight = np.zeros_like(flat_weight)
    grad_padded = np.zeros_like(padded) if need_grad_x else None
    for rows, columns in _column_blocks(padded, windows):
        grad_rows = flat_grad[:, :, _positions(rows, grad)]
        columns = columns.reshape(groups, flat_weight.shape[2], -1)
        grad_weight += grad_rows @ columns.transpose(0, 2, 1)
        if grad_padded is not None:
            _add_columns(grad_padded, flat_weight.transpose(0, 2, 1) @ grad_rows, rows, windows)
    grad_bias = grad.reshape(len(weight), -1).sum(axis=1) if has_bias else None
    grad_x = None if grad_padded is None else _crop(grad_padded, windows)
    return grad_x, grad_weight.reshape(weight.shape), grad_bias


def _check_channels(x: Array, weight: Array, groups: int) -> None:
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or len(weight) % groups:
        raise ValueError(
            f"conv2d: input {x.shape}, weight {weight.shape} and groups {groups} do not fit: the "
            f"weight takes {weight.shape[1] * groups} channels, and groups must divide its filters"
        )


def _pad_batch_last(x: Array, windows: Windows) -> Array:
    """(N, C, H, W) -> (C, H + 2 padding, W + 2 padding, N), zeros around."""
    batch, channels, height, width = x.shape
    top, left = windows.padding
    padded = np.zeros((channels, height + 2 * top, width + 2 * left, batch), x.dtype)
    padded[:, top : top + height, left : left + width] = x.transpose(1, 2, 3, 0)
    return padded


def _crop(padded: Array, windows: Windows) -> Array:
    """The inverse of `_pad_batch_last`."""
    top, left = windows.padding
    height, width = padded.shape[1] - 2 * top, padded.shape[2] - 2 * left
    return padded[:, top : top + height, left : left + width].transpose(3, 0, 1, 2)


def _positions(rows: range, out: Array) -> slice:
    """Slice of those output rows in (K, OH, OW, N) with its last three axes flattened."""
    row_size = out.shape[2] * out.shape[3]
    return slice(rows.start * row_size, rows.stop * row_size)


def _column_blocks(padded: Array, windows: Windows) -> Iterator[tuple[range, Array]]:
    """The patches under the kernel, for a few output rows at a time.

    Args:
        padded: (C, H, W, N).

    Yields:
        rows: a range of output rows.
        columns: (C, R, S, len(rows), OW, N); the next block overwrites it.
    """
    patches = np.lib.stride_tricks.sliding_window_view(padded, windows.span, axis=(1, 2))
    (step_h, step_w), (gap_h, gap_w) = windows.stride, windows.dilation
    patches = patches[:, ::step_h, ::step_w, :, ::gap_h, ::gap_w]
    patches = patches.transpose(0, 4, 5, 1, 2, 3)  # (C, R, S, OH, OW, N), nothing copied so far
    row_size = patches[:, :, :, 0].size
    num_rows = min(max(1, BLOCK_BYTES // (row_size * padded.itemsize)), windows.out[0])
    buffer = np.empty(row_size * num_rows, padded.dtype)
    for first in range(0, windows.out[0], num_rows):
        rows = range(first, min(first + num_rows, windows.out[0]))
        block = patches[:, :, :, first : rows.stop]
        columns = buffer[: block.size].reshape(block.shape)
        np.copyto(columns, block)
        yield rows, columns


def _add_columns(grad_padded: Array, columns: Array, rows: range, windows: Windows) -> None:
    """Add each entry of the columns to the pixel that it was copied from (col2im)."""
    channels, _, _, batch = grad_padded.shape
    by_tap = columns.reshape(channels, -1, len(rows), windows.out[1], batch)
    for tap, (vertical, horizontal) in enumerate(windows.taps(rows)):
        grad_padded[:, vertical, horizontal] += by_tap[:, tap]
