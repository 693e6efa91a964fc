"""Small trainings, the same at each call, of which one side is compiled."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from trainer.losses import CrossEntropy
from trainer.system.device import autocast, float_dtype
from trainer.system.seeds import seed_generators
from trainer.training.clipping import ClipNorm
from trainer.training.compiling.compiled import CompiledStep
from trainer.training.loop import update
from trainer.training.step import CheckedStep

CPU = torch.device("cpu")
BATCH, CLASSES = 16, 4

OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "fused": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 1e-2, "fused": True}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    (torch.optim.Adadelta, {"lr": 1.0}),
]


class Perceptron(nn.Module):
    """Images of 2 x 3 x 3. A batch of zeros has a finite loss and a gradient that is NaN: of
    sqrt(|w| |x|) at x = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        self.trap = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits: Tensor = self.net(x)
        return logits * (1 + (self.trap * x).abs().sum().sqrt() / 100)


class Convolutions(nn.Module):
    """Images of 2 x 6 x 6, with all that keeps numbers or draws them, and a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3)
        )
        self.drop = nn.Dropout(0.5)
        self.head, self.aux = nn.Linear(8 * 16, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        logits = self.head(self.drop(x.flatten(1)))
        return (logits, self.aux(x.mean((2, 3)))) if self.training else logits


def parts(
    net: type[nn.Module] = Perceptron,
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
    options: dict[str, Any] | None = None,
    clip_norm: float = 0.0,
    precision: str = "fp32",
) -> tuple[nn.Module, nn.Module, CheckedStep, Any]:
    """The first four arguments of `loop.update`, always the same ones."""
    torch.manual_seed(0)
    model = net().to(float_dtype(precision)).to(memory_format=torch.channels_last)
    trained = [p for p in model.parameters() if p.requires_grad]
    made = optimizer(trained, **(options or {"lr": 0.02, "momentum": 0.9, "fused": True}))
    return (
        model,
        CrossEntropy(),
        CheckedStep(made, trained, ClipNorm(clip_norm) if clip_norm else None),
        autocast(precision, CPU),
    )


def batch(step: int, size: int = BATCH, side: int = 3) -> tuple[Tensor, Tensor]:
    """Images whose class can be learnt, in channels_last."""
    generator = torch.Generator().manual_seed(step)
    targets = torch.randint(CLASSES, (size,), generator=generator)
    images = torch.randn(size, 2, side, side, generator=generator)
    images[:, 0] += targets.view(-1, 1, 1) - 1.5
    return images.to(memory_format=torch.channels_last), targets


def seed(step: int) -> None:
    seed_generators(1000 + step, CPU)


def everything(model: nn.Module, guard: CheckedStep) -> list[Tensor]:
    """Clones of all that a step writes."""
    state = [t for s in guard.optimizer.state.values() for t in s.values()]
    kept = [*model.state_dict().values(), *(t for t in state if isinstance(t, Tensor))]
    return [t.detach().clone() for t in kept]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def assert_trains_alike(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], steps: int, tolerance: float, side: int = 3
) -> CompiledStep:
    """A schedule moves the learning rate; each seventh batch is a short one."""
    step, eager = CompiledStep(*ours, batch_size=BATCH), functools.partial(update, *theirs)
    rates = [ours[2].optimizer.param_groups[0]["lr"] * (1 - i / (2 * steps)) for i in range(steps)]
    losses = []
    for i, lr in enumerate(rates):
        images, targets = batch(i, size=5 if i % 7 == 6 else BATCH, side=side)
        images = images.to(next(ours[0].parameters()).dtype)
        for guard in (ours[2], theirs[2]):
            guard.optimizer.param_groups[0]["lr"] = lr
        seed(i)
        loss, logits = step(images, targets)
        seed(i)
        expected_loss, expected_logits = eager(images, targets)
        losses.append(expected_loss.item())
        torch.testing.assert_close(loss, expected_loss.detach(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            logits, expected_logits.detach(), rtol=10 * tolerance, atol=10 * tolerance
        )
    assert sum(losses[-5:]) < sum(losses[:5]), "the twin: there is something to learn"
    assert ours[2].num_skipped_steps() == 0
    assert len(step.graphs) == 1
    return step
