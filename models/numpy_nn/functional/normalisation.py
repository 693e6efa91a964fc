"""Batch normalisation and local response normalisation of (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from models.numpy_nn.functional.checks import IMAGES, check_array, check_grad
from models.numpy_nn.functional.shapes import Array, Cache

_OVER = (0, 2, 3)  # all axes but the channels


def batch_norm2d_forward(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Cache]:
    """Give each channel mean 0 and variance 1, then scale and shift it (Ioffe, Szegedy 2015).

        xhat = (x - mean) / sqrt(var + eps),    out = weight xhat + bias

    In training mean and var (divided by the count m = N H W) are the batch's, and the running ones
    move toward them IN PLACE, running += momentum (batch - running), running_var with the unbiased
    variance (divided by m - 1), as PyTorch does it. In evaluation the running ones are used; where
    there are none, the batch's.

    Args:
        x: (N, C, H, W).
        weight, bias, running_mean, running_var: (C,) or None.

    Returns:
        (N, C, H, W) and the cache.
    """
    check_array("batch_norm2d", "x", x, IMAGES)
    named = {"weight": weight, "bias": bias, "running_mean": running_mean,
             "running_var": running_var}  # fmt: skip
    for name, values in named.items():
        if values is not None:
            fixed = None if name.startswith("running") else x.dtype
            check_array("batch_norm2d", name, values, x.shape[1:2], fixed)
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm2d: running_mean and running_var come together or not at all")
    uses_batch = training or running_mean is None or running_var is None
    if running_mean is None or running_var is None or training:
        mean, var = x.mean(_OVER), x.var(_OVER)
    else:
        mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)
    if training:
        _move_running(running_mean, running_var, mean, var, x.size // x.shape[1], momentum)
    inverse_std = 1 / np.sqrt(var + eps)
    normal = (x - _per_channel(mean)) * _per_channel(inverse_std)
    out = normal if weight is None else normal * _per_channel(weight)
    if bias is not None:
        out = out + _per_channel(bias)
    return out, (normal, inverse_std, weight, bias is not None, uses_batch)


def _move_running(
    running_mean: Array | None,
    running_var: Array | None,
    mean: Array,
    var: Array,
    count: int,
    momentum: float,
) -> None:
    if count == 1:
        raise ValueError("batch norm: one value per channel has no variance; take a larger batch")
    if running_mean is not None and running_var is not None:
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / (count - 1)) - running_var)


def batch_norm2d_backward(
    grad_out: Array, cache: Cache
) -> tuple[Array, Array | None, Array | None]:
    """Every x of a channel moves its mean and variance, and through them every output.

        grad_xhat = weight grad_out
        grad_x    = (grad_xhat - mean(grad_xhat) - xhat mean(grad_xhat xhat)) / sqrt(var + eps)

    The two means (over N, H, W) are what flows back through mean and variance; with running
    statistics, which are constants, they are absent.

    Returns:
        grad_x (N, C, H, W), grad_weight (C,) or None, grad_bias (C,) or None.
    """
    normal, inverse_std, weight, has_bias, uses_batch = cache
    check_grad("batch_norm2d", grad_out, normal.shape, normal.dtype)
    sum_grad = grad_out.sum(_OVER)
    sum_grad_normal = (grad_out * normal).sum(_OVER)
    grad_x = grad_out
    if uses_batch:
        count = grad_out.size // grad_out.shape[1]
        through_mean = _per_channel(sum_grad / count)
        through_var = normal * _per_channel(sum_grad_normal / count)
        grad_x = grad_out - through_mean - through_var
    scale = inverse_std if weight is None else inverse_std * weight
    grad_weight = None if weight is None else sum_grad_normal
    return grad_x * _per_channel(scale), grad_weight, sum_grad if has_bias else None


def local_response_norm_forward(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Cache]:
    """Divide each value by the strength of its neighbours in other channels at the same place.

        out[c] = x[c] / d[c]^beta,    d[c] = k + alpha / size * sum_{c' near c} x[c']^2

    The window has `size` channels, from c - size // 2 on; it ends at the first and last channel.
    Krizhevsky, Sutskever, Hinton 2012, section 3.3, in PyTorch's form: their alpha is
    alpha / size here.

    Args:
        x: (N, C, H, W).
        size: channels of the window, 1 or more.

    Returns:
        The same shape and the cache.
    """
    check_array("local_response_norm", "x", x, IMAGES)
    if size < 1:
        raise ValueError(f"local_response_norm: size={size}: take a window of one channel or more")
    denominator = _sum_near(x * x, size, size // 2)
    denominator *= alpha / size
    denominator += k
    out = x * denominator**-beta
    return out, (x, denominator, size, alpha, beta)


def local_response_norm_backward(grad_out: Array, cache: Cache) -> Array:
    """x[c] stands in its own numerator, and in the denominator of every c' whose window holds c:

        grad_x[c] = grad_out[c] d[c]^-beta
                    - 2 alpha beta / size x[c] sum_{c'} grad_out[c'] x[c'] d[c']^(-beta - 1)

    The windows that hold c start at the other end: `_sum_near` with its offsets turned round.
    """
    x, denominator, size, alpha, beta = cache
    check_grad("local_response_norm", grad_out, x.shape, x.dtype)
    direct = grad_out * denominator**-beta
    through = _sum_near(direct * x / denominator, size, size - 1 - size // 2)
    return direct - (2 * alpha * beta / size) * x * through


def _sum_near(x: Array, size: int, before: int) -> Array:
    """Sum over channels c - before ... c - before + size - 1, as far as they exist."""
    total = np.zeros_like(x)
    channels = x.shape[1]
    for offset in range(-before, size - before):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[:, low:high] += x[:, low + offset : high + offset]
    return total


def _per_channel(values: Array) -> Array:
    """(C,) -> (C, 1, 1), which broadcasts over (N, C, H, W)."""
    return values[:, None, None]
