"""L1 and L2 penalties against their formulas."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from tests.helpers.compiled_parts import BATCH, CLASSES, CPU
from trainer.builders.losses import penalised_weights
from trainer.builders.numpy_losses import NumpyPenalised
from trainer.builders.optimizers import trainable
from trainer.losses import CrossEntropy, Penalised
from trainer.system.device import autocast
from trainer.training.compiling.compiled import CompiledStep
from trainer.training.loop import update
from trainer.training.step import CheckedStep


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
    ).double()
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("kind", [Penalised, NumpyPenalised])
@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_loss_and_gradient(kind: type[Penalised], l1: float, l2: float) -> None:
    """Of weights l1 sign(w) + 2 l2 w is added, of biases and norms nothing."""
    model, plain = network(), network()
    with torch.no_grad():
        for one in (model, plain):
            one[3].weight[0, 0] = 0.0  # where |w| has no slope; torch and NumPy take 0
    images, targets = torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.randint(CLASSES, (5,))
    loss = kind(CrossEntropy(), penalised_weights(model), l1, l2)(model(images), targets)
    expected = CrossEntropy()(plain(images), targets)
    loss.backward()
    expected.backward()
    weights = [model[0].weight, model[3].weight]
    added = sum(l1 * w.abs().sum() + l2 * (w**2).sum() for w in weights)
    torch.testing.assert_close(loss, expected + added)
    for (name, with_it), without in zip(model.named_parameters(), plain.parameters(), strict=True):
        if without.grad is None:
            assert with_it.grad is None
            continue
        more = l1 * with_it.sign() + 2 * l2 * with_it if with_it.ndim > 1 else 0.0
        torch.testing.assert_close(with_it.grad, (without.grad + more).detach(), msg=name)


def test_frozen_weights_have_no_penalty() -> None:
    model = network()
    model[3].weight.requires_grad_(False)
    assert penalised_weights(model) == [model[0].weight]


@pytest.mark.slow
def test_a_compiled_step_penalises_the_weights_of_now() -> None:
    """And not those of the step at which it was traced."""
    ends = []
    for compiles in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = Penalised(CrossEntropy(), penalised_weights(model), 0.01, 0.1)
        stepper, context = CheckedStep(optimizer, trainable(model)), autocast("fp64", CPU)
        parts = (model, loss, stepper, context)
        step = CompiledStep(*parts, BATCH) if compiles else functools.partial(update, *parts)
        torch.manual_seed(1)
        for _ in range(20):
            step(torch.randn(BATCH, 1, 6, 6, dtype=torch.float64), torch.randint(CLASSES, (BATCH,)))
        ends.append(model[3].weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ends[0], network()[3].weight, atol=0.01)
