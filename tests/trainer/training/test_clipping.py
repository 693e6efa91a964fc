"""Clipping against torch's and against the equation, one unit at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers import norm_net, results
from tests.helpers.commands import run_trainer, train
from trainer.training.clipping import ClipAdaptive, ClipValue, last_layer
from trainer.training.step import CheckedStep, ScaledStep


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 6), nn.Linear(6, 3)
    )


def gradients(model: nn.Module, scale: float = 1.0) -> list[torch.Tensor]:
    torch.manual_seed(1)
    (scale * model(torch.randn(8, 2, 4, 4)).square().sum()).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_by_value_is_torchs() -> None:
    ours, theirs = net(), net()
    before = [g.clone() for g in gradients(ours)]
    gradients(theirs)
    ClipValue(0.5)(list(ours.parameters()))
    nn.utils.clip_grad_value_(theirs.parameters(), 0.5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    assert any(g.abs().max() > 0.5 for g in before)


def test_adaptive_is_the_equation() -> None:
    model = net()
    own = [gradient.clone() for gradient in gradients(model)]
    parameters = list(model.parameters())
    exempt = last_layer(model, parameters)
    assert exempt == [6, 7]
    ClipAdaptive(0.01, exempt)(parameters)
    clipped = 0
    for place, (parameter, gradient) in enumerate(zip(parameters, own, strict=True)):
        if place in exempt:
            assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]
            continue
        units = range(len(parameter)) if parameter.ndim > 1 else [slice(None)]
        for unit in units:
            weight, wanted = parameter.detach()[unit], gradient[unit]
            most = 0.01 * max(float(weight.square().sum().sqrt()), 1e-3)
            norm = float(wanted.square().sum().sqrt())
            if norm > most:
                wanted, clipped = wanted * (most / norm), clipped + 1
            torch.testing.assert_close(parameter.grad[unit], wanted)  # type: ignore[index]
    assert clipped > 10


def test_a_gradient_of_zero_stays() -> None:
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = torch.zeros(3, 2)
    weight.grad[0] = 5.0
    ClipAdaptive(0.1)([weight])
    assert torch.equal(weight.grad[1:], torch.zeros(2, 2))
    torch.testing.assert_close(weight.grad[0].norm(), torch.tensor(1e-4))


@pytest.mark.parametrize("clip", [ClipValue(0.5), ClipAdaptive(0.01)])
def test_it_is_of_gradients_without_their_scale(clip: ClipValue | ClipAdaptive) -> None:
    models = [net(), net()]
    for model, step in zip(models, (CheckedStep, ScaledStep), strict=True):
        guard = step(torch.optim.SGD(model.parameters(), lr=0.1), model.parameters(), clip)
        torch.manual_seed(1)
        guard.backward(model(torch.randn(8, 2, 4, 4)).square().sum())
        guard.check_and_clip()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
def test_a_compiled_step_clips_the_same(tmp_path: Path) -> None:
    words = [*norm_net.TINY, "precision=fp64", "optimizer=sgd", "clip_grad_value=0.001"]
    one = train(tmp_path, *words, folder="one").folder
    graph = train(tmp_path, *words, "compile=step", folder="graph").folder
    losses = [[row["loss"] for row in results.rows(f)] for f in (one, graph)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    plain = train(tmp_path, *words[:-1], folder="plain").folder
    assert results.rows(plain)[-1]["loss"] != pytest.approx(losses[0][-1], abs=1e-6)


def test_one_way_at_a_time(tmp_path: Path) -> None:
    words = ("clip_grad_norm=1", "clip_grad_value=0.5")
    done = run_trainer(*norm_net.TINY, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "clip_grad_norm=1 and clip_grad_value=0.5" in done.output
