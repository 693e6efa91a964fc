"""Dropout (Srivastava et al. 2014), in the form that leaves evaluation alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.numpy_nn.functional.checks import ANY, check_array, check_grad
from models.numpy_nn.functional.shapes import Array, Cache


def dropout_forward(x: Array, mask: NDArray[Any], p: float = 0.5) -> tuple[Array, Cache]:
    """out = x mask / (1 - p): what is kept grows, so that its expectation stays x.

    The mask is an argument and not drawn here: the caller owns the randomness, and two
    implementations given one mask can be compared. In evaluation, don't call it.

    Args:
        x: any shape.
        mask: 1 (keep, with probability 1 - p) or 0 (drop), bool or number; it broadcasts to x,
            so (N, C, 1, 1) drops whole channels.
        p: probability of dropping, 0 <= p <= 1. With p = 1 all is dropped.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p={p} is no probability; take 0 <= p <= 1")
    check_array("dropout", "x", x, ANY)
    _check_mask(mask, x)
    scale = mask.astype(x.dtype) * x.dtype.type(1 / (1 - p) if p < 1 else 0)
    return x * scale, (scale, x.shape)


def dropout_backward(grad_out: Array, cache: Cache) -> Array:
    """The function is a factor, so the gradient takes the same factor."""
    scale, shape = cache
    check_grad("dropout", grad_out, shape, scale.dtype)
    return grad_out * scale


def _check_mask(mask: Any, x: Array) -> None:
    """Raises ValueError unless the mask is numeric or bool and broadcasts to x's shape."""
    if isinstance(mask, np.ndarray) and mask.dtype.kind in "biuf" and mask.ndim <= x.ndim:
        sizes = zip(reversed(mask.shape), reversed(x.shape), strict=False)
        if all(size in (1, wanted) for size, wanted in sizes):
            return
    raise ValueError(
        f"dropout: mask must be an array of booleans or numbers that broadcasts to {x.shape}, got "
        f"{np.shape(mask)} {getattr(mask, 'dtype', type(mask).__name__)}"
    )
