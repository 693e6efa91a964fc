"""Reads safetensors files: 8 bytes with the header's length, the header as JSON, then the numbers.

    {"fc.weight": {"dtype": "F32", "shape": [10, 784], "data_offsets": [0, 31360]}, ...}

The format has no room for code; what is left to check is that each tensor's bytes are its own, and
that the file has all of them and no others. https://github.com/huggingface/safetensors#format
Needs NumPy alone: it runs in the child process, where importing torch would take seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000  # bytes, as the format has it
MOST_DIMENSIONS = 16
# Name in the file -> how its bytes are read. BF16 is the upper half of a float32.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


def looks_like(head: bytes) -> bool:
    """Whether these first bytes are those of the format; no other weight file has them."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and 2 <= length <= LARGEST_HEADER


def tensors_in(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """The tensors of a file by name, each as a function to its array: floating point ones as
    float32, others as they are.

    Raises:
        ValueError: the file is not what the format says; damaged, or cut off.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        start, size = LENGTH_BYTES + length, path.stat().st_size
        if length > min(LARGEST_HEADER, size - LENGTH_BYTES):
            raise ValueError(f"truncated: its header would have {length:,} bytes")
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("damaged: its header is no table of tensors")
    header.pop("__metadata__", None)
    if not header:
        raise ValueError("it holds no tensors")
    end = 0
    for name, entry in sorted(header.items(), key=_offset):
        end = _checked(name, entry, end)
    if start + end != size:
        raise ValueError(
            f"damaged or truncated: its tensors take {start + end:,} bytes, the file has {size:,}"
        )
    return {name: partial(_read, path, start, entry) for name, entry in header.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("damaged: its header names something twice")
    return table


def _offset(item: tuple[str, Any]) -> tuple[int, int]:
    """Where a tensor's bytes begin and end. Of two that begin at the same byte one is empty."""
    name, entry = item
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_count, offsets))):
        raise ValueError(f"damaged: {name} has no place in the file")
    return offsets[0], offsets[1]


def _checked(name: str, entry: dict[str, Any], expected: int) -> int:
    """The end of a tensor's bytes, which must begin where the one before ends."""
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} is of type {dtype!s:.40}; read are {', '.join(DTYPES)}")
    if not (
        isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS and all(map(_is_count, shape))
    ):
        raise ValueError(f"damaged: the shape of {name} is {shape!s:.80}")
    begin, end = _offset((name, entry))
    if begin != expected:
        raise ValueError(f"damaged: {name} begins at byte {begin:,} instead of {expected:,}")
    if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"damaged: {name}, {dtype} {shape}, has {end - begin:,} bytes")
    return end


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _read(path: Path, start: int, entry: dict[str, Any]) -> np.ndarray:
    kind, shape = entry["dtype"], entry["shape"]
    raw = np.fromfile(
        path, DTYPES[kind], math.prod(shape), offset=start + entry["data_offsets"][0]
    ).reshape(shape)
    if kind == "BF16":
        return (raw.astype("<u4") << 16).view("<f4").astype(np.float32)
    if kind == "BOOL":
        return raw != 0
    return (
        raw.astype(np.float32) if raw.dtype.kind == "f" else raw.astype(raw.dtype.newbyteorder("="))
    )
