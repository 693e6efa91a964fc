"""Convolution and pooling by hand equal torch's and finite differences, whatever the geometry."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st

from models.numpy_nn import functional as F
from models.numpy_nn.functional import conv, winograd
from tests.helpers.numpy_checks import (
    assert_close,
    check_against_torch,
    check_finite_differences,
    distinct_array,
    dtypes,
    for_all,
    random_array,
    seeds,
)

small = st.integers(1, 3)


@st.composite
def pairs(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


@st.composite
def conv_cases(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes of x, weight and bias, and the options, of a convolution that has an output."""
    kernel, dilation, padding = draw(pairs(1, 5)), draw(pairs(1, 3)), draw(pairs(0, 3))
    groups, extra = draw(small), draw(pairs(0, 6))
    spans = (d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    sides = (max(1, s - 2 * p) + e for s, p, e in zip(spans, padding, extra, strict=True))
    group_in, group_out = draw(small), draw(small)
    x, weight = (draw(small), groups * group_in, *sides), (groups * group_out, group_in, *kernel)
    shapes = [x, weight, (groups * group_out,)][: 3 if draw(st.booleans()) else 2]
    options = {"stride": draw(pairs(1, 3)), "padding": padding, "dilation": dilation}
    return {"shapes": shapes, "options": {**options, "groups": groups}}


@st.composite
def pool_cases(draw: st.DrawFn, dilated: bool) -> dict[str, Any]:
    """A shape of x and the options of a pooling that has an output and no window of padding."""
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 2)) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = (s + draw(st.integers(0, 7)) for s in spans)
    stride = draw(st.one_of(st.none(), pairs(1, 4)))
    options = {"kernel_size": kernel, "stride": stride, "padding": padding}
    options |= {"ceil_mode": draw(st.booleans())}
    options |= {"dilation": dilation} if dilated else {"count_include_pad": draw(st.booleans())}
    return {"shape": (draw(small), draw(small), *sides), "options": options}


@for_all(case=conv_cases(), dtype=dtypes, seed=seeds, block=st.sampled_from([1, 3000, 4 << 20]))
def test_conv2d_equals_torch(case: dict[str, Any], dtype: type, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [random_array(rng, shape, dtype) for shape in case["shapes"]]
    forward = partial(F.conv2d_forward, **case["options"])
    with mock.patch.object(conv, "BLOCK_BYTES", block):
        torch_conv = partial(TF.conv2d, **case["options"])
        check_against_torch(forward, F.conv2d_backward, torch_conv, arrays)


@for_all(case=conv_cases(), seed=seeds)
def test_conv2d_equals_finite_differences(case: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [random_array(rng, shape, np.float64) for shape in case["shapes"]]
    forward = partial(F.conv2d_forward, **case["options"])
    check_finite_differences(forward, F.conv2d_backward, arrays)


def test_conv2d_backward_skips_what_a_first_layer_does_not_need() -> None:
    rng = np.random.default_rng(0)
    x, weight = (random_array(rng, shape, np.float64) for shape in ((2, 3, 5, 6), (4, 3, 3, 2)))
    out, cache = F.conv2d_forward(x, weight)
    grads = F.conv2d_backward(out, cache)
    lean = F.conv2d_backward(out, cache, need_grad_x=False)
    assert lean[0] is None
    assert grads[0] is not None
    np.testing.assert_array_equal(lean[1], grads[1])


@pytest.mark.parametrize(
    ("channels", "size", "groups", "message"),
    [(3, 4, 1, "takes 4 channels"), (8, 4, 2, None), (4, 2, 1, "does not fit"), (4, 4, 1, None)],
)
def test_conv2d_names_what_does_not_fit(
    channels: int, size: int, groups: int, message: str | None
) -> None:
    x, weight = np.ones((1, channels, size, size)), np.ones((6, 4, 3, 3))
    if message is None:
        assert F.conv2d_forward(x, weight, groups=groups)[0].shape == (1, 6, size - 2, size - 2)
        return
    with pytest.raises(ValueError, match=message):
        F.conv2d_forward(x, weight, groups=groups)


@for_all(
    shape=st.tuples(small, st.integers(1, 20), st.integers(3, 19), st.integers(3, 19)),
    filters=st.integers(1, 20),
    padding=pairs(0, 2),
    dtype=dtypes,
    bias=st.booleans(),
    seed=seeds,
    block=st.sampled_from([1, 2 << 20]),
)
def test_winograd_equals_im2col(
    shape: tuple[int, ...],
    filters: int,
    padding: tuple[int, int],
    dtype: type,
    bias: bool,
    seed: int,
    block: int,
) -> None:
    rng = np.random.default_rng(seed)
    x, weight = random_array(rng, shape, dtype), random_array(rng, (filters, shape[1], 3, 3), dtype)
    shift = random_array(rng, (filters,), dtype) if bias else None
    expected, _ = F.conv2d_forward(x, weight, shift, padding=padding)
    with mock.patch.object(winograd, "MIN_BLOCK_BYTES", block):
        transformed = winograd.winograd_weight(weight)
        actual = winograd.conv2d_winograd(x, transformed, shift, padding)
    assert actual.dtype == dtype
    assert_close(actual, expected, 1e-5 if dtype is np.float32 else 1e-13)


@pytest.mark.parametrize("num_layers", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_winograd_is_as_exact_as_its_docstring_says(num_layers: int) -> None:
    """The largest error of a layer as a share of its largest output: float32 against float64."""
    rng, errors, errors_of_im2col = np.random.default_rng(0), [], []
    for _ in range(num_layers):
        channels, filters = rng.choice([16, 32, 64, 128, 256, 512], 2)
        side, batch = rng.integers(4, 33), rng.integers(1, 3)
        x = rng.standard_normal((batch, channels, side, side), np.float32)
        scale = np.float32((2 / (9 * channels)) ** 0.5)
        weight = rng.standard_normal((filters, channels, 3, 3), np.float32) * scale
        exact, _ = F.conv2d_forward(x.astype(float), weight.astype(float), padding=1)
        fast = winograd.conv2d_winograd(x, winograd.winograd_weight(weight), padding=1)
        plain, _ = F.conv2d_forward(x, weight, padding=1)
        errors.append(np.abs(fast - exact).max() / np.abs(exact).max())
        errors_of_im2col.append(np.abs(plain - exact).max() / np.abs(exact).max())
    assert 2e-6 < np.median(errors) < 1e-5
    assert max(errors) < 2.5e-5
    assert max(errors_of_im2col) < 2e-6


def test_winograd_matrices_are_those_of_a_short_convolution() -> None:
    """In one dimension, exactly: A^T [(G w) * (B^T d)] is the valid correlation of d with w."""
    rng = np.random.default_rng(0)
    d, w = rng.integers(-9, 9, 6), rng.integers(-9, 9, 3)
    short = winograd.A_T @ ((winograd.G @ w) * (winograd.B_T @ d))
    np.testing.assert_allclose(short, np.correlate(d, w, "valid"), atol=1e-12)


def test_winograd_fits_only_what_it_computes() -> None:
    weight = np.ones((16, 16, 3, 3))
    assert winograd.winograd_fits(weight)
    assert winograd.winograd_fits(weight, stride=(1, 1), dilation=(1, 1))
    assert not winograd.winograd_fits(weight, stride=2)
    assert not winograd.winograd_fits(weight, dilation=(1, 2))
    assert not winograd.winograd_fits(weight, groups=2)
    assert not winograd.winograd_fits(np.ones((16, 16, 5, 5)))
    assert not winograd.winograd_fits(np.ones((16, 3, 3, 3)))
    with pytest.raises(ValueError, match="3, 3"):
        winograd.winograd_weight(np.ones((16, 16, 5, 5)))


@for_all(case=pool_cases(dilated=True), dtype=dtypes, seed=seeds)
def test_max_pool2d_equals_torch(case: dict[str, Any], dtype: type, seed: int) -> None:
    x = random_array(np.random.default_rng(seed), case["shape"], dtype)
    forward = partial(F.max_pool2d_forward, **case["options"])
    torch_pool = partial(TF.max_pool2d, **case["options"])
    check_against_torch(forward, F.max_pool2d_backward, torch_pool, [x])


@for_all(case=pool_cases(dilated=True), dtype=dtypes, seed=seeds)
def test_max_pool2d_breaks_ties_as_torch_does(case: dict[str, Any], dtype: type, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 2, case["shape"]).astype(dtype)
    forward = partial(F.max_pool2d_forward, **case["options"])
    torch_pool = partial(TF.max_pool2d, **case["options"])
    check_against_torch(forward, F.max_pool2d_backward, torch_pool, [x])


@for_all(case=pool_cases(dilated=True), seed=seeds)
def test_max_pool2d_equals_finite_differences(case: dict[str, Any], seed: int) -> None:
    x = distinct_array(np.random.default_rng(seed), case["shape"], np.float64)
    forward = partial(F.max_pool2d_forward, **case["options"])
    check_finite_differences(forward, F.max_pool2d_backward, [x])


def test_max_pool2d_hands_nan_on() -> None:
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 1] = np.nan
    out, _ = F.max_pool2d_forward(x, 2)
    np.testing.assert_array_equal(out, [[[[np.nan, 0]]]])


def torch_avg_pool(x: torch.Tensor, kernel_size: Any, stride: Any, **options: Any) -> torch.Tensor:
    return TF.avg_pool2d(x, kernel_size, kernel_size if stride is None else stride, **options)


@for_all(case=pool_cases(dilated=False), dtype=dtypes, seed=seeds)
def test_avg_pool2d_equals_torch(case: dict[str, Any], dtype: type, seed: int) -> None:
    x = random_array(np.random.default_rng(seed), case["shape"], dtype)
    forward = partial(F.avg_pool2d_forward, **case["options"])
    torch_pool = partial(torch_avg_pool, **case["options"])
    check_against_torch(forward, F.avg_pool2d_backward, torch_pool, [x])


@for_all(case=pool_cases(dilated=False), seed=seeds)
def test_avg_pool2d_equals_finite_differences(case: dict[str, Any], seed: int) -> None:
    x = random_array(np.random.default_rng(seed), case["shape"], np.float64)
    forward = partial(F.avg_pool2d_forward, **case["options"])
    check_finite_differences(forward, F.avg_pool2d_backward, [x])


@pytest.mark.parametrize("pool", [F.max_pool2d_forward, F.avg_pool2d_forward])
def test_pooling_refuses_windows_of_padding_alone(pool: Any) -> None:
    x = np.ones((1, 1, 5, 5))
    assert pool(x, 2, padding=1)[0].shape == (1, 1, 3, 3)
    with pytest.raises(ValueError, match="more than half"):
        pool(x, 2, padding=2)


maps = st.tuples(small, small, st.integers(1, 11), st.integers(1, 11))


@for_all(shape=maps, size=pairs(1, 8), dtype=dtypes, seed=seeds)
def test_adaptive_avg_pool2d_equals_torch(
    shape: tuple[int, ...], size: tuple[int, int], dtype: type, seed: int
) -> None:
    x = random_array(np.random.default_rng(seed), shape, dtype)
    forward = partial(F.adaptive_avg_pool2d_forward, output_size=size)
    torch_pool = partial(TF.adaptive_avg_pool2d, output_size=size)
    check_against_torch(forward, F.adaptive_avg_pool2d_backward, torch_pool, [x])


@for_all(shape=maps, size=st.integers(1, 8), seed=seeds)
def test_adaptive_avg_pool2d_equals_finite_differences(
    shape: tuple[int, ...], size: int, seed: int
) -> None:
    x = random_array(np.random.default_rng(seed), shape, np.float64)
    forward = partial(F.adaptive_avg_pool2d_forward, output_size=size)
    check_finite_differences(forward, F.adaptive_avg_pool2d_backward, [x])
