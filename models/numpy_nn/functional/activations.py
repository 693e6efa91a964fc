"""Activations: each number (softmax: each row) by itself."""

from __future__ import annotations

import numpy as np

from models.numpy_nn.functional.checks import ANY, check_array, check_axis, check_grad
from models.numpy_nn.functional.shapes import Array, Cache


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """max(x, 0), any shape."""
    check_array("relu", "x", x, ANY)
    out = np.maximum(x, 0)
    return out, (out,)


def relu_backward(grad_out: Array, cache: Cache) -> Array:
    """The gradient passes where the output is positive; at the kink, x = 0, it is taken as 0."""
    (out,) = cache
    check_grad("relu", grad_out, out.shape, out.dtype)
    return grad_out * (out > 0)


def leaky_relu_forward(x: Array, negative_slope: float = 0.01) -> tuple[Array, Cache]:
    """x where x > 0, else negative_slope x (Maas, Hannun, Ng 2013), any shape."""
    check_array("leaky_relu", "x", x, ANY)
    slopes = np.where(x > 0, 1, negative_slope).astype(x.dtype)
    return x * slopes, (slopes,)


def leaky_relu_backward(grad_out: Array, cache: Cache) -> Array:
    """The function is a factor on either side of 0, so the gradient takes the same factor."""
    (slopes,) = cache
    check_grad("leaky_relu", grad_out, slopes.shape, slopes.dtype)
    return grad_out * slopes


def tanh_forward(x: Array) -> tuple[Array, Cache]:
    """tanh(x), any shape."""
    check_array("tanh", "x", x, ANY)
    out = np.tanh(x)
    return out, (out,)


def tanh_backward(grad_out: Array, cache: Cache) -> Array:
    """tanh' = 1 - tanh^2: the output is all that the backward needs."""
    (out,) = cache
    check_grad("tanh", grad_out, out.shape, out.dtype)
    return grad_out * (1 - out * out)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), with exp of negative numbers only, so that nothing overflows."""
    check_array("sigmoid", "x", x, ANY)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def sigmoid_forward(x: Array) -> tuple[Array, Cache]:
    """1 / (1 + exp(-x)), any shape."""
    out = sigmoid(x)
    return out, (out,)


def sigmoid_backward(grad_out: Array, cache: Cache) -> Array:
    """sigmoid' = sigmoid (1 - sigmoid)."""
    (out,) = cache
    check_grad("sigmoid", grad_out, out.shape, out.dtype)
    return grad_out * out * (1 - out)


def softmax_forward(x: Array, axis: int = -1) -> tuple[Array, Cache]:
    """exp(x_k) / sum_j exp(x_j) along `axis`; the largest x comes off first, against overflow."""
    check_array("softmax", "x", x, ANY)
    check_axis("softmax", "axis", axis, x)
    powers = np.exp(x - x.max(axis, keepdims=True))
    out = powers / powers.sum(axis, keepdims=True)
    return out, (out, axis)


def softmax_backward(grad_out: Array, cache: Cache) -> Array:
    """With p = softmax(x): dp_j / dx_k = p_j ([j = k] - p_k), so

    grad_k = p_k (grad_out_k - sum_j grad_out_j p_j).
    """
    out, axis = cache
    check_grad("softmax", grad_out, out.shape, out.dtype)
    return out * (grad_out - (grad_out * out).sum(axis, keepdims=True))
