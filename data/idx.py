"""Reads IDX, the format of MNIST's files, strictly.

The format, as MNIST's page (yann.lecun.com/exdb/mnist) gives it: two zero bytes, a type code (8 =
unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer, the bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from data.files import FETCH_AGAIN
from data.types import DataError

_UNSIGNED_BYTE = 8
_GZIP = 31  # zlib's wbits for a gzip header and trailer; it checks the trailer's CRC-32
_MOST = 1 << 40  # no file here is larger; keeps a damaged header's size within what zlib takes


def read_idx(path: Path, num_dims: int) -> np.ndarray:
    """The array in an IDX file of unsigned bytes; gzipped if the name ends in .gz.

    Returns:
        A writable uint8 array with `num_dims` dimensions, none of them 0.

    Raises:
        DataError: it is not exactly such a file, to the byte.
        OSError: it cannot be read.
    """
    raw = path.read_bytes()
    try:
        if not raw:
            raise ValueError("found an empty file, expected IDX data")
        return _parse_gzip(raw, num_dims) if path.suffix == ".gz" else _parse_plain(raw, num_dims)
    except (zlib.error, ValueError) as error:
        raise DataError(f"{path} is no IDX file as expected: {error}. {FETCH_AGAIN}") from error


def _parse_plain(raw: bytes, num_dims: int) -> np.ndarray:
    start = 4 + 4 * num_dims
    return _array(_shape(raw[:start], num_dims), raw[start:])


def _parse_gzip(raw: bytes, num_dims: int) -> np.ndarray:
    """Unpacks no more than the header promises: a small file cannot fill the memory."""
    unpack = zlib.decompressobj(_GZIP)
    shape = _shape(unpack.decompress(raw, 4 + 4 * num_dims), num_dims)
    content = unpack.decompress(unpack.unconsumed_tail, min(math.prod(shape), _MOST) + 1)
    array = _array(shape, content)
    if not unpack.eof:
        raise ValueError("found gzip data without its end, expected a checksum there")
    return array


def _shape(header: bytes, num_dims: int) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_dims])
    if header[:4] != magic:
        raise ValueError(
            f"found the magic number 0x{header[:4].hex()}, expected 0x{magic.hex()} "
            f"(unsigned bytes, {num_dims} dimension{'s' if num_dims > 1 else ''})"
        )
    if len(header) < 4 + 4 * num_dims:
        raise ValueError(f"found a header of {len(header)} bytes, expected {4 + 4 * num_dims}")
    shape = struct.unpack(f">{num_dims}I", header[4:])
    if 0 in shape:
        raise ValueError(f"found the dimensions {shape}, expected none of them 0")
    return shape


def _array(shape: tuple[int, ...], content: bytes) -> np.ndarray:
    size = math.prod(shape)
    if len(content) != size:
        found = f"{len(content)} bytes" if len(content) < size else "more bytes than that"
        text = " x ".join(map(str, shape))
        raise ValueError(f"found {found} after the header, expected {text} = {size} bytes")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)
