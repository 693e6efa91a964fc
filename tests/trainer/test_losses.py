"""Losses against torch's functions and the formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer import losses


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(5, (7,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(batch: tuple[Tensor, Tensor], smoothing: float) -> None:
    logits, target = batch
    soft = (1 - smoothing) * F.one_hot(target, 5) + smoothing / 5
    expected = -(soft * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum(1).mean()
    loss = losses.CrossEntropy(label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, target), expected)
    torch.testing.assert_close(loss(logits, F.one_hot(target, 5).double()), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "formula"),
    [("MSE", lambda p, t: ((p - t) ** 2).mean()), ("L1", lambda p, t: (p - t).abs().mean())],
)
def test_distances(
    batch: tuple[Tensor, Tensor], name: str, formula: object, smoothing: float
) -> None:
    logits, target = batch
    soft = (1 - smoothing) * F.one_hot(target, 5) + smoothing / 5
    for on, scores in (("probabilities", F.softmax(logits, 1)), ("logits", logits)):
        loss = getattr(losses, name)(on=on, label_smoothing=smoothing)
        expected = formula(scores, soft)  # type: ignore[operator]
        torch.testing.assert_close(loss(logits, target), expected)
        torch.testing.assert_close(loss(logits, F.one_hot(target, 5).double()), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce(batch: tuple[Tensor, Tensor], smoothing: float) -> None:
    logits, target = batch
    soft = (1 - smoothing) * F.one_hot(target, 5) + smoothing / 5
    said = 1 / (1 + (-logits).exp())
    expected = -(soft * said.log() + (1 - soft) * (1 - said).log()).mean()
    torch.testing.assert_close(losses.BCE(label_smoothing=smoothing)(logits, target), expected)


def test_auxiliary_heads_weigh_three_tenths(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    loss = losses.CrossEntropy()
    heads = (logits, 2 * logits, -logits)
    expected = loss(heads[0], target) + 0.3 * (loss(heads[1], target) + loss(heads[2], target))
    torch.testing.assert_close(loss(heads, target), expected)
    assert losses.main_logits(heads) is logits
    assert losses.main_logits(logits) is logits


@pytest.mark.parametrize("name", ["MSE", "L1", "BCE"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_logits_do_not_shorten_the_targets(
    batch: tuple[Tensor, Tensor], name: str, dtype: torch.dtype
) -> None:
    """Under autocast the logits are short; 0.9 and 0.02 are not to be rounded with them."""
    logits, target = batch[0].to(dtype), batch[1]
    loss = getattr(losses, name)(label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, target), loss(logits.float(), target))
    assert losses.soft(target, logits, 0.1).sum(1).sub(1).abs().max() < 1e-6
