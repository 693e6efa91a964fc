"""The fully connected layer, and the flattening before it."""

from __future__ import annotations

import math

import numpy as np

from models.numpy_nn.functional.checks import ANY, check_array, check_grad
from models.numpy_nn.functional.shapes import Array, Cache


def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Cache]:
    """out = x @ weight^T + bias.

    Args:
        x: (..., I), usually (N, I).
        weight: (O, I).
        bias: (O,) or None.

    Returns:
        (..., O) and the cache.
    """
    check_array("linear", "x", x, (..., "I"))
    check_array("linear", "weight", weight, ("O", "I"), x.dtype)
    if bias is not None:
        check_array("linear", "bias", bias, (len(weight),), x.dtype)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: {x.shape[-1]} features come in, the weight takes {weight.shape}")
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def linear_backward(
    grad_out: Array, cache: Cache, need_grad_x: bool = True
) -> tuple[Array | None, Array, Array | None]:
    """Each product's gradient is the incoming one times the other factor.

    grad_x = grad_out @ weight, grad_weight = grad_out^T @ x, grad_bias = grad_out summed over rows.

    Returns:
        grad_x (..., I) or None, grad_weight (O, I), grad_bias (O,) or None.
    """
    x, weight, has_bias = cache
    check_grad("linear", grad_out, (*x.shape[:-1], len(weight)), x.dtype)
    rows = grad_out.reshape(-1, weight.shape[0])
    grad_weight = rows.T @ x.reshape(-1, weight.shape[1])
    grad_bias = rows.sum(axis=0) if has_bias else None
    return (grad_out @ weight if need_grad_x else None), grad_weight, grad_bias


def flatten_forward(x: Array) -> tuple[Array, Cache]:
    """(N, C, H, W) -> (N, C H W), in that order whatever the memory order."""
    check_array("flatten", "x", x, ANY)
    out = np.reshape(x, (len(x), math.prod(x.shape[1:])))
    return out, (x.shape, out.shape, x.dtype)


def flatten_backward(grad_out: Array, cache: Cache) -> Array:
    """The numbers stay, only their shape returns."""
    shape, flat_shape, dtype = cache
    check_grad("flatten", grad_out, flat_shape, dtype)
    return grad_out.reshape(shape)
