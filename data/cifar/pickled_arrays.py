"""Functions that NumPy's pickles call, and their results: arrays of whole numbers, made here
without NumPy's own code for it, which trusts any state that a file gives."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_KIND = re.compile(r"[|<>=]?([iu])([1248])")


class NotPlainError(ValueError):
    """The file is no pickle of arrays, lists, texts and numbers; the message says what it has."""


@dataclass
class Global:
    """A name in the file, one of those that NumPy's pickles have."""

    module: str
    name: str


@dataclass
class Dtype:
    """Whole numbers: kind "i" or "u", and the bytes of each; `order` as NumPy writes it."""

    kind: str
    order: str = "<"


@dataclass
class Array:
    """One of NumPy's arrays: a shell first, whose content a later opcode brings."""

    content: np.ndarray | None = None


def reconstructed(kind: Any, shape: Any, code: Any) -> Array:
    if not (isinstance(kind, Global) and kind.name == "ndarray"):
        raise NotPlainError("it has an array of another class than NumPy's")
    return Array()


def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> Array:
    if order not in ("C", "F", b"C", b"F") or axis_order is not None:
        raise NotPlainError("it has an array in an unknown order")
    return Array(_array(buffer, dtype, shape, order in ("F", b"F")))


def scalar(dtype: Any, content: Any) -> int:
    return int(_array(content, dtype, (), False))


def no_bytes(*arguments: Any) -> bytes:
    if arguments not in ((), ((),), ([],)):
        raise NotPlainError("it calls bytes")
    return b""


def dtype(name: Any, *flags: Any) -> Dtype:
    text = as_text(name)
    match = _KIND.fullmatch(text)
    if match is None:
        raise NotPlainError(f"it has an array of {text[:20]!r}, expected whole numbers")
    return Dtype(match[1] + match[2], ">" if text[0] == ">" else "<")


def set_order(dtype: Dtype, state: Any) -> None:
    """NumPy's state of a plain type: version, order of its bytes, then nothing that has content."""
    if not (
        isinstance(state, tuple)
        and len(state) in (8, 9)
        and state[0] in (3, 4)
        and state[1] in ("|", "<", ">", "=", b"|", b"<", b">", b"=")
        and tuple(state[2:7]) == (None, None, None, -1, -1)
    ):
        raise NotPlainError("the type of its array has a state that no plain type has")
    dtype.order = ">" if as_text(state[1]) == ">" else "<"


def fill(array: Array, state: Any) -> None:
    if array.content is not None or not isinstance(state, tuple) or len(state) != 5:
        raise NotPlainError("its array has a state that no array has")
    _, shape, dtype, is_fortran, content = state
    array.content = _array(content, dtype, shape, bool(is_fortran))


def _array(content: Any, dtype: Any, shape: Any, is_fortran: bool) -> np.ndarray:
    """A view of these bytes, if they are just so many as the shape has."""
    if not isinstance(content, bytes) or not isinstance(dtype, Dtype):
        raise NotPlainError("its array has no bytes or no type")
    is_shape = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not is_shape or len(shape) > 8:
        raise NotPlainError("its array has no shape")
    if math.prod(shape) * int(dtype.kind[1]) != len(content):
        raise NotPlainError(
            f"its array has {len(content):,} bytes, which is not what its shape "
            f"{' x '.join(map(str, shape))} takes"
        )
    values = np.frombuffer(content, dtype.order + dtype.kind)
    return values.reshape(shape, order="F" if is_fortran else "C")


def as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise NotPlainError(f"it has a {type(value).__name__} where a text should be")
