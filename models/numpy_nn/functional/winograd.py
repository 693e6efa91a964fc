"""3 x 3 convolution with fewer multiplications: Winograd's F(4 x 4, 3 x 3), forward only.

Lavin and Gray 2015, "Fast algorithms for convolutional neural networks" (arXiv 1509.09308),
equation 8 and section 4.3. A 4 x 4 tile of the output depends on a 6 x 6 tile d of the input. With
three fixed matrices (interpolation at the points 0, 1, -1, 2, -2, infinity)

    tile = A^T [ (G w G^T) * (B^T d B) ] A        (* element by element)

takes 36 multiplications for a pair of channels instead of the 4 * 4 * 9 = 144 of the definition.
Summed over channels, the middle is 36 matrix products. The weights are transformed once. In
exchange they take four times the memory, and the result has fewer exact digits: over 60 layers of
16 to 512 channels with random weights and inputs, float32 against float64, the largest error was
between 2e-6 and 1.4e-5 of the largest output, median 6e-6 (1.9e-5 and 7e-6 on another CPU); that of
im2col 9e-7 at most, median 4e-7. `test_winograd_is_as_exact_as_its_docstring_says` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from models.numpy_nn.functional.checks import IMAGES, check_array
from models.numpy_nn.functional.shapes import Array, Size, pair

TILE, SPAN = 4, 6  # pixels along a side of a tile: of the output, of the input it depends on
MIN_CHANNELS = 16
MIN_BLOCK_BYTES = 2 << 20  # of transformed tiles and products at a time: they stay in the cache

B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float64,
)
A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    np.float64,
)


def winograd_fits(weight: Array, stride: Size = 1, dilation: Size = 1, groups: int = 1) -> bool:
    """True if `conv2d_winograd` supports this convolution and is faster than im2col.

    With fewer than about 16 channels the transforms cost more than the products save. (Nor does it
    pay for a batch of fewer than about 16 tiles, which spends its time on reading the weights.)
    """
    plain = all(size in (1, (1, 1)) for size in (stride, dilation)) and groups == 1
    return plain and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= MIN_CHANNELS


def winograd_weight(weight: Array) -> Array:
    """U = G w G^T for every pair of channels: (K, C, 3, 3) -> (36, C, K), computed in float64."""
    check_array("winograd", "weight", weight, ("K", "C", 3, 3))
    # Rows of kron(G, G) are the 36 points; both products are one on the flattened 3 x 3 kernel.
    flat = weight.reshape(-1, 9).T.astype(np.float64)
    transformed = (np.kron(G, G) @ flat).astype(weight.dtype)
    by_point = transformed.reshape(SPAN * SPAN, weight.shape[0], weight.shape[1])
    return np.ascontiguousarray(by_point.transpose(0, 2, 1))


def conv2d_winograd(
    x: Array, transformed: Array, bias: Array | None = None, padding: Size = 0
) -> Array:
    """The forward of a 3 x 3 convolution with stride 1, dilation 1 and one group.

    Equals `conv2d_forward(x, weight, bias, padding=padding)` up to rounding. In memory the channels
    come last, (N, H, W, C), so that every step works on contiguous runs of channels.

    Args:
        x: (N, C, H, W).
        transformed: (36, C, K), from `winograd_weight`.
        bias: (K,) or None.

    Returns:
        (N, K, H + 2 padding - 2, W + 2 padding - 2).
    """
    check_array("winograd", "x", x, IMAGES)
    check_array("winograd", "transformed", transformed, (SPAN * SPAN, "C", "K"), x.dtype)
    if bias is not None:
        check_array("winograd", "bias", bias, transformed.shape[2:], x.dtype)
    batch, channels, height, width = x.shape
    filters = transformed.shape[2]
    if transformed.shape[1] != channels:
        raise ValueError(
            f"winograd: the input has {channels} channels, the weight {transformed.shape[1]}"
        )
    above, left = pair("padding", padding, least=0)
    out_h, out_w = height + 2 * above - 2, width + 2 * left - 2
    if min(out_h, out_w) < 1:
        raise ValueError(f"winograd: images {x.shape} padded by {padding} are below 3 pixels")
    rows, cols = -(-out_h // TILE), -(-out_w // TILE)  # of tiles; the last ones may hang over
    padded = np.zeros((batch, rows * TILE + 2, cols * TILE + 2, channels), x.dtype)
    padded[:, above : above + height, left : left + width] = x.transpose(0, 2, 3, 1)
    out = np.empty((batch, rows * TILE, cols * TILE, filters), x.dtype)
    tiles_in = np.lib.stride_tricks.sliding_window_view(padded, (SPAN, SPAN), axis=(1, 2))
    tiles_in = tiles_in[:, ::TILE, ::TILE].transpose(4, 5, 0, 1, 2, 3)  # (6, 6, N, rows, cols, C)
    tiles_out = out.reshape(batch, rows, TILE, cols, TILE, filters).transpose(2, 4, 0, 1, 3, 5)
    _convolve_tiles(tiles_in, transformed, bias, tiles_out)
    return out[:, :out_h, :out_w].transpose(0, 3, 1, 2)


def _convolve_tiles(
    tiles_in: Array, transformed: Array, bias: Array | None, tiles_out: Array
) -> None:
    """Fill (4, 4, N, rows, cols, K) from (6, 6, N, rows, cols, C), a block of tiles at a time.

    Blocks stay in the processor's cache from step to step, and all steps write into the same two
    buffers in turn.
    """
    channels, filters = transformed.shape[1:]
    b_t, a_t = B_T.astype(tiles_in.dtype), A_T.astype(tiles_in.dtype)
    blocks = list(_blocks(tiles_in, transformed))
    largest = max(tiles_in[0, 0, images, rows, :, 0].size for images, rows in blocks)
    buffers = np.empty((2, SPAN**2 * largest * max(channels, filters)), tiles_in.dtype)
    for images, rows in blocks:
        source, target = tiles_in[:, :, images, rows], tiles_out[:, :, images, rows]
        num_tiles = source[0, 0, ..., 0].size
        tiles = _shaped(buffers[0], source.shape)
        np.copyto(tiles, source)
        half = _shaped(buffers[1], (SPAN, SPAN * num_tiles * channels))
        np.matmul(b_t, tiles.reshape(SPAN, -1), out=half)  # B^T d: over the rows of each tile
        points = _shaped(buffers[0], (SPAN, SPAN, num_tiles * channels))
        np.matmul(b_t, half.reshape(points.shape), out=points)  # (B^T d) B: over its columns
        products = _shaped(buffers[1], (SPAN**2, num_tiles, filters))
        np.matmul(points.reshape(SPAN**2, num_tiles, channels), transformed, out=products)
        half = _shaped(buffers[0], (TILE, SPAN * num_tiles * filters))
        np.matmul(a_t, products.reshape(SPAN, -1), out=half)
        result = _shaped(buffers[1], (TILE, TILE, num_tiles * filters))
        np.matmul(a_t, half.reshape(TILE, SPAN, -1), out=result)
        np.add(result.reshape(target.shape), 0 if bias is None else bias, out=target)


def _blocks(tiles_in: Array, transformed: Array) -> Iterator[tuple[slice, slice]]:
    """(images, rows of tiles) of each block: some whole images, or some rows of one."""
    _, _, batch, rows, cols, _ = tiles_in.shape
    # Each block reads all weights once, so a block smaller than they are would wait for them.
    block_bytes = max(MIN_BLOCK_BYTES, transformed.nbytes)
    row_bytes = SPAN**2 * cols * sum(transformed.shape[1:]) * tiles_in.itemsize
    fitting = max(1, block_bytes // row_bytes)
    num_images, num_rows = max(1, fitting // rows), min(fitting, rows)
    for image in range(0, batch, num_images):
        for row in range(0, rows, num_rows):
            yield slice(image, image + num_images), slice(row, row + num_rows)


def _shaped(buffer: Array, shape: tuple[int, ...]) -> Array:
    """The start of a flat buffer as an array of that shape."""
    return buffer[: math.prod(shape)].reshape(shape)
