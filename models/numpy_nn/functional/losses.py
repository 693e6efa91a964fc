"""Losses. Each takes logits (N, K) and targets, and gives one number.

Targets are class indices (N,), integers 0..K-1, or probabilities (N, K), of which one-hot rows are
the common case. Label smoothing e mixes a target with the uniform distribution,
q = (1 - e) target + e / K (Szegedy et al. 2016, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.numpy_nn.functional.activations import sigmoid, softmax_backward, softmax_forward
from models.numpy_nn.functional.checks import ANY, check_array, check_scale
from models.numpy_nn.functional.shapes import Array, Cache

Target = NDArray[Any]
On = Literal["probabilities", "logits"]


def target_probabilities(target: Target, logits: Array, label_smoothing: float = 0.0) -> Array:
    """The target as (N, K) in the dtype of the logits, smoothed."""
    check_array("loss", "logits", logits, ("N", "K"))
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"loss: label_smoothing={label_smoothing} is no share: take 0 <= s <= 1")
    if not isinstance(target, np.ndarray) or target.dtype.kind not in "biuf":
        kind = getattr(target, "dtype", type(target).__name__)
        raise ValueError(f"loss: target must be an array of numbers, got {kind}")
    num_classes = logits.shape[1]
    if target.ndim == 1:
        if target.shape != logits.shape[:1] or target.dtype.kind not in "iu":
            raise ValueError(
                f"loss: target must be {logits.shape[0]} class indices, got {target.dtype} "
                f"{target.shape}"
            )
        if target.size and not 0 <= target.min() <= target.max() < num_classes:
            raise ValueError(
                f"loss: class indices run from {target.min()} to {target.max()}, the logits have "
                f"{num_classes} classes: take 0..{num_classes - 1}"
            )
        target = np.eye(num_classes, dtype=logits.dtype)[target]
    elif target.shape != logits.shape:
        raise ValueError(f"loss: target {target.shape} does not fit logits {logits.shape}")
    smoothed = (1 - label_smoothing) * target + label_smoothing / num_classes
    return smoothed.astype(logits.dtype, copy=False)


def weights_of(
    class_weights: Sequence[float] | None, target: Target, logits: Array
) -> tuple[Array, Any]:
    """Weight of each class, (K,), in the dtype of the logits, and the number that a sum over the
    batch is divided by: the sum of the labels' weights, or with probabilities the number of images,
    as torch does it."""
    num, num_classes = logits.shape
    if class_weights is None:
        return np.ones(num_classes, logits.dtype), logits.dtype.type(num)
    weights = np.asarray(class_weights, logits.dtype)
    if weights.shape != (num_classes,):
        raise ValueError(
            f"loss: {len(weights)} class weights do not fit logits of {num_classes} classes"
        )
    return weights, weights[target].sum() if target.ndim == 1 else logits.dtype.type(num)


def log_softmax(logits: Array) -> Array:
    """x - max - log(sum exp(x - max)), so that no exp overflows and no log sees 0."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy_forward(
    logits: Array,
    target: Target,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> tuple[Array, Cache]:
    """-sum_k w_k q_k log softmax(logits)_k, mean over the batch, see `weights_of`.

    Returns:
        The loss, a 0-d array, and the cache.
    """
    q = target_probabilities(target, logits, label_smoothing)
    weights, total = weights_of(class_weights, target, logits)
    log_p, q = log_softmax(logits), q if class_weights is None else q * weights
    return np.asarray(-(q * log_p).sum() / total), (log_p, q, total)


def cross_entropy_backward(grad_out: Array | float, cache: Cache) -> Array:
    """(p sum_k q_k - q) / N, with p the softmax; the sum is 1 for probabilities. With weights q is
    w q, and N the sum of the labels' weights."""
    check_scale("cross_entropy", grad_out)
    log_p, q, total = cache
    grad = np.exp(log_p) * q.sum(axis=1, keepdims=True) - q
    return grad * log_p.dtype.type(grad_out / total)


def focal_forward(
    logits: Array,
    target: Target,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> tuple[Array, Cache]:
    """-sum_k w_k q_k (1 - p_k)^gamma log p_k with p the softmax (Lin et al. 2017); the mean as of
    the cross-entropy, which it is with gamma 0."""
    q = target_probabilities(target, logits, label_smoothing)
    if not gamma >= 0:
        raise ValueError(f"focal: gamma={gamma} must be 0 or more")
    weights, total = weights_of(class_weights, target, logits)
    log_p = log_softmax(logits)
    rest = np.maximum(-np.expm1(log_p), np.finfo(logits.dtype).tiny)
    factor = rest ** logits.dtype.type(gamma)
    q = q * weights
    return np.asarray(-(q * factor * log_p).sum() / total), (log_p, q, rest, factor, gamma, total)


def focal_backward(grad_out: Array | float, cache: Cache) -> Array:
    """The slope by log p_k is g_k = -q_k (1 - p_k)^gamma (1 - gamma p_k log p_k / (1 - p_k)); that
    of log p by the logits gives g - p sum_k g_k."""
    check_scale("focal", grad_out)
    log_p, q, rest, factor, gamma, total = cache
    p = np.exp(log_p)
    by_log_p = -q * factor * (1 - log_p.dtype.type(gamma) * p * log_p / rest)
    grad = by_log_p - p * by_log_p.sum(axis=1, keepdims=True)
    return grad * log_p.dtype.type(grad_out / total)


def mean_squared_error_forward(
    logits: Array, target: Target, label_smoothing: float = 0.0, on: On = "probabilities"
) -> tuple[Array, Cache]:
    """Mean of (p - q)^2 over all N K elements.

    Args:
        on: what p is: the softmax of the logits, or the logits themselves.
    """
    q = target_probabilities(target, logits, label_smoothing)
    p, softmax_cache = _predictions(logits, on)
    return np.asarray(np.square(p - q).mean()), (p - q, softmax_cache)


def mean_squared_error_backward(grad_out: Array | float, cache: Cache) -> Array:
    """2 (p - q) / (N K), then back through the softmax if there was one."""
    check_scale("mean_squared_error", grad_out)
    difference, softmax_cache = cache
    grad_p = difference * difference.dtype.type(2 * grad_out / difference.size)
    return grad_p if softmax_cache is None else softmax_backward(grad_p, softmax_cache)


def l1_forward(
    logits: Array, target: Target, label_smoothing: float = 0.0, on: On = "probabilities"
) -> tuple[Array, Cache]:
    """Mean of |p - q| over all N K elements; `on` as for the mean squared error."""
    q = target_probabilities(target, logits, label_smoothing)
    p, softmax_cache = _predictions(logits, on)
    return np.asarray(np.abs(p - q).mean()), (p - q, softmax_cache)


def l1_backward(grad_out: Array | float, cache: Cache) -> Array:
    """sign(p - q) / (N K), 0 at the kink, then back through the softmax if there was one."""
    check_scale("l1", grad_out)
    difference, softmax_cache = cache
    grad_p = np.sign(difference) * difference.dtype.type(grad_out / difference.size)
    return grad_p if softmax_cache is None else softmax_backward(grad_p, softmax_cache)


def binary_cross_entropy_forward(
    logits: Array,
    target: Target,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> tuple[Array, Cache]:
    """A sigmoid s for each class: mean of -w q log s - (1 - q) log(1 - s) over all N K elements.

    Computed as (1 - q) x + (1 + (w - 1) q) (log(1 + exp(-|x|)) + max(-x, 0)), which is the same and
    never overflows; without weights as max(x, 0) - x q + log(1 + exp(-|x|)).
    """
    q = target_probabilities(target, logits, label_smoothing)
    log_term = np.log1p(np.exp(-np.abs(logits)))
    if class_weights is None:
        elements = np.maximum(logits, 0) - logits * q + log_term
        return np.asarray(elements.mean()), (logits, q, q)
    weights, _ = weights_of(class_weights, target, logits)
    elements = (1 - q) * logits + (1 + (weights - 1) * q) * (log_term + np.maximum(-logits, 0))
    return np.asarray(elements.mean()), (logits, q, weights * q)


def binary_cross_entropy_backward(grad_out: Array | float, cache: Cache) -> Array:
    """(s (1 - q + w q) - w q) / (N K): the sigmoid's slope cancels against the logarithm's."""
    check_scale("binary_cross_entropy", grad_out)
    logits, q, weighted = cache
    s = sigmoid(logits)
    grad = s - q if weighted is q else s * (1 - q + weighted) - weighted
    return grad * logits.dtype.type(grad_out / logits.size)


def penalty_forward(x: Array, l1: float = 0.0, l2: float = 0.0) -> tuple[Array, Cache]:
    """l1 sum |x| + l2 sum x^2 over all elements of a weight."""
    check_array("penalty", "x", x, ANY)
    for name, strength in (("l1", l1), ("l2", l2)):
        if not strength >= 0:
            raise ValueError(f"penalty: {name}={strength} is no strength: take 0 or more")
    kind = x.dtype.type
    return np.asarray(kind(l1) * np.abs(x).sum() + kind(l2) * np.square(x).sum()), (x, l1, l2)


def penalty_backward(grad_out: Array | float, cache: Cache) -> Array:
    """l1 sign(x) + 2 l2 x; the sign is 0 at the kink."""
    check_scale("penalty", grad_out)
    x, l1, l2 = cache
    kind = x.dtype.type
    return kind(grad_out) * (kind(l1) * np.sign(x) + kind(2 * l2) * x)


def _predictions(logits: Array, on: On) -> tuple[Array, Cache | None]:
    if on == "logits":
        return logits, None
    if on == "probabilities":
        return softmax_forward(logits)
    raise ValueError(f"on={on!r} is unknown: take probabilities or logits")
