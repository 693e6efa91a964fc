"""Reads IDX, the format of MNIST's files, strictly.

The format, as MNIST's page (yann.lecun.com/exdb/mnist) gives it: two zero bytes, a type code (8 =
unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer, the bytes.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from data.download.checksums import FETCH_AGAIN
from data.memory import free_bytes
from data.types import DataError

_UNSIGNED_BYTE = 8
_GZIP = 31  # zlib's wbits for a gzip header and trailer; it checks the trailer's CRC-32
_MOST_PACKED = 1032  # deflate makes a byte of no more than so many
_CHUNK = 2**20


class _NoEndError(ValueError):
    pass


def read_idx(path: Path, num_dims: int) -> np.ndarray:
    """The array in an IDX file of unsigned bytes; gzipped if the name ends in .gz.

    What the header promises is held against the file's own length and the memory that is free
    before anything is unpacked, and no more than that is unpacked.

    Returns:
        A writable uint8 array with `num_dims` dimensions, none of them 0.

    Raises:
        DataError: it is not exactly such a file, to the byte, or more than memory can hold.
        OSError: it cannot be read.
    """
    with _reading(path, num_dims) as (content, shape):
        check_room(path, shape)
        array = np.empty(shape, np.uint8)
        _fill(array.reshape(-1), content, shape)
    return array


def idx_shape(path: Path, num_dims: int) -> tuple[int, ...]:
    """Shape that the header promises; the rest is not read. Raises as `read_idx`."""
    with _reading(path, num_dims) as (_, shape):
        return shape


def check_room(path: Path, shape: tuple[int, ...]) -> None:
    """Twice: once as read, once more while the validation split is taken out of it."""
    needed, free = 2 * math.prod(shape), free_bytes(torch.device("cpu"))
    if needed > free:
        raise DataError(
            f"{path}: {' x '.join(map(str, shape))} bytes take {needed / 1e9:,.1f} GB of memory, "
            f"and {free / 1e9:,.1f} GB are free. Is it the right file?"
        )


@contextmanager
def _reading(path: Path, num_dims: int) -> Iterator[tuple[Iterator[bytes], tuple[int, ...]]]:
    """The content after the header, in chunks, and the shape in the header."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ValueError("found an empty file, expected IDX data")
            packed = path.suffix == ".gz"
            most = size * _MOST_PACKED if packed else size
            content = _unpacked(file) if packed else iter(lambda: file.read(_CHUNK), b"")
            header = b""
            for chunk in content:
                header += chunk
                if len(header) >= 4 + 4 * num_dims:
                    break
            shape = _shape(header[: 4 + 4 * num_dims], num_dims)
            content = chain([header[4 + 4 * num_dims :]], content)
            if math.prod(shape) > most:  # counted and forgotten
                raise ValueError(_other_length(f"{_num_bytes(content)} bytes", shape))
            yield content, shape
    except (zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no IDX file as expected: {error}. {FETCH_AGAIN}") from error


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file in chunks; the caller stops when it has enough. Raises ValueError
    and zlib.error if it is damaged."""
    unpack = zlib.decompressobj(_GZIP)
    while not unpack.eof and (chunk := unpack.unconsumed_tail or file.read(_CHUNK)):
        yield unpack.decompress(chunk, _CHUNK)
    if not unpack.eof:
        raise _NoEndError("found gzip data without its end, expected a checksum there")


def _fill(array: np.ndarray, content: Iterator[bytes], shape: tuple[int, ...]) -> None:
    """Raises ValueError if there are more or fewer bytes than it takes."""
    at = 0
    try:
        for chunk in content:
            if at + len(chunk) > len(array):
                raise ValueError(_other_length("more bytes than that", shape))
            array[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
    except _NoEndError:
        if at == len(array):  # else there lacks more than the end
            raise
    if at < len(array):
        raise ValueError(_other_length(f"{at} bytes", shape))


def _num_bytes(content: Iterator[bytes]) -> int:
    num_bytes = 0
    with suppress(_NoEndError):
        for chunk in content:
            num_bytes += len(chunk)
    return num_bytes


def _other_length(found: str, shape: tuple[int, ...]) -> str:
    text = " x ".join(map(str, shape))
    return f"found {found} after the header, expected {text} = {math.prod(shape)} bytes"


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
