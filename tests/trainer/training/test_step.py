"""NaN and inf never reach the weights, with any optimizer, and clipping is torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainer.losses import CrossEntropy
from trainer.system.device import AUTOCAST, autocast
from trainer.training import loop
from trainer.training.clipping import ClipNorm
from trainer.training.step import CheckedStep, undecorated_step

OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    (torch.optim.Adam, {"lr": 0.1, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.1, "fused": True}),
    (torch.optim.Adagrad, {"lr": 0.1, "fused": True}),
    (torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.9}),
    (torch.optim.Adadelta, {"lr": 1.0}),
]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def loss_of(model: nn.Module, poison: str) -> torch.Tensor:
    """A loss whose value, or whose gradients alone, are not finite."""
    x = torch.linspace(-1, 1, 20).view(5, 4)
    loss = model(x).square().mean()
    if poison == "loss":
        return loss * torch.tensor(float("inf"))
    if poison == "gradient":  # d sqrt(t) / dt is infinite at 0, sqrt(0) is 0
        weight = next(model.parameters())
        return loss + (weight - weight.detach()).abs().sum().sqrt()
    if poison == "loss alone":  # finite gradients, infinite loss
        return loss + torch.tensor(float("inf"))
    return loss


def assert_same_steps(
    guard: CheckedStep, ours: nn.Module, optimizer: torch.optim.Optimizer, theirs: nn.Module
) -> None:
    """Five steps of the guard's, and five of a plain loop over torch's optimizer: the same bits."""
    x = torch.linspace(-1, 1, 20, dtype=next(ours.parameters()).dtype).view(5, 4)
    for _ in range(5):
        guard.zero_grad()
        guard.backward(ours(x).square().mean())
        guard.check_and_clip()
        guard.step()
        optimizer.zero_grad()
        theirs(x).square().mean().backward()
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    kept = [s for state in optimizer.state.values() for s in state.values()]
    return [t.clone() for t in [*model.parameters(), *kept] if isinstance(t, torch.Tensor)]


@pytest.mark.parametrize("poison", ["loss", "gradient", "loss alone"])
@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
def test_a_bad_step_and_all_after_it_change_nothing(
    optimizer_class: type[torch.optim.Optimizer], options: dict[str, Any], poison: str
) -> None:
    model = small_net()
    optimizer = optimizer_class(model.parameters(), **options)
    guard = CheckedStep(optimizer, model.parameters())

    def step(poison: str) -> None:
        optimizer.zero_grad()
        guard.backward(loss_of(model, poison))
        guard.check_and_clip()
        guard.step()

    start = state_of(model, optimizer)
    step("none")
    good = state_of(model, optimizer)
    assert not torch.equal(start[0], good[0])  # the twin: a good step does change them
    assert guard.num_skipped_steps() == 0
    step(poison)
    step("none")
    for before, after in zip(good, state_of(model, optimizer), strict=True):
        assert torch.equal(before, after)
    assert guard.num_skipped_steps() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
def test_good_steps_are_torchs_own(
    optimizer_class: type[torch.optim.Optimizer], options: dict[str, Any], dtype: torch.dtype
) -> None:
    ours, theirs = small_net().to(dtype), small_net().to(dtype)
    first, second = (optimizer_class(m.parameters(), **options) for m in (ours, theirs))
    assert_same_steps(CheckedStep(first, ours.parameters()), ours, second, theirs)


def test_clipping() -> None:
    model, other = small_net(), small_net()
    guard = CheckedStep(
        torch.optim.SGD(model.parameters(), lr=1.0), model.parameters(), clip=ClipNorm(1e-3)
    )
    guard.backward(loss_of(model, "none"))
    guard.check_and_clip()
    loss_of(other, "none").backward()
    whole = torch.cat([p.grad.flatten() for p in other.parameters() if p.grad is not None])
    clipped = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(clipped, whole * (1e-3 / whole.norm()), rtol=1e-4, atol=0)
    assert whole.norm() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_steps_and_evaluation_compute_in_the_precision_asked_for(precision: str) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    context, dtype = autocast(precision, torch.device("cpu")), AUTOCAST.get(precision)
    images, targets = torch.linspace(-1, 1, 20).view(5, 4), torch.zeros(5, dtype=torch.int64)
    guard = CheckedStep(optimizer, model.parameters())
    _, logits = loop.update(model, CrossEntropy(), guard, context, images, targets)
    assert logits.dtype == (dtype or torch.float32)
    seen = []
    model.register_forward_hook(lambda net, args, output: seen.append(output.dtype))

    class Source:
        num_images = 5

        def epoch(self, epoch: int = 0, start: int = 0) -> Any:
            return iter([(images, targets)])

        def __len__(self) -> int:
            return 1

    loop.evaluate(model, CrossEntropy(), Source(), context)
    assert seen == [dtype or torch.float32]
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_the_undecorated_step_is_the_optimizers_own_function() -> None:
    optimizer = torch.optim.Adam(small_net().parameters())
    assert undecorated_step(optimizer).__module__ == "torch.optim.adam"
    assert not hasattr(undecorated_step(optimizer), "__wrapped__")


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.9}), (torch.optim.Adadelta, {"lr": 1.0})],
)
def test_the_form_for_gpus_without_a_sync_does_the_same(
    optimizer_class: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model, other = small_net(), small_net()
    first, second = (optimizer_class(m.parameters(), **options) for m in (model, other))
    guards = [CheckedStep(first, model.parameters()), CheckedStep(second, other.parameters())]

    def both(poison: str) -> None:
        for guard, net, step in zip(
            guards, (model, other), (guards[0].step_without_sync, guards[1].step), strict=True
        ):
            guard.optimizer.zero_grad()
            guard.backward(loss_of(net, poison))
            guard.check_and_clip()
            with torch.no_grad():
                step()

    for poison in ("none", "none", "gradient", "none"):
        both(poison)
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert guards[0].num_skipped_steps() == 2


def test_a_bad_first_step_without_a_sync() -> None:
    model = small_net()
    before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.1)
    guard = CheckedStep(optimizer, model.parameters())
    guard.backward(loss_of(model, "loss"))
    guard.check_and_clip()
    with torch.no_grad():
        guard.step_without_sync()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    kept = [t for state in optimizer.state.values() for t in state.values()]
    assert all(torch.isfinite(t).all() for t in kept if isinstance(t, torch.Tensor))
