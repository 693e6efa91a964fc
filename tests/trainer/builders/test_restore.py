"""A restored network holds the bits of its checkpoint in the form that copying them would give."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.visualizer_runs import compose_words
from trainer.builders import restore
from trainer.builders.networks import memory_format, move_model
from trainer.config.targets import instantiate_group
from trainer.system.device import float_dtype

CPU = torch.device("cpu")


class Plain(nn.Module):
    """Convolution and batch norm."""

    def __init__(self, shape: Any, num_classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


class Unsaved(Plain):
    """With a buffer that no checkpoint holds."""

    def __init__(self, shape: Any, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.register_buffer("ramp", torch.arange(4.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.ramp


class Constant(Plain):
    """With a tensor that is no buffer."""

    def __init__(self, shape: Any, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.ramp = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.ramp


class Tied(Plain):
    """With one weight under two names."""

    def __init__(self, shape: Any, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.second = nn.Linear(4, num_classes)
        self.second.weight = self.head.weight


def described(target: type[nn.Module], **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of a checkpoint whose convolution is stored channels last and whose head is stored
    transposed, and their configuration."""
    config = {**compose_words(), "model": {"_target_": f"{__name__}.{target.__name__}"}, **changes}
    torch.manual_seed(1)
    weights = target((3, 8, 8), 4).state_dict()
    weights["conv.weight"] = weights["conv.weight"].to(memory_format=torch.channels_last)
    weights["head.weight"] = weights["head.weight"].t().contiguous().t()
    return {"model": weights, "shape": (3, 8, 8), "classes": ["a", "b", "c", "d"]}, config


@pytest.mark.parametrize(("target", "changes"), [
    *itertools.product([Plain, Unsaved, Constant, Tied],
                       [{}, {"channels_last": True}, {"channels_last": False}]),
    # Not Constant, whose tensor `.to` would not move.
    *itertools.product([Plain, Unsaved, Tied], [{"precision": "fp64"}]),
])  # fmt: skip
def test_the_same_as_copied_into_a_new_network(
    target: type[nn.Module], changes: dict[str, Any]
) -> None:
    entries, config = described(target, **changes)
    reference: nn.Module = instantiate_group("model", restore.sized(entries, config))
    reference.load_state_dict(entries["model"])
    dtype = float_dtype(config["precision"])
    move_model(reference, CPU, dtype, memory_format(config, reference))
    reference.eval()
    restored = restore.restore(entries, config)
    assert not restored.training
    for name, tensor in reference.state_dict().items():
        ours = restored.state_dict()[name]
        assert torch.equal(ours, tensor), name
        assert (ours.dtype, ours.device, ours.stride()) == (
            tensor.dtype, tensor.device, tensor.stride(),
        ), name  # fmt: skip
    assert all(p.requires_grad for p in restored.parameters())
    images = torch.rand(2, 3, 8, 8, dtype=dtype)
    assert torch.equal(restored(images), reference(images))
    if target is Tied:
        assert restored.second.weight is restored.head.weight


def test_no_number_is_drawn_for_weights_that_are_replaced() -> None:
    """VGG-19's 140 million take five seconds. The twin: what makes all its tensors draws some."""
    for target, draws in ((Plain, False), (Unsaved, True)):
        entries, config = described(target)
        before = torch.get_rng_state()
        restore.restore(entries, config)
        assert torch.equal(torch.get_rng_state(), before) is not draws
