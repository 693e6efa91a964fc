"""Losses by hand equal torch's and finite differences, for every kind of target."""

from __future__ import annotations

from collections.abc import Callable
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
    check_against_torch,
    check_finite_differences,
    dtypes,
    for_all,
    moderate_array,
    seeds,
)


def make_target(rng: np.random.Generator, kind: str, num: int, num_classes: int) -> np.ndarray:
    indices = rng.integers(0, num_classes, num)
    if kind == "indices":
        return indices
    if kind == "one-hot":
        return np.eye(num_classes)[indices]
    return rng.dirichlet(np.ones(num_classes), num)


def smoothed(target: np.ndarray, num_classes: int, smoothing: float, dtype: Any) -> torch.Tensor:
    rows = np.eye(num_classes)[target] if target.ndim == 1 else target
    return torch.from_numpy((1 - smoothing) * rows + smoothing / num_classes).to(dtype)


loss_cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 6), st.integers(1, 9)),
        "kind": st.sampled_from(["indices", "one-hot", "probabilities"]),
        "smoothing": st.sampled_from([0.0, 0.1, 1.0]),
        "dtype": dtypes,
        "seed": seeds,
    }
)


def check_loss(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    torch_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    case: dict[str, Any],
    kink: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """`torch_loss` takes logits and smoothed probabilities; `kink` gives what must not be near q
    for finite differences to be a slope."""
    rng, dtype = np.random.default_rng(case["seed"]), case["dtype"]
    logits = moderate_array(rng, case["shape"], dtype)
    target = make_target(rng, case["kind"], *case["shape"])
    q = smoothed(target, case["shape"][1], case["smoothing"], torch.from_numpy(logits).dtype)
    forward = partial(forward, target=target, label_smoothing=case["smoothing"])
    check_against_torch(forward, backward, lambda x: torch_loss(x, q), [logits])
    assume(kink is None or np.abs(kink(logits) - q.numpy()).min() > 0.01)
    check_finite_differences(forward, backward, [logits])


class_softmax = partial(torch.softmax, dim=1)


@for_all(case=loss_cases)
def test_cross_entropy_equals_torch_and_finite_differences(case: dict[str, Any]) -> None:
    check_loss(F.cross_entropy_forward, F.cross_entropy_backward, TF.cross_entropy, case)


@for_all(case=loss_cases)
def test_cross_entropy_smooths_labels_as_torch_does(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    logits = moderate_array(rng, case["shape"], case["dtype"])
    target = make_target(rng, case["kind"], *case["shape"])
    tensor = torch.from_numpy(target if target.ndim == 1 else target.astype(case["dtype"]))
    torch_loss = partial(TF.cross_entropy, target=tensor, label_smoothing=case["smoothing"])
    forward = partial(F.cross_entropy_forward, target=target, label_smoothing=case["smoothing"])
    check_against_torch(forward, F.cross_entropy_backward, torch_loss, [logits])


@for_all(case=loss_cases)
def test_mean_squared_error_equals_torch_and_finite_differences(case: dict[str, Any]) -> None:
    functions = F.mean_squared_error_forward, F.mean_squared_error_backward
    check_loss(*functions, lambda x, q: TF.mse_loss(class_softmax(x), q), case)
    check_loss(partial(functions[0], on="logits"), functions[1], TF.mse_loss, case)


@for_all(case=loss_cases)
def test_l1_equals_torch_and_finite_differences(case: dict[str, Any]) -> None:
    functions = F.l1_forward, F.l1_backward
    check_loss(
        *functions,
        lambda x, q: TF.l1_loss(class_softmax(x), q),
        case,
        kink=lambda x: F.softmax_forward(x)[0],
    )
    check_loss(partial(functions[0], on="logits"), functions[1], TF.l1_loss, case, kink=np.copy)


@for_all(case=loss_cases)
def test_binary_cross_entropy_equals_torch_and_finite_differences(case: dict[str, Any]) -> None:
    functions = F.binary_cross_entropy_forward, F.binary_cross_entropy_backward
    check_loss(*functions, TF.binary_cross_entropy_with_logits, case)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.array([0, 3]), "0..2"),
        (np.array([-1, 0]), "0..2"),
        (np.array([0, 1, 2]), "2 class indices"),
        (np.array([0.0, 1.0]), "class indices"),
        (np.ones((2, 4)), "does not fit"),
        (np.array([0, 2], np.uint8), None),
        (np.full((2, 3), 1 / 3), None),
    ],
)
def test_losses_name_targets_that_do_not_fit(target: np.ndarray, message: str | None) -> None:
    logits = np.zeros((2, 3))
    if message is None:
        assert F.cross_entropy_forward(logits, target)[0] == pytest.approx(np.log(3))
        return
    with pytest.raises(ValueError, match=message):
        F.cross_entropy_forward(logits, target)


def test_losses_name_an_unknown_choice() -> None:
    logits, target = np.zeros((2, 3)), np.array([0, 1])
    assert F.l1_forward(logits, target, on="logits")[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="probabilities or logits"):
        F.l1_forward(logits, target, on="softmax")  # type: ignore[arg-type]
