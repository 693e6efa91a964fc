"""Checks of the functions' arguments before anything is computed: NumPy would broadcast, cast or
index wrong arguments silently and return a wrong result."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np

# A size, the name of a size that is not known, or at first place ... for any number of axes.
Form = tuple["int | str | EllipsisType", ...]

IMAGES: Form = ("N", "C", "H", "W")
ANY: Form = (..., "any")


def check_array(
    function: str, name: str, array: Any, form: Form, dtype: np.dtype[Any] | None = None
) -> None:
    """Raise ValueError, naming the argument and its shape, unless it is an array of that form.

    Args:
        array: what the argument `name` of `function` is.
        form: the shape. An axis that is there must not be empty.
        dtype: float32 or float64, where an argument before this one has fixed it.
    """
    wanted = f"{function}: {name} must be an array of shape {spelt(form)} and dtype " + (
        "float32 or float64" if dtype is None else str(dtype)
    )
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{wanted}, got {type(array).__name__}")
    fits_dtype = array.dtype == dtype if dtype else array.dtype in (np.float32, np.float64)
    if not fits_dtype or not fits(array.shape, form):
        raise ValueError(f"{wanted}, got {array.shape} {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{wanted} with no empty axis, got {array.shape}: there is nothing in it")


def check_grad(function: str, grad_out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """The same for the gradient of an output of that shape."""
    check_array(function, "grad_out", grad_out, shape, dtype)


def check_scale(function: str, grad_out: Any) -> None:
    """The gradient of a loss is one number."""
    if np.ndim(grad_out) or not np.issubdtype(np.asarray(grad_out).dtype, np.floating):
        raise ValueError(
            f"{function}: grad_out must be one number, a float or an array of shape (), got "
            f"{np.shape(grad_out)} {np.asarray(grad_out).dtype}"
        )


def check_axis(function: str, name: str, axis: int, array: np.ndarray[Any, Any]) -> None:
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"{function}: {name}={axis} is no axis of an array of shape {array.shape}: take "
            f"{-array.ndim}..{array.ndim - 1}"
        )


def fits(shape: tuple[int, ...], form: Form) -> bool:
    if form and form[0] is ...:
        form, shape = form[1:], shape[max(0, len(shape) - len(form) + 1) :]
    return len(shape) == len(form) and all(
        isinstance(size, str) or size == length for size, length in zip(form, shape, strict=True)
    )


def spelt(form: Form) -> str:
    if form == ANY:
        return "(any, with one axis or more)"
    sizes = ["..." if size is ... else str(size) for size in form]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
