"""Between two readings no step waits for a GPU. On a machine without one: the tensors of a step are
fake ones that say they lie there, which have no values, so that reading any is an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from trainer import losses
from trainer.evaluation.metrics import Meter
from trainer.training import loop
from trainer.training.clipping import ClipNorm
from trainer.training.step import CheckedStep, ScaledStep

# SGD and Adagrad look at the real GPU when torch groups their tensors.
OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"lr": 0.1, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.1, "fused": True}),
    (torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.5}),
    (torch.optim.Adadelta, {"lr": 1.0}),
]
LOSSES = [
    losses.CrossEntropy(label_smoothing=0.1), losses.MSE(), losses.L1(), losses.BCE()
]  # fmt: skip


@pytest.fixture
def _on_a_fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def backward(loss: Tensor) -> None:
        """The engine wants a driver. Its gradients are as fake as the rest."""
        for parameter in _trained:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        yield


_trained: list[nn.Parameter] = []


def train(guard_class: type[CheckedStep], optimizer: Any, options: Any, loss: nn.Module) -> Meter:
    """Three steps and the folding of what the meter has gathered."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(8 * 36, 10),
    )  # fmt: skip
    _trained[:] = model.parameters()
    guard, meter = guard_class(optimizer(_trained, **options), _trained, ClipNorm(1.0)), Meter()
    for _ in range(3):
        images, targets = torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
        mean_loss, logits = loop.update(
            model, loss, guard, contextlib.nullcontext(), images, targets
        )
        meter.add(mean_loss, logits, targets)
    meter._fold()
    return meter


@pytest.mark.usefixtures("_on_a_fake_gpu")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
@pytest.mark.parametrize("guard_class", [CheckedStep, ScaledStep])
def test_steps_read_nothing(
    guard_class: type[CheckedStep], optimizer: Any, options: dict[str, Any], loss: nn.Module
) -> None:
    meter = train(guard_class, optimizer, options, loss)
    with pytest.raises(DataDependentOutputException):  # the twin: this is a reading
        meter.read()
