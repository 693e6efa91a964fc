"""Layers by hand without windows: equal to torch's and to finite differences."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import assume
from hypothesis import strategies as st

from models.numpy_nn import functional as F
from tests.helpers.numpy_checks import (
    assert_close,
    check_against_torch,
    check_finite_differences,
    distinct_array,
    dtypes,
    for_all,
    moderate_array,
    random_array,
    seeds,
)

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
maps = st.tuples(*[st.integers(1, 6)] * 4)
slopes = st.floats(0.0, 1.0)

POINTWISE = {
    "relu": (F.relu_forward, F.relu_backward, TF.relu),
    "leaky_relu": (F.leaky_relu_forward, F.leaky_relu_backward, TF.leaky_relu),
    "tanh": (F.tanh_forward, F.tanh_backward, torch.tanh),
    "sigmoid": (F.sigmoid_forward, F.sigmoid_backward, torch.sigmoid),
    "flatten": (F.flatten_forward, F.flatten_backward, partial(torch.flatten, start_dim=1)),
}


@for_all(name=st.sampled_from(sorted(POINTWISE)), shape=shapes, dtype=dtypes, seed=seeds)
def test_pointwise_equals_torch(name: str, shape: Any, dtype: type, seed: int) -> None:
    assume(name != "flatten" or len(shape) > 1)
    x = moderate_array(np.random.default_rng(seed), shape, dtype)
    check_against_torch(*POINTWISE[name], [x])


@for_all(name=st.sampled_from(sorted(POINTWISE)), shape=shapes, seed=seeds)
def test_pointwise_equals_finite_differences(name: str, shape: Any, seed: int) -> None:
    # 0.05 and more away from 0: the kink of ReLU is out of reach
    x = 0.2 * distinct_array(np.random.default_rng(seed), shape, np.float64)
    check_finite_differences(*POINTWISE[name][:2], [x])


@for_all(shape=shapes, slope=slopes, dtype=dtypes, seed=seeds)
def test_leaky_relu_takes_any_slope(shape: Any, slope: float, dtype: type, seed: int) -> None:
    x = random_array(np.random.default_rng(seed), shape, dtype)
    forward = partial(F.leaky_relu_forward, negative_slope=slope)
    torch_function = partial(TF.leaky_relu, negative_slope=slope)
    check_against_torch(forward, F.leaky_relu_backward, torch_function, [x])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_neither_overflow_nor_warn(dtype: type) -> None:
    x = np.array([[-1e4, -100, 0, 100, 1e4]], dtype)
    tensor = torch.from_numpy(x)
    assert_close(F.sigmoid_forward(x)[0], torch.sigmoid(tensor).numpy(), 1e-6)
    assert_close(F.softmax_forward(x)[0], torch.softmax(tensor, 1).numpy(), 1e-6)
    loss, cache = F.cross_entropy_forward(x, np.array([0]))
    assert loss == 2e4
    assert np.isfinite(F.cross_entropy_backward(1.0, cache)).all()
    loss, _ = F.binary_cross_entropy_forward(x, np.array([0]))
    wanted = TF.binary_cross_entropy_with_logits(tensor, torch.eye(5, dtype=tensor.dtype)[:1])
    assert loss == pytest.approx(float(wanted))


@for_all(shape=shapes, axis=st.integers(-4, 3), dtype=dtypes, seed=seeds)
def test_softmax_equals_torch_and_finite_differences(
    shape: Any, axis: int, dtype: type, seed: int
) -> None:
    assume(-len(shape) <= axis < len(shape))
    x = moderate_array(np.random.default_rng(seed), shape, dtype)
    forward = partial(F.softmax_forward, axis=axis)
    check_against_torch(forward, F.softmax_backward, partial(torch.softmax, dim=axis), [x])
    check_finite_differences(forward, F.softmax_backward, [x])


@for_all(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    features=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    dtype=dtypes,
    seed=seeds,
)
def test_linear_equals_torch_and_finite_differences(
    leading: list[int], features: tuple[int, int], bias: bool, dtype: type, seed: int
) -> None:
    rng, (before, after) = np.random.default_rng(seed), features
    arrays = [random_array(rng, s, dtype) for s in ((*leading, before), (after, before), (after,))]
    arrays = arrays if bias else arrays[:2]
    check_against_torch(F.linear_forward, F.linear_backward, TF.linear, arrays)
    check_finite_differences(F.linear_forward, F.linear_backward, arrays)


def test_linear_names_features_that_do_not_fit() -> None:
    assert F.linear_forward(np.ones((2, 4)), np.ones((3, 4)))[0].shape == (2, 3)
    with pytest.raises(ValueError, match="5 features"):
        F.linear_forward(np.ones((2, 5)), np.ones((3, 4)))


@for_all(
    shape=maps,
    p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    whole_channels=st.booleans(),
    dtype=dtypes,
    seed=seeds,
)
def test_dropout_with_the_mask_of_torch_equals_torch(
    shape: Any, p: float, whole_channels: bool, dtype: type, seed: int
) -> None:
    x = distinct_array(np.random.default_rng(seed), shape, dtype)
    torch_dropout = TF.dropout2d if whole_channels else TF.dropout

    def torch_forward(tensor: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch_dropout(tensor, p)

    mask = torch_forward(torch.from_numpy(x)).numpy() != 0  # x has no zero of its own
    mask = mask[:, :, :1, :1] if whole_channels else mask
    forward = partial(F.dropout_forward, mask=mask, p=p)
    check_against_torch(forward, F.dropout_backward, torch_forward, [x])
    check_finite_differences(forward, F.dropout_backward, [x])


def test_dropout_refuses_what_is_no_probability() -> None:
    assert F.dropout_forward(np.ones(3), np.ones(3, bool), p=0.5)[0].tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=r"p=1\.5"):
        F.dropout_forward(np.ones(3), np.ones(3, bool), p=1.5)


def batch_norm_arrays(rng: np.random.Generator, shape: Any, dtype: type) -> list[np.ndarray]:
    """x, weight, bias, running mean and running variance."""
    return [
        2 * random_array(rng, shape, dtype) + 1,
        *(random_array(rng, shape[1:2], dtype) for _ in range(3)),
        rng.uniform(0.5, 2, shape[1]).astype(dtype),
    ]


# With a handful of values in a channel the gradient is a difference of nearly equal numbers, and
# no float32 formula has digits left: four rows and more.
batch_norm_maps = st.tuples(st.integers(4, 6), *[st.integers(1, 6)] * 3)


@for_all(
    shape=batch_norm_maps,
    training=st.booleans(),
    affine=st.booleans(),
    tracked=st.booleans(),
    dtype=dtypes,
    seed=seeds,
)
def test_batch_norm2d_equals_torch_and_finite_differences(
    shape: Any, training: bool, affine: bool, tracked: bool, dtype: type, seed: int
) -> None:
    x, *params, mean, var = batch_norm_arrays(np.random.default_rng(seed), shape, dtype)
    arrays = [x, *params] if affine else [x]
    running = {"running_mean": mean, "running_var": var} if tracked else {}
    training = training or not tracked

    def forward(*arrays: np.ndarray) -> Any:
        copies = {name: array.copy() for name, array in running.items()}
        return F.batch_norm2d_forward(*arrays, **copies, training=training)

    def torch_forward(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        copies = [torch.from_numpy(array.copy()) for array in running.values()] or [None, None]
        return TF.batch_norm(x, *copies, *params, training=training)

    check_against_torch(forward, F.batch_norm2d_backward, torch_forward, arrays)
    check_finite_differences(forward, F.batch_norm2d_backward, arrays)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm2d_moves_its_running_statistics_as_torch_does(
    training: bool, dtype: type
) -> None:
    rng, shape = np.random.default_rng(0), (3, 4, 5, 2)
    arrays = batch_norm_arrays(rng, shape, dtype)
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    for momentum in (0.1, 0.7, 1.0):
        F.batch_norm2d_forward(*arrays, training=training, momentum=momentum)
        x, weight, bias, mean, var = tensors
        TF.batch_norm(x, mean, var, weight, bias, training=training, momentum=momentum)
    for ours, torchs in zip(arrays[3:], tensors[3:], strict=True):
        assert ours.dtype == dtype
        assert_close(ours, torchs.numpy(), 1e-6 if dtype is np.float32 else 1e-14)


def test_batch_norm2d_refuses_to_train_on_one_value() -> None:
    x, ones = np.ones((1, 3, 1, 1)), np.ones(3)
    out, _ = F.batch_norm2d_forward(x, ones, ones, ones, ones, training=False)
    assert out.shape == x.shape
    with pytest.raises(ValueError, match="larger batch"):
        F.batch_norm2d_forward(x, ones, ones, ones.copy(), ones.copy())


@for_all(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4)),
    size=st.integers(1, 7),
    alpha=st.floats(1e-4, 2.0),
    beta=st.floats(0.25, 1.5),
    k=st.floats(0.5, 2.0),
    dtype=dtypes,
    seed=seeds,
)
def test_local_response_norm_equals_torch_and_finite_differences(
    shape: Any, size: int, alpha: float, beta: float, k: float, dtype: type, seed: int
) -> None:
    x = random_array(np.random.default_rng(seed), shape, dtype)
    options: dict[str, Any] = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    forward = partial(F.local_response_norm_forward, **options)
    torch_norm = partial(TF.local_response_norm, **options)
    check_against_torch(forward, F.local_response_norm_backward, torch_norm, [x])
    check_finite_differences(forward, F.local_response_norm_backward, [x])
