"""Weights in a safetensors file, read with the library of the format's authors.

The format has no room for code: a table of names, types, shapes and places, then the numbers. The
library, in Rust, refuses a table whose places overlap, leave gaps or end elsewhere than the file,
so it needs no process of its own, as unpickling does; a test damages files in every way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import load

from models.weights.foreign import WeightsError, printable
from models.weights.state_dicts import arrays_of

LENGTH_BYTES = 8  # of the number that the file begins with, the header's length
LARGEST_HEADER = 10_000_000  # bytes; the format allows ten times as many, which take a minute


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; floating point ones as float32, others as they are.

    Raises:
        WeightsError: the file is damaged, hostile or cut off, or holds no tensors, or unusual ones.
    """
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:LENGTH_BYTES], "little")
        if LARGEST_HEADER < length < len(content):
            raise ValueError(f"its header has {length:,} bytes; read are {LARGEST_HEADER:,}")
        tensors = load(content)
        if not tensors:
            raise ValueError("it holds no tensors")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the library's own; of types unknown to it or to torch others
        reason = printable(str(error) or type(error).__name__, 300)
        raise WeightsError(
            f"{path}: not a sound safetensors file: {reason}; download it again"
        ) from error
    return {name: array() for name, array in arrays_of(tensors, path).items()}
