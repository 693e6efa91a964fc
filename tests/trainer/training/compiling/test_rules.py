"""What is compiled, what is refused, and what counts as the same step: all that shows without the
compiler."""

from __future__ import annotations

import copy
import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.compiled_parts import (
    BATCH,
    CLASSES,
    CPU,
    OPTIMIZERS,
    Perceptron,
    assert_equal,
    batch,
    everything,
    parts,
)
from trainer.errors import TrainingError, UserError
from trainer.training.compiling import compiled
from trainer.training.compiling.agreement import Trial, disagreement
from trainer.training.compiling.compiled import CompiledStep, check, compile_model
from trainer.training.compiling.step_graph import has_state
from trainer.training.loop import update
from trainer.training.step import CheckedStep


@pytest.mark.parametrize(
    ("mode", "device", "precision", "named"),
    [
        ("model", "mps", "fp32", ["compile=model", "mps", "compile=none"]),
        ("step", "cpu", "fp16", ["compile=step", "precision=fp16", "bf16", "compile=model"]),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    mode: str, device: str, precision: str, named: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        check(mode, torch.device(device), precision)
    assert all(word in str(error.value) for word in named)
    check("none", torch.device(device), precision)
    check(mode, CPU, "bf16")


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check("step", CPU, "fp32")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for mode in ("model", "step"):
        with pytest.raises(UserError, match=rf"compile={mode}: needs a C\+\+ compiler.*CXX"):
            check(mode, CPU, "fp32")
    check("none", CPU, "fp32")
    own = tmp_path / "my-compiler"
    own.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(own))
    check("step", CPU, "fp32")


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_which_optimizers_keep_a_state(
    optimizer: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model, _, guard, _ = parts(optimizer=optimizer, options=options)
    before = everything(model, guard)
    stateless = optimizer is torch.optim.SGD and "momentum" not in options
    assert has_state(guard.optimizer) is not stateless
    assert_equal(before, everything(model, guard))


def trial(
    scale: float = 1.0, noise: float = 0.0, states: dict[str, Any] | None = None, **changed: Any
) -> Trial:
    """An update of which `bias` has no gradient but rounding, so that it may go either way."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, generator=generator)
    changes = {"weight": scale * 0.1 * weight, "bias": torch.full((4,), 0.1 + noise),
               "running_mean": torch.full((4,), 0.2)}  # fmt: skip
    gradients = {"weight": weight, "bias": torch.full((4,), 1e-9)}
    return Trial([1.5, 1.4], False, changes | changed, gradients, states or {})


def test_what_counts_as_agreement() -> None:
    def differ(other: Trial, dtype: torch.dtype = torch.float32) -> str:
        return disagreement(trial(), other, dtype)

    assert differ(trial()) == ""
    assert differ(trial(noise=-0.2)) == ""
    assert differ(trial(scale=1.001)) == ""
    assert differ(trial(scale=1.001), torch.float64) == "the update of weight"
    assert differ(trial(scale=1.5)) == "the update of weight"
    assert differ(trial(scale=-1.0)) == "the update of weight"
    assert differ(trial(scale=float("nan"))) == "the update of weight"
    assert differ(trial(running_mean=torch.zeros(4))) == "the update of running_mean"
    kept = {"momentum": {"weight": torch.ones(5), "bias": torch.full((4,), 1e-9)}}
    lost = {"momentum": {"weight": torch.zeros(5), "bias": torch.full((4,), -1e-9)}}
    for dtype in (torch.float32, torch.bfloat16):
        with_state, other = trial(states=kept), trial(states=lost)
        assert disagreement(with_state, with_state, dtype) == ""
        assert "the optimizer state momentum" in disagreement(with_state, other, dtype)
    assert "a loss" in disagreement(
        trial(), Trial([1.5, 1.6], False, trial().changes, {}), torch.float32
    )
    bad = Trial([float("nan")] * 2, True, trial().changes, {})
    assert disagreement(bad, bad, torch.float32) == ""
    assert differ(bad) == "the check for NaN"


def test_the_first_step_and_short_batches_are_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "StepGraph", None)
    ours, theirs = parts(), parts()
    step, eager = CompiledStep(*ours, batch_size=BATCH), functools.partial(update, *theirs)
    for i, size in enumerate((BATCH, 5, 6)):
        assert torch.equal(step(*batch(i, size))[0], eager(*batch(i, size))[0])
    assert_equal(everything(*ours[::2]), everything(*theirs[::2]))
    assert all(p.grad is None for p in ours[0].parameters())


class Wrong:
    """In place of a graph: the eager step, but with a learning rate that it had when made."""

    def __init__(self, model: nn.Module, loss: nn.Module, guard: CheckedStep, *rest: Any) -> None:
        self.guard, self.update = guard, functools.partial(update, model, loss, guard, rest[0])
        self.named = dict(model.named_parameters())
        state = [t for s in guard.optimizer.state.values() for t in s.values()]
        self.tensors = [t.detach() for t in (*self.named.values(), *state)]
        self.lr = guard.optimizer.param_groups[0]["lr"]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.guard.optimizer.param_groups[0]["lr"] = self.lr
        return self.update(images, targets)

    def states_by_kind(self, values: list[Tensor]) -> dict[str, dict[str, Tensor]]:
        return {}


def test_a_graph_that_computes_something_else_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "StepGraph", Wrong)
    ours = parts()
    step = CompiledStep(*ours, batch_size=BATCH)
    step(*batch(0))
    before = everything(*ours[::2])
    with pytest.raises(TrainingError, match=r"differ in(.|\n)*compile=none"):
        step(*batch(1))
    assert_equal(before, everything(*ours[::2]))
    assert ours[2].optimizer.param_groups[0]["lr"] == 0.02
    monkeypatch.setattr(Wrong, "__call__", lambda self, *batch: self.update(*batch))  # the twin
    step(*batch(1))


def test_an_error_of_the_compiler_is_one_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("\nno lowering for op 42\nand much more")

    monkeypatch.setattr(compiled, "StepGraph", fail)
    step = CompiledStep(*parts(), batch_size=BATCH)
    step(*batch(0))
    with pytest.raises(TrainingError) as error:
        step(*batch(1))
    assert "compile=step" in str(error.value)
    assert "no lowering for op 42\nUse compile=none" in str(error.value)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_a_compiled_net_takes_whole_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    model, seen = Perceptron(), []

    def fake(self: nn.Module, dynamic: bool, **options: Any) -> None:
        assert not dynamic
        self._compiled_call_impl = lambda images: seen.append(len(images)) or self.forward(images)

    monkeypatch.setattr(nn.Module, "compile", fake)
    compile_model(model, train_size=BATCH, eval_size=32)
    for size in (BATCH, 5, BATCH, 32):
        assert torch.equal(model(batch(0, size)[0]), model.forward(batch(0, size)[0]))
    assert seen == [BATCH, BATCH]
    model.eval()
    for size in (32, BATCH, 32):
        model(batch(0, size)[0])
    assert seen == [BATCH, BATCH, 32, 32]
    assert len([m for m in caplog.messages if "compile=model (" in m]) == 2
    assert copy.deepcopy(model)(batch(0)[0]).shape == (BATCH, CLASSES)
