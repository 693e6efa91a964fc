"""Class weights and the focal loss against torch's functions and the formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer import losses
from trainer.builders.losses import balanced_weights
from trainer.builders.numpy_losses import convert_loss

WEIGHTS = [0.5, 2.0, 1.0, 4.0, 0.25]
Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def batch() -> Batch:
    """Logits, labels, and soft targets as mixup makes them."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (7,), generator=generator)
    share = torch.rand(7, 1, generator=generator, dtype=torch.float64)
    one_hot = F.one_hot(labels, 5).double()
    return logits, labels, share * one_hot + (1 - share) * one_hot.roll(1, 0)


def agree(loss: torch.nn.Module, expected: object, logits: Tensor, target: Tensor) -> None:
    """The loss, its gradient, and both of its NumPy form, against a function."""
    wanted = logits.clone().requires_grad_()
    value = expected(wanted, target)  # type: ignore[operator]
    value.backward()
    for made in (loss, convert_loss(loss)):
        given = logits.clone().requires_grad_()
        found = made(given, target)
        found.backward()
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(given.grad, wanted.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [1, 2])
def test_weighted_cross_entropy_is_torch_s(batch: Batch, kind: int, smoothing: float) -> None:
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    agree(
        losses.CrossEntropy(smoothing, WEIGHTS),
        lambda z, t: F.cross_entropy(z, t, weight, label_smoothing=smoothing),
        batch[0],
        batch[kind],
    )
    plain = losses.CrossEntropy(smoothing)(batch[0], batch[kind])
    assert losses.CrossEntropy(smoothing, WEIGHTS)(batch[0], batch[kind]) != plain


@pytest.mark.parametrize("weights", ["none", WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [1, 2])
def test_focal_loss_without_gamma_is_cross_entropy(
    batch: Batch, kind: int, smoothing: float, weights: list[float] | str
) -> None:
    cross_entropy = losses.CrossEntropy(smoothing, weights)
    agree(losses.Focal(0.0, smoothing, weights), cross_entropy, batch[0], batch[kind])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("kind", [1, 2])
def test_focal_loss_is_the_formula(batch: Batch, kind: int, gamma: float) -> None:
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)

    def formula(z: Tensor, target: Tensor) -> Tensor:
        soft = F.one_hot(target, 5).double() if target.ndim == 1 else target
        soft, p = 0.9 * soft + 0.1 / 5, z.exp() / z.exp().sum(1, keepdim=True)
        total = weight[target].sum() if target.ndim == 1 else len(z)
        return -(weight * soft * (1 - p) ** gamma * p.log()).sum() / total

    agree(losses.Focal(gamma, 0.1, WEIGHTS), formula, batch[0], batch[kind])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_sure_model_is_finite(gamma: float) -> None:
    for made in (losses.Focal(gamma), convert_loss(losses.Focal(gamma))):
        for label, expected in ((0, 0.0), (1, 200.0)):
            logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
            loss = made(logits, torch.tensor([label]))
            loss.backward()
            assert loss.item() == pytest.approx(expected)
            assert logits.grad is not None
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [1, 2])
def test_bce_weighs_positives(batch: Batch, kind: int, smoothing: float) -> None:
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)

    def expected(z: Tensor, target: Tensor) -> Tensor:
        soft = F.one_hot(target, 5).double() if target.ndim == 1 else target
        soft = (1 - smoothing) * soft + smoothing / 5
        return F.binary_cross_entropy_with_logits(z, soft, pos_weight=weight)

    agree(losses.BCE(smoothing, WEIGHTS), expected, batch[0], batch[kind])


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights == [10 / 24, 10 / 12, 1.0, 10 / 4]
    sums = torch.tensor(weights) * labels.bincount(minlength=4)
    assert sums.tolist() == pytest.approx([2.5, 2.5, 0.0, 2.5])


def test_a_weight_that_is_no_number_is_refused() -> None:
    assert losses.CrossEntropy(class_weights="none").weight is None
    with pytest.raises(ValueError, match="balanced: must be none or a list"):
        losses.CrossEntropy(class_weights="balanced")
