"""Weights in a safetensors file, read with the library of the format's authors.

The format has no room for code: a table of names, types, shapes and places, then the numbers. The
library, in Rust, refuses a table whose places overlap, leave gaps or end elsewhere than the file,
so it needs no process of its own, as unpickling does; a test damages files in every way.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from models.weights.foreign import WeightsError, printable
from models.weights.formats import kind_of
from models.weights.state_dicts import arrays_of

LENGTH_BYTES = 8  # of the number that the file begins with, the header's length
LARGEST_HEADER = 10_000_000  # bytes; the format allows ten times as many, which take a minute


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; floating point ones as float32, others as they are.

    Raises:
        WeightsError: the file is damaged, hostile or cut off, or holds no tensors, or unusual ones.
        MemoryError: it is larger than the memory.
    """
    try:
        with path.open("rb") as file:
            check_header(file)
            tensors = load(file.read())
        if not tensors:
            raise ValueError("it holds no tensors")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # the library's own; of types unknown to it or to torch others
        reason = printable(str(error) or type(error).__name__, 300)
        raise WeightsError(
            f"{path}: not a sound safetensors file: {reason}; download it again"
        ) from error
    return {name: array() for name, array in arrays_of(tensors, path).items()}


def description_in(path: Path) -> str | None:
    """Text under the name `description` in a file's metadata, of anybody and of at most
    LARGEST_HEADER bytes. None: there is none, or the file is not sound, of which `arrays_in` tells
    more."""
    try:
        if kind_of(path) != "safetensors":
            return None
        with path.open("rb") as file:
            check_header(file)
        with safe_open(path, framework="np") as opened:
            return (opened.metadata() or {}).get("description")
    except (OSError, ValueError, SafetensorError):
        return None


def check_header(file: BinaryIO) -> None:
    """Judge the header's length, after which the file is at its beginning again. Raises
    ValueError."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    size = os.fstat(file.fileno()).st_size
    if length > size - LENGTH_BYTES:
        raise ValueError(f"invalid header length: {length:,} bytes, and the file has {size:,}")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; read are {LARGEST_HEADER:,}")
    file.seek(0)
