"""The container of MATLAB v5 files, checked to the last byte before a parser sees it.

Layout ("MAT-File Format", MathWorks, 2015, chapter 1): a header of 128 bytes, its last four the
version and the byte order; then elements, each an 8-byte tag (type, length) and its data. A v7
file is the same with every element compressed by zlib, whose Adler-32 finds any changed bit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from models.weights.foreign import WeightsError

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15  # miMATRIX, miCOMPRESSED
CHUNK = 1 << 20


class _BadContainerError(Exception):
    """Fault of the container; the caller adds the file's name to the message."""


def check_mat(path: Path, max_bytes: int) -> int:
    """Size in bytes of all variables of a .mat file when unpacked; memory needed: one megabyte.

    Args:
        max_bytes: more than this is refused, as soon as it is claimed or reached.

    Raises:
        WeightsError: truncated, damaged (checksum, lengths), or unpacking to too much.
    """
    try:
        with path.open("rb") as file:
            order = _byte_order(file.read(HEADER_BYTES))
            return sum(_elements(file, order, path.stat().st_size, max_bytes))
    except (_BadContainerError, zlib.error, OSError) as error:
        raise WeightsError(f"{path}: damaged or hostile .mat file: {error}") from error


def _byte_order(header: bytes) -> str:
    orders = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
    if header[124:] not in orders:
        raise _BadContainerError("its header is cut off, or not of version 5")
    return orders[header[124:]]


def _elements(file: IO[bytes], order: str, size: int, max_bytes: int) -> Iterator[int]:
    """Unpacked size of each element; stands behind the last byte at the end."""
    total = 0
    while tag := file.read(8):
        if len(tag) < 8:
            raise _BadContainerError("it ends inside a tag; download it again")
        kind, length = struct.unpack(order + "II", tag)
        if file.tell() + length > size:
            raise _BadContainerError(
                f"it is cut off: {size} bytes, a variable reaches to {file.tell() + length}"
            )
        if kind == COMPRESSED:
            unpacked = _inflate(file, order, length, max_bytes - total)
        elif kind == MATRIX:
            file.seek(length, 1)
            unpacked = length
        else:
            raise _BadContainerError(f"no variable starts where one should (type {kind})")
        total += unpacked
        yield unpacked
    if not total:
        raise _BadContainerError("it holds no variables")


def _inflate(file: IO[bytes], order: str, length: int, max_bytes: int) -> int:
    """Unpack one element in passing; its claim, its length and its checksum must agree."""
    stream = zlib.decompressobj()
    claimed: int | None = None
    done, left = 0, length
    while not stream.eof:
        packed = stream.unconsumed_tail or file.read(min(CHUNK, left))
        if not stream.unconsumed_tail:
            left -= len(packed)
        if not packed:
            raise _BadContainerError("a compressed variable ends too early")
        unpacked = stream.decompress(packed, CHUNK)
        if claimed is None:
            claimed = _claim(unpacked, order, max_bytes)
        done += len(unpacked)
        if done > claimed:
            raise _BadContainerError("a variable unpacks to more than it claims")
    if done != claimed or stream.unused_data or left:
        raise _BadContainerError("a variable's length does not agree with its tag")
    return done


def _claim(start: bytes, order: str, max_bytes: int) -> int:
    """Unpacked size that an element's inner tag claims, tag included."""
    if len(start) < 8:
        raise _BadContainerError("a compressed variable has no tag")
    kind, length = struct.unpack(order + "II", start[:8])
    if kind != MATRIX:
        raise _BadContainerError(f"a compressed element is no variable (type {kind})")
    if length + 8 > max_bytes:
        raise _BadContainerError(
            f"a variable unpacks to {length / 1e6:.0f} MB, more than weights of this network can "
            "need; is it another network's file?"
        )
    return length + 8
