"""Optimizers of the user's own are stepped whole: decorated, hooked, patched, or written anew."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.trainer.training.test_step import assert_same_steps, loss_of, small_net
from trainer.errors import UserError
from trainer.training.compiling import compiled
from trainer.training.step import CheckedStep, has_torchs_step


class Plain(torch.optim.SGD):
    """torch's own step, inherited."""


class Decorated(torch.optim.SGD):
    """A step that its author has wrapped, as functools.wraps makes it look like torch's."""

    @functools.wraps(torch.optim.SGD.step)
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.9)
        return loss


class Hooked(torch.optim.SGD):
    """A step after which a hook runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_step_post_hook(shrink)


class Prepared(torch.optim.SGD):
    """A step before which a hook runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_step_pre_hook(lambda optimizer, args, kwargs: shrink(optimizer))


class Patched(torch.optim.SGD):
    """An object whose step has been replaced, as torch's schedulers do it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        step = self.step

        def patched(closure: Any = None) -> Any:
            loss = step(closure)
            shrink(self)
            return loss

        self.step = patched  # type: ignore[method-assign]


class Own(torch.optim.Optimizer):
    """Nothing of torch's but the base class."""

    def __init__(self, params: Any, lr: float, **_: Any) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad.sign())


def shrink(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.data.mul_(0.9)


USERS = [Plain, Decorated, Hooked, Prepared, Patched, Own]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", USERS)
def test_an_optimizer_of_the_users_own_is_stepped_whole(
    kind: type[torch.optim.Optimizer], fused: bool
) -> None:
    """Against torch's own loop, bit for bit."""
    ours, theirs = small_net(), small_net()
    options: dict[str, Any] = {"lr": 0.1, "fused": fused}
    first, second = (kind(model.parameters(), **options) for model in (ours, theirs))
    assert_same_steps(CheckedStep(first, ours.parameters()), ours, second, theirs)
    # The twin: all but the plain one do something else than SGD, so that equality says something.
    sgd = small_net()
    third = torch.optim.SGD(sgd.parameters(), **options)
    x = torch.linspace(-1, 1, 20).view(5, 4)
    for _ in range(5):
        third.zero_grad()
        sgd(x).square().mean().backward()
        third.step()
    same = all(map(torch.equal, ours.parameters(), sgd.parameters()))
    assert same == (kind is Plain)


@pytest.mark.parametrize("kind", USERS)
def test_a_bad_step_of_the_users_own_changes_nothing(kind: type[torch.optim.Optimizer]) -> None:
    model = small_net()
    optimizer = kind(model.parameters(), lr=0.1, fused=True)
    guard = CheckedStep(optimizer, model.parameters())
    before = [p.clone() for p in model.parameters()]
    guard.backward(loss_of(model, "gradient"))
    guard.check_and_clip()
    guard.step()
    assert guard.num_skipped_steps() == 1
    assert all(map(torch.equal, before, model.parameters()))


def test_a_hook_of_all_optimizers_runs() -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    assert has_torchs_step(optimizer)
    hook = register_optimizer_step_post_hook(shrink)
    try:
        guard = CheckedStep(optimizer, model.parameters())
        before = [p.clone() for p in model.parameters()]
        guard.backward(loss_of(model, "none"))
        guard.check_and_clip()
        guard.step()
    finally:
        hook.remove()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old * 0.9, new)


@pytest.mark.parametrize("kind", USERS)
def test_a_graph_is_refused_where_it_would_leave_something_out(
    kind: type[torch.optim.Optimizer],
) -> None:
    optimizer = kind(small_net().parameters(), lr=0.1)
    compiled.check_optimizer("none", optimizer)
    if kind in (Plain, Own):
        compiled.check_optimizer("step", optimizer)
    else:
        with pytest.raises(UserError, match=f"{kind.__name__}.*compile=none"):
            compiled.check_optimizer("step", optimizer)
