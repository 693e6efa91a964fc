"""Training in fp16: the loss is scaled as torch's GradScaler does it, without its syncs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.training.test_step import OPTIMIZERS, loss_of, small_net, state_of
from trainer.system.device import autocast
from trainer.training.clipping import ClipNorm
from trainer.training.step import ScaledStep

CPU = torch.device("cpu")


def test_it_learns() -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = ScaledStep(optimizer, model.parameters(), clip=ClipNorm(1.0))
    before, losses = copy.deepcopy(model.state_dict()), []
    for _ in range(40):
        guard.zero_grad()
        with autocast("fp16", CPU):
            loss = loss_of(model, "none")
        guard.backward(loss)
        guard.check_and_clip()
        guard.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.equal(before["0.weight"], model.state_dict()["0.weight"])
    assert guard.num_skipped_steps() == 0


def scaled_by_torch(
    model: nn.Module, optimizer: torch.optim.Optimizer, factors: list[float], clip_norm: float
) -> torch.amp.GradScaler:
    """The steps below as torch's documentation writes them."""
    scaler = torch.amp.GradScaler("cpu")
    for factor in factors:
        optimizer.zero_grad()
        scaler.scale(factor * loss_of(model, "none")).backward()
        if clip_norm:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
    return scaler


@pytest.mark.parametrize("clip_norm", [0.0, 1e-2])
@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
def test_the_steps_are_those_of_torchs_scaler(
    optimizer_class: type[torch.optim.Optimizer], options: dict[str, Any], clip_norm: float
) -> None:
    """Some of them overflow: 1e35 times the scale, 65536 at first, is more than float32 holds."""
    factors = [1.0, 1e35, 1.0, 1e35, 1.0, 1.0]
    ours, theirs = small_net(), small_net()
    first, second = (optimizer_class(m.parameters(), **options) for m in (ours, theirs))
    guard = ScaledStep(first, ours.parameters(), ClipNorm(clip_norm) if clip_norm else None)
    start = state_of(ours, first)[0]
    for factor in factors:
        guard.zero_grad()
        guard.backward(factor * loss_of(ours, "none"))
        guard.check_and_clip()
        guard.step()
    scaler = scaled_by_torch(theirs, second, factors, clip_norm)
    assert guard.scale.item() == scaler.get_scale() == 2.0**14
    assert guard.state_dict()["_growth_tracker"] == scaler.state_dict()["_growth_tracker"] == 2
    assert not torch.equal(start, state_of(ours, first)[0])
    for mine, other in zip(state_of(ours, first), state_of(theirs, second), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)
    assert guard.num_skipped_steps() == 0


@pytest.mark.parametrize("nesterov", [False, True])
def test_an_overflow_in_the_first_step_leaves_no_rubbish(
    nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's fused SGD makes its momentum without filling it, and then leaves it so."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(1e30))
    finals = []
    for factors in ([1e35, 1.0, 1.0], [1.0, 1.0]):
        model = small_net()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=nesterov, fused=True
        )
        guard = ScaledStep(optimizer, model.parameters())
        for factor in factors:
            guard.zero_grad()
            guard.backward(factor * loss_of(model, "none"))
            guard.check_and_clip()
            guard.step()
        finals.append(state_of(model, optimizer))
    for mine, other in zip(*finals, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)


def test_from_a_bad_loss_on_nothing_changes_and_the_steps_are_counted() -> None:
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    guard = ScaledStep(optimizer, model.parameters())
    poisons = ["none", "none", "loss", "none", "none"]
    states = []
    for poison in poisons:
        guard.zero_grad()
        guard.backward(loss_of(model, poison))
        guard.check_and_clip()
        guard.step()
        states.append(state_of(model, optimizer))
    assert guard.num_skipped_steps() == 3
    assert not torch.equal(states[0][0], states[1][0])
    for before, after in zip(states[1], states[-1], strict=True):
        assert torch.equal(before, after)


def test_a_scale_that_fell_to_nothing_is_bad() -> None:
    model = small_net()
    guard = ScaledStep(torch.optim.SGD(model.parameters(), lr=0.1), model.parameters())
    guard.scale.fill_(1e-2)
    assert guard.num_skipped_steps() == 0
    guard.scale.fill_(1e-4)
    assert guard.num_skipped_steps() == 1


def test_its_state_goes_on_and_is_as_gradscalers() -> None:
    model = small_net()
    guard = ScaledStep(torch.optim.SGD(model.parameters(), lr=0.1), model.parameters())
    guard.load_state_dict(
        {"scale": 512.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
         "_growth_tracker": 1999}
    )  # fmt: skip
    guard.zero_grad()
    guard.backward(loss_of(model, "none"))
    guard.check_and_clip()
    guard.step()
    assert guard.state_dict() == {"scale": 1024.0, "_growth_tracker": 0}


def test_a_state_of_another_precision_says_nothing_of_the_scale() -> None:
    model = small_net()
    guard = ScaledStep(torch.optim.SGD(model.parameters(), lr=0.1), model.parameters())
    guard.load_state_dict({})
    assert guard.state_dict() == {"scale": 2.0**16, "_growth_tracker": 0}
