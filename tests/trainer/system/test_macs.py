"""Multiply-adds against torch's own counter, of torchvision's networks and of single operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.torchvision_zoo import torchvision_classifier
from trainer.system.macs import counting_macs


def both(forward: Callable[[], object]) -> tuple[int, float]:
    """Multiply-adds by our counter, and half of torch's FLOPs."""
    with torch.no_grad(), counting_macs() as ours:
        forward()
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as theirs,
        ):
            forward()
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    return ours.total, theirs.get_total_flops() / 2


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_32",
        *(pytest.param(one, marks=pytest.mark.slow)
          for one in ("googlenet", "efficientnet_b0", "mnasnet0_5", "convnext_tiny", "swin_t",
                      "swin_v2_t", "maxvit_t", "densenet121", "regnet_y_400mf")),
    ],
)  # fmt: skip
def test_networks(name: str) -> None:
    net = torchvision_classifier((3, 224, 224), 10, name).eval()
    ours, theirs = both(lambda: net(torch.zeros(1, 3, 224, 224)))
    assert ours == theirs > 0


X = torch.randn(2, 6, 9, 9)
OPERATIONS: dict[str, Callable[[], object]] = {
    "mm": lambda: torch.ones(2, 3) @ torch.ones(3, 5),
    "linear": lambda: F.linear(torch.ones(4, 7, 3), torch.ones(5, 3), torch.ones(5)),
    "linear without bias": lambda: F.linear(torch.ones(7, 3), torch.ones(5, 3)),
    "bmm": lambda: torch.ones(2, 3, 4) @ torch.ones(2, 4, 5),
    "baddbmm": lambda: torch.baddbmm(torch.ones(1), torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
    "einsum": lambda: torch.einsum("nij,njk->nik", torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
    "convolution": lambda: F.conv2d(X, torch.ones(8, 6, 3, 3), stride=2),
    "grouped": lambda: F.conv2d(X, torch.ones(8, 3, 3, 3), groups=2),
    "depthwise": lambda: F.conv2d(X, torch.ones(6, 1, 3, 3), groups=6, padding=1),
    "1-d": lambda: F.conv1d(X[0], torch.ones(8, 9, 2)),
    "transposed": lambda: F.conv_transpose2d(X, torch.ones(6, 5, 3, 3), stride=2),
    "attention": lambda: F.scaled_dot_product_attention(*(torch.ones(2, 4, 7, 8),) * 3),
    "multi-head": lambda: nn.MultiheadAttention(8, 2).eval()(*(torch.ones(5, 2, 8),) * 3),
}  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations(operation: str) -> None:
    ours, theirs = both(OPERATIONS[operation])
    assert ours == theirs > 0


def test_what_multiplies_no_matrices_costs_nothing() -> None:
    assert both(lambda: F.relu(X) * 3 + X.sum()) == (0, 0)
