"""How the NumPy layers are checked: against torch, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

FEW, MANY = 20, 100
TORCH_TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}
FINITE_DIFFERENCE_TOLERANCE = 1e-6
MAX_PROBES = 30  # entries of each array that finite differences look at
GRAD_SEED = 2**20  # none of `seeds`, or a gradient could be a copy of the input

dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**16)


def for_all(
    **strategies: st.SearchStrategy,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property of all drawn cases, as a test: of a few cases, and under the slow mark of many."""

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        few_or_many = pytest.mark.parametrize(
            "num_cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
        )

        @few_or_many
        def test(num_cases: int) -> None:
            repeatable = settings(
                max_examples=num_cases, deadline=None, derandomize=True, database=None
            )
            repeatable(given(**strategies)(check))()

        return test

    return decorate


def random_array(rng: np.random.Generator, shape: Sequence[int], dtype: type) -> np.ndarray:
    """Standard normal; an image comes in any of the memory orders that layers hand on."""
    order = rng.permutation(len(shape)) if len(shape) == 4 else np.arange(len(shape))
    values = rng.standard_normal([shape[axis] for axis in order]).astype(dtype)
    return values.transpose(np.argsort(order))


def moderate_array(rng: np.random.Generator, shape: Sequence[int], dtype: type) -> np.ndarray:
    """Standard normal times 2; in float32 not beyond 1.5, because 1 - tanh^2, and 1 - p of a
    softmax, are differences of nearly equal numbers further out, with no five digits left."""
    values = 2 * random_array(rng, shape, dtype)
    return values.clip(-1.5, 1.5) if dtype is np.float32 else values


def distinct_array(rng: np.random.Generator, shape: Sequence[int], dtype: type) -> np.ndarray:
    """Values of both signs, at least 0.1 from each other and 0.05 from 0: far from every kink."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size // 2 + 0.5) * 0.1).reshape(shape).astype(dtype)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal shapes, and no entry differs by more than `tolerance` times the largest."""
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max(initial=0)
    assert difference <= tolerance * np.abs(expected).max(initial=0) + 1e-300


def as_tuple(grads: Any) -> tuple[np.ndarray, ...]:
    """The gradients that a backward returns, without the Nones of absent arguments."""
    grads = grads if isinstance(grads, tuple) else (grads,)
    return tuple(grad for grad in grads if grad is not None)


def check_against_torch(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    torch_function: Callable[..., torch.Tensor],
    arrays: Sequence[np.ndarray],
) -> None:
    """forward(*arrays) and its backward equal torch_function and autograd, dtype included."""
    dtype = arrays[0].dtype.type
    out, cache = forward(*arrays)
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    expected = torch_function(*tensors)
    grad_out = random_array(np.random.default_rng(GRAD_SEED), out.shape, dtype)
    expected.backward(torch.from_numpy(grad_out.copy()))
    assert out.dtype == dtype
    assert_close(out, expected.detach().numpy(), TORCH_TOLERANCE[dtype])
    for grad, tensor in zip(as_tuple(backward(grad_out, cache)), tensors, strict=True):
        assert grad.dtype == dtype
        assert tensor.grad is not None
        assert_close(grad, tensor.grad.numpy(), TORCH_TOLERANCE[dtype])


def check_finite_differences(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    arrays: Sequence[np.ndarray],
) -> None:
    """Every gradient of loss = sum(weights * out) equals the slope of the loss, in float64.

    The slope is the five-point formula, whose error is of the order step^4.
    """
    rng, step = np.random.default_rng(GRAD_SEED), 1e-3
    arrays = [array.astype(np.float64) for array in arrays]
    out, cache = forward(*arrays)
    weights = np.asarray(rng.standard_normal(out.shape))

    def loss_at(which: int, entry: tuple[int, ...], shift: float) -> float:
        shifted = [array.copy() for array in arrays]
        shifted[which][entry] += shift
        return float((weights * forward(*shifted)[0]).sum())

    for which, grad in enumerate(as_tuple(backward(weights, cache))):
        assert grad.shape == arrays[which].shape
        probes = rng.permutation(grad.size)[:MAX_PROBES]
        entries = [tuple(map(int, np.unravel_index(probe, grad.shape))) for probe in probes]
        slopes = [
            (
                8 * (loss_at(which, entry, step) - loss_at(which, entry, -step))
                - (loss_at(which, entry, 2 * step) - loss_at(which, entry, -2 * step))
            )
            / (12 * step)
            for entry in entries
        ]
        difference = max(abs(grad[e] - s) for e, s in zip(entries, slopes, strict=True))
        assert difference <= FINITE_DIFFERENCE_TOLERANCE * max(np.abs(grad).max(), 1e-6)
